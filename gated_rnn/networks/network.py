"""The interface of every layer and of every composition of layers (layer 3)."""

from typing import Any, Protocol

import jax
import jax.numpy as jnp

from gated_rnn.types import Carry, DType, Params, Shape, check_sequences, invalid

__all__ = ["Network", "reads_tokens", "reduces_time", "steps_shape", "times_of_steps"]


class Network(Protocol):
    """What every layer and every composition of layers offers.

    A layer may say more of itself: `reads_tokens`, that its inputs are integers
    `[T, *batch]`; `reduces_time`, that its outputs are `[*batch, features]`, one for
    the whole sequence. Without such an attribute it is not so.
    """

    @property
    def out_features(self) -> int | None:
        """Features of the outputs; None: as many as the inputs have."""
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


def reads_tokens(layer: Network) -> bool:
    """Return whether the inputs of a layer are integers `[T, *batch]`."""
    return getattr(layer, "reads_tokens", False)


def reduces_time(layer: Network) -> bool:
    """Return whether the outputs of a layer are `[*batch, features]`."""
    return getattr(layer, "reduces_time", False)


def steps_shape(layer: Network, inputs: Any) -> Shape:
    """Return `[T, *batch]` of the inputs of a layer; raise if they do not fit it."""
    if not reads_tokens(layer):
        return check_sequences("inputs", inputs)
    if not hasattr(inputs, "dtype"):
        raise invalid("inputs", "integers [T, *batch]", f"a {type(inputs).__name__}")
    if jnp.ndim(inputs) == 0 or not jnp.issubdtype(inputs.dtype, jnp.integer):
        got = f"{jnp.result_type(inputs)}{list(jnp.shape(inputs))}"
        raise invalid("inputs", "integers [T, *batch]", got)
    return inputs.shape


def times_of_steps(
    time: jax.Array, mask: jax.Array | None, shape: Shape
) -> tuple[jax.Array, jax.Array]:
    """Count the real steps of each row.

    Args:
        time: int32 `[*batch]`, how many came before.
        mask: bool `[T, *batch]`, or None: all are real.
        shape: `[T, *batch]`.

    Returns:
        int32 `[T, *batch]`, how many come before each step, and `[*batch]`, after all.
    """
    real = jnp.ones(shape, jnp.int32) if mask is None else mask.astype(jnp.int32)
    seen = time + jnp.cumsum(real, axis=0, dtype=jnp.int32)
    return seen - real, time + real.sum(axis=0, dtype=jnp.int32)
