"""The gated recurrent unit, reset after or before the recurrent matmul (layer 1)."""

from dataclasses import KW_ONLY, dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.nn import sigmoid

from gated_rnn.arithmetic import affine_blocks, matmul, name_gates
from gated_rnn.initializers import (
    BlocksInitializer,
    GlorotUniform,
    MemoryGates,
    Orthogonal,
    Zeros,
    init_blocks,
    init_gates,
)
from gated_rnn.types import (
    Activation,
    DType,
    Initializer,
    Shape,
    check_features,
    check_kernel,
    check_positive,
)

__all__ = ["GRU", "GRUCarry", "GRUParams", "gru_step"]

GATES = ("r", "z", "n")
MEMORY = MemoryGates(keep="z")


class GRUParams(NamedTuple):
    """Parameters of the GRU, gates packed in the order r z n.

    Attributes:
        kernel: W, `[F, 3H]`.
        recurrent_kernel: U, `[H, 3H]`.
        bias: b, `[3H]`, or None.
        recurrent_bias: d, `[H]`, inside the reset product; None for reset before, and
            without biases.
    """

    kernel: jax.Array
    recurrent_kernel: jax.Array
    bias: jax.Array | None
    recurrent_bias: jax.Array | None


class GRUCarry(NamedTuple):
    """What the GRU hands from step to step.

    Attributes:
        hidden: h, `[*batch, H]`.
    """

    hidden: jax.Array


def project(params: GRUParams, inputs: jax.Array) -> tuple[jax.Array, ...]:
    """Return x W + b of each gate, three arrays `[*leading, H]`."""
    return affine_blocks(inputs, params.kernel, params.bias, len(GATES))


def recur(params: GRUParams, carry: GRUCarry, reset_after: bool = True) -> jax.Array:
    """Return h U, `[*batch, 3H]`, or for reset before h U_rz, `[*batch, 2H]`."""
    if reset_after:
        return matmul(carry.hidden, params.recurrent_kernel)
    columns = 2 * carry.hidden.shape[-1]
    return matmul(carry.hidden, params.recurrent_kernel[:, :columns])


def gate(
    params: GRUParams,
    projected: tuple[jax.Array, ...],
    recurrent: jax.Array,
    carry: GRUCarry,
    reset_after: bool = True,
    activation: Activation = jnp.tanh,
    gate_activation: Activation = sigmoid,
) -> tuple[GRUCarry, jax.Array]:
    """Join x W + b and h U into the next carry, in the dtype of the carry."""
    h = carry.hidden
    recurrent = recurrent.astype(h.dtype)
    x_r, x_z, x_n = (x.astype(h.dtype) for x in projected)
    u_r, u_z, *rest = jnp.split(recurrent, 3 if reset_after else 2, axis=-1)
    r = gate_activation(x_r + u_r)
    z = gate_activation(x_z + u_z)
    if reset_after:
        u_n = rest[0]
        if params.recurrent_bias is not None:
            u_n = u_n + params.recurrent_bias.astype(h.dtype)
        n = activation(x_n + r * u_n)
    else:
        candidate_kernel = params.recurrent_kernel[:, 2 * h.shape[-1] :]
        n = activation(x_n + matmul(r * h, candidate_kernel).astype(h.dtype))
    r, z, n = name_gates(r=r, z=z, n=n)
    h = (1 - z) * n + z * h
    return GRUCarry(hidden=h), h


def gru_step(
    params: GRUParams,
    carry: GRUCarry,
    inputs: jax.Array,
    *,
    reset_after: bool = True,
) -> tuple[GRUCarry, jax.Array]:
    """Run one step of the GRU.

        r = sigmoid(x W_r + h U_r + b_r)        z = sigmoid(x W_z + h U_z + b_z)
        n = tanh(x W_n + b_n + r * (h U_n + d_n))       reset after (as cuDNN)
        n = tanh(x W_n + b_n + (r * h) U_n)             reset before
        h' = (1 - z) * n + z * h

    The update gate z multiplies the old hidden vector; texts in which it multiplies the
    candidate are the same function with the weights and the bias of z negated. Reset
    after and reset before are different functions.

    Args:
        params: The parameters, in any float dtype.
        carry: h, `[*batch, H]`; its dtype is that of the results.
        inputs: x, `[*batch, F]`, cast to the dtype of the kernel.
        reset_after: Where the reset gate acts.

    Returns:
        The next carry, and the outputs h' `[*batch, H]`.

    Raises:
        ValueError: If the inputs do not have F features.

    Examples:
        >>> params = GRU(3).init(jax.random.key(0), in_features=2)
        >>> carry = GRU(3).init_carry(batch_shape=(5,))
        >>> carry, outputs = gru_step(params, carry, jnp.ones((5, 2)))
        >>> outputs.shape
        (5, 3)

    References:
        K. Cho et al.: Learning phrase representations using RNN encoder-decoder for
        statistical machine translation, 2014, arXiv 1406.1078 (version 1: reset after,
        version 3: reset before).
    """
    check_features("inputs", inputs, params.kernel.shape[0])
    projected, recurrent = project(params, inputs), recur(params, carry, reset_after)
    return gate(params, projected, recurrent, carry, reset_after)


