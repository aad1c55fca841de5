"""Training on pieces of long sequences: many short ones first, few long ones later.

One epoch is one pass over the data: with 100 pieces 100 updates, the hidden state
handed on from piece to piece, with one piece full backpropagation. Each seed goes to
fewer pieces when its own loss has stopped falling. Seeds run in turn, a part of them
on each device.
"""

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from experiments.data.price_process import Dataset
from experiments.long_sequences.config import Config
from experiments.long_sequences.problem import (
    choose_optimizer,
    make_network,
    make_problem,
    objective,
)
from gated_rnn.training import (
    Piece,
    PieceSchedule,
    PieceState,
    TrainState,
    make_truncated_step,
    truncated_epoch,
)
from gated_rnn.training.loop import start_run

_AXIS = "seeds"


class Course(NamedTuple):
    """Where the seeds of one arm stand, in host memory.

    Attributes:
        train: Parameters, optimiser state and updates made; leaves `[S, ...]`.
        schedules: Where each seed's schedule stands.
        losses: `[S, epochs]`: mean over an epoch's pieces, each before its update; NaN
            once a seed has diverged, which keeps the state from before that epoch.
        counts: `[S, epochs]`, into how many pieces the epoch was cut.
        seconds: `[epochs]`, of all seeds together.
    """

    train: TrainState
    schedules: tuple[PieceState, ...]
    losses: np.ndarray
    counts: np.ndarray
    seconds: np.ndarray

    @property
    def num_epochs(self) -> int:
        """How many epochs have been trained."""
        return self.losses.shape[1]

    @property
    def diverged(self) -> np.ndarray:
        """Which seeds were given up, bool `[S]`."""
        return ~np.isfinite(self.losses).all(axis=1)


