"""A dense readout at every step (layer 3)."""

from dataclasses import KW_ONLY, dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gated_rnn.arithmetic import affine, where
from gated_rnn.initializers import GlorotUniform, Zeros
from gated_rnn.types import (
    Carry,
    DType,
    Initializer,
    Shape,
    check_features,
    check_flags,
    check_positive,
    check_sequence,
)

__all__ = ["Dense", "DenseParams"]


class DenseParams(NamedTuple):
    """Parameters of a dense readout.

    Attributes:
        kernel: `[F, features]`.
        bias: `[features]`, or None.
    """

    kernel: jax.Array
    bias: jax.Array | None


@jax.tree_util.register_static
@dataclass(frozen=True)
class Dense:
    """A readout at every step: x W + b, zero where the mask is false.

    Attributes:
        features: Features of the outputs.
        kernel_init: Initialiser of the kernel.
        bias_init: Initialiser of the bias.
        use_bias: Whether there is a bias.
    """

    features: int
    _: KW_ONLY
    kernel_init: Initializer = GlorotUniform()
    bias_init: Initializer = Zeros()
    use_bias: bool = True

    def __post_init__(self) -> None:
        check_positive("features", self.features)

    @property
    def out_features(self) -> int:
        """Features of the outputs."""
        return self.features

    def init(
        self, key: jax.Array, in_features: int, dtype: DType = jnp.float32
    ) -> DenseParams:
        """Draw parameters."""
        check_positive("in_features", in_features)
        kernel_key, bias_key = jax.random.split(key)
        return DenseParams(
            kernel=self.kernel_init(kernel_key, (in_features, self.features), dtype),
            bias=(
                self.bias_init(bias_key, (self.features,), dtype)
                if self.use_bias
                else None
            ),
        )

    def init_carry(
        self, batch_shape: Shape = (), dtype: DType = jnp.float32
    ) -> tuple[()]:
        """Return the empty carry."""
        return ()

    def apply(
        self,
        params: DenseParams,
        inputs: jax.Array,
        carry: Carry | None = None,
        *,
        mask: jax.Array | None = None,
        resets: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> tuple[tuple[()], jax.Array]:
        """Read out every step; carry, resets and key are not used."""
        check_sequence("inputs", inputs)
        if mask is None:
            return self.step(params, (), inputs)
        check_flags("mask", mask, inputs.shape[:-1])
        _, outputs = self.step(params, (), where(mask, inputs, jnp.zeros_like(inputs)))
        return (), where(mask, outputs, jnp.zeros_like(outputs))

    def step(
        self,
        params: DenseParams,
        carry: Carry,
        inputs: jax.Array,
        *,
        reset: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> tuple[tuple[()], jax.Array]:
        """Read out one step, in the dtype of the kernel."""
        check_features("inputs", inputs, params.kernel.shape[0])
        outputs = affine(inputs, params.kernel, params.bias)
        return (), outputs.astype(params.kernel.dtype)
