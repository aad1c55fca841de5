"""What an experiment compares: arms, trained alike on the same seeds, tuned alike."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from rich.console import Console

from experiments.command import UsageError
from experiments.run_config import ComparisonConfig
from experiments.training import plan_blocks, save_models, stop_if_asked, train
from gated_rnn.networks import Network
from gated_rnn.training import Problem, SeedResult, StopReason, grid, train_seeds
from gated_rnn.types import invalid

#: Seeds that tune are none of those that are compared.
FIRST_TUNING_SEED = 1_000_000
#: Of the arguments of `train_seeds`, those that a plan of its memory takes.
_PLANNED = ("optimizer", "hyper", "updates_per_piece", "vectorize", "devices")
#: How a seed may end, or not, with everything finite.
_HEALTHY = (StopReason.RUNNING, StopReason.NO_IMPROVEMENT, StopReason.TARGET_REACHED)

OptimizerOfRate = Callable[[Any], optax.GradientTransformation]


class Arm(NamedTuple):
    """One of the things that are compared.

    Attributes:
        name: Lower-case letters, digits and "_": a file name, and its place in the
            record.
        label: What a person reads.
        network: What is trained.
        problem: On what; its `hyper` is a dict with `learning_rate`, a scalar.
    """

    name: str
    label: str
    network: Network
    problem: Problem


class Tuning(NamedTuple):
    """What a search for the learning rate found.

    Attributes:
        rates: What was tried, `[R]`.
        values: Mean over the tuning seeds of each seed's best validation, `[R]`;
            infinite where one diverged.
        seeds: How many seeds each rate had.
        rate: The rate with the lowest value.
        at_edge: Whether it is the first or last of the rates: the best may lie beyond.
    """

    rates: list[float]
    values: list[float]
    seeds: int
    rate: float
    at_edge: bool


def train_arms(
    config: ComparisonConfig,
    console: Console,
    arms: Sequence[Arm],
    key: jax.Array,
    num_updates: int,
    *,
    optimizer: OptimizerOfRate,
    rates: Mapping[str, float],
    **options: Any,
) -> dict[str, SeedResult]:
    """Train every arm on seeds 0 to S - 1, resumable, and write its models if asked.

    Args:
        config: Says how many seeds, and how wide a block is.
        console: Where progress goes.
        arms: What is compared.
        key: Root of all seeds; seed i of every arm starts from the same key.
        num_updates: Updates of each seed.
        optimizer: Builds it from a learning rate.
        rates: The learning rate of each arm, by its name.
        **options: The other arguments of `train_seeds`, such as `validate_every`.

    Returns:
        The result of each arm, by its name.

    Raises:
        UsageError: If a run cannot go on, or nothing can be saved.
        Stopped: If a signal asked for it.
    """
    ids = np.arange(config.num_seeds)
    return {
        arm.name: _train_arm(
            config,
            console,
            arm,
            arm.name,
            key,
            ids,
            np.full(ids.size, rates[arm.name]),
            num_updates,
            optimizer,
            options,
        )
        for arm in arms
    }


def tune_arms(
    config: ComparisonConfig,
    console: Console,
    arms: Sequence[Arm],
    key: jax.Array,
    num_updates: int,
    *,
    optimizer: OptimizerOfRate,
    **options: Any,
) -> dict[str, Tuning]:
    """Choose each arm's learning rate on validation data, all with the same budget.

    Every rate of `config.learning_rates` is trained with `config.tuning_seeds` seeds of
    its own, in one program an arm; with the same arguments, that of `train_arms`.

    Args:
        config: The rates and seeds.
        console: Where progress goes.
        arms: What is compared; each problem has a `validate`.
        key: As for `train_arms`; other seeds are drawn from it.
        num_updates: Updates of each run.
        optimizer: Builds it from a learning rate.
        **options: The other arguments of `train_seeds`.

    Returns:
        What was found for each arm, by its name; nothing if there are no tuning seeds.

    Raises:
        UsageError: As `train_arms`, or if no rate of an arm has a validation of all its
            seeds.
        ValueError: If a problem has no `validate`.
        Stopped: If a signal asked for it.
    """
    if not config.tuning_seeds:
        return {}
    for arm in arms:
        if arm.problem.validate is None:
            expected = "problems with validate, to choose by"
            raise invalid("arms", expected, f"{arm.name} without one")
    rates = list(config.learning_rates)
    points = grid(learning_rate=rates, repeats=config.tuning_seeds)
    found = {}
    for arm in arms:
        result = _train_arm(
            config,
            console,
            arm,
            f"{arm.name}_tuning",
            key,
            FIRST_TUNING_SEED + points.seed_ids,
            points.hyper["learning_rate"],
            num_updates,
            optimizer,
            options,
        )
        best = np.where(diverged(result), np.inf, result.best.value)
        values = best.reshape(len(rates), config.tuning_seeds).mean(axis=1)
        if not np.isfinite(values).any():
            raise UsageError(
                f"{arm.label}: no learning rate of {rates} trained all its "
                f"{config.tuning_seeds} seeds to a finite validation. "
                "Give others with --learning-rates, or train for longer."
            )
        chosen = int(values.argmin())
        at_edge = len(rates) > 1 and chosen in (0, len(rates) - 1)
        found[arm.name] = Tuning(
            rates, values.tolist(), config.tuning_seeds, rates[chosen], at_edge
        )
    return found


def time_arms(
    config: ComparisonConfig,
    arms: Sequence[Arm],
    key: jax.Array,
    num_updates: int,
    num_rounds: int,
    *,
    optimizer: OptimizerOfRate,
    rates: Mapping[str, float],
    **options: Any,
) -> dict[str, list[float]]:
    """Measure how long an update takes, the arms in turn.

    What else the machine does meets all arms alike, and every other round runs in the
    opposite order. With the arguments of `train_arms` nothing is compiled again.
    Nothing is saved.

    Args:
        config: Says how many seeds, and how wide a block is.
        arms: What is compared.
        key: As for `train_arms`.
        num_updates: Updates of each arm in a round.
        num_rounds: How many rounds.
        optimizer: As for `train_arms`.
        rates: The same.
        **options: The same.

    Returns:
        For each arm, by its name, the seconds that an update of all seeds together
        took, one number a round. Compiling and drawing the parameters are not counted.

    Raises:
        Stopped: If a signal asked for it.
    """
    ids = np.arange(config.num_seeds)
    seconds = {arm.name: [] for arm in arms}
    for number in range(num_rounds):
        for arm in list(arms)[:: 1 if number % 2 == 0 else -1]:
            stop_if_asked(0)
            result = train_seeds(
                arm.problem,
                key,
                ids,
                num_updates,
                seed_block=config.seed_block,
                **_with_rates(optimizer, np.full(ids.size, rates[arm.name])),
                **options,
            )
            spent = float(result.seconds.pieces.sum())
            seconds[arm.name].append(spent / num_updates)
    return seconds


def diverged(result: SeedResult) -> np.ndarray:
    """Tell of each seed whether it ended because something was no longer finite.

    Args:
        result: Of training.

    Returns:
        bool `[S]`.
    """
    reasons = np.asarray(result.status.reason)
    return ~np.isin(reasons, _HEALTHY)


def score_seeds(result: SeedResult, score: Callable[[Any], Any]) -> Any:
    """Apply a function to the parameters of every seed: the best ones if validated.

    Those of a seed that diverged are its best, or last, ones before it did; `diverged`
    tells which they are.

    Args:
        result: Of training.
        score: From one seed's parameters to a pytree of arrays. Data belong into a
            `jax.tree_util.Partial`: a plain function's are compiled into the program.

    Returns:
        The pytree in NumPy, with the seeds on axis 0.
    """
    params = result.params if result.best is None else result.best.params
    if not isinstance(score, jax.tree_util.Partial):  # of one it would hide the data
        score = jax.tree_util.Partial(score)
    return jax.device_get(_score_rows(score, params))


@jax.jit
def _score_rows(score: Callable[[Any], Any], rows: Any) -> Any:
    return jax.lax.map(score, rows)


def _train_arm(
    config, console, arm, name, key, ids, rates, num_updates, optimizer, options
) -> SeedResult:
    stop_if_asked(0)
    options = {**_with_rates(optimizer, rates), **options}
    seed_block = config.seed_block
    if config.memory_budget is not None:
        plans, _ = plan_blocks(
            config,
            console,
            {name: arm.problem},
            len(ids),
            seed_block=seed_block,
            **{name: options[name] for name in _PLANNED if name in options},
        )
        seed_block = plans[name].seed_block
    result = train(
        config,
        console,
        name,
        arm.problem,
        key,
        ids,
        num_updates,
        seed_block=seed_block,
        **options,
    )
    if name == arm.name:
        save_models(config, name, arm.network, result)
    return result


def _with_rates(optimizer: OptimizerOfRate, rates: np.ndarray) -> dict[str, Any]:
    # Equal Partials for the same function: nothing is compiled twice.
    from_hyper = jax.tree_util.Partial(_from_hyper, jax.tree_util.Partial(optimizer))
    hyper = {"learning_rate": np.asarray(rates, np.float32)}
    return {"optimizer": from_hyper, "hyper": hyper}


def _from_hyper(optimizer: OptimizerOfRate, hyper: Any) -> optax.GradientTransformation:
    return optimizer(hyper["learning_rate"])
