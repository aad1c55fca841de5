"""A function of the features at every step (layer 3)."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from gated_rnn.arithmetic import where
from gated_rnn.types import (
    Activation,
    Carry,
    DType,
    Shape,
    check_flags,
    check_sequence,
    invalid,
)

__all__ = ["Nonlinearity"]


@jax.tree_util.register_static
@dataclass(frozen=True)
class Nonlinearity:
    """A function of the features, such as the softmax behind a readout.

    It has no parameters; its outputs are zero where the mask is false.

    Attributes:
        function: Takes `[*leading, features]` and returns the same shape.

    Examples:
        >>> layer = Nonlinearity(jax.nn.softmax)
        >>> _, outputs = layer.apply((), jnp.zeros((20, 2, 4)))
        >>> outputs[0, 0].tolist()
        [0.25, 0.25, 0.25, 0.25]
    """

    function: Activation

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise invalid("function", "a function of the features", self.function)

    @property
    def out_features(self) -> None:
        """None: as many as the inputs have."""
        return

    def init(
        self, key: jax.Array, in_features: int, dtype: DType = jnp.float32
    ) -> tuple[()]:
        """Return no parameters."""
        return ()

    def init_carry(
        self, batch_shape: Shape = (), dtype: DType = jnp.float32
    ) -> tuple[()]:
        """Return the empty carry."""
        return ()

    def apply(
        self,
        params: tuple[()],
        inputs: jax.Array,
        carry: Carry | None = None,
        *,
        mask: jax.Array | None = None,
        resets: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> tuple[tuple[()], jax.Array]:
        """Return the function of every step; carry, resets and key are not used."""
        check_sequence("inputs", inputs)
        if mask is None:
            return (), self.function(inputs)
        check_flags("mask", mask, inputs.shape[:-1])
        outputs = self.function(where(mask, inputs, jnp.zeros_like(inputs)))
        return (), where(mask, outputs, jnp.zeros_like(outputs))

    def step(
        self,
        params: tuple[()],
        carry: Carry,
        inputs: jax.Array,
        *,
        reset: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> tuple[tuple[()], jax.Array]:
        """Return the function of one step."""
        return (), self.function(inputs)
