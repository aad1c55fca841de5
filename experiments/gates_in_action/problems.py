"""What is trained: a judge of reviews, and a forecaster of prices."""

from typing import Any

import jax
import numpy as np

from experiments.arms import Arm
from experiments.cells import LABELS, make_cell
from experiments.data.price_process import (
    PriceProcess,
    change_sd,
    past_changes,
    sample_prices,
)
from experiments.data.review_batches import Encoded
from experiments.gates_in_action.config import Config
from experiments.reviews.corpus import Corpus, take_reviews
from experiments.reviews.problem import as_arrays, cross_entropy, judge, make_network
from gated_rnn import RNN, Dense, Stack, losses
from gated_rnn.networks import Network
from gated_rnn.training import Problem
from gated_rnn.types import Params

Partial = jax.tree_util.Partial

#: Of the draws that validate and test the price models, the same for all seeds.
_VALID_DRAW, _TEST_DRAW = 1, 2
_NUM_HELD_OUT = 64  # price series


def make_review_arm(config: Config, corpus: Corpus, cell: str) -> Arm:
    """State the judge of reviews: an embedding, a layer, a logit of its last output.

    Args:
        config: Sizes.
        corpus: The reviews.
        cell: "gru" or "lstm".

    Returns:
        The arm.
    """
    network = make_network(
        len(corpus.vocabulary.tokens),
        cell,
        embedding_features=config.embedding_features,
        hidden_features=config.hidden_features,
        dropout=config.dropout,
    )
    problem = Problem(
        Partial(_init, network, None),
        Partial(_review_loss, network),
        Partial(_draw_reviews, as_arrays(corpus.train), config.batch_size),
        validate=Partial(_review_validation, network, as_arrays(corpus.valid)),
    )
    return Arm(f"reviews_{cell}", f"{LABELS[cell]}, reviews", network, problem)


def make_price_arm(config: Config, cell: str, key: jax.Array) -> Arm:
    """State the forecaster: the next price change from all changes so far.

    Args:
        config: Sizes and the process.
        cell: "gru" or "lstm".
        key: Of the series that validate.

    Returns:
        The arm.
    """
    network = Stack(RNN(make_cell(cell, config.price_features)), Dense(1))
    valid = _hold_out(config, jax.random.fold_in(key, _VALID_DRAW))
    problem = Problem(
        Partial(_init, network, 1),
        Partial(_price_loss, network),
        Partial(
            _draw_series, config.process, config.price_steps, config.price_sequences
        ),
        validate=Partial(price_error, network, valid),
    )
    return Arm(f"prices_{cell}", f"{LABELS[cell]}, prices", network, problem)


def draw_test_prices(config: Config, key: jax.Array) -> jax.Array:
    """Draw the series that price models are tested on, `[T + 1, N, 1]`."""
    return _hold_out(config, jax.random.fold_in(key, _TEST_DRAW))


def draw_changes(
    process: PriceProcess, num_steps: int, num_sequences: int, key: jax.Array
) -> jax.Array:
    """Draw price changes in units of their standard deviation.

    Args:
        process: The price.
        num_steps: T.
        num_sequences: N.
        key: The draw.

    Returns:
        float32 `[T + 1, N, 1]`: inputs and, a step later, targets.
    """
    prices = sample_prices(key, process, num_steps + 2, num_sequences)
    return past_changes(prices, 1) / change_sd(process)


def price_error(network: Network, changes: jax.Array, params: Params) -> jax.Array:
    """Score forecasts: mean squared error, in variances of a price change."""
    _, forecasts = network.apply(params, changes[:-1])
    return losses.mean_squared_error(forecasts, changes[1:])


def price_baselines(changes: Any) -> dict[str, float]:
    """Score what needs no network.

    Args:
        changes: `[T + 1, N, 1]`.

    Returns:
        Mean squared errors, in variances of a price change.
    """
    changes = np.asarray(changes, np.float64)
    return {
        "no change": float(np.mean(changes[1:] ** 2)),
        "the same change again": float(np.mean((changes[1:] - changes[:-1]) ** 2)),
    }


def _hold_out(config: Config, key: jax.Array) -> jax.Array:
    return draw_changes(config.process, config.price_steps, _NUM_HELD_OUT, key)


def _init(network: Network, in_features: int | None, key: jax.Array, hyper: Any) -> Any:
    return network.init(key, in_features)


def _review_loss(
    network: Network, params: Params, reviews: Encoded, key: jax.Array
) -> tuple[jax.Array, dict[str, Any]]:
    return cross_entropy(judge(network, params, reviews, key), reviews.labels), {}


def _draw_reviews(
    train: Encoded, batch_size: int, key: jax.Array, step: jax.Array
) -> Encoded:
    drawn = jax.random.fold_in(key, step)
    return take_reviews(
        train, jax.random.randint(drawn, (batch_size,), 0, len(train.labels))
    )


def _review_validation(network: Network, valid: Encoded, params: Params) -> jax.Array:
    return cross_entropy(judge(network, params, valid), valid.labels)


def _price_loss(
    network: Network, params: Params, changes: jax.Array, key: jax.Array
) -> tuple[jax.Array, dict[str, Any]]:
    return price_error(network, changes, params), {}


def _draw_series(
    process: PriceProcess,
    num_steps: int,
    num_sequences: int,
    key: jax.Array,
    step: jax.Array,
) -> jax.Array:
    drawn = jax.random.fold_in(key, step)
    return draw_changes(process, num_steps, num_sequences, drawn)
