"""From a sequence to one vector: a real step at its end, or the mean (layer 3).

Both see the steps of one call: a sequence given in pieces is reduced piece by piece.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from gated_rnn.arithmetic import at_least_float32, where
from gated_rnn.types import (
    Carry,
    DType,
    Shape,
    check_flags,
    check_sequence,
    invalid,
)

__all__ = ["LastStep", "MaskedMean"]


@dataclass(frozen=True)
class _Reduction:
    """What both share: no parameters, no carry, as many features as they read."""

    reduces_time = True

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


@jax.tree_util.register_static
@dataclass(frozen=True)
class LastStep(_Reduction):
    """The last real step of each row, `[*batch, F]`; zero for a row without one.

    Of a bidirectional layer's outputs the last step has seen the sequence forward, but
    only itself backward. Give each direction its own: `Bidirectional(Stack(RNN(cell),
    LastStep()), Stack(RNN(cell, reverse=True), LastStep(reverse=True)))`.

    Attributes:
        reverse: Return the first real step, where a layer that runs in reverse ends.

    Examples:
        >>> inputs = jnp.arange(6.0).reshape(3, 2, 1)
        >>> mask = jnp.array([[True, True], [True, False], [True, False]])
        >>> _, outputs = LastStep().apply((), inputs, mask=mask)
        >>> outputs.tolist()
        [[4.0], [1.0]]
    """

    reverse: bool = False

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
        """Return that step; carry, resets and key are not used."""
        check_sequence("inputs", inputs)
        if mask is not None:
            check_flags("mask", mask, inputs.shape[:-1])
        if len(inputs) == 0:
            return (), jnp.zeros(inputs.shape[1:], inputs.dtype)
        if mask is None:
            return (), inputs[0 if self.reverse else -1]
        if self.reverse:
            index = jnp.argmax(mask, axis=0)
        else:
            index = len(inputs) - 1 - jnp.argmax(mask[::-1], axis=0)
        taken = jnp.take_along_axis(inputs, index[None, ..., None], axis=0)[0]
        return (), where(mask.any(axis=0), taken, jnp.zeros_like(taken))

    def step(
        self,
        params: tuple[()],
        carry: Carry,
        inputs: jax.Array,
        *,
        reset: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> tuple[tuple[()], jax.Array]:
        """Return the inputs: the last step so far.

        Raises:
            ValueError: With `reverse`: one step is not the first of the sequence.
        """
        if self.reverse:
            raise invalid("layer", "one that runs forward", "LastStep(reverse=True)")
        return (), inputs


@jax.tree_util.register_static
@dataclass(frozen=True)
class MaskedMean(_Reduction):
    """The mean over the real steps of each row, `[*batch, F]`; zero for none.

    Examples:
        >>> inputs = jnp.arange(6.0).reshape(3, 2, 1)
        >>> mask = jnp.array([[True, True], [True, False], [True, False]])
        >>> _, outputs = MaskedMean().apply((), inputs, mask=mask)
        >>> outputs.tolist()
        [[2.0], [1.0]]
    """

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
        """Return the mean, summed in at least float32, in the dtype of the inputs."""
        check_sequence("inputs", inputs)
        if mask is None:
            mask = jnp.ones(inputs.shape[:-1], jnp.bool_)
        check_flags("mask", mask, inputs.shape[:-1])
        real = where(mask, inputs, jnp.zeros_like(inputs))
        wide = at_least_float32(inputs.dtype)
        count = jnp.maximum(mask.sum(axis=0), 1).astype(wide)[..., None]
        return (), (real.astype(wide).sum(axis=0) / count).astype(inputs.dtype)

    def step(
        self,
        params: tuple[()],
        carry: Carry,
        inputs: jax.Array,
        *,
        reset: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> tuple[tuple[()], jax.Array]:
        """Refuse: one step does not hold the mean.

        Raises:
            ValueError: Always.
        """
        raise invalid("layer", "one that can run step by step", "MaskedMean()")
