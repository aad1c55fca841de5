"""The LSTM with peephole connections (layer 1)."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.nn import sigmoid

from gated_rnn.arithmetic import add_blocks, name_gates
from gated_rnn.cells.packed import PackedCell
from gated_rnn.initializers import (
    BlocksInitializer,
    ForgetBias,
    MemoryGates,
    Zeros,
    init_blocks,
    init_gates,
)
from gated_rnn.types import Activation, DType, Initializer

__all__ = ["PeepholeLSTM", "PeepholeLSTMCarry", "PeepholeLSTMParams"]


class PeepholeLSTMParams(NamedTuple):
    """Parameters of the peephole LSTM, gates packed in the order i f g o.

    Attributes:
        kernel: W, `[F, 4H]`.
        recurrent_kernel: U, `[H, 4H]`.
        bias: b, `[4H]`, or None.
        peephole: p, `[3H]`, in the order i f o.
    """

    kernel: jax.Array
    recurrent_kernel: jax.Array
    bias: jax.Array | None
    peephole: jax.Array


class PeepholeLSTMCarry(NamedTuple):
    """What the peephole LSTM hands from step to step.

    Attributes:
        hidden: h, `[*batch, H]`.
        cell: c, `[*batch, H]`.
    """

    hidden: jax.Array
    cell: jax.Array


@jax.tree_util.register_static
@dataclass(frozen=True, kw_only=True)
class PeepholeLSTM(PackedCell):
    """The LSTM whose gates also see the cell, each unit its own.

        i = sigmoid(x W_i + h U_i + b_i + p_i * c)
        f = sigmoid(x W_f + h U_f + b_f + p_f * c)
        g = tanh(x W_g + h U_g + b_g)
        c' = f * c + i * g
        o = sigmoid(x W_o + h U_o + b_o + p_o * c')
        h' = o * tanh(c')

    Attributes:
        peephole_init: Initialiser of each `[H]` block of the peepholes; from zero they
            start as those of a plain LSTM.
        activation: What makes g of its preactivation, and h' of c'.
        gate_activation: What makes the gates of theirs.

    Examples:
        >>> cell = PeepholeLSTM(16)
        >>> params = cell.init(jax.random.key(0), in_features=8)
        >>> carry, outputs = cell.step(params, cell.init_carry((5,)), jnp.ones((5, 8)))
        >>> outputs.shape
        (5, 16)

    References:
        F. Gers, J. Schmidhuber: Recurrent nets that time and count, 2000,
        doi 10.1109/IJCNN.2000.861302.
    """

    bias_init: Initializer | BlocksInitializer = ForgetBias(1.0)
    peephole_init: Initializer | BlocksInitializer = Zeros()
    activation: Activation = jnp.tanh
    gate_activation: Activation = sigmoid

    gates = ("i", "f", "g", "o")
    memory = MemoryGates(keep="f", write="i")
    params_type = PeepholeLSTMParams
    carry_type = PeepholeLSTMCarry

    def init(
        self, key: jax.Array, in_features: int, dtype: DType = jnp.float32
    ) -> PeepholeLSTMParams:
        """Draw parameters for inputs of `in_features` features."""
        packed_key, peephole_key = jax.random.split(key)
        peephole = init_blocks(
            self.peephole_init,
            peephole_key,
            ("i", "f", "o"),
            (self.hidden_features,),
            dtype,
        )
        packed = init_gates(
            self, packed_key, in_features, self.gates, dtype, self.memory
        )
        return PeepholeLSTMParams(*packed, peephole)

    def gate(
        self,
        params: PeepholeLSTMParams,
        projected: tuple[jax.Array, ...],
        recurrent: jax.Array,
        carry: PeepholeLSTMCarry,
    ) -> tuple[PeepholeLSTMCarry, jax.Array]:
        """Return the next carry and h'."""
        dtype = carry.cell.dtype
        i, f, g, o = add_blocks(projected, recurrent, dtype)
        p_i, p_f, p_o = jnp.split(params.peephole.astype(dtype), 3)
        i = self.gate_activation(i + p_i * carry.cell)
        f = self.gate_activation(f + p_f * carry.cell)
        i, f, g = name_gates(i=i, f=f, g=self.activation(g))
        c = f * carry.cell + i * g
        (o,) = name_gates(o=self.gate_activation(o + p_o * c))
        h = o * self.activation(c)
        return PeepholeLSTMCarry(hidden=h, cell=c), h
