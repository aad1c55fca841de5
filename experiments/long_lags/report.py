"""What the runs say, in numbers; measures and margins are those of this file.

A seed that does not solve its task within the updates there are is censored: its time
is at least that long, and enters every mean as just that, on both sides.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.arms import diverged
from experiments.long_lags.config import Config
from experiments.tasks import Score
from experiments.verdicts import Comparison, compare
from gated_rnn.statistics import Interval, mean_interval, verdict
from gated_rnn.training import SeedResult, StopReason

#: Fixed before the first full run. One seed of ten more or less does not matter;
SHARE_MARGIN = 0.1
#: nor does a fourth more updates, which is less than the grid of rates decides;
UPDATES_MARGIN = math.log(1.25)
#: nor a twentieth of the loss of a predictor without memory.
LOSS_MARGIN = 0.05
#: The first of them is compared in detail.
_PAIRS = (("gru", "lstm"), ("gru_matched", "lstm"), ("elman", "lstm"))
_Z = 1.959963984540054  # 97.5 % quantile of the normal distribution
_MEASURES = {
    "share solved": ("solved", SHARE_MARGIN),
    "log of updates to solve": ("log_updates", UPDATES_MARGIN),
    "loss over that without memory": ("relative_loss", LOSS_MARGIN),
}


class Setting(NamedTuple):
    """One cell on one task at one length; `[S]` where seeds differ.

    Attributes:
        task: Name of the task.
        length: T.
        cell: Name of the arm.
        units: H.
        parameters: Of the recurrent layer.
        rate: Learning rate.
        tuning: From `describe_tuning`, None where the rate is another arm's.
        solved: bool, whether the target was reached.
        updates: Updates to it; all there are where it was not reached.
        diverged: bool.
        scores: On the test.
        baseline: Loss of the best predictor without memory.
    """

    task: str
    length: int
    cell: str
    units: int
    parameters: int
    rate: float
    tuning: dict[str, Any] | None
    solved: np.ndarray
    updates: np.ndarray
    diverged: np.ndarray
    scores: Score
    baseline: float

    @property
    def log_updates(self) -> np.ndarray:
        """Logarithm of the updates, censored."""
        return np.log(self.updates)

    @property
    def relative_loss(self) -> np.ndarray:
        """Test loss over that of the best predictor without memory."""
        return np.where(self.diverged, np.nan, self.scores.loss / self.baseline)


def describe_tuning(
    config: Config, rows: Any, result: SeedResult
) -> list[dict[str, Any]]:
    """Choose the rate of each length, on validation sequences.

    A seed costs the share of the updates that it took to solve the task; if it did not,
    1 and the share of the answers that were wrong at best; if it diverged, 2.

    Args:
        config: The settings.
        rows: What was trained, `Runs` with lengths outermost and seeds innermost.
        result: What came out.

    Returns:
        For each length: the rates, the mean cost of each, which seeds of which rate
        solved it, how many diverged, and the rate of least cost.
    """
    shape = (len(config.lengths), len(config.learning_rates), config.tuning_seeds)
    reached = np.asarray(result.status.reason) == StopReason.TARGET_REACHED
    best = np.minimum(result.best.value, 1.0)  # 1 where nothing was validated
    cost = np.where(reached, result.status.step / config.num_updates, 1 + best)
    cost = np.where(diverged(result), 2.0, cost).reshape(shape)
    chosen = cost.mean(axis=2).argmin(axis=1)
    last = len(config.learning_rates) - 1
    return [
        {
            "rates": list(config.learning_rates),
            "cost": cost[number].mean(axis=1),
            "solved": reached.reshape(shape)[number],
            "diverged": int(diverged(result).reshape(shape)[number].sum()),
            "rate": config.learning_rates[at],
            "at_edge": bool(last > 0 and at in (0, last)),
        }
        for number, at in enumerate(chosen.tolist())
    ]


def share_interval(flags: np.ndarray) -> Interval:
    """Estimate a share, with the score interval of Wilson.

    Args:
        flags: bool `[S]`.

    Returns:
        The share of true ones.

    Examples:
        >>> share, low, high, *_ = share_interval(np.array([True] * 8 + [False] * 2))
        >>> print(f"{share:.1f} [{low:.3f}, {high:.3f}]")
        0.8 [0.490, 0.943]

    References:
        E. Wilson: Probable inference, the law of succession, and statistical inference,
        1927, doi:10.1080/01621459.1927.10502953.
    """
    number, share = flags.size, float(flags.mean())
    extra = _Z**2 / number
    middle = (share + extra / 2) / (1 + extra)
    half = math.sqrt(share * (1 - share) * extra + extra**2 / 4) / (1 + extra)
    low, high = max(0.0, middle - half), min(1.0, middle + half)
    return Interval(share, low, high, 0.95, "mean", "wilson", number, 0)


def share_difference(first: np.ndarray, second: np.ndarray) -> Interval:
    """Estimate the difference of two shares, with Newcombe's hybrid score interval.

    It keeps a width where all seeds agree, which a t interval does not.

    Args:
        first: bool `[S]`.
        second: bool `[R]`.

    Returns:
        First less second.

    Examples:
        >>> ten = np.ones(10, bool)
        >>> difference, low, high, *_ = share_difference(ten, ten)
        >>> print(f"{difference:.1f} [{low:.3f}, {high:.3f}]")
        0.0 [-0.278, 0.278]

    References:
        R. Newcombe: Interval estimation for the difference between independent
        proportions, 1998, method 10.
    """
    one, two = share_interval(first), share_interval(second)
    below = math.hypot(one.estimate - one.low, two.high - two.estimate)
    above = math.hypot(one.high - one.estimate, two.estimate - two.low)
    middle = one.estimate - two.estimate
    number = min(one.num_seeds, two.num_seeds)
    return Interval(
        middle, middle - below, middle + above, 0.95, "mean", "newcombe", number, 0
    )


def summarise(
    config: Config, settings: Sequence[Setting], key: jax.Array
) -> dict[str, Any]:
    """Turn what came out into what is reported.

    Args:
        config: The settings of the run.
        settings: Every cell on every task at every length.
        key: For the resamples.

    Returns:
        Settings, comparisons of each and of all together, and the share of rates and
        seeds with which each cell solves its tasks.
    """
    pairs = [pair for pair in _PAIRS if set(pair) <= set(config.cells)]
    return {
        "settings": [_describe(one) for one in settings],
        "by_setting": [
            found
            for first, second in pairs[:1]
            for one, other in _side_by_side(settings, first, second)
            for found in _compare_setting(one, other, key)
        ],
        "together": [
            found
            for first, second in pairs
            for found in _compare_all(settings, first, second, key)
        ],
        "rates_and_seeds": _rates_and_seeds(settings),
        "shares": _compare_shares(settings, pairs),
    }


def _describe(one: Setting) -> dict[str, Any]:
    finite = one.relative_loss[np.isfinite(one.relative_loss)]
    return {
        **{name: getattr(one, name) for name in ("task", "length", "cell", "units")},
        "parameters": one.parameters,
        "learning_rate": one.rate,
        "tuning": one.tuning,
        "solved": share_interval(one.solved),
        "median_updates": median_updates(one),
        "diverged_seeds": int(one.diverged.sum()),
        "baseline_loss": one.baseline,
        "relative_loss": mean_interval(finite) if finite.size else None,
        "wrong": mean_interval(one.scores.wrong),
        "far": mean_interval(one.scores.far),
    }


def median_updates(one: Setting) -> float | None:
    """Take the median of the times to solve a task.

    Args:
        one: A cell on a task at a length.

    Returns:
        The median over seeds; None where it is censored.
    """
    times = np.where(one.solved, one.updates, np.inf)
    middle = np.sort(times)[(times.size - 1) // 2 : times.size // 2 + 1].mean()
    return float(middle) if math.isfinite(middle) else None


def _side_by_side(
    settings: Sequence[Setting], first: str, second: str
) -> list[tuple[Setting, Setting]]:
    at = {(one.task, one.length, one.cell): one for one in settings}
    return [
        (one, at[one.task, one.length, second]) for one in settings if one.cell == first
    ]


def _compare_setting(one: Setting, other: Setting, key: jax.Array) -> list[Comparison]:
    """Compare two cells at one length: times only where any seed solves the task."""
    anyone = bool(one.solved.any() or other.solved.any())
    found = []
    for measure, (name, margin) in _MEASURES.items():
        if name == "solved" or (name == "log_updates" and not anyone):
            continue
        scores = {both.cell: getattr(both, name) for both in (one, other)}
        where = f"{one.task.replace('_', ' ')} {one.length}, {measure}"
        found.append(compare(where, scores, one.cell, other.cell, key, margin=margin))
    return found


def _compare_all(
    settings: Sequence[Setting], first: str, second: str, key: jax.Array
) -> list[Comparison]:
    """Compare two cells by the mean over all tasks and lengths of each seed."""
    both = _side_by_side(settings, first, second)
    found = []
    for measure, (name, margin) in _MEASURES.items():
        scores = {
            cell: np.mean([getattr(pair[side], name) for pair in both], axis=0)
            for side, cell in enumerate((first, second))
        }
        found.append(compare(measure, scores, first, second, key, margin=margin))
    return found


def _compare_shares(
    settings: Sequence[Setting], pairs: Sequence[tuple[str, str]]
) -> list[dict[str, Any]]:
    """Compare shares solved: of each task at each length, and at the longest."""
    found = []
    for first, second in pairs:
        for one, other in _side_by_side(settings, first, second):
            difference = share_difference(one.solved, other.solved)
            found.append(
                {
                    "task": one.task,
                    "length": one.length,
                    "first": first,
                    "second": second,
                    "difference": difference,
                    "margin": SHARE_MARGIN,
                    "verdict": verdict(difference, SHARE_MARGIN),
                }
            )
    return found


def _rates_and_seeds(settings: Sequence[Setting]) -> dict[str, Any]:
    """Count, of all rates and tuning seeds, those that solve a task, for each cell."""
    runs = {}
    for one in settings:
        if one.tuning is not None:
            runs.setdefault(one.cell, []).append(one.tuning["solved"])
    flags = {cell: np.stack(found) for cell, found in runs.items()}  # [settings, R, S]
    shares = {
        cell: {
            "all": share_interval(found.ravel()),
            "by_rate": [
                share_interval(found[:, rate].ravel()) for rate in range(found.shape[1])
            ],
        }
        for cell, found in flags.items()
    }
    summary: dict[str, Any] = {"shares": shares}
    if {"gru", "lstm"} <= flags.keys():
        difference = share_difference(flags["gru"].ravel(), flags["lstm"].ravel())
        summary["gru_minus_lstm"] = {
            "difference": difference,
            "margin": SHARE_MARGIN,
            "verdict": verdict(difference, SHARE_MARGIN),
        }
    return summary
