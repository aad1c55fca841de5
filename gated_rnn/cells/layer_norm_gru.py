"""The layer-normalised GRU (layer 1)."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.nn import sigmoid

from gated_rnn.arithmetic import layer_norm, matmul, name_gates
from gated_rnn.cells.packed import PackedCell
from gated_rnn.initializers import MemoryGates, init_gates
from gated_rnn.types import Activation, DType, check_positive, invalid

__all__ = ["LayerNormGRU", "LayerNormGRUCarry", "LayerNormGRUParams"]


class LayerNormGRUParams(NamedTuple):
    """Parameters of the layer-normalised GRU, gates packed in the order r z n.

    Attributes:
        kernel: W, `[F, 3H]`.
        recurrent_kernel: U, `[H, 3H]`.
        bias: b, `[3H]`, or None.
        recurrent_bias: d, `[H]`, inside the reset product, or None.
        input_gain: `[3H]`.
        recurrent_gain: `[3H]`.
    """

    kernel: jax.Array
    recurrent_kernel: jax.Array
    bias: jax.Array | None
    recurrent_bias: jax.Array | None
    input_gain: jax.Array
    recurrent_gain: jax.Array


class LayerNormGRUCarry(NamedTuple):
    """What the layer-normalised GRU hands from step to step.

    Attributes:
        hidden: h, `[*batch, H]`.
    """

    hidden: jax.Array


@jax.tree_util.register_static
@dataclass(frozen=True, kw_only=True)
class LayerNormGRU(PackedCell):
    """The GRU with layer normalisation of both matmuls.

        r, z = sigmoid(split(norm(x W_rz) * a_rz + norm(h U_rz) * e_rz + b_rz))
        n = tanh(norm(x W_n) * a_n + b_n + r * (norm(h U_n) * e_n + d))
        h' = (1 - z) * n + z * h

    with norm(v) = (v - mean v) / sqrt(var v + epsilon). As in Ba et al. the 2H entries
    of r and z are normalised together and the H entries of n by themselves; Haste
    normalises all 3H together.

    Attributes:
        epsilon: Added to every variance, positive.
        activation: What makes n of its preactivation.
        gate_activation: What makes r and z of theirs.

    Examples:
        >>> cell = LayerNormGRU(16)
        >>> params = cell.init(jax.random.key(0), in_features=8)
        >>> carry, outputs = cell.step(params, cell.init_carry((5,)), jnp.ones((5, 8)))
        >>> outputs.shape
        (5, 16)

    References:
        J. Ba, J. Kiros, G. Hinton: Layer normalization, 2016, arXiv 1607.06450,
        equations 24 to 26 (its update gate is one minus ours).
    """

    epsilon: float = 1e-5
    activation: Activation = jnp.tanh
    gate_activation: Activation = sigmoid

    gates = ("r", "z", "n")
    memory = MemoryGates(keep="z")
    params_type = LayerNormGRUParams
    carry_type = LayerNormGRUCarry

    def __post_init__(self) -> None:
        check_positive("hidden_features", self.hidden_features)
        if not self.epsilon > 0:
            raise invalid("epsilon", "a positive number", self.epsilon)

    @property
    def pointwise(self) -> bool:
        """False: the norms, though not in the gate, mix the features."""
        return False

    def init(
        self, key: jax.Array, in_features: int, dtype: DType = jnp.float32
    ) -> LayerNormGRUParams:
        """Draw parameters; gains are one, the recurrent bias is zero."""
        size = self.hidden_features
        packed = init_gates(self, key, in_features, self.gates, dtype, self.memory)
        return LayerNormGRUParams(
            *packed,
            recurrent_bias=jnp.zeros((size,), dtype) if self.use_bias else None,
            input_gain=jnp.ones((3 * size,), dtype),
            recurrent_gain=jnp.ones((3 * size,), dtype),
        )

    def project(
        self, params: LayerNormGRUParams, inputs: jax.Array
    ) -> tuple[jax.Array, ...]:
        """Return each gate's block of the normalised x W, plus b, `[*leading, H]`."""
        blocks = super().project(params._replace(bias=None), inputs)
        packed = jnp.concatenate(blocks, axis=-1)
        normed = self._norm(packed, params.input_gain, params.bias)
        return tuple(jnp.split(normed, 3, axis=-1))

    def recur(self, params: LayerNormGRUParams, carry: LayerNormGRUCarry) -> jax.Array:
        """Return the normalised h U, `[*batch, 3H]`."""
        recurrent = matmul(carry.hidden, params.recurrent_kernel)
        return self._norm(recurrent, params.recurrent_gain, None)

    def gate(
        self,
        params: LayerNormGRUParams,
        projected: tuple[jax.Array, ...],
        recurrent: jax.Array,
        carry: LayerNormGRUCarry,
    ) -> tuple[LayerNormGRUCarry, jax.Array]:
        """Return the next carry and h'."""
        h = carry.hidden
        x_r, x_z, x_n = (x.astype(h.dtype) for x in projected)
        u_r, u_z, u_n = jnp.split(recurrent.astype(h.dtype), 3, axis=-1)
        if params.recurrent_bias is not None:
            u_n = u_n + params.recurrent_bias.astype(h.dtype)
        r, z = self.gate_activation(x_r + u_r), self.gate_activation(x_z + u_z)
        n = self.activation(x_n + r * u_n)
        r, z, n = name_gates(r=r, z=z, n=n)
        h = (1 - z) * n + z * h
        return LayerNormGRUCarry(hidden=h), h

    def _norm(
        self, values: jax.Array, gain: jax.Array, bias: jax.Array | None
    ) -> jax.Array:
        """Normalise the 2H entries of r and z, and the H of n."""
        cut = [2 * self.hidden_features]
        blocks = jnp.split(values, cut, axis=-1)
        gains = jnp.split(gain, cut)
        biases = [None, None] if bias is None else jnp.split(bias, cut)
        parts = [
            layer_norm(v, g, b, self.epsilon)
            for v, g, b in zip(blocks, gains, biases, strict=True)
        ]
        return jnp.concatenate(parts, axis=-1)
