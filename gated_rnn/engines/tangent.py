"""The tangent of a block of steps, and with it the gradient (layer 1)."""

import contextlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gated_rnn.arithmetic import jvp_of_some, present_tangents
from gated_rnn.engines.forward import join_pieces
from gated_rnn.engines.gate_activations import with_activations
from gated_rnn.engines.gate_derivative import (
    GateDerivative,
    NotElementwise,
    derive_gate,
)
from gated_rnn.engines.loop import Kept, Loop
from gated_rnn.types import Carry, Cell, Params

__all__ = ["tangent_of_block"]


def tangent_of_block(
    loop: Loop,
    params: Params,
    params_dots: list[jax.Array | None],
    carry_dot: Carry,
    inputs: Any,
    inputs_dots: list[jax.Array | None],
    kept: Kept,
) -> tuple[Carry, Any]:
    """Return the tangents of the carry that leaves a block, and of its outputs.

    Linear in `params_dots`, `carry_dot` and `inputs_dots`.
    """
    cell = loop.cell
    before = _carries_before(kept, loop.reverse)
    projected, projected_dot = jvp_of_some(
        cell.project, (params, inputs), [*params_dots, *inputs_dots]
    )
    recurrent, recurrent_dot = jvp_of_some(
        lambda params: cell.recur(params, before), (params,), params_dots
    )
    if kept.projected is not None:
        projected = kept.projected
    if kept.recurrent is not None:
        recurrent = join_pieces(kept.recurrent, recurrent)
    known_dots = [*params_dots, *_dots_like(projected, projected_dot)]
    point = _Point(params, projected, recurrent, before)
    recurrent_dots = _dots_like(recurrent, recurrent_dot)
    if loop.plan.elementwise:
        with contextlib.suppress(NotElementwise):
            derivative = derive_gate(
                _with_known(cell, kept.activations), point[:2], known_dots, point[2:]
            )
            return _loop_over_coefficients(
                loop, point, derivative, recurrent_dots, carry_dot
            )
    return _loop_over_gates(loop, point, known_dots, recurrent_dots, carry_dot)


class _Point(NamedTuple):
    """The arguments of `gate` at all steps of a block."""

    params: Params
    projected: Any
    recurrent: Any
    carry: Carry


def _over_time(cell: Cell) -> Any:
    return jax.vmap(cell.gate, in_axes=(None, 0, 0, 0))


def _with_known(cell: Cell, activations: Any) -> Any:
    """Return the gate over time, some of whose values are known."""
    if activations is None:
        return _over_time(cell)

    def gate(*arguments: Any) -> Any:
        arguments, known = arguments[:-1], arguments[-1]
        return with_activations(cell.gate, arguments, source=2, values=known)

    over_time = jax.vmap(gate, in_axes=(None, 0, 0, 0, 0))
    return lambda *arguments: over_time(*arguments, activations)


def _carries_before(kept: Kept, reverse: bool) -> Carry:
    def shift(first: jax.Array, after: jax.Array) -> jax.Array:
        if reverse:
            return jnp.concatenate([after[1:], first[None]])
        return jnp.concatenate([first[None], after[:-1]])

    return jax.tree.map(shift, kept.entering, kept.carries)


def _dots_like(tree: Any, tangents: Any) -> list[jax.Array | None]:
    """Return a tangent for each leaf, None where it is zero."""
    if tangents is None:
        return [None] * len(jax.tree.leaves(tree))
    return present_tangents(tangents)


def _recur_dot(
    loop: Loop, params: Params, carry: Carry, carry_dot: Carry, sources: Any
) -> list[jax.Array]:
    """Return the tangents of what `recur` returns, with those from before the loop."""
    _, dot = jax.jvp(lambda c: loop.cell.recur(params, c), (carry,), (carry_dot,))
    return _plus(jax.tree.leaves(dot), sources)


def _plus(
    values: list[jax.Array], sources: Sequence[jax.Array | None]
) -> list[jax.Array]:
    return [
        value if source is None else value + source
        for value, source in zip(values, sources, strict=True)
    ]


def _add(
    first: list[jax.Array | None], second: list[jax.Array | None]
) -> list[jax.Array | None]:
    return [
        b if a is None else a if b is None else a + b
        for a, b in zip(first, second, strict=True)
    ]


def _loop_over_coefficients(
    loop: Loop,
    point: _Point,
    derivative: GateDerivative,
    recurrent_dots: list[jax.Array | None],
    carry_dot: Carry,
) -> tuple[Carry, Any]:
    """Run the linear recurrence of an elementwise gate."""
    num_recurrent = len(recurrent_dots)
    sources = derivative.leaf_sources
    recurrent_dots = _add(recurrent_dots, sources[:num_recurrent])

    def step(carry_dot: Carry, at_step: Any) -> tuple[Carry, Any]:
        # The carry is read only where `recur` is not linear in it.
        carry, coefficients, inner_sources, recurrent_dots, carry_sources = at_step
        arrays = _recur_dot(loop, point.params, carry, carry_dot, recurrent_dots)
        arrays += _plus(jax.tree.leaves(carry_dot), carry_sources)
        next_dot, outputs_dot = derivative.apply(coefficients, inner_sources, arrays)
        return next_dot, outputs_dot if loop.collect else None

    return loop.scan(
        step,
        carry_dot,
        (
            point.carry,
            derivative.coefficients,
            derivative.sources,
            recurrent_dots,
            sources[num_recurrent:],
        ),
    )


def _loop_over_gates(
    loop: Loop,
    point: _Point,
    known_dots: list[jax.Array | None],
    recurrent_dots: list[jax.Array | None],
    carry_dot: Carry,
) -> tuple[Carry, Any]:
    """Run the linear recurrence of any gate, linearised step by step."""
    cell = loop.cell
    _, sources = jvp_of_some(
        lambda params, projected: _over_time(cell)(params, projected, *point[2:]),
        point[:2],
        known_dots,
    )

    def step(carry_dot: Carry, at_step: Any) -> tuple[Carry, Any]:
        (projected, recurrent, carry), recurrent_dots, sources = at_step
        dots = _recur_dot(loop, point.params, carry, carry_dot, recurrent_dots)
        recurrent_dot = jax.tree.unflatten(jax.tree.structure(recurrent), dots)
        _, results = jax.jvp(
            lambda r, c: cell.gate(point.params, projected, r, c),
            (recurrent, carry),
            (recurrent_dot, carry_dot),
        )
        if sources is not None:
            results = jax.tree.map(jnp.add, results, sources)
        next_dot, outputs_dot = results
        return next_dot, outputs_dot if loop.collect else None

    return loop.scan(
        jax.checkpoint(step, prevent_cse=False),
        carry_dot,
        (point[1:], recurrent_dots, sources),
    )
