"""What the runs say about the text's claims, in numbers; `tables.py` shows them.

Margins and measures are those of this file, written down before any full run.
"""

import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.arms import Tuning
from experiments.bitcoin.forecasts import (
    Errors,
    Task,
    baseline_forecasts,
    measure_errors,
)
from experiments.bitcoin.variants import Outcome
from experiments.verdicts import Comparison, compare
from gated_rnn.statistics import Interval, mean_interval

#: A difference below this share of persistence's mean absolute error does not matter:
#: nobody would choose a cell for a tenth of what the last price costs by itself.
EQUIVALENCE_SHARE = 0.1
#: Nor does one below this share of an update's time.
TIME_SHARE = 0.05
PERSISTENCE = "persistence"
SEEDS_VARY = "initialisation, order of the windows, dropout; the prices are the same"
#: Forecasts that are compared: as in the text, and with early stopping.
WHICH = {"last": "last epoch", "best": "best epoch"}
_CENTS = 2


class Measured(NamedTuple):
    """What was measured.

    Attributes:
        task: The data of the comparison.
        outcomes: Of the comparison, by cell.
        side: Of what stands beside it, by name; tuned cells end in "_tuned".
        folds: Of each walk-forward split, by name; in the order of the cells.
        tuning: By cell; empty if nothing was tuned.
        rounds: Seconds that an update of all seeds took, by cell.
    """

    task: Task
    outcomes: dict[str, Outcome]
    side: dict[str, Outcome]
    folds: list[dict[str, Outcome]]
    tuning: dict[str, Tuning]
    rounds: dict[str, list[float]]


def choice_cell(cells: Sequence[str]) -> str:
    """Name the cell on which other choices are tried: the GRU, the text's subject."""
    return "gru" if "gru" in cells else cells[0]


def summarise(measured: Measured, key: jax.Array) -> dict[str, Any]:
    """Turn measurements into what is reported.

    Args:
        measured: The measurements.
        key: For the bootstrap.

    Returns:
        Baselines, arms, comparisons, folds, time.
    """
    task = measured.task
    baselines = _measure_baselines(task)
    margin = EQUIVALENCE_SHARE * float(baselines[PERSISTENCE].mae)
    every = {**measured.outcomes, **measured.side}
    scores = _scores(every, baselines)
    labels = {name: one.variant.label for name, one in every.items()}
    return {
        "seeds_vary": SEEDS_VARY,
        "data": str(task.prices.report),
        "sha256": task.prices.report.sha256,
        "days": _days(task),
        "target": task.target,
        "num_epochs": next(iter(measured.outcomes.values())).loss.shape[1],
        "baselines": baselines,
        "baseline_forecasts": {
            name: np.round(values, _CENTS)
            for name, values in baseline_forecasts(task, task.data.test).items()
        },
        "truth": task.truth(task.data.test),
        "labels": {**labels, PERSISTENCE: PERSISTENCE},
        "arms": {name: _describe(one) for name, one in every.items()},
        "tuning": measured.tuning,
        "comparisons": {
            title: [
                compare(
                    f"MAE in US dollars, {WHICH[which]}",
                    _same_seeds(scores[which], first, second),
                    first,
                    second,
                    key,
                    margin=margin,
                )
                for which, first, second in pairs
            ]
            for title, pairs in _pairs(measured).items()
        },
        "epoch_chosen": _compare_epochs(measured, scores, key, margin),
        "over_days": {name: _over_days(one) for name, one in every.items()},
        "folds": [_describe_fold(fold) for fold in measured.folds],
        "time": _compare_times(measured.rounds, key),
    }


def series(measured: Measured) -> dict[str, dict[str, Any]]:
    """Lay out what the record keeps of every seed.

    Args:
        measured: The measurements.

    Returns:
        For each arm its series, seeds on axis 0; forecasts of the comparison alone.
    """
    kept = {}
    of_folds = {name: one for fold in measured.folds for name, one in fold.items()}
    for name, one in {**measured.outcomes, **measured.side, **of_folds}.items():
        kept[name] = {
            "seeds": np.arange(len(one.loss)),
            "best_epoch": one.best_epoch,
            **{
                f"{measure}_{which}_epoch": values
                for which in WHICH
                for measure, values in one.errors(which)._asdict().items()
            },
        }
        if name not in of_folds:
            kept[name] |= {"loss": one.loss, "validation": one.validation}
        if name in measured.outcomes:
            for which in WHICH:
                values = np.round(getattr(one, which), _CENTS)
                kept[name][f"forecasts_{which}_epoch"] = values
    return kept


def fold_intervals(summary: Mapping[str, Any]) -> dict[str, dict[str, Interval]]:
    """Lay out the folds for a picture.

    Args:
        summary: From `summarise`.

    Returns:
        For the test days of each fold, each cell's error over persistence's.
    """
    return {
        "to\n".join(fold["days"]["test"]): {
            one["label"]: one["over_persistence"]
            for one in fold["arms"].values()
            if one["over_persistence"] is not None
        }
        for fold in summary["folds"]
    }


def _measure_baselines(task: Task) -> dict[str, Errors]:
    part = task.data.test
    truth = task.truth(part)
    return {
        name: measure_errors(values, truth)
        for name, values in baseline_forecasts(task, part).items()
    }


def _scores(
    outcomes: Mapping[str, Outcome], baselines: Mapping[str, Errors]
) -> dict[str, dict[str, np.ndarray]]:
    """Return `[S]` for every arm and persistence, by which forecasts."""
    most = max(len(one.loss) for one in outcomes.values())
    before = np.full(most, baselines[PERSISTENCE].mae)
    return {
        which: {
            **{name: one.errors(which).mae for name, one in outcomes.items()},
            PERSISTENCE: before,
        }
        for which in WHICH
    }


