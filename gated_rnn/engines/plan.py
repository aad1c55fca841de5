"""How a run is cut in time, from shapes alone, and what it will keep (layer 1)."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax

from gated_rnn.engines.gate_activations import Activations, find_activations
from gated_rnn.types import Carry, Cell, Params, invalid

__all__ = ["Plan", "even_size", "fit_plan", "make_plan"]

# A block's arrays should stay in the last cache. Shorter loops do not pay, unless they
# save allotting arrays so large that the system hands out fresh pages for them.
BLOCK_BYTES = 6 * 2**20
SHORTEST_BLOCK = 64
LARGE_BYTES = 64 * 2**20
SHORTEST_LARGE_BLOCK = 16
# From this many features a recurrent matmul costs more than keeping its result, or the
# activations of the gate in its stead.
KEEP_RECURRENT_FROM = 48
# The same for input features and the projection, where there are several blocks.
KEEP_PROJECTED_FROM = 48
# Arrays of a block while it is derived, in multiples of what `project` returns.
ARRAYS_OF_A_BLOCK = 4
# The same for the prediction, counted in the compiler's buffers: for each array that
# `recur` returns, itself, an activation and a cotangent; four as large as the outputs.
PER_RECURRENT, PER_OUTPUT = 3, 4
# Where activations are kept: each of them and a cotangent; the rest as large as the
# outputs.
PER_ACTIVATION, PER_OUTPUT_BESIDE = 2, 6
# A gate that is not elementwise is derived step by step, with all it computes on hand.
PER_ANY_GATE = 7
# The XLA of jax 0.10.2 copies inputs of one feature to multiply by them, that of 0.12
# does not; between them nothing was looked at.
COPIES_SINGLE_FEATURES = jax.__version_info__ < (0, 11)


class Plan(NamedTuple):
    """How `FusedScan` runs a cell.

    Attributes:
        num_steps: T.
        chunk_size: Steps per recomputed chunk, or None.
        block_size: Steps whose derivative is computed at once.
        keep_projected: Whether what `project` returns is kept for the backward pass.
        keep_recurrent: Whether what `recur` returns is kept for the backward pass, as
            far as its derivative reads it.
        makers: For each activation of the gate that is kept, the leaf of `project` in
            whose place it is kept, or None; None if none is kept.
        elementwise: Whether the gate says that it is elementwise.
        output_leaf: Which leaf of the carry the outputs are, or None.
        num_bytes: Predicted bytes of a gradient by the parameters beyond the inputs,
            the outputs and their cotangents.
    """

    num_steps: int
    chunk_size: int | None
    block_size: int
    keep_projected: bool
    keep_recurrent: bool
    makers: tuple[int | None, ...] | None
    elementwise: bool
    output_leaf: int | None
    num_bytes: int

    @property
    def keep_activations(self) -> bool:
        """Whether the activations of the gate are kept for the backward pass."""
        return self.makers is not None


class _Step(NamedTuple):
    """Shapes of one step, and the activations of an elementwise gate."""

    inputs: Any
    projected: Any
    recurrent: Any
    carry: Any
    outputs: Any
    output_leaf: int | None
    activations: Activations | None


def make_plan(
    cell: Cell,
    params: Params,
    inputs: Any,
    carry: Carry,
    collect: bool,
    chunk_size: int | None,
) -> Plan:
    """Return the plan of a run over inputs of at least one step, by their shapes."""
    num_steps = jax.tree.leaves(inputs)[0].shape[0]
    step = _step(cell, params, inputs, carry)
    return _plan(cell, step, num_steps, collect, chunk_size)


def fit_plan(
    cell: Cell,
    params: Params,
    inputs: Any,
    carry: Carry,
    collect: bool,
    memory_budget: int,
) -> Plan:
    """Return the plan with the longest chunks whose prediction fits a budget.

    Raises:
        ValueError: If no chunk size fits.
    """
    num_steps = jax.tree.leaves(inputs)[0].shape[0]
    step = _step(cell, params, inputs, carry)
    plans = [_plan(cell, step, num_steps, collect, size) for size in _sizes(num_steps)]
    for plan in plans:
        if plan.num_bytes <= memory_budget:
            return plan
    least = min(plan.num_bytes for plan in plans)
    raise invalid(
        "memory_budget", f"at least {least} bytes for these shapes", memory_budget
    )


def even_size(num_steps: int, size: int) -> int:
    """Return the largest divisor of `num_steps` from `size` / 2 to `size`, or `size`.

    A chunk that is shorter than the others costs a copy of every sequence.
    """
    divisors = (k for k in range(size, size // 2, -1) if num_steps % k == 0)
    return next(divisors, size)


def _sizes(num_steps: int) -> Iterator[int | None]:
    """Return chunk sizes to try, the fastest first."""
    yield None
    size = num_steps // 2
    while size:
        yield even_size(num_steps, size)
        size //= 2


def _plan(
    cell: Cell, step: _Step, num_steps: int, collect: bool, chunk_size: int | None
) -> Plan:
    if chunk_size is not None and chunk_size >= num_steps:
        chunk_size = None
    steps = num_steps if chunk_size is None else chunk_size
    block_size = steps
    per_step = max(1, ARRAYS_OF_A_BLOCK * _num_bytes(step.projected))
    large = SHORTEST_BLOCK * per_step > LARGE_BYTES
    shortest = SHORTEST_LARGE_BLOCK if large else SHORTEST_BLOCK
    longest = max(shortest, BLOCK_BYTES // per_step)
    # A program exported for any number of steps is one block.
    if isinstance(steps, int) and steps > 2 * longest:
        block_size = even_size(steps, longest)
    features = max(leaf.shape[-1] for leaf in jax.tree.leaves(step.carry))
    keep_recurrent = features >= KEEP_RECURRENT_FROM
    keep_projected = block_size != steps and _features(step) >= KEEP_PROJECTED_FROM
    projected, recurrent = _num_bytes(step.projected), _num_bytes(step.recurrent)
    activations = step.activations if keep_recurrent else None
    if activations:
        _, projected_reads, recurrent_reads, _ = activations.features
        recurrent = _bytes_read(step.recurrent, recurrent_reads)
        projected = _bytes_read(step.projected, projected_reads)
        keep_recurrent, keep_projected = recurrent > 0, keep_projected and projected > 0
    carry = _num_bytes(step.carry)
    kept = carry + (_num_bytes(activations.shapes) if activations else 0)
    kept += keep_projected * projected + keep_recurrent * recurrent
    if collect and chunk_size is None and step.output_leaf is not None:
        kept -= _num_bytes(step.outputs)  # they are outputs of the program already
    predicted = block_size * _bytes_of_block_step(cell, step, activations)
    if block_size != steps:
        predicted += steps * kept
    if chunk_size is not None:
        if collect and block_size != steps:
            predicted += steps * _num_bytes(step.outputs)  # the chunk's cotangents
        predicted += -(-num_steps // chunk_size) * carry
    if _features(step) == 1 and COPIES_SINGLE_FEATURES:
        predicted += num_steps * _num_bytes(step.inputs)
    return Plan(
        num_steps=num_steps,
        chunk_size=chunk_size,
        block_size=block_size,
        keep_projected=keep_projected,
        keep_recurrent=keep_recurrent,
        makers=activations.makers if activations else None,
        elementwise=cell.pointwise,
        output_leaf=step.output_leaf,
        num_bytes=predicted,
    )


def _bytes_of_block_step(
    cell: Cell, step: _Step, activations: Activations | None
) -> int:
    """Return what a block takes while it is derived, for each of its steps."""
    projected, recurrent, outputs = map(
        _num_bytes, (step.projected, step.recurrent, step.outputs)
    )
    if not cell.pointwise:
        return PER_ANY_GATE * (projected + recurrent)
    if activations:
        # They take the place of the projection.
        return (
            PER_ACTIVATION * _num_bytes(activations.shapes)
            + PER_OUTPUT_BESIDE * outputs
        )
    derived = PER_RECURRENT * recurrent + PER_OUTPUT * outputs
    # One input feature is multiplied where it is needed, and not kept projected.
    return derived + (projected if _features(step) > 1 else 0)


def _features(step: _Step) -> int:
    """Return the number of input features, flags of a step apart."""
    leaves = jax.tree.leaves(step.inputs)
    return max((x.shape[-1] for x in leaves if x.dtype != bool), default=1)


def _step(cell: Cell, params: Params, inputs: Any, carry: Carry) -> _Step:
    """Return the shapes of one step, and which leaf of the carry the outputs are."""
    one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), inputs)
    projected = jax.eval_shape(cell.project, params, one)
    recurrent = jax.eval_shape(cell.recur, params, carry)
    program, (_, outputs) = jax.make_jaxpr(cell.gate, return_shape=True)(
        params, projected, recurrent, carry
    )
    num_leaves = len(jax.tree.leaves(carry))
    results = program.jaxpr.outvars
    carries, output = results[:num_leaves], results[num_leaves:]
    leaf = None
    if len(output) == 1 and output[0] in carries:
        leaf = carries.index(output[0])
    activations = None
    if cell.pointwise:
        arguments = (params, projected, recurrent, carry)
        found = find_activations(cell.gate, arguments, source=2, made_of=1)
        activations = found if found.shapes else None
    return _Step(one, projected, recurrent, carry, outputs, leaf, activations)


def _bytes_read(tree: Any, features: list[int]) -> int:
    """Return the bytes of so many features of each array."""
    return sum(
        _num_bytes(leaf) * read // leaf.shape[-1]
        for leaf, read in zip(jax.tree.leaves(tree), features, strict=True)
    )


def _num_bytes(tree: Any) -> int:
    """Return the bytes of all arrays; an axis of symbolic size counts as one."""
    return sum(
        math.prod(size for size in leaf.shape if isinstance(size, int))
        * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )
