"""Training of many seeds that can be killed at any moment and goes on (layer 5).

A checkpoint holds the state of every seed and all metrics so far. What follows from the
key, the data sets above all, is drawn again.
"""

import functools
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from gated_rnn.training.checkpoints import CheckpointError, Checkpoints
from gated_rnn.training.loop import Optimizer, Problem
from gated_rnn.training.metrics_log import MetricsLog
from gated_rnn.training.run_checkpoints import (
    Rows,
    Run,
    environment_of,
    first_state,
    restore,
    save,
)
from gated_rnn.training.saved_state import Group, join_curves, join_equal
from gated_rnn.training.seeds import (
    Piece,
    Seconds,
    SeedResult,
    SeedState,
    check_seed_ids,
    train_seeds,
)

__all__ = ["Stopped", "train_resumable"]


class Stopped(Exception):  # noqa: N818 (nothing went wrong)
    """Training ended before its last update, because it was asked to; all is saved.

    Attributes:
        step: How many updates the seeds that were running have made.
    """

    def __init__(self, step: int):
        super().__init__(f"stopped after {step} updates")
        self.step = step


def train_resumable(
    problem: Problem,
    key: jax.Array,
    seed_ids: Sequence[int] | np.ndarray,
    num_updates: int,
    *,
    optimizer: Optimizer,
    checkpoints: Checkpoints,
    resume: bool,
    identity: Mapping[str, Any],
    hyper: Any = None,
    seed_block: int = 4,
    metrics_file: str | os.PathLike[str] | None = None,
    save_seconds: float = 30.0,
    should_stop: Callable[[], bool] | None = None,
    on_piece: Callable[[Piece], object] | None = None,
    on_notice: Callable[[str], object] | None = None,
    **options: Any,
) -> SeedResult:
    """Train as `train_seeds` does, with checkpoints; go on from the newest one.

    With `resume` the result is that of a run which was never interrupted, bit for bit,
    under the conditions of `train_seeds`: parameters, optimiser state, metrics of every
    update. A finished run can be made longer, and be given more seeds; seeds that
    were not there before start at their first update and run first.

    Args:
        problem: What is trained, and on what.
        key: As for `train_seeds`.
        seed_ids: The same; with `resume` at least those of the checkpoint.
        num_updates: The same, from the first update on.
        optimizer: The same.
        checkpoints: Where they are written and read.
        resume: Go on from the newest intact checkpoint; without one, start. Otherwise
            start anew; there must be no checkpoints.
        identity: What makes it this run, in JSON's types: the settings that must be
            equal when it goes on. Number of seeds and updates are not among them.
        hyper: As for `train_seeds`; must be equal, too, for the seeds of a checkpoint.
        seed_block: As for `train_seeds`.
        metrics_file: A file of JSON lines, one for each seed and update; after an
            interruption it has each line once.
        save_seconds: Save when so much time has passed since the last checkpoint; the
            end is always saved.
        should_stop: Asked after every piece; if it says yes, all is saved and `Stopped`
            is raised.
        on_piece: As for `train_seeds`, for the seeds that are running.
        on_notice: Told, in one line each, what is good to know about going on: a
            damaged checkpoint that was passed over, other versions than before.
        **options: The other arguments of `train_seeds`.

    Returns:
        The result, with the metrics of all updates; `seconds.pieces` has those of all
        pieces that were saved.

    Raises:
        CheckpointError: If checkpoints are there and `resume` is false, none of them
            can be read, they are of another run, or one or the metrics cannot be
            written.
        Stopped: If `should_stop` said so.
        ValueError: As `train_seeds`.
    """
    ids = check_seed_ids(seed_ids)
    train = functools.partial(
        train_seeds, problem, key, optimizer=optimizer, seed_block=seed_block, **options
    )
    run = Run(
        train=train,
        checkpoints=checkpoints,
        # As it comes back from a checkpoint: a tuple is a list.
        identity=json.loads(
            json.dumps({**identity, "key": jax.random.key_data(key).tolist()})
        ),
        hyper=Rows(ids, hyper),
        environment=environment_of(seed_block, options.get("vectorize")),
        seconds=[],
    )
    notice = on_notice or (lambda line: None)
    groups = restore(run, ids, notice) if resume else _start_anew(run)
    _check_steps(groups, num_updates, checkpoints)
    known = {int(i) for group in groups for i in group.state.seed_ids}
    new = np.array([i for i in ids if int(i) not in known], np.int64)
    if new.size:
        groups.insert(0, first_state(run, new))
    groups = join_equal(groups)
    log = None if metrics_file is None else MetricsLog(Path(metrics_file))
    if log is not None:
        log.rewrite([(group.state.seed_ids, group.curves) for group in groups])

    clock = _Clock(save_seconds, should_stop)
    spent = np.zeros(2)
    for number, group in enumerate(groups):
        if group.state.step >= num_updates:
            continue
        observers = [] if log is None else [log.append]
        observers += [] if on_piece is None else [on_piece]
        watch = _Watcher(run, groups, number, clock, observers)
        ids_of_group = group.state.seed_ids
        result = train(
            ids_of_group,
            num_updates,
            hyper=run.hyper.of(ids_of_group),
            state=group.state,
            on_piece=watch,
        )
        spent += result.seconds.compile, result.seconds.start
        if groups[number].state.step < num_updates:  # not saved by the watcher
            groups[number] = Group(result.state, join_curves(watch.pieces))
            save(run, groups)
    (whole,) = join_equal(groups)
    compiling, starting = spent.tolist()
    seconds = Seconds(compiling, starting, np.array(run.seconds))
    return _result(whole, ids, seconds)


