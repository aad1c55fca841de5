"""What the shells for Linen and NNX share: layouts, dtypes, annotations (layer 4).

Flax is batch-major, `[*batch, T, F]`, the core time-major. Nothing here imports Flax.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from gated_rnn.types import (
    Carry,
    Cell,
    DType,
    Engine,
    Params,
    check_carry,
    invalid,
    params_dtype,
)
from gated_rnn.unrolling import check_engine, lengths_to_mask, unroll

__all__ = [
    "Sequence",
    "annotate",
    "check_cell",
    "check_engine_of",
    "check_network",
    "check_order",
    "features_of",
    "run_cell",
    "step_cell",
    "to_layout",
    "to_time_major",
]


class Sequence(NamedTuple):
    """A time-major sequence.

    Attributes:
        inputs: `[T, *batch, F]`, or tokens `[T, *batch]`.
        mask: bool `[T, *batch]`, or None.
        resets: bool `[T, *batch]`, or None.
    """

    inputs: jax.Array
    mask: jax.Array | None
    resets: jax.Array | None


def to_time_major(
    inputs: jax.Array,
    mask: jax.Array | None,
    seq_lengths: jax.Array | None,
    resets: jax.Array | None,
    *,
    time_major: bool,
    num_feature_axes: int = 1,
) -> Sequence:
    """Move time to the front, and make a mask of lengths.

    Args:
        inputs: `[T, *batch, F]` if `time_major`, else `[*batch, T, F]`.
        mask: bool, as the inputs without features, or None.
        seq_lengths: Integers `[*batch]`, or None.
        resets: As `mask`.
        time_major: Where time stands.
        num_feature_axes: 1, or 0 for tokens.

    Raises:
        ValueError: If a shape does not fit, or if both a mask and lengths are given.
    """
    layout = "[T, *batch" if time_major else "[*batch, T"
    expected = f"an array {layout}{', F' * num_feature_axes}]"
    if not hasattr(inputs, "shape"):
        raise invalid("inputs", expected, f"a {type(inputs).__name__}")
    num_steps_axes = len(inputs.shape) - num_feature_axes
    if num_steps_axes < 1:
        raise invalid("inputs", expected, f"shape {inputs.shape}")
    axis = 0 if time_major else num_steps_axes - 1
    shape = inputs.shape[:num_steps_axes]

    def move(name: str, flags: jax.Array | None) -> jax.Array | None:
        if flags is None or axis == 0:
            return flags
        expected = f"a bool array of shape {layout}] = {shape}"
        if not hasattr(flags, "shape"):
            raise invalid(name, expected, f"a {type(flags).__name__}")
        if flags.shape != shape:
            raise invalid(name, expected, f"shape {flags.shape}")
        return jnp.moveaxis(flags, axis, 0)

    mask = move("mask", mask)
    if seq_lengths is not None:
        if mask is not None:
            raise invalid("seq_lengths", "None beside a mask", "both")
        batch_shape = (*shape[:axis], *shape[axis + 1 :])
        if jnp.shape(seq_lengths) != batch_shape:
            expected = f"integers of shape [*batch] = {batch_shape}"
            raise invalid("seq_lengths", expected, f"shape {jnp.shape(seq_lengths)}")
        mask = lengths_to_mask(seq_lengths, shape[axis])
    return Sequence(jnp.moveaxis(inputs, axis, 0), mask, move("resets", resets))


def to_layout(outputs: jax.Array, *, time_major: bool) -> jax.Array:
    """Return outputs `[T, *batch, features]` in the layout of the inputs."""
    return outputs if time_major else jnp.moveaxis(outputs, 0, -2)


def run_cell(
    cell: Cell,
    params: Params,
    sequence: Sequence,
    *,
    dtype: DType | None,
    engine: Engine | None,
    initial_carry: Carry | None,
    reset_carry: Carry | None,
    reverse: bool,
) -> tuple[Carry, jax.Array]:
    """Run `unroll` with the kernels in `dtype`; the carry keeps that of `params`."""
    if initial_carry is None:
        initial_carry = cell.init_carry((), params_dtype(params))
    return unroll(
        cell,
        _cast_kernels(params, dtype),
        sequence.inputs,
        initial_carry,
        reset_carry=reset_carry,
        mask=sequence.mask,
        resets=sequence.resets,
        reverse=reverse,
        engine=engine,
    )


def step_cell(
    cell: Cell,
    params: Params,
    carry: Carry,
    inputs: jax.Array,
    dtype: DType | None,
) -> tuple[Carry, jax.Array]:
    """Run one step on inputs `[*batch, F]`, with the kernels in `dtype`."""
    check_carry("carry", carry, cell.init_carry(), jnp.shape(inputs)[:-1])
    return cell.step(_cast_kernels(params, dtype), carry, inputs)


def annotate(
    params: Params, partitioning: Any, box: Callable[[Any, tuple[Any, ...]], Any]
) -> Params:
    """Put the names of mesh axes around parameters.

    Args:
        params: The parameters.
        partitioning: A `PartitionSpec` or None for each parameter, in their structure;
            None: no annotation.
        box: From a parameter and its names, one a dimension, to what is stored.

    Raises:
        ValueError: If the structure or a number of dimensions does not fit.
    """
    if partitioning is None:
        return params

    def annotate_one(spec: PartitionSpec | None, value: Any) -> Any:
        if spec is None or value is None:
            return value
        if not isinstance(spec, PartitionSpec) or len(spec) > jnp.ndim(value):
            expected = f"a PartitionSpec of at most {jnp.ndim(value)} axes"
            raise invalid("partitioning", f"{expected}, or None", repr(spec))
        names = (*spec, *[None] * (jnp.ndim(value) - len(spec)))
        return box(value, names)

    def is_spec(node: Any) -> bool:
        return node is None or isinstance(node, PartitionSpec)

    structure = jax.tree.structure(partitioning, is_leaf=is_spec)
    try:
        values = structure.flatten_up_to(params)
    except ValueError:
        expected = f"a PartitionSpec for each parameter of {jax.tree.structure(params)}"
        raise invalid("partitioning", expected, repr(partitioning)) from None
    specs = jax.tree.leaves(partitioning, is_leaf=is_spec)
    return jax.tree.unflatten(structure, map(annotate_one, specs, values))


def check_cell(cell: Any) -> None:
    """Raise unless `cell` is a cell of this package or one like it."""
    if isinstance(cell, type) or not hasattr(cell, "gate"):
        raise invalid("cell", "a gated_rnn cell such as LSTM(16)", _kind(cell))


def check_network(net: Any) -> None:
    """Raise unless `net` is a network of this package or one like it."""
    if isinstance(net, type) or not hasattr(net, "init_carry") or hasattr(net, "gate"):
        expected = "a gated_rnn network such as Stack(RNN(LSTM(16)), Dense(1))"
        raise invalid("net", expected, _kind(net))


def _kind(value: Any) -> str:
    """Return what a value is, in a word: others' modules print in many lines."""
    return repr(value) if isinstance(value, type) else type(value).__name__


def check_engine_of(cell: Cell, engine: Engine | None) -> None:
    """Raise unless `engine` is None or runs the cell."""
    if engine is not None:
        check_engine(engine, cell)


def check_order(keep_order: bool | None) -> None:
    """Raise where outputs in reverse are wanted in the order they were made in."""
    if keep_order is not None and not keep_order:
        raise invalid(
            "keep_order", "True (outputs stay aligned with the inputs)", keep_order
        )


def features_of(inputs: jax.Array) -> int:
    """Return F of inputs `[*leading, F]`."""
    shape = getattr(inputs, "shape", ())
    if not shape:
        got = f"shape {shape}" if hasattr(inputs, "shape") else type(inputs).__name__
        raise invalid("inputs", "an array [*batch, F]", got)
    return shape[-1]


def _cast_kernels(params: Params, dtype: DType | None) -> Params:
    """Return the parameters with the kernels, all matrices, in `dtype`."""
    if dtype is None:
        return params
    return jax.tree.map(lambda p: p.astype(dtype) if jnp.ndim(p) > 1 else p, params)
