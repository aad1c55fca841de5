"""What the rows say: ours over the fastest peer, case by case and over the targets."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.benchmarks.cases import CELLS, TARGETS, Case
from experiments.benchmarks.implementations import IMPLEMENTATIONS
from experiments.benchmarks.rows import Row

TARGET_MODE = "gradient"
#: The issue's: the geometric mean, and the largest single ratio.
JAX_TARGET, JAX_CEILING, ALL_TARGET = 0.8, 1.0, 0.9
#: Of the fastest JAX peer's peak, for the long case.
MEMORY_TARGET = 0.25

CONFIDENCE = 0.95
_NUM_RESAMPLES = 2000
_SEED = 7


class Ratio(NamedTuple):
    """Median over median, and the interval of a bootstrap over rounds."""

    estimate: float
    low: float
    high: float


class Comparison(NamedTuple):
    """One of our engines against the fastest peer of a kind, on one case.

    Attributes:
        suite: Of the case.
        case: The case.
        ours: Name of the engine.
        against: "jax" or "all".
        peer: Name of the fastest peer.
        ratio: Ours over the peer's; below 1 ours is faster.
        memory_ratio: The same of the peak memory, if it was measured.
    """

    suite: str
    case: Case
    ours: str
    against: str
    peer: str
    ratio: Ratio
    memory_ratio: float | None


class Mean(NamedTuple):
    """The geometric mean over the target cases.

    Attributes:
        ours: Name of the engine.
        against: "jax" or "all".
        ratio: The mean.
        largest: The largest of the ratios.
        num_cases: How many were measured.
        complete: Whether those are all of the target.
    """

    ours: str
    against: str
    ratio: Ratio
    largest: float
    num_cases: int
    complete: bool


KINDS: dict[str, Callable[[str], bool]] = {
    "jax": lambda name: IMPLEMENTATIONS[name].is_jax,
    "all": lambda name: True,
}


def compare(rows: Sequence[Row]) -> list[Comparison]:
    """Compare each of our engines with the fastest peer, case by case.

    Args:
        rows: All rows.

    Returns:
        Comparisons, where both were timed.
    """
    timed: dict[tuple[str, Case], list[Row]] = {}
    for row in rows:
        if row.status == "timed":
            timed.setdefault((row.suite, row.case), []).append(row)
    found = []
    for (suite, case), group in timed.items():
        for ours in group:
            if not IMPLEMENTATIONS[ours.implementation].is_ours:
                continue
            for against, counts in KINDS.items():
                peers = [
                    row
                    for row in group
                    if not IMPLEMENTATIONS[row.implementation].is_ours
                    and counts(row.implementation)
                ]
                if not peers:
                    continue
                peer = min(peers, key=lambda row: row.seconds_median)
                found.append(
                    Comparison(
                        suite,
                        case,
                        ours.implementation,
                        against,
                        peer.implementation,
                        bootstrap_ratio(ours.samples, peer.samples),
                        _divide(ours.peak_bytes, peer.peak_bytes),
                    )
                )
    return found


def target_means(rows: Sequence[Row]) -> list[Mean]:
    """Average over the five sizes of the target and both cells, for the gradient.

    Args:
        rows: All rows.

    Returns:
        For each engine and kind of peer a mean, if there is anything to average.
    """
    wanted = {Case(cell, TARGET_MODE, sizes) for sizes in TARGETS for cell in CELLS}
    medians = {
        (row.case, row.implementation): row
        for row in rows
        if row.suite == "shapes" and row.status == "timed" and row.case in wanted
    }
    groups: dict[tuple[str, str], list[Comparison]] = {}
    for comparison in compare(list(medians.values())):
        key = (comparison.ours, comparison.against)
        groups.setdefault(key, []).append(comparison)
    means = []
    for (ours, against), group in groups.items():
        pairs = [
            (medians[each.case, ours].samples, medians[each.case, each.peer].samples)
            for each in group
        ]
        means.append(
            Mean(
                ours,
                against,
                bootstrap_mean(pairs),
                max(each.ratio.estimate for each in group),
                len(group),
                len(group) == len(wanted),
            )
        )
    return means


def bootstrap_ratio(ours: Sequence[float], peer: Sequence[float]) -> Ratio:
    """Divide medians; rounds are drawn again together, for they were run together.

    Args:
        ours: Samples, one a round.
        peer: The same rounds'.

    Returns:
        The ratio.

    Examples:
        >>> bootstrap_ratio([1.0, 1.0, 1.0], [2.0, 2.0, 2.0])
        Ratio(estimate=0.5, low=0.5, high=0.5)
    """
    return bootstrap_mean([(ours, peer)])


def bootstrap_mean(pairs: Sequence[tuple[Sequence[float], Sequence[float]]]) -> Ratio:
    """Take the geometric mean of ratios of medians.

    Args:
        pairs: For each case the samples of both, round by round.

    Returns:
        The mean, and the percentile interval of a bootstrap over rounds, each case's
        drawn for itself.
    """
    generator = np.random.default_rng(_SEED)
    estimate, resampled = 0.0, np.zeros(_NUM_RESAMPLES)
    for pair in pairs:
        ours, peer = (np.asarray(samples) for samples in pair)
        draws = generator.integers(0, len(ours), (_NUM_RESAMPLES, len(ours)))
        estimate += math.log(np.median(ours) / np.median(peer))
        medians = np.median(ours[draws], axis=1), np.median(peer[draws], axis=1)
        resampled += np.log(medians[0] / medians[1])
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(resampled / len(pairs), [tail, 1 - tail])
    return Ratio(*(math.exp(value) for value in (estimate / len(pairs), low, high)))


def _divide(ours: int | None, peer: int | None) -> float | None:
    return ours / peer if ours is not None and peer else None


def summarise(rows: Sequence[Row]) -> dict[str, Any]:
    """Put all that follows from the rows in one place.

    Args:
        rows: All rows.

    Returns:
        Comparisons and means, for `record.to_json`.
    """
    return {"comparisons": compare(rows), "target_means": target_means(rows)}
