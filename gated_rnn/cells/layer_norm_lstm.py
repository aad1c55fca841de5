"""The layer-normalised LSTM (layer 1)."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.nn import sigmoid

from gated_rnn.arithmetic import add_blocks, layer_norm, matmul, name_gates
from gated_rnn.cells.packed import PackedCell
from gated_rnn.initializers import (
    BlocksInitializer,
    ForgetBias,
    MemoryGates,
    init_gates,
)
from gated_rnn.types import (
    Activation,
    DType,
    Initializer,
    check_positive,
    invalid,
)

__all__ = ["LayerNormLSTM", "LayerNormLSTMCarry", "LayerNormLSTMParams"]


class LayerNormLSTMParams(NamedTuple):
    """Parameters of the layer-normalised LSTM, gates packed in the order i f g o.

    Attributes:
        kernel: W, `[F, 4H]`.
        recurrent_kernel: U, `[H, 4H]`.
        bias: b, `[4H]`, or None.
        input_gain: `[4H]`.
        recurrent_gain: `[4H]`.
        cell_gain: `[H]`.
        cell_bias: `[H]`.
    """

    kernel: jax.Array
    recurrent_kernel: jax.Array
    bias: jax.Array | None
    input_gain: jax.Array
    recurrent_gain: jax.Array
    cell_gain: jax.Array
    cell_bias: jax.Array


class LayerNormLSTMCarry(NamedTuple):
    """What the layer-normalised LSTM hands from step to step.

    Attributes:
        hidden: h, `[*batch, H]`.
        cell: c, `[*batch, H]`, not normalised.
    """

    hidden: jax.Array
    cell: jax.Array


@jax.tree_util.register_static
@dataclass(frozen=True, kw_only=True)
class LayerNormLSTM(PackedCell):
    """The LSTM with layer normalisation of both matmuls and of the cell.

        i, f, g, o = split(norm(x W) * a + norm(h U) * e + b)
        c' = sigmoid(f) * c + sigmoid(i) * tanh(g)
        h' = sigmoid(o) * tanh(norm(c') * s + t)

    with norm(v) = (v - mean v) / sqrt(var v + epsilon) over all 4H entries of a matmul,
    and over the H entries of c'. The norms stand where Ba et al. put them, and Haste's
    LSTM; the carry keeps c' itself. TensorFlow Addons' cell hands on the normalised c'
    instead, and other libraries normalise every gate by itself.

    Attributes:
        epsilon: Added to every variance, positive.
        activation: What makes g of its preactivation, and h' of the normalised c'.
        gate_activation: What makes the gates of theirs.

    Examples:
        >>> cell = LayerNormLSTM(16)
        >>> params = cell.init(jax.random.key(0), in_features=8)
        >>> carry, outputs = cell.step(params, cell.init_carry((5,)), jnp.ones((5, 8)))
        >>> outputs.shape
        (5, 16)

    References:
        J. Ba, J. Kiros, G. Hinton: Layer normalization, 2016, arXiv 1607.06450,
        equations 20 to 22.
    """

    bias_init: Initializer | BlocksInitializer = ForgetBias(1.0)
    epsilon: float = 1e-5
    activation: Activation = jnp.tanh
    gate_activation: Activation = sigmoid

    gates = ("i", "f", "g", "o")
    memory = MemoryGates(keep="f", write="i")
    params_type = LayerNormLSTMParams
    carry_type = LayerNormLSTMCarry

    def __post_init__(self) -> None:
        check_positive("hidden_features", self.hidden_features)
        if not self.epsilon > 0:
            raise invalid("epsilon", "a positive number", self.epsilon)

    @property
    def pointwise(self) -> bool:
        """False: a norm mixes the features."""
        return False

    def init(
        self, key: jax.Array, in_features: int, dtype: DType = jnp.float32
    ) -> LayerNormLSTMParams:
        """Draw parameters; gains are one, the cell's bias is zero."""
        size = self.hidden_features
        packed = init_gates(self, key, in_features, self.gates, dtype, self.memory)
        return LayerNormLSTMParams(
            *packed,
            input_gain=jnp.ones((4 * size,), dtype),
            recurrent_gain=jnp.ones((4 * size,), dtype),
            cell_gain=jnp.ones((size,), dtype),
            cell_bias=jnp.zeros((size,), dtype),
        )

    def project(
        self, params: LayerNormLSTMParams, inputs: jax.Array
    ) -> tuple[jax.Array, ...]:
        """Return each gate's block of norm(x W) * a + b, `[*leading, H]`."""
        blocks = super().project(params._replace(bias=None), inputs)
        packed = jnp.concatenate(blocks, axis=-1)
        normed = layer_norm(packed, params.input_gain, params.bias, self.epsilon)
        return tuple(jnp.split(normed, 4, axis=-1))

    def recur(
        self, params: LayerNormLSTMParams, carry: LayerNormLSTMCarry
    ) -> jax.Array:
        """Return norm(h U) * e, `[*batch, 4H]`."""
        recurrent = matmul(carry.hidden, params.recurrent_kernel)
        return layer_norm(recurrent, params.recurrent_gain, None, self.epsilon)

    def gate(
        self,
        params: LayerNormLSTMParams,
        projected: tuple[jax.Array, ...],
        recurrent: jax.Array,
        carry: LayerNormLSTMCarry,
    ) -> tuple[LayerNormLSTMCarry, jax.Array]:
        """Return the next carry and h'."""
        dtype = carry.cell.dtype
        i, f, g, o = add_blocks(projected, recurrent, dtype)
        i, f, o = map(self.gate_activation, (i, f, o))
        i, f, g, o = name_gates(i=i, f=f, g=self.activation(g), o=o)
        c = f * carry.cell + i * g
        seen = layer_norm(c, params.cell_gain, params.cell_bias, self.epsilon)
        h = o * self.activation(seen)
        return LayerNormLSTMCarry(hidden=h, cell=c), h
