"""Training of many seeds at once, each with bits of its own (layer 5).

Blocks of seeds are dispatched whole to devices. The host loops over pieces of a few
updates, between which metrics come out and a state can be taken to go on from.
"""

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gated_rnn.training.guarded import Best, GuardedState, Rules, Status, StopReason
from gated_rnn.training.loop import (
    Optimizer,
    Problem,
    TrainState,
    check_count,
    check_key,
)
from gated_rnn.training.seed_blocks import (
    Block,
    Device,
    Program,
    advance_blocks,
    compile_program,
    fill_blocks,
    gather,
    hide_objects,
    start_block,
)
from gated_rnn.types import Params, check_positive, invalid

__all__ = ["Piece", "Seconds", "SeedResult", "SeedState", "train_seeds"]

MIN_SEED_BLOCK = 2  # at width 1 XLA removes the axis and compiles another program
SEED_ID_LIMIT = 2**32  # jax.random.fold_in takes a uint32


class SeedState(NamedTuple):
    """Where a run of many seeds stands, in host memory: enough to go on from.

    With the same problem, key, hyper and optimiser, `train_seeds` goes on from it to
    the same bits as if it had not stopped.

    Attributes:
        seed_ids: int64 `[S]`.
        step: How many updates have been made.
        params: Leaves `[S, ...]`.
        opt_state: The same.
        status: `reason` and `step`, int32 `[S]`, see `Status`.
        best: Leaves `[S, ...]`, see `Best`; None without validation.
    """

    seed_ids: np.ndarray
    step: int
    params: Params
    opt_state: optax.OptState
    status: Status
    best: Best | None


class Piece(NamedTuple):
    """What `on_piece` is told: all seeds have made `step` of `num_updates` updates.

    `metrics` holds the curves of the updates since the last piece, `[S, updates, ...]`
    each, `seconds` the wall time they took. `take_state()` copies the state to host
    memory, a `SeedState`; it can be called until `on_piece` returns.
    """

    step: int
    num_updates: int
    seed_ids: np.ndarray
    metrics: dict[str, np.ndarray]
    seconds: float
    take_state: Callable[[], SeedState]


class Seconds(NamedTuple):
    """Wall time of all blocks together.

    Attributes:
        compile: Tracing and compiling; near 0 where an earlier call has done it.
        start: Drawing parameters and data sets.
        pieces: `[number of pieces]`, each from dispatch to metrics in host memory.
    """

    compile: float
    start: float
    pieces: np.ndarray


class SeedResult(NamedTuple):
    """All runs, in host memory (NumPy), axis 0 in the order of `seed_ids`.

    Attributes:
        seed_ids: int64 `[S]`.
        params: After the last update; leaves `[S, ...]`. Of a seed that diverged, after
            the last finite one.
        opt_state: The same.
        metrics: `[S, num_updates, ...]` each, of the parameters before each update; NaN
            after a seed has ended. With validation also `validation`, of the parameters
            after the update, NaN where there was none.
        seconds: Where the time went.
        status: Which seeds ended, and why: `reason` (a `StopReason`) and `step`, int32
            `[S]`.
        best: With validation, the best parameters of each seed, their value and their
            step; leaves `[S, ...]`.
        state: All of it but the metrics, to go on from.
    """

    seed_ids: np.ndarray
    params: Params
    opt_state: optax.OptState
    metrics: dict[str, np.ndarray]
    seconds: Seconds
    status: Status
    best: Best | None
    state: SeedState

    @property
    def ended(self) -> dict[int, tuple[StopReason, int]]:
        """The seeds that ended before the last update: id, reason and step."""
        rows = zip(self.seed_ids, self.status.reason, self.status.step, strict=True)
        return {
            int(seed_id): (StopReason(int(reason)), int(step))
            for seed_id, reason, step in rows
            if reason != StopReason.RUNNING
        }