class Trainer:
    """Trains the seeds of one arm, epoch by epoch.

    Args:
        config: The settings.
        cell: "lstm" or "gru".
        schedule: Into how many pieces to cut, and when into fewer.
        data_key: Root of the data.
        train_key: Root of the seeds: parameters and data are those of `train_seeds`.
        seed_ids: `[S]`.
        devices: Where to run; None: all local ones.
    """

    def __init__(
        self,
        config: Config,
        cell: str,
        schedule: PieceSchedule,
        data_key: jax.Array,
        train_key: jax.Array,
        seed_ids: np.ndarray,
        devices: Sequence[jax.Device] | None = None,
    ):
        self.schedule, self.num_seeds = schedule, len(seed_ids)
        devices = jax.local_devices() if devices is None else devices
        width = min(len(devices), self.num_seeds)
        mesh = jax.sharding.Mesh(np.array(devices[:width]), (_AXIS,))
        self._sharding = NamedSharding(mesh, PartitionSpec(_AXIS))
        # As many a device: the last ones are repeated, trained and dropped.
        self._rows = np.resize(
            np.arange(len(seed_ids)), -(-len(seed_ids) // width) * width
        )

        def spread(function: Callable) -> Callable:
            spec = PartitionSpec(_AXIS)
            mapped = functools.partial(jax.lax.map, function)
            return jax.jit(
                jax.shard_map(
                    mapped, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False
                )
            )

        problem, optimizer = (
            make_problem(config, cell, data_key),
            choose_optimizer(config),
        )

        def start(seed_id: jax.Array) -> tuple[TrainState, Dataset]:
            key = jax.random.fold_in(train_key, seed_id)
            state, inputs = start_run(problem, optimizer, key, seed_id)
            own = () if problem.dataset is None else (inputs.dataset,)
            return state, problem.batch(inputs.batch_key, state.step, *own)

        ids = np.asarray(seed_ids, np.uint32)[self._rows]
        self._first, self._data = spread(start)(jax.device_put(ids, self._sharding))
        self._advance = spread(_make_epoch(config, cell, schedule))

    def start(self) -> Course:
        """Return the seeds before their first epoch."""
        nothing = np.zeros((self.num_seeds, 0))
        schedules = (self.schedule.init(),) * self.num_seeds
        train = self._fetch(self._first)
        return Course(train, schedules, nothing, nothing.astype(int), np.zeros(0))

    def advance(self, course: Course) -> Course:
        """Train one epoch of every seed that has not diverged.

        Args:
            course: Where the seeds stand.

        Returns:
            Where they stand after it.
        """
        began = time.perf_counter()
        ended = course.diverged
        phases = np.array([state.phase for state in course.schedules], np.int32)
        phases = np.where(ended, len(self.schedule.counts), phases)
        rows = (phases, course.train)
        placed = jax.tree.map(
            lambda leaf: jax.device_put(leaf[self._rows], self._sharding), rows
        )
        train, losses = self._fetch(self._advance((*placed, self._data)))
        counts = np.append(self.schedule.counts, 0)[phases]
        schedules = tuple(
            self.schedule.update(state, loss) if np.isfinite(loss) else state
            for state, loss in zip(course.schedules, losses, strict=True)
        )
        return Course(
            train,
            schedules,
            np.append(course.losses, losses[:, None].astype(float), axis=1),
            np.append(course.counts, counts[:, None], axis=1),
            np.append(course.seconds, time.perf_counter() - began),
        )

    def _fetch(self, tree: Any) -> Any:
        """Copy to host memory, without the repeats."""
        return jax.tree.map(lambda leaf: np.asarray(leaf)[: self.num_seeds], tree)


def describe_epoch(course: Course, seed_ids: np.ndarray, num_epochs: int) -> Piece:
    """Tell of the last epoch what a progress bar shows.

    Args:
        course: After the epoch.
        seed_ids: `[S]`.
        num_epochs: Of the whole run.

    Returns:
        What `show_progress` takes.
    """
    return Piece(
        course.num_epochs,
        num_epochs,
        seed_ids,
        {"loss": course.losses[:, -1:]},
        float(course.seconds[-1]),
        lambda: None,
    )


def _make_epoch(config: Config, cell: str, schedule: PieceSchedule) -> Callable:
    """Build the epoch of one seed: `(phase, state, data) -> (state, loss)`.

    The phase after the last one does nothing.
    """
    network = make_network(config, cell)

    def loss(params: Any, carry: Any, batch: Dataset, key: None) -> Any:
        carry, predictions = network.apply(params, batch.inputs, carry)
        return objective(config, predictions, batch.targets), (carry, {})

    train_step = make_truncated_step(loss, choose_optimizer(config))

    def make_branch(count: int) -> Callable:
        piece_size = -(-config.num_steps // count)
        starts = np.arange(0, config.num_steps, piece_size)
        sizes = np.diff(starts, append=config.num_steps)

        def branch(state: TrainState, data: Dataset) -> tuple[TrainState, jax.Array]:
            after, _, metrics = truncated_epoch(
                train_step,
                state,
                network.init_carry((data.inputs.shape[1],)),
                data,
                None,
                piece_size=piece_size,
            )
            mean = jnp.average(metrics["loss"], weights=jnp.asarray(sizes, jnp.float32))
            finite = [
                jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(after.params)
            ]
            fine = jnp.isfinite(mean) & jnp.stack(finite).all()
            kept = jax.tree.map(
                lambda new, old: jnp.where(fine, new, old), after, state
            )
            return kept, jnp.where(fine, mean, jnp.nan)

        return branch

    def rest(state: TrainState, data: Dataset) -> tuple[TrainState, jax.Array]:
        return state, jnp.float32(jnp.nan)

    branches = [*map(make_branch, schedule.counts), rest]

    def epoch(
        row: tuple[jax.Array, TrainState, Dataset],
    ) -> tuple[TrainState, jax.Array]:
        phase, state, data = row
        return jax.lax.switch(phase, branches, state, data)

    return epoch
