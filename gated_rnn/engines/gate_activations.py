"""The activations of a gate, kept by the forward loop for its derivative (layer 1).

Where an activation's derivative follows from its value, a derivative in bulk that is
handed the values computes no activation again, and never reads what went into them.
"""

import functools
import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import Jaxpr, Literal

__all__ = ["Activations", "find_activations", "keep_activations", "with_activations"]

# What each multiplies its tangent by, from its value.
SLOPES: dict[str, Callable[[jax.Array], jax.Array]] = {
    "tanh": lambda y: (1 - y) * (1 + y),
    "logistic": lambda y: y * (1 - y),
    "exp": lambda y: y,
}
# Takes the value of an activation; returns what the gate goes on with in its place.
Keep = Callable[[jax.Array], jax.Array]


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
        lambda primitive, argument, _, **params: keep(
            primitive.bind(argument, **params)
        ),
    )[0]


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
    )[0]


class Activations(NamedTuple):
    """The activations of a gate, and what its derivative reads besides them.

    Attributes:
        shapes: Their types, `[*batch, H]`.
        makers: For each of them, the leaf of another argument that is as large, and of
            which nothing else is made; or None.
        features: For each argument and each of its leaves, how many features the
            derivative reads.
    """

    shapes: tuple[Any, ...]
    makers: tuple[int | None, ...]
    features: tuple[list[int], ...]


def find_activations(
    gate: Callable[..., Any], arguments: tuple[Any, ...], source: int, made_of: int
) -> Activations:
    """Find the activations of a gate.

    Args:
        gate: As in `keep_activations`.
        arguments: Shapes.
        source: See there.
        made_of: The argument in which `makers` are looked for.
    """
    shapes: list[Any] = []
    above: list[frozenset[int]] = []
    besides: list[frozenset[int]] = []

    def note(primitive: Any, argument: Any, leaves: Any, **params: Any) -> jax.Array:
        value = primitive.bind(argument, **params)
        shapes.append(jax.typeof(value))
        above.append(leaves)
        return value

    def trace(*arguments: Any) -> Any:
        results, leaves = _run(gate, arguments, source, note)
        besides.extend(leaves)
        return results

    jax.eval_shape(trace, *arguments)
    first = len(jax.tree.leaves(arguments[:made_of]))
    candidates = jax.tree.leaves(arguments[made_of])
    uses = Counter(itertools.chain(*above, *besides))
    makers: list[int | None] = []
    for shape, leaves in zip(shapes, above, strict=True):
        alone = [
            k
            for k, candidate in enumerate(candidates)
            if first + k in leaves
            and uses[first + k] == 1
            and (candidate.shape, candidate.dtype) == (shape.shape, shape.dtype)
        ]
        makers.append(alone[0] if len(alone) == 1 else None)
    read = iter(_features_read_by_tangent(gate, arguments, source, shapes))
    features = [[next(read) for _ in jax.tree.leaves(a)] for a in arguments]
    return Activations(tuple(shapes), tuple(makers), tuple(features))


def _features_read_by_tangent(
    gate: Callable[..., Any],
    arguments: tuple[Any, ...],
    source: int,
    activations: list[Any],
) -> list[int]:
    """Return how many features of each leaf the tangent reads, given activations."""
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
    return _features_read(program.jaxpr)[: len(leaves)]


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
) -> tuple[Any, list[frozenset[int]]]:
    """Run a gate with `activate` in place of its activations.

    Returns:
        The results, and which leaves each depends on through no activation.
    """
    shapes = jax.tree.map(jax.typeof, arguments)
    program, results = jax.make_jaxpr(gate, return_shape=True)(*shapes)
    leaves = jax.tree.leaves(arguments)
    first = len(jax.tree.leaves(arguments[:source]))
    wanted = range(first, first + len(jax.tree.leaves(arguments[source])))
    origins = [frozenset([k]) for k in range(len(leaves))]
    reader = _Reader(frozenset(wanted), activate)
    values, besides = reader.read(program.jaxpr, program.consts, leaves, origins)
    return jax.tree.unflatten(jax.tree.structure(results), values), besides


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
