"""Sweeps over seeds, blocks and devices, and the comparison with other libraries."""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from experiments.benchmarks.cases import Case
from experiments.benchmarks.measure import Limits, quartiles, take_rounds
from experiments.benchmarks.parity import relative_error, tolerance
from experiments.benchmarks.peer_worker import PeerWorker
from experiments.benchmarks.seed_points import (
    MIN_SEED_BLOCK,
    Point,
    Training,
    make_sampler,
    measure_peak_of,
)
from experiments.benchmarks.summary import Ratio, bootstrap_ratio

OURS = "train_seeds"
_ORDER_SEED = 13


class SeedsRow(NamedTuple):
    """One way of training so many seeds. What was not measured is None.

    Attributes:
        implementation: "train_seeds", or the name of a peer that trains them one after
            another.
        cell: "lstm" or "gru".
        batch_size: B.
        num_steps: T.
        in_features: F.
        hidden_features: H.
        num_seeds: S.
        seed_block: Width of a block; None for a peer.
        num_devices: Devices that blocks may use; None for a peer.
        reason: Why it was not timed.
        max_relative_error: Of the first losses, against the reference engine.
        compile_seconds: Tracing and compiling; near 0 where another point has done it.
        samples: Seconds of an update of all seeds, one a round.
        seconds_low: First quartile of the samples.
        seconds_median: Their median.
        seconds_high: Third quartile.
        seeds_updates_a_second: S over the median.
        planned_bytes: Predicted from XLA's plan, see `Training.plan_memory`.
        peak_bytes: What an update in a fresh process adds to its resident size.
        device_peak_bytes: The accelerator's peak in that process.
        ours_over_this: In a comparison, `train_seeds`' median over this one's.
    """

    implementation: str
    cell: str
    batch_size: int
    num_steps: int
    in_features: int
    hidden_features: int
    num_seeds: int
    seed_block: int | None = None
    num_devices: int | None = None
    reason: str | None = None
    max_relative_error: float | None = None
    compile_seconds: float | None = None
    samples: Sequence[float] = ()
    seconds_low: float | None = None
    seconds_median: float | None = None
    seconds_high: float | None = None
    seeds_updates_a_second: float | None = None
    planned_bytes: int | None = None
    peak_bytes: int | None = None
    device_peak_bytes: int | None = None
    ours_over_this: Ratio | None = None

    def add_samples(self, samples: Sequence[float]) -> "SeedsRow":
        """Return the row, timed."""
        low, median, high = quartiles(list(samples))
        return self._replace(
            samples=samples,
            seconds_low=low,
            seconds_median=median,
            seconds_high=high,
            seeds_updates_a_second=self.num_seeds / median,
        )


def make_seeds_row(case: Case, implementation: str, point: Point | None) -> SeedsRow:
    """Begin a row.

    Args:
        case: The case.
        implementation: "train_seeds" or the name of a peer.
        point: Of ours.

    Returns:
        The row.
    """
    row = SeedsRow(implementation, case.cell, *case.sizes, case.num_seeds)
    if point is None:
        return row
    return row._replace(seed_block=point.seed_block, num_devices=point.num_devices)


def list_points(
    case: Case,
    *,
    num_seeds: Sequence[int],
    seed_blocks: Sequence[int],
    sweep_seeds: int,
    num_devices: int,
) -> list[Point]:
    """List the points of the three sweeps, each once.

    Args:
        case: Cell and sizes.
        num_seeds: Of the sweep over seeds, in the first of the blocks, on all devices.
        seed_blocks: Of the sweep over blocks.
        sweep_seeds: Seeds in the sweeps over blocks and devices.
        num_devices: How many there are; that sweep has its powers of two.

    Returns:
        The points, more seeds later.

    Examples:
        >>> from experiments.benchmarks.cases import Sizes
        >>> points = list_points(
        ...     Case("gru", "train", Sizes(3, 5, 2, 4)),
        ...     num_seeds=(8, 1), seed_blocks=(4, 2), sweep_seeds=8, num_devices=2,
        ... )
        >>> [(p.case.num_seeds, p.seed_block, p.num_devices) for p in points]
        [(1, 4, 2), (8, 4, 2), (8, 2, 2), (8, 4, 1)]
    """

    def point(seeds: int, seed_block: int, devices: int) -> Point:
        return Point(case._replace(num_seeds=seeds), seed_block, devices)

    block = seed_blocks[0]
    powers = [2**power for power in range(num_devices.bit_length())]
    points = [
        *(point(number, block, num_devices) for number in num_seeds),
        *(point(sweep_seeds, width, num_devices) for width in seed_blocks),
        *(point(sweep_seeds, block, number) for number in powers),
    ]
    return sorted(dict.fromkeys(points), key=lambda each: each.case.num_seeds)


