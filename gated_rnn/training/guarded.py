"""One seed's run, frozen when it diverges, no longer improves or is good (layer 4).

The rules are evaluated within the compiled update, seed by seed, so that a run which
ends changes no bit of the runs beside it.
"""

import enum
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gated_rnn.training.loop import (
    Metrics,
    Optimizer,
    Problem,
    RunInputs,
    TrainState,
    advance_run,
    start_run,
)
from gated_rnn.types import Params, check_positive, invalid

__all__ = [
    "Best",
    "GuardedState",
    "Rules",
    "Status",
    "StopReason",
    "advance_guarded",
    "start_guarded",
]

VALIDATION = "validation"  # the metric that holds what `Problem.validate` returned


class StopReason(enum.IntEnum):
    """Why a seed is no longer trained; `RUNNING` if it is.

    A seed that diverges keeps the last parameters and optimiser state with which loss
    and gradient were finite.
    """

    RUNNING = 0
    LOSS_NOT_FINITE = 1
    GRADIENT_NOT_FINITE = 2
    PARAMETERS_NOT_FINITE = 3
    NO_IMPROVEMENT = 4
    TARGET_REACHED = 5


class Status(NamedTuple):
    """Whether a seed still runs.

    Attributes:
        reason: A `StopReason`, int32.
        step: int32, -1 for a seed that runs. For one that diverged, the number of the
            update, from 0, that was not made; for one that stopped early, how many
            updates it made.
    """

    reason: Any
    step: Any


class Best(NamedTuple):
    """The parameters with the lowest validation so far.

    Attributes:
        value: What `Problem.validate` gave, float32; infinite before the first one.
        step: How many updates had been made, int32.
        params: The parameters then.
    """

    value: Any
    step: Any
    params: Params


class GuardedState(NamedTuple):
    """What a seed carries from update to update; `best` is None without validation."""

    train: TrainState
    status: Status
    best: Best | None


class Rules(NamedTuple):
    """When a seed is validated, and when it stops.

    Attributes:
        validate_every: Updates between two calls of `Problem.validate`.
        patience: A seed stops when so many updates have brought no improvement, at
            least `validate_every`; None: never.
        min_improvement: By how much a validation must be lower to be an improvement.
        target: A seed stops when a validation is at most this; None: never.
    """

    validate_every: int = 10
    patience: int | None = None
    min_improvement: float = 0.0
    target: float | None = None

    def check(self, problem: Problem) -> None:
        """Raise unless the rules can be applied to the problem."""
        check_positive("validate_every", self.validate_every)
        if not 0 <= self.min_improvement < math.inf:
            expected = "a finite number of at least 0"
            raise invalid("min_improvement", expected, self.min_improvement)
        if self.target is not None:
            if not math.isfinite(self.target):
                raise invalid("target", "a finite number or None", self.target)
            if problem.validate is None:
                raise invalid("target", "None where nothing is validated", self.target)
        if self.patience is None:
            return
        check_positive("patience", self.patience)
        if problem.validate is None:
            raise invalid("patience", "None where nothing is validated", self.patience)
        if self.patience < self.validate_every:  # it would stop before the first one
            expected = f"at least validate_every, {self.validate_every}"
            raise invalid("patience", expected, self.patience)


def start_guarded(
    problem: Problem, optimizer: Optimizer, key: jax.Array, hyper: Any
) -> tuple[GuardedState, RunInputs]:
    """Start a run; see `start_run`."""
    state, inputs = start_run(problem, optimizer, key, hyper)
    status = Status(jnp.int32(StopReason.RUNNING), jnp.int32(-1))
    best = None
    if problem.validate is not None:
        best = Best(jnp.float32(jnp.inf), jnp.int32(0), state.params)
    return GuardedState(state, status, best), inputs


def advance_guarded(
    problem: Problem,
    optimizer: Optimizer,
    rules: Rules,
    state: GuardedState,
    inputs: RunInputs,
) -> tuple[GuardedState, Metrics]:
    """Make one update, unless the run has ended or the update would not be finite.

    The metrics of the update at which a run diverges are what they are; those after the
    end of a run are NaN, or 0 where they are not numbers with a fraction.
    """
    before, running = state.train, state.status.reason == StopReason.RUNNING
    after, metrics = advance_run(problem, optimizer, before, inputs)
    reason = _why_diverged(metrics, after.params)
    accepted = running & (reason == StopReason.RUNNING)
    params = _select(accepted, after.params, before.params)
    opt_state = _select(accepted, after.opt_state, before.opt_state)
    train = TrainState(params, opt_state, after.step)
    status = _stop(state.status, running, reason, before.step)
    best = state.best
    if best is not None and problem.validate is not None:
        dataset = () if problem.dataset is None else (inputs.dataset,)
        measure = functools.partial(problem.validate, params, *dataset)
        value, best = _validate(measure, rules, train, best, accepted)
        metrics = {**metrics, VALIDATION: value}
        if rules.target is not None:
            good = accepted & (value <= rules.target)
            reason = jnp.where(good, StopReason.TARGET_REACHED, StopReason.RUNNING)
            status = _stop(status, good, reason, after.step)
            accepted &= ~good
        if rules.patience is not None:
            tired = accepted & (after.step - best.step >= rules.patience)
            reason = jnp.where(tired, StopReason.NO_IMPROVEMENT, StopReason.RUNNING)
            status = _stop(status, tired, reason, after.step)
    shown = {name: jnp.where(running, m, _absent(m)) for name, m in metrics.items()}
    return GuardedState(train, status, best), shown


def _validate(
    measure: Callable[[], Any],
    rules: Rules,
    train: TrainState,
    best: Best,
    accepted: jax.Array,
) -> tuple[jax.Array, Best]:
    """Return the validation, NaN where there is none, and the best one so far."""
    value = jax.lax.cond(
        train.step % rules.validate_every == 0,
        lambda: jnp.asarray(measure(), jnp.float32),
        lambda: jnp.float32(jnp.nan),
    )
    better = accepted & (value < best.value - rules.min_improvement)
    latest = Best(value, train.step, train.params)
    return value, _select(better, latest, best)


def _why_diverged(metrics: Metrics, params: Params) -> jax.Array:
    finite = [
        jnp.all(jnp.isfinite(leaf))
        for leaf in jax.tree.leaves(params)
        if jnp.issubdtype(leaf.dtype, jnp.inexact)
    ]
    checks = {
        StopReason.LOSS_NOT_FINITE: jnp.isfinite(metrics["loss"]),
        StopReason.GRADIENT_NOT_FINITE: jnp.isfinite(metrics["grad_norm"]),
        StopReason.PARAMETERS_NOT_FINITE: jnp.all(jnp.array(finite)),
    }
    reason = jnp.int32(StopReason.RUNNING)
    for why, is_fine in reversed(checks.items()):
        reason = jnp.where(is_fine, reason, why)
    return reason


def _stop(
    status: Status, running: jax.Array, reason: jax.Array, step: jax.Array
) -> Status:
    stops = running & (reason != StopReason.RUNNING)
    return Status(
        jnp.where(stops, reason, status.reason).astype(jnp.int32),
        jnp.where(stops, step, status.step).astype(jnp.int32),
    )


def _select(condition: jax.Array, true: Any, false: Any) -> Any:
    return jax.tree.map(lambda t, f: jnp.where(condition, t, f), true, false)


def _absent(metric: jax.Array) -> jax.Array:
    value = jnp.nan if jnp.issubdtype(metric.dtype, jnp.inexact) else 0
    return jnp.asarray(value, metric.dtype)
