"""What is trained, variant by variant, and what came of each in dollars."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
from rich.console import Console

from experiments.arms import Arm, diverged, score_seeds, train_arms
from experiments.bitcoin.config import Config
from experiments.bitcoin.forecasts import Errors, Task, measure_errors
from experiments.bitcoin.problem import (
    batches_per_epoch,
    count_recurrent_parameters,
    forecaster,
    keras_rmsprop,
    make_network,
    make_problem,
)
from gated_rnn.training import SeedResult


class Variant(NamedTuple):
    """A network and the days it is trained on.

    Attributes:
        name: As that of an `Arm`.
        label: What a person reads.
        cell: A name of `experiments.cells`.
        task: The data.
        hidden_features: Units of the recurrent layers.
        dropout: Behind each of them.
    """

    name: str
    label: str
    cell: str
    task: Task
    hidden_features: tuple[int, ...]
    dropout: float

    @property
    def num_parameters(self) -> int:
        """Parameters of the recurrent layers."""
        return count_recurrent_parameters(self.cell, self.hidden_features)


class Outcome(NamedTuple):
    """What came of a variant; rows are seeds.

    Attributes:
        variant: The variant.
        rate: Its learning rate.
        loss: Mean over the batches of each epoch, `[S, E]`, with dropout, scaled.
        validation: After each epoch, `[S, E]`, scaled.
        best_epoch: The epoch with the best validation, `[S]`, from 1.
        diverged: bool `[S]`.
        last: Closes that were forecast for the test days after the last epoch,
            `[S, N]`; NaN where a seed diverged.
        best: The same after the epoch with the best validation.
    """

    variant: Variant
    rate: float
    loss: np.ndarray
    validation: np.ndarray
    best_epoch: np.ndarray
    diverged: np.ndarray
    last: np.ndarray
    best: np.ndarray

    def errors(self, which: str = "last") -> Errors:
        """Measure the forecasts `which`, "last" or "best": errors `[S]`."""
        task = self.variant.task
        return measure_errors(getattr(self, which), task.truth(task.data.test))


def make_arm(config: Config, variant: Variant) -> Arm:
    """Make of a variant what `experiments.arms` trains."""
    network = make_network(variant.cell, variant.hidden_features, variant.dropout)
    problem = make_problem(variant.task, network, config.batch_size)
    return Arm(variant.name, variant.label, network, problem)


def train_options(task: Task, config: Config) -> dict[str, int]:
    """Say how often training returns to the host and validates: once an epoch."""
    every = batches_per_epoch(task, config.batch_size)
    return {"updates_per_piece": every, "validate_every": every}


def train_variants(
    config: Config,
    console: Console,
    variants: Sequence[Variant],
    key: jax.Array,
    *,
    num_updates: int,
    rates: Mapping[str, float] | None = None,
) -> dict[str, Outcome]:
    """Train variants and forecast the test days of each.

    Args:
        config: The settings, `num_seeds` and `seed_block` among them.
        console: Where progress goes.
        variants: What is trained.
        key: Root of the seeds.
        num_updates: Updates of each; made up to whole epochs.
        rates: Learning rates by the variant's name; `config.learning_rate` where there
            is none.

    Returns:
        What came of each, by its name.

    Raises:
        UsageError: As `train_arms`.
        Stopped: The same.
    """
    outcomes = {}
    for variant in variants:
        rate = (rates or {}).get(variant.name, config.learning_rate)
        arm = make_arm(config, variant)
        every = batches_per_epoch(variant.task, config.batch_size)
        results = train_arms(
            config,
            console,
            [arm],
            key,
            math.ceil(num_updates / every) * every,
            optimizer=keras_rmsprop,
            rates={variant.name: rate},
            **train_options(variant.task, config),
        )
        result = results[variant.name]
        outcomes[variant.name] = _finish(variant, arm, rate, result, every)
    return outcomes


def _finish(
    variant: Variant, arm: Arm, rate: float, result: SeedResult, every: int
) -> Outcome:
    task = variant.task
    lost = diverged(result)
    score = forecaster(arm.network, task.data.test)

    def forecasts(result: SeedResult) -> np.ndarray:
        closes = task.to_closes(task.data.test, score_seeds(result, score))
        return np.where(lost[:, None], np.nan, closes)

    loss, validation = (result.metrics[name] for name in ("loss", "validation"))
    num_seeds = len(loss)
    return Outcome(
        variant,
        rate,
        loss=loss.reshape(num_seeds, -1, every).mean(axis=2),
        validation=validation[:, every - 1 :: every],
        best_epoch=np.asarray(result.best.step) // every,
        diverged=lost,
        last=forecasts(result._replace(best=None)),
        best=forecasts(result),
    )
