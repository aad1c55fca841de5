"""The simple recurrent network of Elman (layer 1)."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gated_rnn.arithmetic import add_blocks, name_gates
from gated_rnn.cells.packed import PackedCell
from gated_rnn.types import Activation

__all__ = ["Elman", "ElmanCarry", "ElmanParams"]


class ElmanParams(NamedTuple):
    """Parameters of the simple recurrent network.

    Attributes:
        kernel: W, `[F, H]`.
        recurrent_kernel: U, `[H, H]`.
        bias: b, `[H]`, or None.
    """

    kernel: jax.Array
    recurrent_kernel: jax.Array
    bias: jax.Array | None


class ElmanCarry(NamedTuple):
    """What the simple recurrent network hands from step to step.

    Attributes:
        hidden: h, `[*batch, H]`.
    """

    hidden: jax.Array


@jax.tree_util.register_static
@dataclass(frozen=True, kw_only=True)
class Elman(PackedCell):
    """The simple recurrent network: Keras' SimpleRNN, PyTorch's RNN.

        h' = tanh(x W + h U + b)

    Attributes:
        activation: tanh, or another such as `jax.nn.relu`.

    Examples:
        >>> cell = Elman(16, activation=jax.nn.relu)
        >>> params = cell.init(jax.random.key(0), in_features=8)
        >>> carry, outputs = cell.step(params, cell.init_carry((5,)), jnp.ones((5, 8)))
        >>> outputs.shape
        (5, 16)

    References:
        J. Elman: Finding structure in time, 1990, doi 10.1207/s15516709cog1402_1; Q.
        Le, N. Jaitly, G. Hinton: A simple way to initialize recurrent networks of
        rectified linear units, 2015, arXiv 1504.00941 (relu, with a recurrent kernel
        that starts as `initializers.Identity()`).
    """

    activation: Activation = jnp.tanh

    gates = ("h",)
    params_type = ElmanParams
    carry_type = ElmanCarry

    def gate(
        self,
        params: ElmanParams,
        projected: tuple[jax.Array, ...],
        recurrent: jax.Array,
        carry: ElmanCarry,
    ) -> tuple[ElmanCarry, jax.Array]:
        """Return the next carry and h'."""
        (preactivation,) = add_blocks(projected, recurrent, carry.hidden.dtype)
        (h,) = name_gates(h=self.activation(preactivation))
        return ElmanCarry(hidden=h), h
