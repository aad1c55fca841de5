"""The minimal gated unit (layer 1)."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.nn import sigmoid

from gated_rnn.arithmetic import matmul, name_gates
from gated_rnn.cells.packed import PackedCell
from gated_rnn.initializers import MemoryGates
from gated_rnn.types import Activation

__all__ = ["MGU", "MGUCarry", "MGUParams"]


class MGUParams(NamedTuple):
    """Parameters of the minimal gated unit, gates packed in the order f n.

    Attributes:
        kernel: W, `[F, 2H]`.
        recurrent_kernel: U, `[H, 2H]`.
        bias: b, `[2H]`, or None.
    """

    kernel: jax.Array
    recurrent_kernel: jax.Array
    bias: jax.Array | None


class MGUCarry(NamedTuple):
    """What the minimal gated unit hands from step to step.

    Attributes:
        hidden: h, `[*batch, H]`.
    """

    hidden: jax.Array


@jax.tree_util.register_static
@dataclass(frozen=True, kw_only=True)
class MGU(PackedCell):
    """The minimal gated unit: one gate both resets and updates.

        f = sigmoid(x W_f + h U_f + b_f)
        n = tanh(x W_n + (f * h) U_n + b_n)
        h' = (1 - f) * h + f * n

    Attributes:
        activation: What makes n of its preactivation.
        gate_activation: What makes the gates of theirs.

    Examples:
        >>> cell = MGU(16)
        >>> params = cell.init(jax.random.key(0), in_features=8)
        >>> carry, outputs = cell.step(params, cell.init_carry((5,)), jnp.ones((5, 8)))
        >>> outputs.shape
        (5, 16)

    References:
        G. Zhou, J. Wu, C. Zhang, Z. Zhou: Minimal gated unit for recurrent neural
        networks, 2016, arXiv 1603.09420. (Flax' MGUCell is another function: there f
        multiplies the old h where 1 - f does here, and resets after the matmul.)
    """

    activation: Activation = jnp.tanh
    gate_activation: Activation = sigmoid

    gates = ("f", "n")
    memory = MemoryGates(keep="f", sign=-1)
    params_type = MGUParams
    carry_type = MGUCarry

    @property
    def pointwise(self) -> bool:
        """False: the candidate needs a matmul after the gate."""
        return False

    @property
    def recurs_in_gate(self) -> bool:
        """True: so the gate multiplies by the recurrent kernel."""
        return True

    def recur(self, params: MGUParams, carry: MGUCarry) -> jax.Array:
        """Return h U_f, `[*batch, H]`."""
        columns = self.hidden_features
        return matmul(carry.hidden, params.recurrent_kernel[:, :columns])

    def gate(
        self,
        params: MGUParams,
        projected: tuple[jax.Array, ...],
        recurrent: jax.Array,
        carry: MGUCarry,
    ) -> tuple[MGUCarry, jax.Array]:
        """Return the next carry and h'."""
        h = carry.hidden
        x_f, x_n = (x.astype(h.dtype) for x in projected)
        f = self.gate_activation(x_f + recurrent.astype(h.dtype))
        candidate_kernel = params.recurrent_kernel[:, self.hidden_features :]
        n = self.activation(x_n + matmul(f * h, candidate_kernel).astype(h.dtype))
        f, n = name_gates(f=f, n=n)
        h = (1 - f) * h + f * n
        return MGUCarry(hidden=h), h
