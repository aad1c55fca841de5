"""The long short-term memory, with a forget gate and one bias (layer 1)."""

from dataclasses import KW_ONLY, dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.nn import sigmoid

from gated_rnn.arithmetic import affine_blocks, matmul, name_gates
from gated_rnn.initializers import (
    BlocksInitializer,
    ForgetBias,
    GlorotUniform,
    MemoryGates,
    Orthogonal,
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

__all__ = ["LSTM", "LSTMCarry", "LSTMParams", "lstm_step"]

GATES = ("i", "f", "g", "o")
MEMORY = MemoryGates(keep="f", write="i")


class LSTMParams(NamedTuple):
    """Parameters of the LSTM, gates packed in the order i f g o.

    Attributes:
        kernel: W, `[F, 4H]`.
        recurrent_kernel: U, `[H, 4H]`.
        bias: b, `[4H]`, or None.
    """

    kernel: jax.Array
    recurrent_kernel: jax.Array
    bias: jax.Array | None


class LSTMCarry(NamedTuple):
    """What the LSTM hands from step to step.

    Attributes:
        hidden: h, `[*batch, H]`.
        cell: c, `[*batch, H]`.
    """

    hidden: jax.Array
    cell: jax.Array


def project(params: LSTMParams, inputs: jax.Array) -> tuple[jax.Array, ...]:
    """Return x W + b of each gate, four arrays `[*leading, H]`."""
    return affine_blocks(inputs, params.kernel, params.bias, len(GATES))


def recur(params: LSTMParams, carry: LSTMCarry) -> jax.Array:
    """Return h U, `[*batch, 4H]`."""
    return matmul(carry.hidden, params.recurrent_kernel)


def gate(
    projected: tuple[jax.Array, ...],
    recurrent: jax.Array,
    carry: LSTMCarry,
    activation: Activation = jnp.tanh,
    gate_activation: Activation = sigmoid,
    output_activation: Activation = jnp.tanh,
) -> tuple[LSTMCarry, jax.Array]:
    """Join x W + b and h U into the next carry, in the dtype of the carry."""
    i, f, g, o = (
        (x + u).astype(carry.cell.dtype)
        for x, u in zip(projected, jnp.split(recurrent, 4, axis=-1), strict=True)
    )
    i, f, o = gate_activation(i), gate_activation(f), gate_activation(o)
    i, f, g, o = name_gates(i=i, f=f, g=activation(g), o=o)
    c = f * carry.cell + i * g
    h = o * output_activation(c)
    return LSTMCarry(hidden=h, cell=c), h


def lstm_step(
    params: LSTMParams, carry: LSTMCarry, inputs: jax.Array
) -> tuple[LSTMCarry, jax.Array]:
    """Run one step of the LSTM.

        i = sigmoid(x W_i + h U_i + b_i)        f = sigmoid(x W_f + h U_f + b_f)
        g = tanh(x W_g + h U_g + b_g)           o = sigmoid(x W_o + h U_o + b_o)
        c' = f * c + i * g                      h' = o * tanh(c')

    `functools.partial(lstm_step, params)` is a body for `jax.lax.scan`.

    Args:
        params: The parameters, in any float dtype.
        carry: h and c, each `[*batch, H]`; its dtype is that of the results.
        inputs: x, `[*batch, F]`, cast to the dtype of the kernel.

    Returns:
        The next carry, and the outputs h' `[*batch, H]`.

    Raises:
        ValueError: If the inputs do not have F features.

    Examples:
        >>> params = LSTM(3).init(jax.random.key(0), in_features=2)
        >>> carry = LSTM(3).init_carry(batch_shape=(5,))
        >>> carry, outputs = lstm_step(params, carry, jnp.ones((5, 2)))
        >>> outputs.shape
        (5, 3)

    References:
        S. Hochreiter, J. Schmidhuber: Long short-term memory, 1997,
        doi 10.1162/neco.1997.9.8.1735; F. Gers, J. Schmidhuber, F. Cummins: Learning to
        forget, 2000, doi 10.1162/089976600300015015 (the forget gate).
    """
    check_features("inputs", inputs, params.kernel.shape[0])
    return gate(project(params, inputs), recur(params, carry), carry)


@jax.tree_util.register_static
@dataclass(frozen=True)
class LSTM:
    """The LSTM as a cell: its configuration; the equations are those of `lstm_step`.

    Attributes:
        hidden_features: H.
        kernel_init: Initialiser of each `[F, H]` block of the kernel.
        recurrent_init: Initialiser of each `[H, H]` block of the recurrent kernel.
        bias_init: Initialiser of each `[H]` block of the bias; the default starts the
            forget gate at sigmoid(1).
        use_bias: Whether there is a bias.
        activation: What makes g of its preactivation.
        gate_activation: What makes i, f and o of theirs.
        output_activation: What stands between c' and o; None: `activation`, as in
            Keras. With `activations.identity` h' is o * c'.

    Examples:
        >>> cell = LSTM(16)
        >>> params = cell.init(jax.random.key(0), in_features=8)
        >>> params.kernel.shape, params.recurrent_kernel.shape, params.bias.shape
        ((8, 64), (16, 64), (64,))
    """

    hidden_features: int
    _: KW_ONLY
    kernel_init: Initializer | BlocksInitializer = GlorotUniform()
    recurrent_init: Initializer | BlocksInitializer = Orthogonal()
    bias_init: Initializer | BlocksInitializer = ForgetBias(1.0)
    use_bias: bool = True
    activation: Activation = jnp.tanh
    gate_activation: Activation = sigmoid
    output_activation: Activation | None = None

    def __post_init__(self) -> None:
        check_positive("hidden_features", self.hidden_features)

    @property
    def out_features(self) -> int:
        """H."""
        return self.hidden_features

    @property
    def pointwise(self) -> bool:
        """True: the gate is elementwise."""
        return True

    def init(
        self, key: jax.Array, in_features: int, dtype: DType = jnp.float32
    ) -> LSTMParams:
        """Draw parameters.

        Args:
            key: Random key.
            in_features: F.
            dtype: dtype of the parameters.

        Raises:
            ValueError: If `in_features` is not a positive integer.
        """
        return LSTMParams(*init_gates(self, key, in_features, GATES, dtype, MEMORY))

    def init_carry(
        self, batch_shape: Shape = (), dtype: DType = jnp.float32
    ) -> LSTMCarry:
        """Return h = c = 0, each `[*batch_shape, H]`."""
        shape = (*batch_shape, self.hidden_features)
        return LSTMCarry(hidden=jnp.zeros(shape, dtype), cell=jnp.zeros(shape, dtype))

    def project(self, params: LSTMParams, inputs: jax.Array) -> tuple[jax.Array, ...]:
        """Return x W + b of each gate, `[*leading, H]`, for inputs `[*leading, F]`."""
        check_kernel("params.kernel", params.kernel, 4 * self.hidden_features)
        check_features("inputs", inputs, params.kernel.shape[0])
        return project(params, inputs)

    def recur(self, params: LSTMParams, carry: LSTMCarry) -> jax.Array:
        """Return h U, `[*batch, 4H]`."""
        return recur(params, carry)

    def gate(
        self,
        params: LSTMParams,
        projected: tuple[jax.Array, ...],
        recurrent: jax.Array,
        carry: LSTMCarry,
    ) -> tuple[LSTMCarry, jax.Array]:
        """Return the next carry and h'; elementwise, no parameter is used."""
        return gate(
            projected,
            recurrent,
            carry,
            self.activation,
            self.gate_activation,
            self.output_activation or self.activation,
        )

    def step(
        self, params: LSTMParams, carry: LSTMCarry, inputs: jax.Array
    ) -> tuple[LSTMCarry, jax.Array]:
        """Run one step: `gate` of `project` and `recur`."""
        projected = self.project(params, inputs)
        return self.gate(params, projected, self.recur(params, carry), carry)