@jax.tree_util.register_static
@dataclass(frozen=True)
class GRU:
    """The GRU as a cell: its configuration; the equations are those of `gru_step`.

    Attributes:
        hidden_features: H.
        reset_after: Whether the reset gate multiplies h U_n (True) or h (False).
        kernel_init: Initialiser of each `[F, H]` block of the kernel.
        recurrent_init: Initialiser of each `[H, H]` block of the recurrent kernel.
        bias_init: Initialiser of each `[H]` block of the bias; the recurrent bias is
            drawn as the block of gate n is.
        use_bias: Whether there are biases.
        activation: What makes n of its preactivation.
        gate_activation: What makes r and z of theirs.

    Examples:
        >>> cell = GRU(16)
        >>> params = cell.init(jax.random.key(0), in_features=8)
        >>> params.kernel.shape, params.bias.shape, params.recurrent_bias.shape
        ((8, 48), (48,), (16,))
    """

    hidden_features: int
    _: KW_ONLY
    reset_after: bool = True
    kernel_init: Initializer | BlocksInitializer = GlorotUniform()
    recurrent_init: Initializer | BlocksInitializer = Orthogonal()
    bias_init: Initializer | BlocksInitializer = Zeros()
    use_bias: bool = True
    activation: Activation = jnp.tanh
    gate_activation: Activation = sigmoid

    def __post_init__(self) -> None:
        check_positive("hidden_features", self.hidden_features)

    @property
    def out_features(self) -> int:
        """H."""
        return self.hidden_features

    @property
    def pointwise(self) -> bool:
        """Whether the gate is elementwise: for reset after."""
        return self.reset_after

    @property
    def recurs_in_gate(self) -> bool:
        """Whether the gate multiplies by the recurrent kernel: for reset before."""
        return not self.reset_after

    def init(
        self, key: jax.Array, in_features: int, dtype: DType = jnp.float32
    ) -> GRUParams:
        """Draw parameters.

        Args:
            key: Random key.
            in_features: F.
            dtype: dtype of the parameters.

        Raises:
            ValueError: If `in_features` is not a positive integer.
        """
        gates_key, inner_key = jax.random.split(key)
        recurrent_bias = None
        if self.use_bias and self.reset_after:
            shape = (self.hidden_features,)
            recurrent_bias = init_blocks(
                self.bias_init, inner_key, ("n",), shape, dtype, MEMORY
            )
        packed = init_gates(self, gates_key, in_features, GATES, dtype, MEMORY)
        return GRUParams(*packed, recurrent_bias)

    def init_carry(
        self, batch_shape: Shape = (), dtype: DType = jnp.float32
    ) -> GRUCarry:
        """Return h = 0, `[*batch_shape, H]`."""
        return GRUCarry(hidden=jnp.zeros((*batch_shape, self.hidden_features), dtype))

    def project(self, params: GRUParams, inputs: jax.Array) -> tuple[jax.Array, ...]:
        """Return x W + b of each gate, `[*leading, H]`, for inputs `[*leading, F]`."""
        check_kernel("params.kernel", params.kernel, 3 * self.hidden_features)
        check_features("inputs", inputs, params.kernel.shape[0])
        return project(params, inputs)

    def recur(self, params: GRUParams, carry: GRUCarry) -> jax.Array:
        """Return h U, `[*batch, 3H]`, or `[*batch, 2H]` for reset before."""
        return recur(params, carry, self.reset_after)

    def gate(
        self,
        params: GRUParams,
        projected: tuple[jax.Array, ...],
        recurrent: jax.Array,
        carry: GRUCarry,
    ) -> tuple[GRUCarry, jax.Array]:
        """Return the next carry and h'; for reset before it holds a matmul."""
        return gate(
            params,
            projected,
            recurrent,
            carry,
            self.reset_after,
            self.activation,
            self.gate_activation,
        )

    def step(
        self, params: GRUParams, carry: GRUCarry, inputs: jax.Array
    ) -> tuple[GRUCarry, jax.Array]:
        """Run one step: `gate` of `project` and `recur`."""
        projected = self.project(params, inputs)
        return self.gate(params, projected, self.recur(params, carry), carry)