def train_seeds(
    problem: Problem,
    key: jax.Array,
    seed_ids: Sequence[int] | np.ndarray,
    num_updates: int,
    *,
    optimizer: Optimizer,
    hyper: Any = None,
    updates_per_piece: int = 10,
    seed_block: int = 4,
    vectorize: bool | None = None,
    validate_every: int = 10,
    patience: int | None = None,
    min_improvement: float = 0.0,
    target: float | None = None,
    state: SeedState | None = None,
    on_piece: Callable[[Piece], object] | None = None,
    devices: Sequence[Device] | None = None,
) -> SeedResult:
    """Train one network a seed, a block of seeds at a time on every device.

    Seed i runs with the key `jax.random.fold_in(key, i)`. At fixed versions, machine
    and `seed_block` its bits do not depend on which other seeds run, their order and
    number, the number of devices, `updates_per_piece`, or whether the run was cut and
    went on from a state. Another `seed_block`, or `train`, agrees up to rounding,
    which training then amplifies.

    The seeds of a block run side by side, by `jax.vmap`, which is what an accelerator
    wants, or one after another within the compiled program, which on a CPU takes about
    two thirds of the time and the scratch memory of one seed (docs/speed.md).

    A seed whose loss, gradient norm or parameters are no longer finite is frozen before
    the update that made them so, and reported in `status`; it changes no bit of the
    others. With `problem.validate` the best parameters of each seed are kept, and with
    `patience` a seed stops when they get no better, with `target` when they are good.

    All blocks make one piece before any makes the next, so progress covers all seeds.
    The state and the data set of every seed are in device memory during the whole run;
    data that seeds share belongs into a `jax.tree_util.Partial` (see `Problem`).

    A second call with the same functions and shapes compiles nothing.

    Args:
        problem: What is trained, and on what.
        key: A scalar key of `jax.random.key`, the root of all seeds.
        seed_ids: Distinct integers from 0 to 2^32 - 1, at least one.
        num_updates: How many updates to make; 0 returns the initial parameters.
        optimizer: An optax transformation, or a function from one seed's `hyper` to
            one, so that a learning rate may differ from seed to seed; see `grid`.
        hyper: A pytree for `problem.init`, `problem.dataset` and `optimizer`; leaves
            `[S, ...]`, row s for `seed_ids[s]`.
        updates_per_piece: How many updates run between two returns to the host.
        seed_block: How many seeds share a program, at least 2. The last block is
            filled up with repeats, which are trained and dropped.
        vectorize: Whether the seeds of a block run side by side. None: on everything
            but a CPU. The two agree up to rounding.
        validate_every: Updates between two calls of `problem.validate`.
        patience: A seed stops when so many updates, at least `validate_every`, have
            brought no improvement of the validation; None: never.
        min_improvement: By how much it must fall to be an improvement.
        target: A seed stops when its validation is at most this; None: never.
        state: Go on from here, a run of the same arguments; `num_updates` counts from
            the first update of that run. None: start.
        on_piece: Called on the host with a `Piece` after every piece; it observes, and
            what it returns is ignored. Its time is not counted.
        devices: Where to run, block by block in turn. None: `jax.local_devices()`.

    Returns:
        Final parameters, optimiser states and the metrics of every update made here.
        The parameters of one seed are `jax.tree.map(lambda leaf: leaf[s],
        result.params)`.

    Raises:
        ValueError: If an argument is not as said above.

    Example:
        >>> problem = Problem(
        ...     init=lambda key, hyper: jax.random.normal(key, (2,)),
        ...     loss=lambda params, batch, key: (jnp.sum((params - batch) ** 2), {}),
        ...     batch=lambda key, step: jax.random.normal(key, (2,)),
        ... )
        >>> result = train_seeds(
        ...     problem, jax.random.key(0), [3, 1, 8], 25, optimizer=optax.sgd(0.1)
        ... )
        >>> result.params.shape, result.metrics["loss"].shape
        ((3, 2), (3, 25))
    """
    check_key(key)
    ids = check_seed_ids(seed_ids)
    check_count("num_updates", num_updates)
    check_positive("updates_per_piece", updates_per_piece)
    check_positive("seed_block", seed_block)
    if seed_block < MIN_SEED_BLOCK:
        raise invalid("seed_block", f"at least {MIN_SEED_BLOCK}", seed_block)
    _check_hyper(hyper, len(ids))
    devices = jax.local_devices() if devices is None else devices
    if not devices:
        raise invalid("devices", "at least one device", repr(devices))

    rules = Rules(validate_every, patience, min_improvement, target)
    rules.check(problem)
    first_step = 0 if state is None else _check_state(state, ids, num_updates)

    functions = hide_objects(problem, optimizer)
    program = Program(functions, rules, updates_per_piece, vectorize)
    rows = fill_blocks(len(ids), seed_block)
    fills = [
        (ids[row].astype(np.uint32), jax.tree.map(lambda leaf, r=row: leaf[r], hyper))
        for row in rows
    ]
    began = time.perf_counter()
    workers = [
        compile_program(device, program, key, *fills[0])
        for device in devices[: len(fills)]
    ]
    compiled = time.perf_counter()
    blocks = [
        start_block(workers[number % len(workers)], *fill, _rows_of(state, row))
        for number, (fill, row) in enumerate(zip(fills, rows, strict=True))
    ]
    # A piece of no updates: the names and shapes of the metrics, and whatever a device
    # does on the first run of a program.
    blocks, no_curves = advance_blocks(blocks, 0, len(ids))
    started = time.perf_counter()

    curves, seconds = [no_curves], []
    for first in range(first_step, num_updates, updates_per_piece):
        count = min(updates_per_piece, num_updates - first)
        clock = time.perf_counter()
        blocks, piece_curves = advance_blocks(blocks, count, len(ids))
        seconds.append(time.perf_counter() - clock)
        curves.append(piece_curves)
        if on_piece is not None:
            on_piece(
                Piece(
                    first + count,
                    num_updates,
                    ids.copy(),
                    {name: curve.copy() for name, curve in piece_curves.items()},
                    seconds[-1],
                    functools.partial(_take_state, blocks, ids, first + count),
                )
            )

    last = _take_state(blocks, ids, max(first_step, num_updates))
    metrics = {
        name: np.concatenate([piece[name] for piece in curves], axis=1)
        for name in no_curves
    }
    return SeedResult(
        seed_ids=ids,
        params=last.params,
        opt_state=last.opt_state,
        metrics=metrics,
        seconds=Seconds(compiled - began, started - compiled, np.array(seconds)),
        status=last.status,
        best=last.best,
        state=last,
    )


