"""The LSTM without an output gate (layer 1)."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.nn import sigmoid

from gated_rnn.arithmetic import add_blocks, name_gates
from gated_rnn.cells.packed import PackedCell
from gated_rnn.initializers import BlocksInitializer, ForgetBias, MemoryGates
from gated_rnn.types import Activation, Initializer

__all__ = ["OpenLSTM", "OpenLSTMCarry", "OpenLSTMParams"]


class OpenLSTMParams(NamedTuple):
    """Parameters of the LSTM without output gate, gates packed in the order i f g.

    Attributes:
        kernel: W, `[F, 3H]`.
        recurrent_kernel: U, `[H, 3H]`.
        bias: b, `[3H]`, or None.
    """

    kernel: jax.Array
    recurrent_kernel: jax.Array
    bias: jax.Array | None


class OpenLSTMCarry(NamedTuple):
    """What the LSTM without output gate hands from step to step.

    Attributes:
        hidden: h, `[*batch, H]`.
        cell: c, `[*batch, H]`.
    """

    hidden: jax.Array
    cell: jax.Array


@jax.tree_util.register_static
@dataclass(frozen=True, kw_only=True)
class OpenLSTM(PackedCell):
    """The LSTM whose output gate is always open (NOG).

        i = sigmoid(x W_i + h U_i + b_i)        f = sigmoid(x W_f + h U_f + b_f)
        g = tanh(x W_g + h U_g + b_g)
        c' = f * c + i * g                      h' = tanh(c')

    Attributes:
        activation: What makes g of its preactivation, and h' of c'.
        gate_activation: What makes the gates of theirs.

    Examples:
        >>> cell = OpenLSTM(16)
        >>> params = cell.init(jax.random.key(0), in_features=8)
        >>> carry, outputs = cell.step(params, cell.init_carry((5,)), jnp.ones((5, 8)))
        >>> outputs.shape
        (5, 16)

    References:
        K. Greff, R. Srivastava, J. Koutnik, B. Steunebrink, J. Schmidhuber: LSTM: a
        search space odyssey, 2017, arXiv 1503.04069 (without its peepholes).
    """

    bias_init: Initializer | BlocksInitializer = ForgetBias(1.0)
    activation: Activation = jnp.tanh
    gate_activation: Activation = sigmoid

    gates = ("i", "f", "g")
    memory = MemoryGates(keep="f", write="i")
    params_type = OpenLSTMParams
    carry_type = OpenLSTMCarry

    def gate(
        self,
        params: OpenLSTMParams,
        projected: tuple[jax.Array, ...],
        recurrent: jax.Array,
        carry: OpenLSTMCarry,
    ) -> tuple[OpenLSTMCarry, jax.Array]:
        """Return the next carry and h'."""
        dtype = carry.cell.dtype
        i, f, g = add_blocks(projected, recurrent, dtype)
        i, f = self.gate_activation(i), self.gate_activation(f)
        i, f, g = name_gates(i=i, f=f, g=self.activation(g))
        c = f * carry.cell + i * g
        h = self.activation(c)
        return OpenLSTMCarry(hidden=h, cell=c), h
