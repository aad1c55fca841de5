"""What a network is worth on sequences that no training saw: its loss, and as a trader.

Margins are those of this file, written down before any full run.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.baselines import fit_linear
from experiments.data.price_process import (
    Series,
    TargetScaling,
    fit_target_scaling,
)
from experiments.long_sequences.config import Config
from experiments.long_sequences.problem import draw_series, make_network, objective
from experiments.long_sequences.trader import Traded, buy_and_hold, follow_values
from experiments.verdicts import Comparison, compare
from gated_rnn.statistics import Interval, mean_interval

#: A difference below this share does not matter: of the LSTM's loss on fresh
#: sequences; for the gap, of its loss in training; for what is earned, of what the
#: true values earn. The published final losses differ by 13 %.
EQUIVALENCE_SHARE = 0.05
LOSS, GAP, EARNED = "held-out loss", "generalisation gap", "return a step"
TRUE_VALUES, LINEAR, MEAN = "true values", "linear readout", "mean of the targets"
HOLDS, NEVER = "buys and holds", "never trades"


class DataKeys(NamedTuple):
    """Roots of the data: what is trained on, and what no training sees."""

    training: jax.Array
    held_out: jax.Array


class Score(NamedTuple):
    """How predictions of one seed's data fare; `[S]` each when of many seeds.

    Attributes:
        training_loss: On the data that they were fitted to.
        held_out_loss: On fresh sequences of the same process.
        earned: There, by a trader who believes them; price units a step, mean over the
            sequences. See `trader.follow_values`.
        moves: His changes of position a step.
    """

    training_loss: Any
    held_out_loss: Any
    earned: Any
    moves: Any


def score_networks(
    config: Config,
    cell: str,
    keys: DataKeys,
    params: Any,
    seed_ids: np.ndarray,
    lost: np.ndarray,
) -> Score:
    """Score the last parameters of every seed.

    Args:
        config: The settings.
        cell: "lstm" or "gru".
        keys: Roots of the data.
        params: Leaves `[S, ...]`.
        seed_ids: `[S]`.
        lost: Which seeds diverged, bool `[S]`.

    Returns:
        Scores, float64 `[S]`; NaN for a seed that diverged.
    """
    network = make_network(config, cell)

    def score(row: tuple[Any, jax.Array]) -> Score:
        params, data_id = row
        data = _draw(config, keys, data_id)
        return _score(config, data, lambda inputs: network.apply(params, inputs)[1])

    ids = np.zeros_like(seed_ids) if config.shared_data else seed_ids
    rows = (params, ids.astype(np.uint32))
    scores = jax.device_get(jax.jit(lambda rows: jax.lax.map(score, rows))(rows))
    return Score(*(np.where(lost, np.nan, np.float64(values)) for values in scores))


def score_baselines(
    config: Config, keys: DataKeys, data_ids: list[int]
) -> dict[str, Score]:
    """Score what needs no network, on the data of each seed.

    Args:
        config: The settings.
        keys: Roots of the data.
        data_ids: As in `draw_data`.

    Returns:
        For each baseline its scores, one a data set; NaN where a predictor does not
        trade, or a trader does not predict.
    """

    def score(data_id: jax.Array) -> dict[str, Score]:
        data = training, scaling, fresh = _draw(config, keys, data_id)
        linear = fit_linear(training.inputs, scaling.scale(training.values))
        mean = scaling.scale(training.values.mean(axis=(0, 1)))

        def predict_mean(inputs: jax.Array) -> jax.Array:
            return jnp.broadcast_to(mean, (*inputs.shape[:-1], *mean.shape))

        best = follow_values(fresh.values, fresh.changes, config.cost)
        holds = buy_and_hold(fresh.changes, config.cost)
        predicted = _score(config, data, predict_mean)
        return {
            LINEAR: _score(config, data, linear.predict),
            MEAN: predicted._replace(earned=jnp.nan, moves=jnp.nan),
            TRUE_VALUES: _only_trades(best),
            HOLDS: _only_trades(holds),
            NEVER: _only_trades(Traded(jnp.zeros(()), jnp.zeros(()))),
        }

    ids = np.array(data_ids, np.uint32)
    scores = jax.device_get(jax.jit(lambda ids: jax.lax.map(score, ids))(ids))
    return jax.tree.map(np.float64, scores)


def _only_trades(traded: Traded) -> Score:
    return Score(jnp.nan, jnp.nan, traded.earned.mean(), traded.moves.mean())


class _Data(NamedTuple):
    """What a network was trained on, how that was scaled, and what it never saw."""

    training: Series
    scaling: TargetScaling
    fresh: Series


def _draw(config: Config, keys: DataKeys, data_id: jax.Array) -> _Data:
    training = draw_series(config, keys.training, data_id, config.num_sequences)
    scaling = fit_target_scaling(training.values, config.target_scaling)
    fresh = draw_series(config, keys.held_out, data_id, config.held_out_sequences)
    return _Data(training, scaling, fresh)


def _score(
    config: Config, data: _Data, predict: Callable[[jax.Array], jax.Array]
) -> Score:
    """Score a function from inputs `[T, B, W]` to scaled values `[T, B, 7]`."""
    training, scaling, fresh = data
    # Both in one pass: what costs is the number of steps.
    both = predict(jnp.concatenate([training.inputs, fresh.inputs], axis=1))
    fitted, predicted = jnp.split(both, (config.num_sequences,), axis=1)
    traded = follow_values(scaling.unscale(predicted), fresh.changes, config.cost)
    return Score(
        objective(config, fitted, scaling.scale(training.values)),
        objective(config, predicted, scaling.scale(fresh.values)),
        traded.earned.mean(),
        traded.moves.mean(),
    )


def summarise(
    scores: Mapping[str, Score], baselines: Mapping[str, Score], key: jax.Array
) -> dict[str, Any]:
    """Turn scores into what is reported.

    Args:
        scores: Of each cell.
        baselines: Of what needs no network.
        key: For the bootstrap.

    Returns:
        Means over seeds with intervals, of the cells and of the baselines, and, if both
        cells were trained, GRU less LSTM.
    """
    summary = {
        "cells": {cell: describe(score) for cell, score in scores.items()},
        "baselines": {name: describe(score) for name, score in baselines.items()},
    }
    if {"lstm", "gru"} <= scores.keys():
        best = float(baselines[TRUE_VALUES].earned.mean())
        summary["comparisons"] = _compare_cells(scores, best, key)
    return summary


def describe(score: Score) -> dict[str, Interval | None]:
    """Give the mean of each score, and of the gap, over the seeds that have one.

    Args:
        score: Of one cell or baseline.

    Returns:
        Intervals by name; None where no seed has a score.
    """
    series = {**score._asdict(), "gap": gap_of(score)}
    return {name: _mean_of_finite(values) for name, values in series.items()}


def gap_of(score: Score) -> np.ndarray:
    """Return what the loss on fresh sequences is above that in training, `[S]`."""
    return score.held_out_loss - score.training_loss


def _mean_of_finite(values: np.ndarray) -> Interval | None:
    finite = values[np.isfinite(values)]
    return mean_interval(finite) if finite.size else None


def _compare_cells(
    scores: Mapping[str, Score], best: float, key: jax.Array
) -> list[Comparison]:
    """Compare GRU and LSTM; `best` is what the true values earn."""
    lstm = scores["lstm"]
    measures = {
        LOSS: ({c: s.held_out_loss for c, s in scores.items()}, lstm.held_out_loss),
        GAP: ({c: gap_of(s) for c, s in scores.items()}, lstm.training_loss),
        EARNED: ({c: s.earned for c, s in scores.items()}, np.array([best])),
    }
    comparisons = []
    for measure, (values, scale) in measures.items():
        finite = np.abs(scale[np.isfinite(scale)])
        margin = EQUIVALENCE_SHARE * float(finite.mean()) if finite.size else 0.0
        comparisons.append(compare(measure, values, "gru", "lstm", key, margin=margin))
    return comparisons
