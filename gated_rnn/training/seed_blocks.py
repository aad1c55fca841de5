"""The compiled programs that a block of seeds runs, on one device (layer 5).

Seeds run in blocks of one fixed width, because the width of a `jax.vmap` changes the
last bits of what it computes. All blocks run one program, compiled once for each
device; nothing calls back from compiled code.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gated_rnn.training.guarded import (
    GuardedState,
    Rules,
    StopReason,
    advance_guarded,
    start_guarded,
)
from gated_rnn.training.loop import (
    Metrics,
    Optimizer,
    Problem,
    RunInputs,
    TrainState,
)
from gated_rnn.types import invalid

__all__ = [
    "Block",
    "Device",
    "Program",
    "Worker",
    "advance_blocks",
    "compile_program",
    "fill_blocks",
    "gather",
    "hide_objects",
    "start_block",
]

Device = Any  # a jax.Device

# The step is the same for all seeds of a block and not mapped: a batch that depends on
# the step alone exists once, not once a seed.
STATE_AXES = GuardedState._make((TrainState._make((0, 0, None)), 0, 0))


class Program(NamedTuple):
    """What all blocks run, hashable but for the arrays in it.

    Attributes:
        functions: The problem and the optimiser, from `hide_objects`.
        rules: When a seed stops.
        updates_per_piece: How many updates a call makes at most.
        vectorize: Whether the seeds of a block run side by side; None: on everything
            but a CPU.
    """

    functions: Any
    rules: Rules
    updates_per_piece: int
    vectorize: bool | None


class Worker(NamedTuple):
    """A device with its copy of what all seeds share, and what is compiled for it."""

    device: Device
    functions: Any
    key: jax.Array
    start: Any
    advance: Any
    no_metrics: dict[str, np.ndarray]  # of a block that has ended


class Block(NamedTuple):
    """Seeds that run together, and where."""

    worker: Worker
    state: GuardedState
    inputs: RunInputs


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


def hide_objects(problem: Problem, optimizer: Optimizer) -> Any:
    """Return a problem and its optimiser as an argument of a compiled function."""

    def hide(leaf: Any) -> Any:
        return leaf if isinstance(leaf, jax.Array | np.ndarray) else _Object(leaf)

    return jax.tree.map(hide, (problem, optimizer))


def _show_objects(tree: Any) -> Any:
    def show(leaf: Any) -> Any:
        return leaf.value if isinstance(leaf, _Object) else leaf

    return jax.tree.map(show, tree, is_leaf=lambda leaf: isinstance(leaf, _Object))


@jax.jit
def _start_seeds(
    functions: Any, key: jax.Array, ids: jax.Array, hyper: Any
) -> tuple[GuardedState, RunInputs]:
    problem, optimizer = _show_objects(functions)

    def start_seed(seed_id: jax.Array, hyper: Any) -> tuple[GuardedState, RunInputs]:
        seed_key = jax.random.fold_in(key, seed_id)
        return start_guarded(problem, optimizer, seed_key, hyper)

    return jax.vmap(start_seed, out_axes=(STATE_AXES, 0))(ids, hyper)


@functools.partial(
    jax.jit,
    static_argnames=("rules", "updates_per_piece", "vectorize"),
    donate_argnames="state",
)
def _advance_seeds(
    functions: Any,
    state: GuardedState,
    inputs: RunInputs,
    count: jax.Array,
    rules: Rules,
    updates_per_piece: int,
    vectorize: bool,
) -> tuple[GuardedState, Metrics]:
    """Make `count` updates, a traced number; curves `[seed_block, updates_per_piece]`.

    The barrier keeps the writing of the curves, whose length depends on
    `updates_per_piece`, out of the kernels that compute the update. In turn, a seed
    that has ended makes no update: its curves stay blank.
    """
    problem, optimizer = _show_objects(functions)

    def advance_seed(
        state: GuardedState, inputs: RunInputs, count: jax.Array
    ) -> tuple[GuardedState, Metrics]:
        def update(state: GuardedState) -> tuple[GuardedState, Metrics]:
            return advance_guarded(problem, optimizer, rules, state, inputs)

        def body(
            index: jax.Array, carry: tuple[GuardedState, Metrics]
        ) -> tuple[GuardedState, Metrics]:
            state, metrics = jax.lax.optimization_barrier(update(carry[0]))
            curves = jax.tree.map(lambda c, m: c.at[index].set(m), carry[1], metrics)
            return state, curves

        _, metrics = jax.eval_shape(update, state)
        curves = jax.tree.map(
            lambda m: jnp.asarray(_blank((updates_per_piece, *m.shape), m.dtype)),
            metrics,
        )
        return jax.lax.fori_loop(0, count, body, (state, curves))

    if vectorize:
        axes = (STATE_AXES, 0)
        advance = jax.vmap(advance_seed, in_axes=(*axes, None), out_axes=axes)
        return advance(state, inputs, count)

    def advance_in_turn(seed: Any) -> tuple[GuardedState, Metrics]:
        params, opt_state, rest, inputs = seed
        train = TrainState(params, opt_state, state.train.step)
        whole = GuardedState(train, *rest)
        running = whole.status.reason == StopReason.RUNNING
        return advance_seed(whole, inputs, jnp.where(running, count, 0))

    seeds = (state.train.params, state.train.opt_state, state[1:], inputs)
    advanced, curves = jax.lax.map(advance_in_turn, seeds)
    train = advanced.train._replace(step=state.train.step + count)
    return advanced._replace(train=train), curves


def compile_program(
    device: Device, program: Program, key: jax.Array, ids: np.ndarray, hyper: Any
) -> Worker:
    """Compile for a device, given the seeds of any block."""
    vectorize = program.vectorize
    if vectorize is None:
        vectorize = device.platform != "cpu"
    functions, key, ids, hyper = jax.device_put(
        (program.functions, key, ids, hyper), device
    )
    home = jax.sharding.SingleDeviceSharding(device)
    state, inputs = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=home),
        jax.eval_shape(_start_seeds, functions, key, ids, hyper),
    )
    start = _start_seeds.lower(functions, key, ids, hyper)
    advance = _advance_seeds.lower(
        functions,
        state,
        inputs,
        np.int32(0),
        rules=program.rules,
        updates_per_piece=program.updates_per_piece,
        vectorize=vectorize,
    )
    _, curves = advance.out_info
    blank = {name: _blank(curve.shape, curve.dtype) for name, curve in curves.items()}
    return Worker(device, functions, key, start.compile(), advance.compile(), blank)


def _blank(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    value = np.nan if jnp.issubdtype(dtype, jnp.inexact) else 0
    return np.full(shape, value, dtype)


def start_block(worker: Worker, ids: np.ndarray, hyper: Any, state: Any) -> Block:
    """Draw parameters and data sets; go on from `state` where there is one."""
    ids, hyper = jax.device_put((ids, hyper), worker.device)
    first, inputs = worker.start(worker.functions, worker.key, ids, hyper)
    if state is not None:
        _check_fits(state, first)
        first = jax.device_put(state, worker.device)
    return Block(worker, first, inputs)


def _check_fits(state: GuardedState, first: GuardedState) -> None:
    """Raise unless a state is one of this problem, optimiser and rules."""

    def describe(state: GuardedState) -> dict[str, str]:
        leaves = jax.tree_util.tree_leaves_with_path(state)
        names = [
            jax.tree_util.keystr(path).removeprefix(".train") for path, _ in leaves
        ]
        kinds = [f"{leaf.dtype}{list(leaf.shape[1:])}" for _, leaf in leaves]
        return dict(zip(names, kinds, strict=True))

    expected, got = describe(first), describe(state)
    for name in {**expected, **got}:
        if expected.get(name) != got.get(name):
            said = [
                f"{name} of {d[name]}" if name in d else f"no {name}"
                for d in (expected, got)
            ]
            raise invalid("state", *said)
    if jax.tree.structure(state) != jax.tree.structure(first):
        raise invalid("state", *map(str, map(jax.tree.structure, (first, state))))


def advance_blocks(
    blocks: list[Block], count: int, num_seeds: int
) -> tuple[list[Block], dict[str, np.ndarray]]:
    """Make `count` updates in all blocks; return the curves `[S, count, ...]`.

    Dispatch does not wait, so blocks on different devices run at the same time. Blocks
    none of whose seeds is trained any more do not run.
    """
    advanced, curves = [], []
    for block, ended in [(block, _has_ended(block)) for block in blocks]:
        worker, block_curves = block.worker, block.worker.no_metrics
        if not ended:
            state, block_curves = worker.advance(
                worker.functions, block.state, block.inputs, np.int32(count)
            )
            block = block._replace(state=state)
        advanced.append(block)
        curves.append(block_curves)
    whole = gather(curves, num_seeds)
    return advanced, {name: curve[:, :count] for name, curve in whole.items()}


def _has_ended(block: Block) -> bool:
    reasons = jax.device_get(block.state.status.reason)
    return bool(np.all(reasons != StopReason.RUNNING))


def gather(parts: list[Any], num_seeds: int) -> Any:
    """Fetch pytrees `[seed_block, ...]` of all blocks; return one, `[S, ...]`."""

    def join(*leaves: Any) -> Any:
        if jnp.issubdtype(leaves[0].dtype, jax.dtypes.prng_key):  # NumPy has no keys
            data = join(*map(jax.random.key_data, leaves))
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaves[0]))
        return np.concatenate(jax.device_get(leaves))[:num_seeds]

    return jax.tree.map(join, *parts)


def fill_blocks(num_seeds: int, width: int) -> np.ndarray:
    """Deal the rows of the seeds to blocks `[num_blocks, width]`.

    The last one is filled up with repeats.
    """
    num_blocks = -(-num_seeds // width)
    return np.resize(np.arange(num_seeds), (num_blocks, width))
