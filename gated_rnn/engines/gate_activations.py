"""The activations of a gate, kept by the forward loop for its derivative (layer 1).

Where an activation's derivative follows from its value, a derivative in bulk that is
handed the values computes no activation again, and never reads what went into them.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import Jaxpr, Literal

__all__ = ["GateReads", "keep_activations", "reads_of_derivative", "with_activations"]

# What each multiplies its tangent by, from its value.
SLOPES: dict[str, Callable[[jax.Array], jax.Array]] = {
    "tanh": lambda y: (1 - y) * (1 + y),
    "logistic": lambda y: y * (1 - y),
    "exp": lambda y: y,
}
# Takes the value of an activation, and which leaves of the gate's arguments it depends
# on through no other activation; returns what the rest of the gate reads as its value.
Keep = Callable[[jax.Array, frozenset[int]], jax.Array]


def keep_activations(
    gate: Callable[..., Any], arguments: tuple[Any, ...], source: int, keep: Keep
) -> Any:
    """Run a gate, and hand out its activations next to one argument, in order.

    Args:
        gate: A function of pytrees.
        arguments: What it is given.
        source: Which argument the activations are of: those that depend on it, but not
            through another one.
        keep: What each is handed to.
    """
    return _run(
        gate,
        arguments,
        source,
        lambda primitive, argument, leaves, **params: keep(
            primitive.bind(argument, **params), leaves
        ),
    )


def with_activations(
    gate: Callable[..., Any],
    arguments: tuple[Any, ...],
    source: int,
    values: Sequence[jax.Array],
) -> Any:
    """Run a gate whose activations are known: they are derived, but not computed.

    Args:
        gate: As in `keep_activations`.
        arguments: See there.
        source: See there.
        values: The activations that it handed out.
    """
    known = iter(values)
    return _run(
        gate,
        arguments,
        source,
        lambda primitive, argument, _, **__: _given(
            primitive.name, argument, next(known)
        ),
    )


class GateReads(NamedTuple):
    """What the derivative of a gate reads whose activations are known.

    Attributes:
        activations: Shapes of the activations, `[*batch, H]`.
        features: For each argument and each of its leaves, how many features it reads.
    """

    activations: list[Any]
    features: list[list[int]]


def reads_of_derivative(
    gate: Callable[..., Any], arguments: tuple[Any, ...], source: int
) -> GateReads:
    """Return what the derivative of a gate reads, given its activations.

    Args:
        gate: As in `keep_activations`.
        arguments: Shapes.
        source: See there.
    """
    activations: list[Any] = []

    def keep(value: jax.Array, _: frozenset[int]) -> jax.Array:
        activations.append(jax.ShapeDtypeStruct(value.shape, value.dtype))
        return value

    jax.eval_shape(lambda *a: keep_activations(gate, a, source, keep), *arguments)
    leaves, structure = jax.tree.flatten(arguments)
    inexact = [
        k for k, leaf in enumerate(leaves) if jnp.issubdtype(leaf.dtype, jnp.inexact)
    ]

    def tangent(leaves: list[Any], dots: list[Any], values: list[Any]) -> Any:
        def of_inexact(*some: Any) -> Any:
            filled = list(leaves)
            for k, value in zip(inexact, some, strict=True):
                filled[k] = value
            arguments = jax.tree.unflatten(structure, filled)
            return with_activations(gate, arguments, source, values)

        return jax.jvp(of_inexact, [leaves[k] for k in inexact], dots)[1]

    program = jax.make_jaxpr(tangent)(leaves, [leaves[k] for k in inexact], activations)
    features = iter(_features_read(program.jaxpr)[: len(leaves)])
    return GateReads(
        activations, [[next(features) for _ in jax.tree.leaves(a)] for a in arguments]
    )


def _features_read(jaxpr: Jaxpr) -> list[int]:
    """Return how many features of each argument the results of a program depend on."""
    read = {v: _num_features(v) for v in jaxpr.outvars if not isinstance(v, Literal)}
    for equation in reversed(jaxpr.eqns):
        used = [v for v in equation.outvars if v in read]
        inputs = [v for v in equation.invars if not isinstance(v, Literal)]
        for v in inputs if used else ():
            whole = _num_features(v)
            # A packed array may be read in part.
            split = equation.primitive.name == "split"
            part = sum(map(_num_features, used)) if split else whole
            read[v] = min(whole, read.get(v, 0) + part)
    return [read.get(v, 0) for v in jaxpr.invars]


def _num_features(variable: Any) -> int:
    return variable.aval.shape[-1] if variable.aval.ndim else 1


def _run(
    gate: Callable[..., Any],
    arguments: tuple[Any, ...],
    source: int,
    activate: Callable[..., jax.Array],
) -> Any:
    """Run a gate with `activate` in place of its activations."""
    shapes = jax.tree.map(jax.typeof, arguments)
    program, results = jax.make_jaxpr(gate, return_shape=True)(*shapes)
    leaves = jax.tree.leaves(arguments)
    first = len(jax.tree.leaves(arguments[:source]))
    wanted = range(first, first + len(jax.tree.leaves(arguments[source])))
    origins = [frozenset([k]) for k in range(len(leaves))]
    reader = _Reader(frozenset(wanted), activate)
    values, _ = reader.read(program.jaxpr, program.consts, leaves, origins)
    return jax.tree.unflatten(jax.tree.structure(results), values)


@dataclass(frozen=True)
class _Reader:
    """Runs a program in which some leaves go through activations of another kind."""

    wanted: frozenset[int]
    activate: Callable[..., jax.Array]

    def read(
        self,
        jaxpr: Jaxpr,
        consts: Sequence[Any],
        arguments: Sequence[Any],
        origins: Sequence[frozenset[int]],
    ) -> tuple[list[Any], list[frozenset[int]]]:
        """Return the results, and the leaves each depends on through no activation."""
        values: dict[Any, Any] = dict(zip(jaxpr.constvars, consts, strict=True))
        values.update(zip(jaxpr.invars, arguments, strict=True))
        leaves: dict[Any, frozenset[int]] = dict(
            zip(jaxpr.invars, origins, strict=True)
        )

        def value_of(variable: Any) -> Any:
            return variable.val if isinstance(variable, Literal) else values[variable]

        def leaves_of(variable: Any) -> frozenset[int]:
            literal = isinstance(variable, Literal)
            return frozenset() if literal else leaves.get(variable, frozenset())

        for equation in jaxpr.eqns:
            inputs = [value_of(v) for v in equation.invars]
            above = [leaves_of(v) for v in equation.invars]
            origin = frozenset[int]().union(*above)
            name = equation.primitive.name
            if name in ("jit", "pjit"):
                inner = equation.params["jaxpr"]
                results, below = self.read(inner.jaxpr, inner.consts, inputs, above)
            elif name in SLOPES and origin & self.wanted:
                results = [
                    self.activate(
                        equation.primitive, inputs[0], origin, **equation.params
                    )
                ]
                below = [frozenset[int]()]
            else:
                params = equation.primitive.get_bind_params(equation.params)
                results = equation.primitive.bind(*inputs, **params)
                if not equation.primitive.multiple_results:
                    results = [results]
                below = [origin] * len(results)
            values.update(zip(equation.outvars, results, strict=True))
            leaves.update(zip(equation.outvars, below, strict=True))
        outputs = jaxpr.outvars
        return [value_of(v) for v in outputs], [leaves_of(v) for v in outputs]


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _given(name: str, argument: jax.Array, value: jax.Array) -> jax.Array:
    """Return the value of an activation, whose derivative is that by its argument."""
    del name, argument
    return value


@_given.defjvp
def _given_jvp(name: str, primals: Any, tangents: Any) -> Any:
    # Further derivatives go through the value, which the argument has made.
    _, value = primals
    return value, SLOPES[name](value) * tangents[0]