def _take_state(blocks: list[Block], ids: np.ndarray, step: int) -> SeedState:
    parts = [
        (*block.state.train[:2], block.state.status, block.state.best)
        for block in blocks
    ]
    return SeedState(ids.copy(), step, *gather(parts, len(ids)))


def _rows_of(state: SeedState | None, row: np.ndarray) -> GuardedState | None:
    """Return what a block goes on from."""
    if state is None:
        return None
    params, opt_state, status, best = jax.tree.map(lambda leaf: leaf[row], state[2:])
    train = TrainState(params, opt_state, jnp.int32(state.step))
    return GuardedState(train, status, best)


def _check_state(state: SeedState, ids: np.ndarray, num_updates: int) -> int:
    """Return the step that a state stands at, if these seeds can go on from it."""
    if state.seed_ids.tolist() != ids.tolist():
        expected = f"the state of the seeds {ids.tolist()}"
        raise invalid("state", expected, f"that of {state.seed_ids.tolist()}")
    if not 0 <= state.step <= num_updates:
        expected = f"0 to {num_updates} updates made"
        raise invalid("state", expected, state.step)
    return state.step


def check_seed_ids(seed_ids: Any) -> np.ndarray:
    ids = np.asarray(seed_ids)
    if (
        ids.ndim != 1
        or ids.size == 0
        or not np.issubdtype(ids.dtype, np.integer)
        or np.unique(ids).size != ids.size
        or ids.min() < 0
        or ids.max() >= SEED_ID_LIMIT
    ):
        expected = "at least one integer, distinct, from 0 to 2^32 - 1"
        raise invalid("seed_ids", expected, ids.tolist())
    return ids.astype(np.int64)


def _check_hyper(hyper: Any, num_seeds: int) -> None:
    for leaf in jax.tree.leaves(hyper):
        if jnp.shape(leaf)[:1] != (num_seeds,):
            expected = f"leaves [S, ...] with a row for each of {num_seeds} seeds"
            raise invalid("hyper", expected, f"a leaf of shape {jnp.shape(leaf)}")
