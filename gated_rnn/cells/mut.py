"""The three mutants of the GRU found by architecture search, MUT1 to MUT3 (layer 1)."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.nn import sigmoid

from gated_rnn.arithmetic import matmul, name_gates
from gated_rnn.cells.packed import PackedCell
from gated_rnn.initializers import MemoryGates
from gated_rnn.types import Activation, check_positive, invalid

__all__ = ["MUT", "MUTCarry", "MUTParams"]

VARIANTS = (1, 2, 3)


class MUTParams(NamedTuple):
    """Parameters of a mutant, gates packed in the order z r n.

    Attributes:
        kernel: W, `[F, 3H]`.
        recurrent_kernel: U, `[H, 3H]`; MUT1 does not use its block z.
        bias: b, `[3H]`, or None.
    """

    kernel: jax.Array
    recurrent_kernel: jax.Array
    bias: jax.Array | None


class MUTCarry(NamedTuple):
    """What a mutant hands from step to step.

    Attributes:
        hidden: h, `[*batch, H]`.
    """

    hidden: jax.Array


@jax.tree_util.register_static
@dataclass(frozen=True, kw_only=True)
class MUT(PackedCell):
    """MUT1, MUT2 or MUT3.

        MUT1    z = sigmoid(x W_z + b_z)
                r = sigmoid(x W_r + h U_r + b_r)
                n = tanh((r * h) U_n + tanh(x W_n) + b_n)
        MUT2    z = sigmoid(x W_z + h U_z + b_z)
                r = sigmoid(x W_r + h U_r + b_r)
                n = tanh((r * h) U_n + x W_n + b_n)
        MUT3    z = sigmoid(x W_z + tanh(h) U_z + b_z)
                r and n as in MUT2
        all     h' = z * n + (1 - z) * h

    The paper has x itself where this has x W_n in MUT1 and x W_r in MUT2, for inputs as
    wide as h: there W_n, or W_r, is the identity.

    Attributes:
        variant: 1, 2 or 3.
        activation: tanh, wherever it stands above.
        gate_activation: What makes z and r of their preactivations.

    Examples:
        >>> cell = MUT(16, variant=2)
        >>> params = cell.init(jax.random.key(0), in_features=8)
        >>> carry, outputs = cell.step(params, cell.init_carry((5,)), jnp.ones((5, 8)))
        >>> outputs.shape
        (5, 16)

    References:
        R. Jozefowicz, W. Zaremba, I. Sutskever: An empirical exploration of recurrent
        network architectures, ICML 2015.
    """

    variant: int = 1
    activation: Activation = jnp.tanh
    gate_activation: Activation = sigmoid

    gates = ("z", "r", "n")
    memory = MemoryGates(keep="z", sign=-1)
    params_type = MUTParams
    carry_type = MUTCarry

    def __post_init__(self) -> None:
        check_positive("hidden_features", self.hidden_features)
        if self.variant not in VARIANTS:
            raise invalid("variant", "1, 2 or 3", self.variant)

    @property
    def pointwise(self) -> bool:
        """False: the candidate needs a matmul after the reset gate."""
        return False

    @property
    def recurs_in_gate(self) -> bool:
        """True: so the gate multiplies by the recurrent kernel."""
        return True

    def recur(
        self, params: MUTParams, carry: MUTCarry
    ) -> tuple[jax.Array | None, jax.Array]:
        """Return what z (None in MUT1) and r see of h, each `[*batch, H]`."""
        u_z, u_r, _ = jnp.split(params.recurrent_kernel, 3, axis=-1)
        from_reset = matmul(carry.hidden, u_r)
        if self.variant == 1:
            return None, from_reset
        if self.variant == 2:
            return matmul(carry.hidden, u_z), from_reset
        return matmul(self.activation(carry.hidden), u_z), from_reset

    def project(
        self, params: MUTParams, inputs: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Return what z, r and n see of x, each `[*leading, H]`."""
        if self.variant != 1 or params.bias is None:
            z, r, n = super().project(params, inputs)
            return z, r, self.activation(n) if self.variant == 1 else n
        z, r, n = super().project(params._replace(bias=None), inputs)
        bias = params.bias.astype(z.dtype)
        b_z, b_r, b_n = jnp.split(bias, 3)
        return z + b_z, r + b_r, self.activation(n) + b_n

    def gate(
        self,
        params: MUTParams,
        projected: tuple[jax.Array, jax.Array, jax.Array],
        recurrent: tuple[jax.Array | None, jax.Array],
        carry: MUTCarry,
    ) -> tuple[MUTCarry, jax.Array]:
        """Return the next carry and h'."""
        h = carry.hidden
        x_z, x_r, x_n = (x.astype(h.dtype) for x in projected)
        u_z, u_r = recurrent
        z = x_z if u_z is None else x_z + u_z.astype(h.dtype)
        z = self.gate_activation(z)
        r = self.gate_activation(x_r + u_r.astype(h.dtype))
        candidate_kernel = params.recurrent_kernel[:, 2 * self.hidden_features :]
        n = self.activation(matmul(r * h, candidate_kernel).astype(h.dtype) + x_n)
        z, r, n = name_gates(z=z, r=r, n=n)
        h = z * n + (1 - z) * h
        return MUTCarry(hidden=h), h
