"""Training of many seeds at once, each with bits of its own (layer 5).

Seeds run in blocks of one fixed width, because the width of a `jax.vmap` changes the
last bits of what it computes. All blocks run one program, compiled once for each
device, and each is dispatched whole to one device. The host loops over pieces of a few
updates, between which metrics come out; nothing calls back from compiled code.
"""

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gated_rnn.training.loop import (
    Metrics,
    Optimizer,
    Problem,
    RunInputs,
    TrainState,
    advance_run,
    check_count,
    check_key,
    start_run,
)
from gated_rnn.types import Params, check_positive, invalid

__all__ = ["Piece", "Seconds", "SeedResult", "train_seeds"]

Device = Any  # a jax.Device

# The step is the same for all seeds of a block and not mapped: a batch that depends on
# the step alone exists once, not once a seed.
STATE_AXES = TrainState._make((0, 0, None))

MIN_SEED_BLOCK = 2  # at width 1 XLA removes the axis and compiles another program
SEED_ID_LIMIT = 2**32  # jax.random.fold_in takes a uint32


class Piece(NamedTuple):
    """What `on_piece` is told: all seeds have made `step` of `num_updates` updates.

    `metrics` holds the curves of the updates since the last piece, `[S, updates, ...]`
    each, `seconds` the wall time they took.
    """

    step: int
    num_updates: int
    seed_ids: np.ndarray
    metrics: dict[str, np.ndarray]
    seconds: float


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
        params: After the last update; leaves `[S, ...]`.
        opt_state: The same.
        metrics: `[S, num_updates, ...]` each, of the parameters before each update.
        seconds: Where the time went.
    """

    seed_ids: np.ndarray
    params: Params
    opt_state: optax.OptState
    metrics: dict[str, np.ndarray]
    seconds: Seconds


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
    on_piece: Callable[[Piece], object] | None = None,
    devices: Sequence[Device] | None = None,
) -> SeedResult:
    """Train one network a seed, a block of seeds at a time on every device.

    Seed i runs with the key `jax.random.fold_in(key, i)`. At fixed versions, machine
    and `seed_block` its bits do not depend on which other seeds run, their order and
    number, the number of devices, or `updates_per_piece`; a seed that diverges leaves
    the others as they are. Another `seed_block`, or `train`, agrees up to rounding,
    which training then amplifies.

    The seeds of a block run side by side, by `jax.vmap`, which is what an accelerator
    wants, or one after another within the compiled program, which on a CPU takes about
    two thirds of the time and the scratch memory of one seed (docs/speed.md).

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
            one, so that a learning rate may differ from seed to seed.
        hyper: A pytree for `problem.init`, `problem.dataset` and `optimizer`; leaves
            `[S, ...]`, row s for `seed_ids[s]`.
        updates_per_piece: How many updates run between two returns to the host.
        seed_block: How many seeds share a program, at least 2. The last block is
            filled up with repeats, which are trained and dropped.
        vectorize: Whether the seeds of a block run side by side. None: on everything
            but a CPU. The two agree up to rounding.
        on_piece: Called on the host with a `Piece` after every piece; it observes, and
            what it returns is ignored. Its time is not counted.
        devices: Where to run, block by block in turn. None: `jax.local_devices()`.

    Returns:
        Final parameters, optimiser states and the metrics of every update; the
        parameters of one seed are `jax.tree.map(lambda leaf: leaf[s], result.params)`.

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
    ids = _check_seed_ids(seed_ids)
    check_count("num_updates", num_updates)
    check_positive("updates_per_piece", updates_per_piece)
    check_positive("seed_block", seed_block)
    if seed_block < MIN_SEED_BLOCK:
        raise invalid("seed_block", f"at least {MIN_SEED_BLOCK}", seed_block)
    _check_hyper(hyper, len(ids))
    devices = jax.local_devices() if devices is None else devices
    if not devices:
        raise invalid("devices", "at least one device", repr(devices))

    program = _hide_objects((problem, optimizer))
    fills = _fill_blocks(ids, hyper, seed_block)
    began = time.perf_counter()
    workers = [
        _compile(device, program, key, *fills[0], updates_per_piece, vectorize)
        for device in devices[: len(fills)]
    ]
    compiled = time.perf_counter()
    blocks = [
        _start(workers[number % len(workers)], *fill)
        for number, fill in enumerate(fills)
    ]
    # A piece of no updates: the names and shapes of the metrics, and whatever a device
    # does on the first run of a program.
    blocks, no_curves = _advance(blocks, 0, len(ids))
    started = time.perf_counter()

    curves, seconds = [no_curves], []
    for first in range(0, num_updates, updates_per_piece):
        count = min(updates_per_piece, num_updates - first)
        clock = time.perf_counter()
        blocks, piece_curves = _advance(blocks, count, len(ids))
        seconds.append(time.perf_counter() - clock)
        curves.append(piece_curves)
        if on_piece is not None:
            observed = {name: curve.copy() for name, curve in piece_curves.items()}
            on_piece(
                Piece(first + count, num_updates, ids.copy(), observed, seconds[-1])
            )

    params, opt_state = _gather(
        [(block.state.params, block.state.opt_state) for block in blocks], len(ids)
    )
    metrics = {
        name: np.concatenate([piece[name] for piece in curves], axis=1)
        for name in no_curves
    }
    spent = Seconds(compiled - began, started - compiled, np.array(seconds))
    return SeedResult(ids, params, opt_state, metrics, spent)


