"""The LSTM with a forget gate and no other, JANET (layer 1)."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.nn import sigmoid

from gated_rnn.arithmetic import add_blocks, name_gates
from gated_rnn.cells.packed import PackedCell
from gated_rnn.initializers import BlocksInitializer, ForgetBias, MemoryGates
from gated_rnn.types import Activation, Initializer

__all__ = ["JANET", "JANETCarry", "JANETParams"]


class JANETParams(NamedTuple):
    """Parameters of the JANET, gates packed in the order f g.

    Attributes:
        kernel: W, `[F, 2H]`.
        recurrent_kernel: U, `[H, 2H]`.
        bias: b, `[2H]`, or None.
    """

    kernel: jax.Array
    recurrent_kernel: jax.Array
    bias: jax.Array | None


class JANETCarry(NamedTuple):
    """What the JANET hands from step to step.

    Attributes:
        hidden: h, `[*batch, H]`.
    """

    hidden: jax.Array


@jax.tree_util.register_static
@dataclass(frozen=True, kw_only=True)
class JANET(PackedCell):
    """The LSTM with a forget gate and no other.

        s = x W_f + h U_f + b_f                 g = tanh(x W_g + h U_g + b_g)
        h' = sigmoid(s) * h + (1 - sigmoid(s - beta)) * g

    Attributes:
        beta: By how much writing is opened further than forgetting.
        activation: What makes g of its preactivation.
        gate_activation: What makes the gates of theirs.

    Examples:
        >>> cell = JANET(16)
        >>> params = cell.init(jax.random.key(0), in_features=8)
        >>> carry, outputs = cell.step(params, cell.init_carry((5,)), jnp.ones((5, 8)))
        >>> outputs.shape
        (5, 16)

    References:
        J. van der Westhuizen, J. Lasenby: The unreasonable effectiveness of the forget
        gate, 2018, arXiv 1804.04849; its biases are `initializers.Chrono`.
    """

    bias_init: Initializer | BlocksInitializer = ForgetBias(1.0)
    beta: float = 1.0
    activation: Activation = jnp.tanh
    gate_activation: Activation = sigmoid

    gates = ("f", "g")
    memory = MemoryGates(keep="f")
    params_type = JANETParams
    carry_type = JANETCarry

    def gate(
        self,
        params: JANETParams,
        projected: tuple[jax.Array, ...],
        recurrent: jax.Array,
        carry: JANETCarry,
    ) -> tuple[JANETCarry, jax.Array]:
        """Return the next carry and h'."""
        h = carry.hidden
        s, g = add_blocks(projected, recurrent, h.dtype)
        f, write = self.gate_activation(s), 1 - self.gate_activation(s - self.beta)
        f, g, write = name_gates(f=f, g=self.activation(g), write=write)
        h = f * h + write * g
        return JANETCarry(hidden=h), h