class _Clock:
    """When to save, and when to stop."""

    def __init__(self, save_seconds: float, should_stop: Callable[[], bool] | None):
        self._save_seconds = save_seconds
        self._saved_at = time.monotonic()
        self.should_stop = should_stop or (lambda: False)

    def is_due(self) -> bool:
        """Tell whether a checkpoint is due, and if so count from now."""
        due = time.monotonic() - self._saved_at >= self._save_seconds
        if due:
            self._saved_at = time.monotonic()
        return due


class _Watcher:
    """The `on_piece` of a group: gathers its metrics and saves all groups."""

    def __init__(
        self,
        run: Run,
        groups: list[Group],
        number: int,
        clock: _Clock,
        observers: list[Callable[[Piece], object]],
    ):
        self.pieces = [groups[number].curves]
        self._run, self._groups, self._number = run, groups, number
        self._clock, self._observers = clock, observers

    def __call__(self, piece: Piece) -> None:
        self.pieces.append(piece.metrics)
        self._run.seconds.append(piece.seconds)
        for observe in self._observers:
            observe(piece)
        stops = self._clock.should_stop()
        if self._clock.is_due() or stops:
            curves = join_curves(self.pieces)
            self._groups[self._number] = Group(piece.take_state(), curves)
            save(self._run, self._groups)
        if stops:
            raise Stopped(piece.step)


def _start_anew(run: Run) -> list[Group]:
    if run.checkpoints.numbers():
        raise CheckpointError(
            f"There are checkpoints of an earlier run in {run.checkpoints.directory}: "
            "resume it, or choose another folder."
        )
    return []


def _check_steps(
    groups: list[Group], num_updates: int, checkpoints: Checkpoints
) -> None:
    made = max((group.state.step for group in groups), default=0)
    if made > num_updates:
        raise CheckpointError(
            f"The run in {checkpoints.directory} has made {made} updates: expected "
            f"num_updates of at least as many, got {num_updates}."
        )


def _result(group: Group, ids: np.ndarray, seconds: Seconds) -> SeedResult:
    """Return the seeds in the order in which they were asked for."""
    tree, curves = Rows(group.state.seed_ids, (group.state[2:], group.curves)).of(ids)
    state = SeedState(ids, group.state.step, *tree)
    return SeedResult(
        seed_ids=ids,
        params=state.params,
        opt_state=state.opt_state,
        metrics=curves,
        seconds=seconds,
        status=state.status,
        best=state.best,
        state=state,
    )