@jax.tree_util.register_static
class _Object:
    """A function or option in a pytree: static, compared by identity.

    So a pytree of functions and arrays can be an argument of a compiled function, which
    is compiled again when a function is another and not when an array is.
    """

    def __init__(self, value: Any):
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Object) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


def _hide_objects(tree: Any) -> Any:
    def hide(leaf: Any) -> Any:
        return leaf if isinstance(leaf, jax.Array | np.ndarray) else _Object(leaf)

    return jax.tree.map(hide, tree)


def _show_objects(tree: Any) -> Any:
    def show(leaf: Any) -> Any:
        return leaf.value if isinstance(leaf, _Object) else leaf

    return jax.tree.map(show, tree, is_leaf=lambda leaf: isinstance(leaf, _Object))


@jax.jit
def _start_seeds(
    program: Any, key: jax.Array, ids: jax.Array, hyper: Any
) -> tuple[TrainState, RunInputs]:
    problem, optimizer = _show_objects(program)

    def start_seed(seed_id: jax.Array, hyper: Any) -> tuple[TrainState, RunInputs]:
        return start_run(problem, optimizer, jax.random.fold_in(key, seed_id), hyper)

    return jax.vmap(start_seed, out_axes=(STATE_AXES, 0))(ids, hyper)


@functools.partial(
    jax.jit,
    static_argnames=("updates_per_piece", "vectorize"),
    donate_argnames="state",
)
def _advance_seeds(
    program: Any,
    state: TrainState,
    inputs: RunInputs,
    count: jax.Array,
    updates_per_piece: int,
    vectorize: bool,
) -> tuple[TrainState, Metrics]:
    """Make `count` updates, a traced number; curves `[seed_block, updates_per_piece]`.

    The barrier keeps the writing of the curves, whose length depends on
    `updates_per_piece`, out of the kernels that compute the update.
    """
    problem, optimizer = _show_objects(program)

    def advance_seed(
        state: TrainState, inputs: RunInputs
    ) -> tuple[TrainState, Metrics]:
        def update(state: TrainState) -> tuple[TrainState, Metrics]:
            return advance_run(problem, optimizer, state, inputs)

        def body(
            index: jax.Array, carry: tuple[TrainState, Metrics]
        ) -> tuple[TrainState, Metrics]:
            state, metrics = jax.lax.optimization_barrier(update(carry[0]))
            curves = jax.tree.map(lambda c, m: c.at[index].set(m), carry[1], metrics)
            return state, curves

        _, metrics = jax.eval_shape(update, state)
        curves = jax.tree.map(
            lambda m: jnp.zeros((updates_per_piece, *m.shape), m.dtype), metrics
        )
        return jax.lax.fori_loop(0, count, body, (state, curves))

    if vectorize:
        axes = (STATE_AXES, 0)
        return jax.vmap(advance_seed, in_axes=axes, out_axes=axes)(state, inputs)

    def advance_in_turn(
        seed: tuple[Params, optax.OptState, RunInputs],
    ) -> tuple[TrainState, Metrics]:
        params, opt_state, inputs = seed
        return advance_seed(TrainState(params, opt_state, state.step), inputs)

    seeds = (state.params, state.opt_state, inputs)
    advanced, curves = jax.lax.map(advance_in_turn, seeds)
    return advanced._replace(step=state.step + count), curves


