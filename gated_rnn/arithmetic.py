"""The few array operations whose dtype and sharding rules every layer shares (layer 0).

Nothing is promoted silently: operands are cast to the kernel's dtype, sums are
accumulated in at least float32, and the caller casts the result to the dtype it wants.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.custom_derivatives import SymbolicZero

from gated_rnn.types import DType

__all__ = [
    "add_blocks",
    "affine",
    "affine_blocks",
    "at_least_float32",
    "broadcast_batch",
    "jvp_of_some",
    "layer_norm",
    "match_varying",
    "matmul",
    "name_gates",
    "present_tangents",
    "where",
]

Tree = TypeVar("Tree")

# From so many features on, a weight gradient on a CPU transposes the inputs first.
TRANSPOSE_FROM = 256


def at_least_float32(dtype: DType) -> DType:
    """Return the dtype to sum in: float64 for float64, else float32."""
    return dtype if jnp.finfo(dtype).bits > 32 else jnp.dtype(jnp.float32)


def matmul(inputs: jax.Array, kernel: jax.Array) -> jax.Array:
    """Return `inputs @ kernel` in at least float32.

    Args:
        inputs: `[*leading, K]`, cast to the dtype of the kernel.
        kernel: `[K, N]`.

    Returns:
        `[*leading, N]`, float32, or float64 for a float64 kernel.
    """
    return _matmul(jnp.asarray(inputs, kernel.dtype), kernel)


@jax.custom_jvp
def _matmul(inputs: jax.Array, kernel: jax.Array) -> jax.Array:
    dtype = at_least_float32(kernel.dtype)
    return jnp.matmul(inputs, kernel, preferred_element_type=dtype)


@functools.partial(_matmul.defjvp, symbolic_zeros=True)
def _matmul_jvp(primals: tuple[Any, Any], tangents: tuple[Any, Any]) -> Any:
    """Derive as JAX does, but by the kernel through one matmul of flat rows.

    The gradient by the kernel is then one matmul of two matrices. With the leading axes
    apart, XLA on a CPU copies the larger operand, transposed, before it multiplies.
    """
    inputs, kernel = primals
    outputs = _matmul(inputs, kernel)
    terms = []
    if not isinstance(tangents[0], SymbolicZero):
        terms.append(_matmul(tangents[0], kernel))
    if not isinstance(tangents[1], SymbolicZero):
        rows = inputs.reshape(math.prod(inputs.shape[:-1]), inputs.shape[-1])
        terms.append(_matmul_of_columns(rows, tangents[1]).reshape(outputs.shape))
    return outputs, sum(terms[1:], start=terms[0])


def _matmul_of_columns(rows: jax.Array, kernel: jax.Array) -> jax.Array:
    """Return `rows @ kernel`, whose transpose by the kernel is rows^T @ cotangents.

    XLA on a CPU is a quarter faster at a large one if `rows^T` is an array of its own,
    which the barrier sees to (docs/speed.md).
    """
    if rows.shape[1] < TRANSPOSE_FROM:
        return _matmul(rows, kernel)
    columns = jax.lax.platform_dependent(
        rows,
        cpu=lambda rows: jax.lax.optimization_barrier(rows.T),
        default=lambda rows: rows.T,
    )
    return jax.lax.dot_general(
        columns,
        kernel,
        (((0,), (0,)), ((), ())),
        preferred_element_type=at_least_float32(kernel.dtype),
    )


def affine(inputs: jax.Array, kernel: jax.Array, bias: jax.Array | None) -> jax.Array:
    """Return `inputs @ kernel + bias` in at least float32; see `matmul`."""
    outputs = matmul(inputs, kernel)
    return outputs if bias is None else outputs + bias.astype(outputs.dtype)


def affine_blocks(
    inputs: jax.Array, kernel: jax.Array, bias: jax.Array | None, num_blocks: int
) -> tuple[jax.Array, ...]:
    """Return `inputs @ kernel + bias` as one array per block of columns.

    A loop that reads one array per gate is faster on a CPU than one that cuts the gates
    out of a packed array. With a single input feature there is no matmul to share, and
    each block is computed for itself, which saves the cutting too.

    Args:
        inputs: `[*leading, F]`.
        kernel: `[F, num_blocks * H]`.
        bias: `[num_blocks * H]`, or None.
        num_blocks: Number of gates.

    Returns:
        `num_blocks` arrays `[*leading, H]`, in at least float32.
    """
    return _affine_blocks(num_blocks, inputs, kernel, bias)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _affine_blocks(
    num_blocks: int, inputs: jax.Array, kernel: jax.Array, bias: jax.Array | None
) -> tuple[jax.Array, ...]:
    if kernel.shape[0] > 1:
        return tuple(jnp.split(affine(inputs, kernel, bias), num_blocks, axis=-1))
    kernels = jnp.split(kernel, num_blocks, axis=-1)
    biases = [None] * num_blocks if bias is None else jnp.split(bias, num_blocks)
    return tuple(affine(inputs, k, b) for k, b in zip(kernels, biases, strict=True))


@functools.partial(_affine_blocks.defjvp, symbolic_zeros=True)
def _affine_blocks_jvp(num_blocks: int, primals: Any, tangents: Any) -> Any:
    """Derive through the packed form: one matmul a gradient, not one a gate."""
    outputs = _affine_blocks(num_blocks, *primals)
    _, packed = jvp_of_some(affine, primals, present_tangents(tangents))
    return outputs, tuple(jnp.split(packed, num_blocks, axis=-1))


def present_tangents(tangents: Any) -> list[jax.Array | None]:
    """Return the leaves of a tree of tangents, None for each that is zero."""

    def present(dot: Any) -> Any:
        if isinstance(dot, SymbolicZero) or dot.dtype == jax.dtypes.float0:
            return None
        return dot

    return [present(dot) for dot in jax.tree.leaves(tangents)]


def jvp_of_some(
    function: Callable[..., Any],
    primals: tuple[Any, ...],
    dots: Sequence[jax.Array | None],
) -> tuple[Any, Any]:
    """Return what `jax.jvp` does, where some tangents are missing.

    Args:
        function: Any function of pytrees.
        primals: Its arguments.
        dots: A tangent for each leaf of the arguments; None stands for zero.

    Returns:
        The results, and their tangents, or None if every tangent is missing.
    """
    leaves, structure = jax.tree.flatten(primals)
    present = [k for k, dot in enumerate(dots) if dot is not None]
    if not present:
        return function(*primals), None

    def of_present(*values: jax.Array) -> Any:
        filled = list(leaves)
        for k, value in zip(present, values, strict=True):
            filled[k] = value
        return function(*jax.tree.unflatten(structure, filled))

    return jax.jvp(of_present, [leaves[k] for k in present], [dots[k] for k in present])


def add_blocks(
    projected: Sequence[jax.Array], recurrent: jax.Array, dtype: DType
) -> tuple[jax.Array, ...]:
    """Return the preactivation of each gate, x W + b of it plus its block of h U.

    Args:
        projected: One array `[*leading, H]` a gate, as `affine_blocks` returns them.
        recurrent: `[*leading, num_blocks * H]`.
        dtype: dtype of the results.
    """
    blocks = jnp.split(recurrent, len(projected), axis=-1)
    return tuple((x + u).astype(dtype) for x, u in zip(projected, blocks, strict=True))


def layer_norm(
    values: jax.Array, gain: jax.Array, bias: jax.Array | None, epsilon: float
) -> jax.Array:
    """Return (v - mean v) / sqrt(var v + epsilon) * gain + bias over the last axis.

    Args:
        values: `[*leading, N]`; mean and variance are taken in at least float32.
        gain: `[N]`.
        bias: `[N]`, or None.
        epsilon: Added to the variance.

    Returns:
        `[*leading, N]` in the dtype of the values.

    References:
        J. Ba, J. Kiros, G. Hinton: Layer normalization, 2016, arXiv 1607.06450.
    """
    wide = values.astype(at_least_float32(values.dtype))
    centred = wide - wide.mean(axis=-1, keepdims=True)
    variance = jnp.square(centred).mean(axis=-1, keepdims=True)
    normed = centred * jax.lax.rsqrt(variance + epsilon) * gain.astype(wide.dtype)
    if bias is not None:
        normed = normed + bias.astype(wide.dtype)
    return normed.astype(values.dtype)


def name_gates(**gates: jax.Array) -> tuple[jax.Array, ...]:
    """Return the values as they are, named for `gated_rnn.gate_values` to find.

    The names are those of `jax.ad_checkpoint.checkpoint_name`, so that a policy of
    `jax.checkpoint` may tell them apart too. They cost nothing in a compiled program.
    """
    return tuple(checkpoint_name(value, name) for name, value in gates.items())


def where(flags: jax.Array, true: Tree, false: Tree) -> Tree:
    """Choose between two pytrees by bool flags over their leading axes.

    Args:
        flags: bool `[*leading]`.
        true: Pytree of arrays that broadcast to `[*leading, ...]`.
        false: Pytree of the same structure and ranks.
    """

    def choose(t: jax.Array, f: jax.Array) -> jax.Array:
        ndim = max(jnp.ndim(t), jnp.ndim(f))
        trailing = tuple(range(jnp.ndim(flags), ndim))
        return jnp.where(jnp.expand_dims(flags, trailing), t, f)

    return jax.tree.map(choose, true, false)


def broadcast_batch(carry: Tree, zeros: Tree, batch_shape: tuple[int, ...]) -> Tree:
    """Give every leaf of `carry` the batch axes `batch_shape`.

    Args:
        carry: Leaves `[*batch_shape, features]` or `[features]`.
        zeros: The cell's carry with batch shape `()`, which tells the feature axes.
        batch_shape: The batch axes wanted.
    """

    def broadcast(leaf: Any, zero: Any) -> jax.Array:
        return jnp.broadcast_to(leaf, (*batch_shape, *jnp.shape(zero)))

    return jax.tree.map(broadcast, carry, zeros)


def match_varying(tree: Tree, *likes: Any) -> Tree:
    """Make `tree` vary over every `shard_map` axis that `likes` vary over.

    A loop's carry must have one type throughout, and inside `jax.shard_map` the axes
    over which a value differs between devices are part of its type. Outside it, this
    is the identity.
    """
    wanted = frozenset[Any]().union(*map(_varying, jax.tree.leaves((tree, likes))))

    def cast(leaf: Any) -> Any:
        missing = tuple(sorted(wanted - _varying(leaf)))
        return jax.lax.pcast(leaf, missing, to="varying") if missing else leaf

    return jax.tree.map(cast, tree) if wanted else tree


def _varying(leaf: Any) -> frozenset[Any]:
    axes = getattr(jax.typeof(leaf), "manual_axis_type", None)
    return frozenset() if axes is None else axes.varying