def _same_seeds(scores: Mapping[str, np.ndarray], *names: str) -> dict[str, np.ndarray]:
    """Keep of each arm the seeds that all have: the first ones."""
    fewest = min(len(scores[name]) for name in names)
    return {name: scores[name][:fewest] for name in names}


def _pairs(measured: Measured) -> dict[str, list[tuple[str, str, str]]]:
    """List what is compared: which forecasts, first, second."""
    cells = list(measured.outcomes)
    against = list(_cell_pairs(cells))
    to_persistence = [(cell, PERSISTENCE) for cell in cells]
    pairs = {
        "The text's claims: last epoch, as in the text": [
            ("last", *pair) for pair in (*against, *to_persistence)
        ],
        "The same, each seed after the epoch with its best validation": [
            ("best", *pair) for pair in (*against, *to_persistence)
        ],
    }

    def named(suffix: str) -> list[tuple[str, str, str]]:
        return [
            ("best", f"{first}{suffix}", f"{second}{suffix}")
            for first, second in against
        ] + [("best", f"{cell}{suffix}", PERSISTENCE) for cell in cells]

    names = measured.side.keys()
    if any(name.endswith("_tuned") for name in names):
        pairs["Learning rate and epoch chosen on validation days"] = named("_tuned")
    for target, words in (("_log_return", "returns"), ("_close", "prices")):
        if f"{cells[0]}{target}" in names:
            pairs[f"The networks forecast {words}"] = named(target)
    matched = [f"{cell}_matched" for cell in cells if f"{cell}_matched" in names]
    if matched and "lstm" in cells:
        pairs["As many recurrent parameters as the LSTM"] = [
            ("best", name, "lstm") for name in matched
        ]
    own = choice_cell(cells)
    choices = [name for name in names if name.startswith(f"{own}_")]
    if choices:
        pairs["What else is chosen, by the same measure"] = [
            ("best", name, own) for name in choices
        ]
    return pairs


def _cell_pairs(cells: Sequence[str]) -> itertools.chain[tuple[str, str]]:
    wanted = (("gru", "lstm"), ("gru", "elman"), ("lstm", "elman"))
    return itertools.chain(pair for pair in wanted if set(pair) <= set(cells))


def _compare_epochs(
    measured: Measured,
    scores: Mapping[str, Mapping[str, np.ndarray]],
    key: jax.Array,
    margin: float,
) -> list[Comparison]:
    """Compare the best epoch with the last one, cell by cell."""
    return [
        compare(
            "MAE in US dollars",
            {cell: scores["best"][cell], f"{cell}_last": scores["last"][cell]},
            cell,
            f"{cell}_last",
            key,
            margin=margin,
        )
        for cell in measured.outcomes
    ]


def _days(task: Task) -> dict[str, list[str]]:
    days = task.prices.days
    return {
        name: [str(days[part.start]), str(days[part.stop - 1])]
        for name, part in task.split._asdict().items()
    }


def _describe(one: Outcome) -> dict[str, Any]:
    return {
        "label": one.variant.label,
        "cell": one.variant.cell,
        "hidden_features": one.variant.hidden_features,
        "recurrent_parameters": one.variant.num_parameters,
        "learning_rate": one.rate,
        "num_seeds": len(one.loss),
        "diverged_seeds": np.flatnonzero(one.diverged),
        **{
            which: {
                measure: _mean_of_finite(values)
                for measure, values in one.errors(which)._asdict().items()
            }
            for which in WHICH
        },
    }


def _describe_fold(fold: Mapping[str, Outcome]) -> dict[str, Any]:
    task = next(iter(fold.values())).variant.task
    baselines = _measure_baselines(task)
    arms = {}
    for name, one in fold.items():
        relative = one.errors("best").mae / baselines[PERSISTENCE].mae
        arms[name] = {**_describe(one), "over_persistence": _mean_of_finite(relative)}
    return {"days": _days(task), "baselines": baselines, "arms": arms}


def _over_days(one: Outcome) -> Interval | None:
    """Compare with persistence day by day: the days are the sample, not the seeds.

    Of each day the mean absolute error over seeds, after the best epoch, less that of
    persistence. With Student's t this is the test of Diebold and Mariano for forecasts
    of one step.
    """
    part = one.variant.task.data.test
    truth = one.variant.task.truth(part)
    before = baseline_forecasts(one.variant.task, part)[PERSISTENCE]
    finite = one.best[np.isfinite(one.best).all(axis=1)]
    if not len(finite):
        return None
    own = np.abs(finite - truth).mean(axis=0)
    return mean_interval(own - np.abs(before - truth))


def _mean_of_finite(values: np.ndarray) -> Interval | None:
    finite = values[np.isfinite(values)]
    return mean_interval(finite) if finite.size else None


def _compare_times(
    rounds: Mapping[str, list[float]], key: jax.Array
) -> dict[str, Any] | None:
    """Compare logarithms of times, round by round, in which the cells took turns."""
    if not all(rounds.values()):
        return None
    logs = {cell: np.log(seconds) for cell, seconds in rounds.items()}
    ask = functools.partial(compare, "log seconds of an update", logs)
    margin = math.log1p(TIME_SHARE)
    return {
        "rounds": rounds,
        "comparisons": [
            ask(*pair, key, margin=margin) for pair in _cell_pairs(list(rounds))
        ],
    }
