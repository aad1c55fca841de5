"""The LSTM with coupled input and forget gates, CIFG (layer 1)."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.nn import sigmoid

from gated_rnn.arithmetic import add_blocks, name_gates
from gated_rnn.cells.packed import PackedCell
from gated_rnn.initializers import BlocksInitializer, ForgetBias, MemoryGates
from gated_rnn.types import Activation, Initializer

__all__ = ["CoupledLSTM", "CoupledLSTMCarry", "CoupledLSTMParams"]


class CoupledLSTMParams(NamedTuple):
    """Parameters of the coupled LSTM, gates packed in the order f g o.

    Attributes:
        kernel: W, `[F, 3H]`.
        recurrent_kernel: U, `[H, 3H]`.
        bias: b, `[3H]`, or None.
    """

    kernel: jax.Array
    recurrent_kernel: jax.Array
    bias: jax.Array | None


class CoupledLSTMCarry(NamedTuple):
    """What the coupled LSTM hands from step to step.

    Attributes:
        hidden: h, `[*batch, H]`.
        cell: c, `[*batch, H]`.
    """

    hidden: jax.Array
    cell: jax.Array


@jax.tree_util.register_static
@dataclass(frozen=True, kw_only=True)
class CoupledLSTM(PackedCell):
    """The LSTM whose input gate is one minus its forget gate (CIFG).

        f = sigmoid(x W_f + h U_f + b_f)        o = sigmoid(x W_o + h U_o + b_o)
        g = tanh(x W_g + h U_g + b_g)
        c' = f * c + (1 - f) * g                h' = o * tanh(c')

    Attributes:
        activation: What makes g of its preactivation, and h' of c'.
        gate_activation: What makes the gates of theirs.

    Examples:
        >>> cell = CoupledLSTM(16)
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

    gates = ("f", "g", "o")
    memory = MemoryGates(keep="f")
    params_type = CoupledLSTMParams
    carry_type = CoupledLSTMCarry

    def gate(
        self,
        params: CoupledLSTMParams,
        projected: tuple[jax.Array, ...],
        recurrent: jax.Array,
        carry: CoupledLSTMCarry,
    ) -> tuple[CoupledLSTMCarry, jax.Array]:
        """Return the next carry and h'."""
        dtype = carry.cell.dtype
        f, g, o = add_blocks(projected, recurrent, dtype)
        f, o = self.gate_activation(f), self.gate_activation(o)
        f, g, o = name_gates(f=f, g=self.activation(g), o=o)
        c = f * carry.cell + (1 - f) * g
        h = o * self.activation(c)
        return CoupledLSTMCarry(hidden=h, cell=c), h
