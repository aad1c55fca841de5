"""The interface of every layer and of every composition of layers (layer 3)."""

from typing import Protocol

import jax

from gated_rnn.types import Carry, DType, Params, Shape

__all__ = ["Network"]


class Network(Protocol):
    """What every layer and every composition of layers offers."""

    @property
    def out_features(self) -> int:
        """Features of the outputs."""
        ...

    def init(self, key: jax.Array, in_features: int, dtype: DType = ...) -> Params:
        """Draw parameters for inputs of `in_features` features."""
        ...

    def init_carry(self, batch_shape: Shape = ..., dtype: DType = ...) -> Carry:
        """Return the carry before the first step."""
        ...

    def apply(
        self,
        params: Params,
        inputs: jax.Array,
        carry: Carry | None = None,
        *,
        mask: jax.Array | None = None,
        resets: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> tuple[Carry, jax.Array]:
        """Run a sequence `[T, *batch, F]`; without a key there is no dropout."""
        ...

    def step(
        self,
        params: Params,
        carry: Carry,
        inputs: jax.Array,
        *,
        reset: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> tuple[Carry, jax.Array]:
        """Run one step `[*batch, F]`, for acting, sampling and export."""
        ...
