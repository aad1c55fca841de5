"""How a run is cut in time, from shapes alone, and what it will keep (layer 1)."""

import math
from typing import Any, NamedTuple

import jax

from gated_rnn.types import Carry, Cell, Params

__all__ = ["Plan", "make_plan"]

# A block's arrays should stay in the last cache; shorter loops do not pay.
BLOCK_BYTES = 6 * 2**20
SHORTEST_BLOCK = 64
# From this many features a recurrent matmul costs more than keeping its result.
KEEP_RECURRENT_FROM = 48
# Arrays of a block, in multiples of what `project` returns.
ARRAYS_OF_A_BLOCK = 4


class Plan(NamedTuple):
    """How `FusedScan` runs a cell.

    Attributes:
        chunk_size: Steps per recomputed chunk, or None.
        block_size: Steps whose derivative is computed at once.
        keep_recurrent: Whether what `recur` returns is kept for the backward pass.
        elementwise: Whether the gate says that it is elementwise.
        output_leaf: Which leaf of the carry the outputs are, or None.
    """

    chunk_size: int | None
    block_size: int
    keep_recurrent: bool
    elementwise: bool
    output_leaf: int | None


def make_plan(
    cell: Cell,
    params: Params,
    inputs: Any,
    carry: Carry,
    *,
    collect: bool,
    chunk_size: int | None,
    memory_budget: int | None,
) -> Plan:
    """Return the plan of a run over inputs of at least one step."""
    num_steps = jax.tree.leaves(inputs)[0].shape[0]
    one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), inputs)
    projected = jax.eval_shape(cell.project, params, one)
    recurrent = jax.eval_shape(cell.recur, params, carry)
    if chunk_size is not None and chunk_size >= num_steps:
        chunk_size = None
    steps = num_steps if chunk_size is None else chunk_size
    block_size = max(
        SHORTEST_BLOCK, BLOCK_BYTES // max(1, ARRAYS_OF_A_BLOCK * num_bytes(projected))
    )
    if steps <= 2 * block_size:
        block_size = steps
    features = max(leaf.shape[-1] for leaf in jax.tree.leaves(carry))
    return Plan(
        chunk_size=chunk_size,
        block_size=block_size,
        keep_recurrent=features >= KEEP_RECURRENT_FROM,
        elementwise=cell.pointwise,
        output_leaf=_find_outputs(cell, params, projected, recurrent, carry),
    )


def num_bytes(tree: Any) -> int:
    """Return the bytes of all arrays of a tree."""
    return sum(
        math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree)
    )


def _find_outputs(
    cell: Cell, params: Params, projected: Any, recurrent: Any, carry: Carry
) -> int | None:
    """Return which leaf of the next carry the outputs are, the same value, or None."""
    program = jax.make_jaxpr(cell.gate)(params, projected, recurrent, carry).jaxpr
    num_leaves = len(jax.tree.leaves(carry))
    carries, outputs = program.outvars[:num_leaves], program.outvars[num_leaves:]
    if len(outputs) != 1 or outputs[0] not in carries:
        return None
    return carries.index(outputs[0])
