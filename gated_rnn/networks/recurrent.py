"""A recurrent layer: a cell, a direction and an engine (layer 3)."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from gated_rnn.arithmetic import where
from gated_rnn.types import (
    Carry,
    Cell,
    DType,
    Engine,
    Params,
    Shape,
    check_flags,
    invalid,
)
from gated_rnn.unrolling import unroll

__all__ = ["RNN"]


@jax.tree_util.register_static
@dataclass(frozen=True)
class RNN:
    """A recurrent layer: a cell, a direction and an engine.

    Attributes:
        cell: The cell.
        reverse: Run from the last step to the first.
        engine: How the cell is run along time; None: the default engine.

    Examples:
        >>> from gated_rnn import LSTM
        >>> layer = RNN(LSTM(16))
        >>> params = layer.init(jax.random.key(0), in_features=3)
        >>> carry, outputs = layer.apply(params, jnp.ones((20, 2, 3)))
        >>> outputs.shape
        (20, 2, 16)
    """

    cell: Cell
    reverse: bool = False
    engine: Engine | None = None

    @property
    def out_features(self) -> int:
        """Features of the outputs: those of the cell."""
        return self.cell.out_features

    def init(
        self, key: jax.Array, in_features: int, dtype: DType = jnp.float32
    ) -> Params:
        """Return the parameters of the cell."""
        return self.cell.init(key, in_features, dtype)

    def init_carry(self, batch_shape: Shape = (), dtype: DType = jnp.float32) -> Carry:
        """Return the zero carry of the cell."""
        return self.cell.init_carry(batch_shape, dtype)

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
        """Run a sequence; see `gated_rnn.unroll`. The key is not used."""
        carry, outputs = unroll(
            self.cell,
            params,
            inputs,
            carry,
            mask=mask,
            resets=resets,
            reverse=self.reverse,
            engine=self.engine,
        )
        if outputs is None:  # unroll collects unless it is told not to
            raise invalid("engine", "one that collects outputs", str(self.engine))
        return carry, outputs

    def step(
        self,
        params: Params,
        carry: Carry,
        inputs: jax.Array,
        *,
        reset: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> tuple[Carry, jax.Array]:
        """Run one step; where `reset` (bool `[*batch]`) the carry is zeroed before it.

        Raises:
            ValueError: If the layer runs in reverse, which has no next step.
        """
        if self.reverse:
            raise invalid("layer", "one that runs forward", "RNN(reverse=True)")
        if reset is not None:
            check_flags("reset", reset, inputs.shape[:-1])
            zeros = jax.tree.map(jnp.zeros_like, carry)
            carry = where(reset, zeros, carry)
        return self.cell.step(params, carry, inputs)
