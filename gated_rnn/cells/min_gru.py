"""The GRU with gates of the input alone, minGRU (layer 1)."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
from jax.nn import sigmoid

from gated_rnn.activations import identity
from gated_rnn.arithmetic import name_gates
from gated_rnn.cells.packed import InputGatedCell
from gated_rnn.initializers import MemoryGates
from gated_rnn.types import Activation

__all__ = ["MinGRU", "MinGRUCarry", "MinGRUParams"]


class MinGRUParams(NamedTuple):
    """Parameters of minGRU, gates packed in the order z n.

    Attributes:
        kernel: W, `[F, 2H]`.
        bias: b, `[2H]`, or None.
    """

    kernel: jax.Array
    bias: jax.Array | None


class MinGRUCarry(NamedTuple):
    """What minGRU hands from step to step.

    Attributes:
        hidden: h, `[*batch, H]`.
    """

    hidden: jax.Array


@jax.tree_util.register_static
@dataclass(frozen=True, kw_only=True)
class MinGRU(InputGatedCell):
    """The GRU whose gate and candidate do not see the past.

        z = sigmoid(x W_z + b_z)                n = x W_n + b_n
        h' = (1 - z) * h + z * n

    h' is affine in h, element by element, so the engine `Associative` runs it exactly
    in a number of rounds that grows with log T.

    Attributes:
        activation: What makes n of its preactivation: the identity, or
            `activations.positive` in the paper's log-space form.
        gate_activation: What makes z of its preactivation.

    Examples:
        >>> import jax.numpy as jnp
        >>> cell = MinGRU(16)
        >>> params = cell.init(jax.random.key(0), in_features=8)
        >>> carry, outputs = cell.step(params, cell.init_carry((5,)), jnp.ones((5, 8)))
        >>> outputs.shape
        (5, 16)

    References:
        L. Feng, F. Tung, M. Ahmed, Y. Bengio, H. Hajimirsadeghi: Were RNNs all we
        needed?, 2024, arXiv 2410.01201.
    """

    activation: Activation = identity
    gate_activation: Activation = sigmoid

    gates = ("z", "n")
    memory = MemoryGates(keep="z", sign=-1)
    params_type = MinGRUParams
    carry_type = MinGRUCarry

    def gate(
        self,
        params: MinGRUParams,
        projected: tuple[jax.Array, ...],
        recurrent: tuple[()],
        carry: MinGRUCarry,
    ) -> tuple[MinGRUCarry, jax.Array]:
        """Return the next carry and h'."""
        h = carry.hidden
        z, n = (x.astype(h.dtype) for x in projected)
        z, n = name_gates(z=self.gate_activation(z), n=self.activation(n))
        h = (1 - z) * h + z * n
        return MinGRUCarry(hidden=h), h
