"""Timing in interleaved rounds: what else the machine does meets all alike."""

import functools
import gc
import math
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

#: Below this a call is made once more, untimed, before its sample: threads of the
#: implementation before have come to rest then, and caches hold this one's data.
WARM_UP_SECONDS = 0.25
#: Rounds that a case gets even where they take longer than they should.
MIN_ROUNDS = 5
_MAX_CALLS = 100_000


class Limits(NamedTuple):
    """How much is measured.

    Attributes:
        num_rounds: Samples of each implementation, at most.
        min_seconds: What a sample lasts at least; it has as many calls as that takes.
        max_seconds: After so long a case ends, if it has `MIN_ROUNDS` rounds.
    """

    num_rounds: int
    min_seconds: float
    max_seconds: float


class Samples(NamedTuple):
    """Seconds a call took, one number a round, and the calls that a sample had."""

    seconds: list[float]
    calls: int


def time_rounds(
    runs: Mapping[str, Callable[[], None]],
    limits: Limits,
    generator: np.random.Generator,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Samples]:
    """Time every run once a round, each round in an order of its own.

    Args:
        runs: Calls that return when their work is done, already compiled.
        limits: How much is measured.
        generator: Draws the orders.
        clock: Seconds.

    Returns:
        For each name its samples; number r of all names are of round r.
    """
    plans = {name: _plan_sample(run, limits, clock) for name, run in runs.items()}

    def sample(name: str) -> float:
        run, plan = runs[name], plans[name]
        if plan.seconds < WARM_UP_SECONDS:
            run()
        started = clock()
        for _ in range(plan.calls):
            run()
        return (clock() - started) / plan.calls

    samplers = {name: functools.partial(sample, name) for name in runs}
    samples = take_rounds(samplers, limits, generator, clock)
    return {name: Samples(samples[name], plans[name].calls) for name in runs}


def take_rounds(
    samplers: Mapping[str, Callable[[], float]],
    limits: Limits,
    generator: np.random.Generator,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Take one sample of each a round, each round in an order of its own.

    Args:
        samplers: Each measures something and returns it.
        limits: How many rounds.
        generator: Draws the orders.
        clock: Seconds.

    Returns:
        For each name its samples, round by round.
    """
    samples: dict[str, list[float]] = {name: [] for name in samplers}
    began = clock()
    was_enabled = gc.isenabled()
    try:
        for number in range(limits.num_rounds):
            if number >= MIN_ROUNDS and clock() - began > limits.max_seconds:
                break
            gc.collect()
            gc.disable()
            for name in order_of_round(list(samplers), generator):
                samples[name].append(samplers[name]())
    finally:
        if was_enabled:
            gc.enable()
    return samples


def order_of_round(names: list[str], generator: np.random.Generator) -> list[str]:
    """Shuffle names.

    Args:
        names: The names.
        generator: Moves on.

    Returns:
        The names in a random order.
    """
    return [names[index] for index in generator.permutation(len(names))]


class _Plan(NamedTuple):
    """Calls in a sample, and about how many seconds one takes."""

    calls: int
    seconds: float


def _plan_sample(
    run: Callable[[], None], limits: Limits, clock: Callable[[], float]
) -> _Plan:
    """Find how many calls last `min_seconds`, by trying 1, 2, 4, ... of them."""
    run()  # the first call may set things up
    count = 1
    while True:
        started = clock()
        for _ in range(count):
            run()
        spent = clock() - started
        if spent >= limits.min_seconds / 2 or count >= _MAX_CALLS:
            seconds = spent / count
            return _Plan(math.ceil(limits.min_seconds / seconds), seconds)
        count *= 2


class Quartiles(NamedTuple):
    """The middle half of samples."""

    low: float
    median: float
    high: float


def quartiles(seconds: list[float]) -> Quartiles:
    """Summarise samples.

    Args:
        seconds: At least one.

    Returns:
        The quartiles.
    """
    return Quartiles(*np.quantile(seconds, [0.25, 0.5, 0.75]).tolist())
