"""What goes on inside a run: the value of every gate at every step (layer 3).

The cell itself is run, not another form of it: its gates are the values that its `gate`
names with `arithmetic.name_gates`.
"""

from dataclasses import dataclass
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

from gated_rnn.types import Carry, Cell, Engine, Params, invalid
from gated_rnn.unrolling import unroll
from gated_rnn.wrapping import WrappedCell

__all__ = ["gate_values"]


def gate_values(
    cell: Cell,
    params: Params,
    inputs: Any,
    carry: Carry | None = None,
    *,
    reset_carry: Carry | None = None,
    mask: jax.Array | None = None,
    resets: jax.Array | None = None,
    reverse: bool = False,
    engine: Engine | None = None,
) -> dict[str, jax.Array]:
    """Return every gate of every step of a run.

    Args:
        cell: Any cell whose `gate` calls `arithmetic.name_gates`.
        params: Its parameters.
        inputs: `[T, *batch, F]`.
        carry: As these and all that follow in `gated_rnn.unroll`.
        reset_carry: See there.
        mask: See there; gates of steps that are not real are zero.
        resets: See there.
        reverse: See there.
        engine: See there.

    Returns:
        For each gate or candidate, by the letter of the cell's equation, its value
        after the activation, `[T, *batch, H]`.

    Raises:
        ValueError: As `unroll` does, and if the cell names no gate.

    Examples:
        >>> import jax.numpy as jnp
        >>> from gated_rnn import LSTM
        >>> cell = LSTM(16)
        >>> params = cell.init(jax.random.key(0), in_features=3)
        >>> gates = gate_values(cell, params, jnp.ones((20, 2, 3)))
        >>> {name: value.shape for name, value in gates.items()}["f"]
        (20, 2, 16)
    """
    if isinstance(cell, type) or not hasattr(cell, "gate"):
        raise invalid("cell", "a cell such as LSTM(16)", type(cell).__name__)
    _, gates = unroll(
        _Recorder(cell),
        params,
        inputs,
        carry,
        reset_carry=reset_carry,
        mask=mask,
        resets=resets,
        reverse=reverse,
        engine=engine,
    )
    return gates


@jax.tree_util.register_static
@dataclass(frozen=True)
class _Recorder(WrappedCell):
    """A cell whose outputs are the gates of another."""

    def gate(
        self, params: Params, projected: Any, recurrent: Any, carry: Carry
    ) -> tuple[Carry, dict[str, jax.Array]]:
        arguments = (params, projected, recurrent, carry)
        program = jax.make_jaxpr(lambda *a: self.cell.gate(*a)[0])(*arguments)
        named = {
            equation.params["name"]: equation.outvars[0]
            for equation in program.jaxpr.eqns
            if equation.primitive.name == "name"
        }
        if not named:
            raise invalid(
                "cell", "one whose gate calls name_gates", type(self.cell).__name__
            )
        extended = program.jaxpr.replace(
            outvars=[*program.jaxpr.outvars, *named.values()],
            debug_info=program.jaxpr.debug_info.with_unknown_names(),
        )
        run = jaxpr_as_fun(ClosedJaxpr(extended, program.consts))
        values = run(*jax.tree.leaves(arguments))
        leaves, structure = jax.tree.flatten(carry)
        stepped = jax.tree.unflatten(structure, values[: len(leaves)])
        return stepped, dict(zip(named, values[len(leaves) :], strict=True))
