"""The forward pass over a block of steps, and what it keeps of them (layer 1)."""

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp

from gated_rnn.arithmetic import match_varying
from gated_rnn.engines.gate_activations import keep_activations
from gated_rnn.engines.loop import Kept, Loop
from gated_rnn.types import Carry, Params

__all__ = ["join_pieces", "run_block", "run_block_and_keep"]


def run_block(
    loop: Loop, params: Params, carry: Carry, inputs: Any
) -> tuple[Carry, Any]:
    """Return the carry that leaves a block, and its outputs or None."""
    cell = loop.cell

    def step(carry: Carry, projected: Any) -> tuple[Carry, Any]:
        recurrent = cell.recur(params, carry)
        carry, outputs = cell.gate(params, projected, recurrent, carry)
        return carry, outputs if loop.collect else None

    return loop.scan(step, carry, cell.project(params, inputs))


def run_block_and_keep(
    loop: Loop, params: Params, carry: Carry, inputs: Any
) -> tuple[Carry, Kept]:
    """Run a block and keep what its tangent needs."""
    cell, plan = loop.cell, loop.plan
    projected = cell.project(params, inputs)
    if any(maker is not None for maker in plan.makers or ()):
        final, kept = _run_and_overwrite(loop, params, carry, projected)
    else:
        final, kept = _run_and_keep(loop, params, carry, projected)
    return final, kept._replace(projected=projected if plan.keep_projected else None)


def _run_and_keep(
    loop: Loop, params: Params, carry: Carry, projected: Any
) -> tuple[Carry, Kept]:
    cell, plan = loop.cell, loop.plan

    def step(carry_before: Carry, projected: Any) -> tuple[Carry, Any]:
        recurrent = cell.recur(params, carry_before)
        arguments = (params, projected, recurrent, carry_before)
        activations: list[jax.Array] | None = None
        if plan.keep_activations:
            activations = []

            def keep(value: jax.Array) -> jax.Array:
                activations.append(value)
                return value

            carry, outputs = keep_activations(cell.gate, arguments, source=2, keep=keep)
        else:
            carry, outputs = cell.gate(*arguments)
        kept = _kept_of_step(loop, carry, recurrent, projected, activations, outputs)
        return carry, kept

    final, kept = loop.scan(step, carry, projected)
    return final, kept._replace(entering=carry)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _run_and_overwrite(
    loop: Loop, params: Params, carry: Carry, projected: Any
) -> tuple[Carry, Kept]:
    """Do as `_run_and_keep`, with activations put where the projection was read.

    A step reads its projection once, and each activation takes the place of the array
    that it was made of: fewer arrays pass through the cache, and none is filled with
    zeros first. Its derivative is that of `_run_and_keep`, since the gradient of a loop
    that writes into its own arrays would touch all of them in each step.
    """
    cell, makers = loop.cell, loop.plan.makers or ()
    arrays, structure = jax.tree.flatten(match_varying(projected, carry, params))

    def step(state: tuple[Carry, Any, jax.Array], t: jax.Array) -> tuple[Any, Kept]:
        carry_before, arrays, same_t = state
        arrays, others = list(arrays), list[jax.Array]()
        at_step = [jax.lax.dynamic_index_in_dim(x, t, keepdims=False) for x in arrays]
        places = iter(makers)

        def keep(value: jax.Array) -> jax.Array:
            place = next(places)
            if place is None:
                others.append(value)
                return value
            arrays[place] = jax.lax.dynamic_update_index_in_dim(
                arrays[place], value, t, axis=0
            )
            # XLA cannot tell that it is the same place: it would take the value itself,
            # and write it twice.
            return jax.lax.dynamic_index_in_dim(arrays[place], same_t, keepdims=False)

        projected = jax.tree.unflatten(structure, at_step)
        recurrent = cell.recur(params, carry_before)
        arguments = (params, projected, recurrent, carry_before)
        carry, outputs = keep_activations(cell.gate, arguments, source=2, keep=keep)
        kept = _kept_of_step(loop, carry, recurrent, projected, others, outputs)
        next_t = same_t - 1 if loop.reverse else same_t + 1
        return (carry, arrays, next_t), kept

    steps = jnp.arange(arrays[0].shape[0], dtype=jnp.uint32)
    start = (carry, arrays, steps[-1 if loop.reverse else 0])
    (final, arrays, _), kept = loop.scan(step, start, steps)
    others = iter(kept.activations)
    activations = [next(others) if k is None else arrays[k] for k in makers]
    return final, kept._replace(entering=carry, activations=activations)


@_run_and_overwrite.defjvp
def _run_and_overwrite_jvp(
    loop: Loop, primals: tuple[Any, ...], tangents: tuple[Any, ...]
) -> Any:
    return jax.jvp(functools.partial(_run_and_keep, loop), primals, tangents)


def _kept_of_step(
    loop: Loop,
    carry: Carry,
    recurrent: Any,
    projected: Any,
    activations: list[jax.Array] | None,
    outputs: Any,
) -> Kept:
    keep_recurrent = loop.plan.keep_recurrent
    return Kept(
        entering=None,
        carries=carry,
        projected=None,
        recurrent=_pieces(recurrent, projected) if keep_recurrent else None,
        activations=activations,
        outputs=outputs if loop.stores_outputs else None,
    )


def _pieces(recurrent: Any, projected: Any) -> Any:
    """Cut a packed array into blocks like those of the projection, if it has them.

    A derivative that reads some blocks leaves the others to be left out.
    """
    widths = [x.shape[-1] for x in jax.tree.leaves(projected)]
    if not isinstance(recurrent, jax.Array) or sum(widths) != recurrent.shape[-1]:
        return recurrent
    ends = list(itertools.accumulate(widths))[:-1]
    return tuple(jnp.split(recurrent, ends, axis=-1))


def join_pieces(pieces: Any, recurrent: Any) -> Any:
    """Undo `_pieces`, given what `recur` returns."""
    if jax.tree.structure(pieces) == jax.tree.structure(recurrent):
        return pieces
    return jnp.concatenate(pieces, axis=-1)