class _Worker(NamedTuple):
    """A device with its copy of what all seeds share, and what is compiled for it."""

    device: Device
    program: Any
    key: jax.Array
    start: Callable[..., Any]
    advance: Callable[..., Any]


class _Block(NamedTuple):
    """Seeds that run together, and where."""

    worker: _Worker
    state: TrainState
    inputs: RunInputs


def _compile(
    device: Device,
    program: Any,
    key: jax.Array,
    ids: np.ndarray,
    hyper: Any,
    updates_per_piece: int,
    vectorize: bool | None,
) -> _Worker:
    """Compile for a device, given the seeds of any block."""
    vectorize = device.platform != "cpu" if vectorize is None else vectorize
    program, key, ids, hyper = jax.device_put((program, key, ids, hyper), device)
    home = jax.sharding.SingleDeviceSharding(device)
    state, inputs = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=home),
        jax.eval_shape(_start_seeds, program, key, ids, hyper),
    )
    start = _start_seeds.lower(program, key, ids, hyper)
    advance = _advance_seeds.lower(
        program,
        state,
        inputs,
        np.int32(0),
        updates_per_piece=updates_per_piece,
        vectorize=vectorize,
    )
    return _Worker(device, program, key, start.compile(), advance.compile())


def _start(worker: _Worker, ids: np.ndarray, hyper: Any) -> _Block:
    ids, hyper = jax.device_put((ids, hyper), worker.device)
    state, inputs = worker.start(worker.program, worker.key, ids, hyper)
    return _Block(worker, state, inputs)


def _advance(
    blocks: list[_Block], count: int, num_seeds: int
) -> tuple[list[_Block], dict[str, np.ndarray]]:
    """Make `count` updates in all blocks; return the curves `[S, count, ...]`.

    Dispatch does not wait, so blocks on different devices run at the same time.
    """
    advanced, curves = [], []
    for block in blocks:
        state, block_curves = block.worker.advance(
            block.worker.program, block.state, block.inputs, np.int32(count)
        )
        advanced.append(block._replace(state=state))
        curves.append(block_curves)
    whole = _gather(curves, num_seeds)
    return advanced, {name: curve[:, :count] for name, curve in whole.items()}


def _gather(parts: list[Any], num_seeds: int) -> Any:
    """Fetch pytrees `[seed_block, ...]` of all blocks; return one, `[S, ...]`."""

    def join(*leaves: Any) -> Any:
        if jnp.issubdtype(leaves[0].dtype, jax.dtypes.prng_key):  # NumPy has no keys
            data = join(*map(jax.random.key_data, leaves))
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaves[0]))
        return np.concatenate(jax.device_get(leaves))[:num_seeds]

    return jax.tree.map(join, *parts)


def _fill_blocks(ids: np.ndarray, hyper: Any, width: int) -> list[tuple[Any, Any]]:
    """Deal the seeds and their hyper to blocks; fill the last one with repeats."""
    num_blocks = -(-len(ids) // width)
    rows = np.resize(np.arange(len(ids)), (num_blocks, width))
    return [
        (ids[row].astype(np.uint32), jax.tree.map(lambda leaf, r=row: leaf[r], hyper))
        for row in rows
    ]


def _check_seed_ids(seed_ids: Any) -> np.ndarray:
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
