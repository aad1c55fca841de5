"""The derivative of an elementwise gate as a graph with few coefficients (layer 1).

JAX linearises the gate; its tangent program is read as a graph whose links multiply by
an array. A node that saves no link is taken out and its links are multiplied through,
so that a loop over time is left with six products for an LSTM and five for a GRU.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Jaxpr, Literal

from gated_rnn.engines.tangent_graph import Coefficient, Node, simplify

__all__ = ["GateDerivative", "NotElementwise", "derive_gate"]


class NotElementwise(Exception):  # noqa: N818 - a finding, not a failure
    """The tangent of a gate has an operation that is not elementwise."""


@dataclass(frozen=True)
class GateDerivative:
    """The tangent of a gate: what a loop multiplies, and what enters from outside.

    Attributes:
        coefficients: For each inner node, for each of its links, an array
            `[T, *batch, N]`, or None if the coefficient is a number.
        sources: For each inner node, `[T, *batch, N]` or None.
        leaf_sources: For each array of the loop, what to add to it, or None.
    """

    coefficients: list[list[jax.Array | None]]
    sources: list[jax.Array | None]
    leaf_sources: list[jax.Array | None]
    _leaves: list[Node]
    _inner: list[Node]
    _outputs: list[Node]
    _structure: Any

    @property
    def num_coefficients(self) -> int:
        """Number of arrays that a step of the loop multiplies by."""
        return sum(c is not None for links in self.coefficients for c in links)

    def apply(
        self,
        coefficients: list[list[jax.Array | None]],
        sources: list[jax.Array | None],
        arrays: list[jax.Array],
    ) -> Any:
        """Return the tangents of one step, in the structure of the gate's results.

        Args:
            coefficients: Those of the step, `[*batch, N]`.
            sources: Those of the step.
            arrays: Tangents that the loop provides, their sources added.
        """
        tangents: dict[int, jax.Array] = {}
        for leaf, array in zip(self._leaves, arrays, strict=True):
            tangents[id(leaf)] = array
            widths = [piece.shape[-1] for piece in leaf.pieces]
            if widths:
                ends = list(itertools.accumulate(widths))[:-1]
                cut = jnp.split(array, ends, axis=-1)
                tangents.update(zip(map(id, leaf.pieces), cut, strict=True))
        for node, factors, source in zip(
            self._inner, coefficients, sources, strict=True
        ):
            total: Any = source
            for (other, constant), factor in zip(node.links, factors, strict=True):
                factor = constant if factor is None else factor
                term = tangents[id(other)].astype(node.dtype)
                term = term if factor is None else term * factor
                total = term if total is None else total + term
            tangents[id(node)] = total
        results = [tangents[id(output)] for output in self._outputs]
        return jax.tree.unflatten(self._structure, results)


def derive_gate(
    gate: Callable[..., Any],
    known: tuple[Any, ...],
    known_dots: Sequence[jax.Array | None],
    looped: tuple[Any, ...],
) -> GateDerivative:
    """Return the derivative of `gate(*known, *looped)`, an elementwise function.

    Args:
        gate: The function over all of time at once.
        known: Arguments whose tangents are known before the loop.
        known_dots: A tangent for each of their leaves; None for zero.
        looped: Arguments `[T, *batch, N]` whose tangents the loop computes.

    Raises:
        NotElementwise: If the tangent has an operation that mixes features.
    """
    leaves, structure = jax.tree.flatten((*known, *looped))
    inexact = [
        k for k, leaf in enumerate(leaves) if jnp.issubdtype(leaf.dtype, jnp.inexact)
    ]

    def of_inexact(*values: jax.Array) -> Any:
        filled = list(leaves)
        for k, value in zip(inexact, values, strict=True):
            filled[k] = value
        return gate(*jax.tree.unflatten(structure, filled))

    primals = [leaves[k] for k in inexact]
    results, tangent = jax.linearize(of_inexact, *primals)
    program = jax.make_jaxpr(lambda *dots: tangent(*dots))(*primals)
    arguments: list[Any] = []
    for k in inexact:
        leaf = leaves[k]
        if k >= len(known_dots):
            arguments.append(Node(leaf.shape, leaf.dtype, is_leaf=True))
        elif known_dots[k] is None:
            arguments.append(jnp.zeros_like(leaf))
        else:
            arguments.append(known_dots[k])
    loop_leaves = [node for node in arguments if isinstance(node, Node)]
    # What does not depend on the loop is a node that has only a source.
    outputs = [
        output
        if isinstance(output, Node)
        else Node(variable.aval.shape, variable.aval.dtype, source=output)
        for output, variable in zip(
            _read(program.jaxpr, program.consts, arguments),
            program.jaxpr.outvars,
            strict=True,
        )
    ]
    nodes = simplify(outputs)
    inner = [node for node in nodes if not node.is_leaf]
    return GateDerivative(
        coefficients=[[_as_array(c, node) for _, c in node.links] for node in inner],
        sources=[_spread(node.source, node) for node in inner],
        leaf_sources=[_leaf_source(leaf) for leaf in loop_leaves],
        _leaves=loop_leaves,
        _inner=inner,
        _outputs=outputs,
        _structure=jax.tree.structure(results),
    )


def _read(
    jaxpr: Jaxpr,
    consts: Iterable[Any],
    arguments: list[Any],
    shared: Sequence[bool] = (),
) -> list[Any]:
    """Run a tangent program where a tangent of the loop is a node, not an array.

    Args:
        jaxpr: The program.
        consts: What it closes over.
        arguments: Arrays and nodes.
        shared: Whether an argument is used outside of this program too.
    """
    values: dict[Any, Any] = dict(zip(jaxpr.constvars, consts, strict=True))
    values.update(zip(jaxpr.invars, arguments, strict=True))
    uses: Counter[Any] = Counter(
        v
        for equation in (*jaxpr.eqns, jaxpr)
        for v in (equation.outvars if equation is jaxpr else equation.invars)
        if not isinstance(v, Literal)
    )
    uses.update(v for v, also in zip(jaxpr.invars, shared, strict=False) if also)

    def value_of(variable: Any) -> Any:
        return variable.val if isinstance(variable, Literal) else values[variable]

    for equation in jaxpr.eqns:
        inputs = [value_of(v) for v in equation.invars]
        once = [not isinstance(v, Literal) and uses[v] == 1 for v in equation.invars]
        if equation.primitive.name in ("jit", "pjit"):
            inner = equation.params["jaxpr"]
            also = [not alone for alone in once]
            results = _read(inner.jaxpr, inner.consts, inputs, also)
        elif any(isinstance(x, Node) for x in inputs):
            results = _link(equation, inputs, once)
        else:
            results = equation.primitive.bind(*inputs, **equation.params)
            if not equation.primitive.multiple_results:
                results = [results]
        values.update(zip(equation.outvars, results, strict=True))
    return [
        # A leaf that is used elsewhere too leaves as a copy, which takes no source.
        Node(value.shape, value.dtype, [(value, None)])
        if isinstance(value, Node) and value.is_leaf and uses[v] > 1
        else value
        for v, value in ((v, value_of(v)) for v in jaxpr.outvars)
    ]


def _link(equation: Any, inputs: list[Any], once: list[bool]) -> list[Node]:
    """Return the nodes that an equation makes of nodes and arrays."""
    name, aval = equation.primitive.name, equation.outvars[0].aval
    is_node = [isinstance(x, Node) for x in inputs]

    def node(*links: tuple[Node, Coefficient], source: Any = None) -> list[Node]:
        return [Node(aval.shape, aval.dtype, list(links), source)]

    if name in ("convert_element_type", "copy", "name"):
        same = inputs[0].dtype == aval.dtype and once[0]
        return [inputs[0]] if same else node((inputs[0], None))
    if name == "neg":
        return node((inputs[0], -1.0))
    if name == "mul" and not all(is_node):
        tangent, factor = inputs if is_node[0] else reversed(inputs)
        return node((tangent, factor))
    if name == "div" and is_node == [True, False]:
        return node((inputs[0], 1 / inputs[1]))
    if name in ("add", "add_any", "sub"):
        sign = -1.0 if name == "sub" else None
        if all(is_node):
            return node((inputs[0], None), (inputs[1], sign))
        if is_node[0]:
            source = inputs[1] if sign is None else -inputs[1]
            if _may_take(inputs[0], once[0]):
                return [_take(inputs[0], source)]
            return node((inputs[0], None), source=source)
        if sign is None and _may_take(inputs[1], once[1]):
            return [_take(inputs[1], inputs[0])]
        return node((inputs[1], sign), source=inputs[0])
    if name == "select_n" and not is_node[0]:
        return _select(inputs, aval)
    if name == "split" and _may_take(inputs[0], once[0]):
        return _split(inputs[0], equation)
    raise NotElementwise(f"the gate's derivative has {name}")


def _may_take(node: Node, used_once: bool) -> bool:
    """Whether what is added to a node may be added to it before the loop."""
    return node.is_leaf and used_once


def _take(node: Node, source: Any) -> Node:
    node.source = source if node.source is None else node.source + source
    return node


def _select(inputs: list[Any], aval: Any) -> list[Node]:
    """Return the node of `select_n`: a link to each case that is a node."""
    which, *cases = inputs
    result = Node(aval.shape, aval.dtype)
    for k, case in enumerate(cases):
        if which.dtype == jnp.bool_:
            chosen = which if k else ~which
        else:
            chosen = which == jnp.asarray(k, which.dtype)
        chosen = jnp.broadcast_to(chosen, aval.shape)
        if isinstance(case, Node):
            result.links.append((case, chosen.astype(aval.dtype)))
        else:
            part = jnp.where(chosen, case, jnp.zeros_like(case))
            result.source = part if result.source is None else result.source + part
    return [result]


def _split(node: Node, equation: Any) -> list[Node]:
    """Return one leaf for each piece of a packed leaf that is used nowhere else."""
    if equation.params["axis"] != len(node.shape) - 1 or node.pieces:
        raise NotElementwise("the gate splits an axis that is not that of the features")
    sizes = equation.params["sizes"]
    sources: list[Any] = [None] * len(sizes)
    if node.source is not None:
        ends = list(itertools.accumulate(sizes))[:-1]
        sources = jnp.split(_spread(node.source, node), ends, axis=-1)
    node.pieces = [
        Node(variable.aval.shape, node.dtype, source=source, is_leaf=True)
        for variable, source in zip(equation.outvars, sources, strict=True)
    ]
    return node.pieces


def _as_array(coefficient: Coefficient, node: Node) -> jax.Array | None:
    if coefficient is None or jnp.ndim(coefficient) == 0:
        return None
    return jnp.broadcast_to(coefficient, node.shape)


def _spread(source: Any, node: Node) -> Any:
    if source is None:
        return None
    return jnp.broadcast_to(source, node.shape).astype(node.dtype)


def _leaf_source(leaf: Node) -> jax.Array | None:
    """Return the sources of a leaf, those of its pieces side by side."""
    if all(piece.source is None for piece in leaf.pieces):
        return _spread(leaf.source, leaf)
    blocks = [
        jnp.zeros(piece.shape, piece.dtype)
        if piece.source is None
        else _spread(piece.source, piece)
        for piece in leaf.pieces
    ]
    return jnp.concatenate(blocks, axis=-1)
