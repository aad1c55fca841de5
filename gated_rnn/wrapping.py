"""A cell around a cell: what a run adds to any cell, for any engine (layer 0)."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from gated_rnn.types import Carry, Cell, DType, Params, Shape

__all__ = ["WrappedCell"]


@dataclass(frozen=True)
class WrappedCell:
    """A cell that does as another does; a subclass changes what is different.

    Attributes:
        cell: The other cell.
    """

    cell: Cell

    @property
    def out_features(self) -> int:
        """Those of the cell."""
        return self.cell.out_features

    @property
    def pointwise(self) -> bool:
        """As the cell: what is added must be elementwise."""
        return self.cell.pointwise

    @property
    def affine(self) -> bool:
        """As the cell: what is added must be affine in the carry."""
        return getattr(self.cell, "affine", False)

    @property
    def recurs_in_gate(self) -> bool:
        """As the cell."""
        return getattr(self.cell, "recurs_in_gate", False)

    def init(self, key: Any, in_features: int, dtype: DType = jnp.float32) -> Params:
        """Draw the parameters of the cell."""
        return self.cell.init(key, in_features, dtype)

    def init_carry(self, batch_shape: Shape = (), dtype: DType = jnp.float32) -> Carry:
        """Return that of the cell."""
        return self.cell.init_carry(batch_shape, dtype)

    def project(self, params: Params, inputs: Any) -> Any:
        """Project as the cell does."""
        return self.cell.project(params, inputs)

    def recur(self, params: Params, carry: Carry) -> Any:
        """Recur as the cell does."""
        return self.cell.recur(params, carry)

    def gate(
        self, params: Params, projected: Any, recurrent: Any, carry: Carry
    ) -> tuple[Carry, Any]:
        """Join as the cell does."""
        return self.cell.gate(params, projected, recurrent, carry)

    def step(self, params: Params, carry: Carry, inputs: Any) -> tuple[Carry, Any]:
        """Run one step: `gate` of `project` and `recur`."""
        projected = self.project(params, inputs)
        return self.gate(params, projected, self.recur(params, carry), carry)
