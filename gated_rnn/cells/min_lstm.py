"""The LSTM with gates of the input alone, minLSTM (layer 1)."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
from jax.nn import log_sigmoid, sigmoid

from gated_rnn.activations import identity
from gated_rnn.arithmetic import name_gates
from gated_rnn.cells.packed import InputGatedCell
from gated_rnn.initializers import BlocksInitializer, ForgetBias, MemoryGates
from gated_rnn.types import Activation, Initializer

__all__ = ["MinLSTM", "MinLSTMCarry", "MinLSTMParams"]


class MinLSTMParams(NamedTuple):
    """Parameters of minLSTM, gates packed in the order i f g.

    Attributes:
        kernel: W, `[F, 3H]`.
        bias: b, `[3H]`, or None.
    """

    kernel: jax.Array
    bias: jax.Array | None


class MinLSTMCarry(NamedTuple):
    """What minLSTM hands from step to step.

    Attributes:
        hidden: h, `[*batch, H]`.
    """

    hidden: jax.Array


@jax.tree_util.register_static
@dataclass(frozen=True, kw_only=True)
class MinLSTM(InputGatedCell):
    """The LSTM whose gates and candidate do not see the past.

        i = sigmoid(x W_i + b_i)    f = sigmoid(x W_f + b_f)    g = x W_g + b_g
        h' = (f * h + i * g) / (f + i)

    h' is affine in h, element by element, so the engine `Associative` runs it exactly
    in a number of rounds that grows with log T.
    `gate_values` gives i and f as they act, divided by f + i.

    Attributes:
        activation: What makes g of its preactivation: the identity, or
            `activations.positive` in the paper's log-space form.

    Examples:
        >>> import jax.numpy as jnp
        >>> cell = MinLSTM(16)
        >>> params = cell.init(jax.random.key(0), in_features=8)
        >>> carry, outputs = cell.step(params, cell.init_carry((5,)), jnp.ones((5, 8)))
        >>> outputs.shape
        (5, 16)

    References:
        L. Feng, F. Tung, M. Ahmed, Y. Bengio, H. Hajimirsadeghi: Were RNNs all we
        needed?, 2024, arXiv 2410.01201.
    """

    bias_init: Initializer | BlocksInitializer = ForgetBias(1.0)
    activation: Activation = identity

    gates = ("i", "f", "g")
    memory = MemoryGates(keep="f", write="i")
    params_type = MinLSTMParams
    carry_type = MinLSTMCarry

    def gate(
        self,
        params: MinLSTMParams,
        projected: tuple[jax.Array, ...],
        recurrent: tuple[()],
        carry: MinLSTMCarry,
    ) -> tuple[MinLSTMCarry, jax.Array]:
        """Return the next carry and h'."""
        h = carry.hidden
        i, f, g = (x.astype(h.dtype) for x in projected)
        # i / (f + i) is sigmoid(log(i / f)), which does not divide by what underflows.
        log_ratio = log_sigmoid(i) - log_sigmoid(f)
        i, f, g = name_gates(
            i=sigmoid(log_ratio), f=sigmoid(-log_ratio), g=self.activation(g)
        )
        h = f * h + i * g
        return MinLSTMCarry(hidden=h), h
