"""Initial values of kernels and biases, one gate block at a time (layer 0).

An initialiser is a callable `(key, shape, dtype) -> array` and is called once per gate;
those of `jax.nn.initializers` serve as well. One that must see all gates at once
(`Joint`, `ForgetBias`, `Chrono`, `PerGate`) has a method `blocks` instead.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax.nn import initializers as jax_initializers

from gated_rnn.arithmetic import at_least_float32
from gated_rnn.types import DType, Initializer, Shape, check_positive, invalid

__all__ = [
    "CUDNN",
    "FLAX",
    "KERAS",
    "TORCH",
    "Chrono",
    "Constant",
    "ForgetBias",
    "GlorotUniform",
    "HiddenUniform",
    "Identity",
    "Joint",
    "LecunNormal",
    "MemoryGates",
    "Orthogonal",
    "PerGate",
    "Zeros",
    "init_blocks",
    "init_gates",
]


class MemoryGates(NamedTuple):
    """Which gates of a cell decide how long it remembers.

    Attributes:
        keep: Name of the gate that multiplies the old memory, or, with
            `sign=-1`, of the gate that multiplies what replaces it.
        sign: +1 if a larger bias of `keep` lengthens the memory, else -1.
        write: Name of a separate gate that lets new content in, if there is one.
    """

    keep: str
    sign: int = 1
    write: str | None = None


@runtime_checkable
class BlocksInitializer(Protocol):
    """An initialiser that draws the blocks of all gates together."""

    def blocks(
        self,
        key: jax.Array,
        gates: tuple[str, ...],
        shape: Shape,
        dtype: DType,
        memory: MemoryGates | None,
    ) -> jax.Array:
        """Return `[*shape[:-1], G * shape[-1]]`, gates in the given order."""
        ...


def init_blocks(
    init: Initializer | BlocksInitializer,
    key: jax.Array,
    gates: tuple[str, ...],
    shape: Shape,
    dtype: DType = jnp.float32,
    memory: MemoryGates | None = None,
) -> jax.Array:
    """Draw one block per gate and pack them along the last axis.

    Args:
        init: The initialiser.
        key: Random key; each gate draws from its own.
        gates: Gate names in packed order.
        shape: Shape of one gate's block: `(F, H)`, `(H, H)` or `(H,)`.
        dtype: dtype of the result.
        memory: The cell's memory gates, for initialisers that ask.

    Returns:
        `[*shape[:-1], G * shape[-1]]`.
    """
    if isinstance(init, BlocksInitializer):
        return init.blocks(key, gates, shape, dtype, memory)
    keys = jax.random.split(key, len(gates))
    return jnp.concatenate([init(k, shape, dtype) for k in keys], axis=-1)


def init_gates(
    cell: Any,
    key: jax.Array,
    in_features: int,
    gates: tuple[str, ...],
    dtype: DType = jnp.float32,
    memory: MemoryGates | None = None,
    recurrent_features: int | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """Draw the packed parameters of a gated cell.

    Args:
        cell: The cell, for its fields `hidden_features`, `kernel_init`,
            `recurrent_init`, `bias_init` and `use_bias`.
        key: Random key.
        in_features: F.
        gates: Gate names in packed order.
        dtype: dtype of the parameters.
        memory: The cell's memory gates.
        recurrent_features: Rows of the recurrent kernel; None: H.

    Returns:
        The kernel `[F, G*H]`, the recurrent kernel `[H, G*H]` and the bias `[G*H]`, or
        None if the cell uses none.

    Raises:
        ValueError: If `in_features` is not a positive integer.
    """
    check_positive("in_features", in_features)
    kernel_key, recurrent_key, bias_key = jax.random.split(key, 3)
    size = cell.hidden_features

    def blocks(init: Any, block_key: jax.Array, shape: Shape) -> jax.Array:
        return init_blocks(init, block_key, gates, shape, dtype, memory)

    return (
        blocks(cell.kernel_init, kernel_key, (in_features, size)),
        blocks(cell.recurrent_init, recurrent_key, (recurrent_features or size, size)),
        blocks(cell.bias_init, bias_key, (size,)) if cell.use_bias else None,
    )


@dataclass(frozen=True)
class Zeros:
    """All zeros."""

    def __call__(
        self, key: jax.Array, shape: Shape, dtype: DType = jnp.float32
    ) -> jax.Array:
        """Return zeros of the given shape; the key is not used."""
        return jnp.zeros(shape, dtype)


@dataclass(frozen=True)
class Constant:
    """One value everywhere; `value` may be traced."""

    value: Any

    def __call__(
        self, key: jax.Array, shape: Shape, dtype: DType = jnp.float32
    ) -> jax.Array:
        """Return `value` in the given shape; the key is not used."""
        return jnp.full(shape, self.value, dtype)


@dataclass(frozen=True)
class Identity:
    """The identity matrix, times `scale`: recurrent kernels of relu networks.

    References:
        Q. Le, N. Jaitly, G. Hinton: A simple way to initialize recurrent networks of
        rectified linear units, 2015, arXiv 1504.00941.
    """

    scale: Any = 1.0

    def __call__(
        self, key: jax.Array, shape: Shape, dtype: DType = jnp.float32
    ) -> jax.Array:
        """Return the matrix; the key is not used."""
        return jnp.eye(*shape, dtype=dtype) * jnp.asarray(self.scale, dtype)


@dataclass(frozen=True)
class GlorotUniform:
    """U(-a, a) with a = sqrt(6 / (fan_in + fan_out)).

    References:
        X. Glorot, Y. Bengio: Understanding the difficulty of training deep feedforward
        neural networks, AISTATS 2010.
    """

    def __call__(
        self, key: jax.Array, shape: Shape, dtype: DType = jnp.float32
    ) -> jax.Array:
        """Draw a `[fan_in, fan_out]` matrix."""
        return jax_initializers.glorot_uniform()(key, shape, dtype)


@dataclass(frozen=True)
class LecunNormal:
    """Normal with variance 1 / fan_in, cut at two standard deviations.

    References:
        Y. LeCun, L. Bottou, G. Orr, K.-R. Mueller: Efficient BackProp, 1998.
    """

    def __call__(
        self, key: jax.Array, shape: Shape, dtype: DType = jnp.float32
    ) -> jax.Array:
        """Draw a `[fan_in, fan_out]` matrix."""
        return jax_initializers.lecun_normal()(key, shape, dtype)


@dataclass(frozen=True)
class Orthogonal:
    """A matrix with orthonormal rows or columns (whichever are fewer), times `scale`.

    Per gate block (the default of every cell) each `[H, H]` block is orthogonal.
    `Joint(Orthogonal())` makes the packed `[H, G * H]` matrix orthogonal instead, as
    Keras does; its blocks are then not orthogonal one by one.

    References:
        A. Saxe, J. McClelland, S. Ganguli: Exact solutions to the nonlinear dynamics of
        learning in deep linear neural networks, 2014, arXiv 1312.6120.
    """

    scale: Any = 1.0

    def __call__(
        self, key: jax.Array, shape: Shape, dtype: DType = jnp.float32
    ) -> jax.Array:
        """Draw a matrix; the decomposition runs in at least float32."""
        wide = at_least_float32(dtype)
        tall = jax.random.normal(key, (max(shape), min(shape)), wide)
        draw = _orthonormal_columns(tall)
        draw = draw if shape[0] >= shape[1] else draw.T
        return (draw * jnp.asarray(self.scale, wide)).astype(dtype)


def _decompose(tall: jax.Array) -> jax.Array:
    """Return the Q of a QR decomposition whose R has a positive diagonal."""
    q, r = jnp.linalg.qr(tall)
    return q * jnp.sign(jnp.diagonal(r))


# Over many seeds or gates the matrices are decomposed one after another on a CPU. As a
# batch, XLA deals them out to its threads from within its threads and waits there: as
# many batches at once as it has threads wait forever.
_orthonormal_columns = jax.custom_batching.custom_vmap(_decompose)


@_orthonormal_columns.def_vmap
def _decompose_many(
    axis_size: int, in_batched: list[bool], tall: jax.Array
) -> tuple[jax.Array, bool]:
    del axis_size, in_batched  # there is one argument, and it is batched
    columns = jax.lax.platform_dependent(
        tall,
        cpu=lambda tall: jax.lax.map(_orthonormal_columns, tall),
        default=jax.vmap(_decompose),
    )
    return columns, True


@dataclass(frozen=True)
class HiddenUniform:
    """U(-1 / sqrt H, 1 / sqrt H), with H the last axis of the block.

    Attributes:
        terms: Number of independent draws to sum. PyTorch keeps two biases per gate,
            each drawn like this; their sum is what acts, hence `terms=2` in `TORCH`.
    """

    terms: int = 1

    def __call__(
        self, key: jax.Array, shape: Shape, dtype: DType = jnp.float32
    ) -> jax.Array:
        """Draw a block whose last axis is H."""
        bound = shape[-1] ** -0.5
        draws = jax.random.uniform(
            key, (self.terms, *shape), dtype, minval=-bound, maxval=bound
        )
        return draws.sum(axis=0)


@dataclass(frozen=True)
class Joint:
    """Draw the packed matrix of all gates at once with `init`, as Keras does."""

    init: Initializer

    def blocks(
        self,
        key: jax.Array,
        gates: tuple[str, ...],
        shape: Shape,
        dtype: DType,
        memory: MemoryGates | None,
    ) -> jax.Array:
        """Return one draw of shape `[*shape[:-1], G * shape[-1]]`."""
        return self.init(key, (*shape[:-1], len(gates) * shape[-1]), dtype)


@dataclass(frozen=True, init=False)
class PerGate:
    """A default initialiser and exceptions by gate name.

    Examples:
        >>> PerGate(Zeros(), f=Constant(1.0)) == PerGate(Zeros(), f=Constant(1.0))
        True
    """

    default: Initializer
    exceptions: tuple[tuple[str, Initializer], ...]

    def __init__(self, default: Initializer, **exceptions: Initializer) -> None:
        object.__setattr__(self, "default", default)
        object.__setattr__(self, "exceptions", tuple(sorted(exceptions.items())))

    def blocks(
        self,
        key: jax.Array,
        gates: tuple[str, ...],
        shape: Shape,
        dtype: DType,
        memory: MemoryGates | None,
    ) -> jax.Array:
        """Return one draw per gate, each from its own initialiser."""
        chosen = dict(self.exceptions)
        draws = [
            chosen.get(gate, self.default)(gate_key, shape, dtype)
            for gate, gate_key in zip(
                gates, jax.random.split(key, len(gates)), strict=True
            )
        ]
        return jnp.concatenate(draws, axis=-1)


@dataclass(frozen=True)
class ForgetBias:
    """`value` on the gate named "f", zero on the others; `value` may be traced.

    A cell without a forget gate (the GRU) gets zeros, as in Keras; to lengthen the
    memory of any cell use `Chrono`.

    References:
        F. Gers, J. Schmidhuber, F. Cummins: Learning to forget, 2000,
        doi 10.1162/089976600300015015; R. Jozefowicz, W. Zaremba, I. Sutskever: An
        empirical exploration of recurrent network architectures, ICML 2015.
    """

    value: Any = 1.0

    def blocks(
        self,
        key: jax.Array,
        gates: tuple[str, ...],
        shape: Shape,
        dtype: DType,
        memory: MemoryGates | None,
    ) -> jax.Array:
        """Return the packed biases."""
        return PerGate(Zeros(), f=Constant(self.value)).blocks(
            key, gates, shape, dtype, memory
        )


@dataclass(frozen=True)
class Chrono:
    """Biases that spread the memory of the units over 1 to `max_steps` steps.

    The gate that keeps the memory gets the bias u = log U[1, max_steps - 1] (times -1
    where the gate multiplies the new content instead of the old), a separate write gate
    gets -u, all others zero. A gate at sigmoid(u) keeps a memory for about 1 + exp(u)
    steps.

    Attributes:
        max_steps: The longest memory wanted, in steps, greater than 2; may be traced.

    References:
        C. Tallec, Y. Ollivier: Can recurrent neural networks warp time?, ICLR 2018,
        arXiv 1804.11188.
    """

    max_steps: Any

    def __post_init__(self) -> None:
        steps = self.max_steps
        if isinstance(steps, int | float) and not steps > 2:
            raise invalid("max_steps", "a number above 2", repr(steps))

    def blocks(
        self,
        key: jax.Array,
        gates: tuple[str, ...],
        shape: Shape,
        dtype: DType,
        memory: MemoryGates | None,
    ) -> jax.Array:
        """Return the packed biases."""
        if memory is None:
            raise invalid("bias_init", "a cell with a memory gate for Chrono", memory)
        longest = jnp.asarray(self.max_steps, dtype) - 1
        draw = jnp.log(jax.random.uniform(key, shape, dtype, 1.0, longest))
        of_gate = {memory.keep: memory.sign * draw, memory.write: -draw}
        zeros = jnp.zeros(shape, dtype)
        return jnp.concatenate([of_gate.get(g, zeros) for g in gates], axis=-1)


# Keyword arguments for a cell: LSTM(16, **initializers.KERAS). The frameworks' own
# defaults; CuDNNLSTM's two biases add up to Keras' one, so the two presets agree.
KERAS: Mapping[str, Any] = {
    "kernel_init": Joint(GlorotUniform()),
    "recurrent_init": Joint(Orthogonal()),
    "bias_init": ForgetBias(1.0),
}
CUDNN: Mapping[str, Any] = dict(KERAS)
TORCH: Mapping[str, Any] = {
    "kernel_init": HiddenUniform(),
    "recurrent_init": HiddenUniform(),
    "bias_init": PerGate(HiddenUniform(terms=2), n=HiddenUniform()),
}
FLAX: Mapping[str, Any] = {
    "kernel_init": LecunNormal(),
    "recurrent_init": Orthogonal(),
    "bias_init": Zeros(),
}
