"""Noise of a recurrent layer, as a cell around its cell (layer 3).

`Regularized` is a cell again, so every engine runs it. Its masks are drawn outside of
the loop, and come in with the parameters (one a row) or the inputs (one a step).
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gated_rnn.networks.dropout import check_rate, drop, keep_by_row, keep_by_step
from gated_rnn.types import Carry, Cell, DType, Params, Shape, invalid
from gated_rnn.wrapping import WrappedCell

__all__ = ["Noise", "Regularized", "RegularizedInputs", "RegularizedParams"]


@dataclass(frozen=True)
class Noise:
    """How much noise a recurrent layer has; see `RNN` for the four rates."""

    input_dropout: float
    recurrent_dropout: float
    weight_dropout: float
    zoneout: float | tuple[float, ...]

    def __post_init__(self) -> None:
        check_rate("input_dropout", self.input_dropout)
        check_rate("recurrent_dropout", self.recurrent_dropout)
        check_rate("weight_dropout", self.weight_dropout)
        zoneout = self.zoneout if isinstance(self.zoneout, tuple) else (self.zoneout,)
        for rate in zoneout:
            check_rate("zoneout", rate)

    @property
    def has_zoneout(self) -> bool:
        """Whether any feature of the carry may keep its old value."""
        rates = self.zoneout if isinstance(self.zoneout, tuple) else (self.zoneout,)
        return any(rates)

    def check_cell(self, cell: Cell) -> None:
        """Raise unless the noise can be applied to a cell."""
        if self.recurrent_dropout and getattr(cell, "recurs_in_gate", False):
            raise invalid(
                "recurrent_dropout",
                "0 for a cell that multiplies by its recurrent kernel after a gate",
                f"{self.recurrent_dropout} for {type(cell).__name__}",
            )
        if self.has_zoneout:
            self.zoneout_rates(cell.init_carry())

    def zoneout_rates(self, carry: Carry) -> tuple[float, ...]:
        """Return z for each field of a carry."""
        if not isinstance(self.zoneout, tuple):
            return (self.zoneout,) * len(carry)
        if len(self.zoneout) != len(carry):
            expected = f"one rate, or one for each of {carry._fields}"
            raise invalid("zoneout", expected, repr(self.zoneout))
        return self.zoneout

    def add(
        self,
        cell: Cell,
        params: Params,
        inputs: Any,
        times: jax.Array,
        key: jax.Array | None,
    ) -> tuple[Cell, Params, Any]:
        """Return the cell, parameters and inputs of a run with this noise.

        Args:
            cell: The cell.
            params: Its parameters.
            inputs: `[T, *batch, F]`.
            times: int32 `[T, *batch]`, the time of each step.
            key: Key of the noise; None: its expectation.
        """
        kept = changed = None
        if key is not None:
            input_key, recurrent_key, weight_key, zoneout_key = jax.random.split(key, 4)
            batch_shape = times.shape[1:]
            if self.input_dropout:
                inputs = self._drop_inputs(input_key, inputs, batch_shape)
            if self.recurrent_dropout:
                features, rate = cell.out_features, self.recurrent_dropout
                kept = keep_by_row(recurrent_key, batch_shape, features, rate)
            if self.weight_dropout:
                params = _drop_weights(weight_key, params, self.weight_dropout)
            if self.has_zoneout:
                changed = self._draw_changed(zoneout_key, cell.init_carry(), times)
        if kept is None and not self.has_zoneout:
            return cell, params, inputs
        rates = self.zoneout_rates(cell.init_carry()) if self.has_zoneout else ()
        return (
            Regularized(cell, self.recurrent_dropout, rates),
            RegularizedParams(params, kept),
            RegularizedInputs(inputs, changed),
        )

    def _drop_inputs(self, key: jax.Array, inputs: Any, batch_shape: Shape) -> Any:
        leaves, structure = jax.tree.flatten(inputs)
        rate = self.input_dropout
        dropped = [
            drop(leaf, keep_by_row(leaf_key, batch_shape, leaf.shape[-1], rate), rate)
            for leaf_key, leaf in zip(
                jax.random.split(key, len(leaves)), leaves, strict=True
            )
        ]
        return jax.tree.unflatten(structure, dropped)

    def _draw_changed(self, key: jax.Array, zeros: Carry, times: jax.Array) -> Carry:
        fields = zip(
            jax.random.split(key, len(zeros)),
            zeros,
            self.zoneout_rates(zeros),
            strict=True,
        )
        return type(zeros)._make(
            keep_by_step(field_key, times, zero.shape[-1], rate)
            for field_key, zero, rate in fields
        )


def _drop_weights(key: jax.Array, params: Params, rate: float) -> Params:
    kernel = getattr(params, "recurrent_kernel", None)
    if kernel is None:
        got = f"parameters {type(params).__name__}"
        raise invalid("weight_dropout", "0 for a cell without recurrent kernel", got)
    kept = jax.random.bernoulli(key, 1.0 - rate, kernel.shape)
    return params._replace(recurrent_kernel=drop(kernel, kept, rate))


class RegularizedParams(NamedTuple):
    """Parameters of the cell, and what a row keeps of the hidden it multiplies.

    Attributes:
        cell: Those of the cell.
        kept: bool `[*batch, H]`, or None: everything.
    """

    cell: Params
    kept: jax.Array | None


class RegularizedInputs(NamedTuple):
    """Inputs of the cell, and which features of the carry a step may change.

    Attributes:
        inputs: `[*leading, F]`, or what the cell projects of it.
        changed: A carry of bool arrays `[*leading, H]`, or None.
    """

    inputs: Any
    changed: Carry | None


@jax.tree_util.register_static
@dataclass(frozen=True)
class Regularized(WrappedCell):
    """A cell with dropout on its recurrence and zoneout.

        recurrent = recur(params, drop(carry.hidden))
        carry' = changed * stepped + (1 - changed) * carry

    Without `changed` zoneout takes the expected value, with 1 - z for `changed`.

    Attributes:
        cell: The cell.
        rate: Of the dropout.
        zoneout: z, one for each field of the carry; empty: none.

    References:
        Y. Gal, Z. Ghahramani: A theoretically grounded application of dropout in
        recurrent neural networks, 2016, arXiv 1512.05287; D. Krueger et al.: Zoneout,
        2017, arXiv 1606.01305.
    """

    rate: float
    zoneout: tuple[float, ...]

    def init(
        self, key: jax.Array, in_features: int, dtype: DType = jnp.float32
    ) -> RegularizedParams:
        """Draw the parameters of the cell; everything is kept."""
        return RegularizedParams(self.cell.init(key, in_features, dtype), None)

    def project(
        self, params: RegularizedParams, inputs: RegularizedInputs
    ) -> RegularizedInputs:
        """Project what the cell reads."""
        return inputs._replace(inputs=self.cell.project(params.cell, inputs.inputs))

    def recur(self, params: RegularizedParams, carry: Carry) -> Any:
        """Multiply what is kept of h."""
        if params.kept is not None:
            carry = carry._replace(hidden=drop(carry.hidden, params.kept, self.rate))
        return self.cell.recur(params.cell, carry)

    def gate(
        self,
        params: RegularizedParams,
        projected: RegularizedInputs,
        recurrent: Any,
        carry: Carry,
    ) -> tuple[Carry, jax.Array]:
        """Return the next carry, and its h for the outputs."""
        stepped, outputs = self.cell.gate(
            params.cell, projected.inputs, recurrent, carry
        )
        if not self.zoneout:
            return stepped, outputs
        if projected.changed is None:
            after = [
                old + jnp.asarray(1.0 - rate, old.dtype) * (new - old)
                for new, old, rate in zip(stepped, carry, self.zoneout, strict=True)
            ]
        else:
            after = [
                jnp.where(changed, new, old)
                for changed, new, old in zip(
                    projected.changed, stepped, carry, strict=True
                )
            ]
        carry = type(stepped)._make(after)
        return carry, carry.hidden