def measure_points(
    points: Sequence[Point], engine: str, limits: Limits, *, with_memory: bool
) -> list[SeedsRow]:
    """Measure the points of a cell and a shape in turns.

    Args:
        points: From `list_points`.
        engine: Name of ours.
        limits: How much is measured; a point whose update takes longer than
            `max_seconds` is left out, and what has more seeds too.
        with_memory: Whether to measure the peak of each in a fresh process.

    Returns:
        A row a point.
    """
    training = Training(points[-1].case, engine)
    samplers, rows = {}, {}
    for point in points:
        sampler, compile_seconds = make_sampler(training, point, limits.min_seconds)
        if sampler() > limits.max_seconds:
            break
        samplers[point] = sampler
        rows[point] = make_seeds_row(point.case, OURS, point)._replace(
            compile_seconds=compile_seconds, planned_bytes=training.plan_memory(point)
        )
    taken = take_rounds(samplers, limits, np.random.default_rng(_ORDER_SEED))
    for point, samples in taken.items():
        rows[point] = rows[point].add_samples(samples)
        peak = measure_peak_of(point, engine) if with_memory else ""
        if not isinstance(peak, str):
            rows[point] = rows[point]._replace(
                peak_bytes=peak.host, device_peak_bytes=peak.device
            )
    return list(rows.values())


def compare_seeds(
    case: Case, peers: Sequence[str], engine: str, limits: Limits, num_devices: int
) -> list[SeedsRow]:
    """Compare all seeds at once with other libraries' runs one after another.

    Args:
        case: Cell, sizes and number of seeds.
        peers: Names of the others.
        engine: Name of ours.
        limits: How much is measured.
        num_devices: Of ours; as many blocks as devices, so that all are at work.

    Returns:
        A row an implementation, ours first; those that were not timed say why.
    """
    training = Training(case, engine)
    width = max(MIN_SEED_BLOCK, math.ceil(case.num_seeds / num_devices))
    point = Point(case, width, num_devices)
    rows = {OURS: make_seeds_row(case, OURS, point)}
    samplers = {}
    with PeerWorker(case, peers, limits.min_seconds) as worker:
        built = worker.built()
        for name, reason in built.reasons.items():
            rows[name] = make_seeds_row(case, name, None)._replace(reason=reason)
            if reason is None:
                samplers[name] = functools.partial(worker.sample, name)
        rows[OURS] = _check_losses(rows[OURS], training, point, built.first_losses)
        if rows[OURS].reason is None:
            samplers[OURS] = make_sampler(training, point, limits.min_seconds)[0]
        taken = take_rounds(samplers, limits, np.random.default_rng(_ORDER_SEED))
    for name, samples in taken.items():
        rows[name] = rows[name].add_samples(samples)
        if OURS in taken:
            ratio = bootstrap_ratio(taken[OURS], samples)
            rows[name] = rows[name]._replace(ours_over_this=ratio)
    return list(rows.values())


def _check_losses(
    row: SeedsRow, training: Training, point: Point, expected: Sequence[float]
) -> SeedsRow:
    losses = training.train(point, 1).metrics["loss"][:, 0]
    error = relative_error(losses, np.asarray(expected))
    row = row._replace(max_relative_error=error)
    if error > tolerance(training.case):
        return row._replace(reason=f"the first losses differ by {error:.1e}")
    return row
