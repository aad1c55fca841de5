"""Vectors for tokens (layer 3)."""

from dataclasses import KW_ONLY, dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gated_rnn.arithmetic import where
from gated_rnn.initializers import HiddenUniform
from gated_rnn.networks.network import steps_shape
from gated_rnn.types import (
    Carry,
    DType,
    Initializer,
    Shape,
    check_flags,
    check_positive,
)

__all__ = ["Embedding", "EmbeddingParams"]


class EmbeddingParams(NamedTuple):
    """Parameters of an embedding.

    Attributes:
        table: `[vocabulary, features]`.
    """

    table: jax.Array


@jax.tree_util.register_static
@dataclass(frozen=True)
class Embedding:
    """A vector for each token: the rows of a table; zero where the mask is false.

    Its inputs are integers `[T, *batch]`, without a feature axis. One that is not in
    0 .. vocabulary - 1 gives NaN, unless it is masked.

    Attributes:
        vocabulary: How many tokens there are.
        features: Features of the vectors.
        table_init: Initialiser of the table.

    Examples:
        >>> layer = Embedding(vocabulary=50, features=8)
        >>> params = layer.init(jax.random.key(0))
        >>> _, outputs = layer.apply(params, jnp.zeros((20, 2), jnp.int32))
        >>> outputs.shape
        (20, 2, 8)
    """

    vocabulary: int
    features: int
    _: KW_ONLY
    table_init: Initializer = HiddenUniform()

    reads_tokens = True

    def __post_init__(self) -> None:
        check_positive("vocabulary", self.vocabulary)
        check_positive("features", self.features)

    @property
    def out_features(self) -> int:
        """Features of the vectors."""
        return self.features

    def init(
        self,
        key: jax.Array,
        in_features: int | None = None,
        dtype: DType = jnp.float32,
    ) -> EmbeddingParams:
        """Draw the table; `in_features` is not used."""
        shape = (self.vocabulary, self.features)
        return EmbeddingParams(self.table_init(key, shape, dtype))

    def init_carry(
        self, batch_shape: Shape = (), dtype: DType = jnp.float32
    ) -> tuple[()]:
        """Return the empty carry."""
        return ()

    def apply(
        self,
        params: EmbeddingParams,
        inputs: jax.Array,
        carry: Carry | None = None,
        *,
        mask: jax.Array | None = None,
        resets: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> tuple[tuple[()], jax.Array]:
        """Look up every step; carry, resets and key are not used.

        Raises:
            ValueError: If the inputs are no integers.
        """
        shape = steps_shape(self, inputs)
        if mask is None:
            return self.step(params, (), inputs)
        check_flags("mask", mask, shape)
        _, outputs = self.step(params, (), where(mask, inputs, jnp.zeros_like(inputs)))
        return (), where(mask, outputs, jnp.zeros_like(outputs))

    def step(
        self,
        params: EmbeddingParams,
        carry: Carry,
        inputs: jax.Array,
        *,
        reset: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> tuple[tuple[()], jax.Array]:
        """Look up one step."""
        rows = jnp.where(inputs < 0, self.vocabulary, inputs)  # none counts backwards
        return (), jnp.take(params.table, rows, axis=0, mode="fill", fill_value=jnp.nan)
