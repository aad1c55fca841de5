"""Tangents as a graph whose links multiply by coefficients (layer 1)."""

from dataclasses import dataclass, field
from typing import Any

import jax

__all__ = ["Coefficient", "Node", "simplify"]

# What a link multiplies by: an array, a number, or None for one.
Coefficient = Any


@dataclass(eq=False)
class Node:
    """A tangent: the sum of its links, each a node times a coefficient, and a source.

    Attributes:
        shape: With time, `[T, *batch, N]`.
        dtype: Of the tangent.
        links: Pairs (node, coefficient).
        source: A tangent known before the loop, or None.
        is_leaf: Whether the loop provides it.
        pieces: For a packed leaf that the gate splits: a leaf for each piece.
    """

    shape: tuple[int, ...]
    dtype: Any
    links: list[tuple["Node", Coefficient]] = field(default_factory=list)
    source: jax.Array | None = None
    is_leaf: bool = False
    pieces: list["Node"] = field(default_factory=list)


def simplify(outputs: list[Node]) -> list[Node]:
    """Take out nodes that save no link; return those that stay, in order of use."""
    order: list[Node] = []

    def visit(node: Node) -> None:
        if any(node is other for other in order):
            return
        for other, _ in node.links:
            visit(other)
        order.append(node)

    for output in outputs:
        visit(output)
    for node in order:
        _merge(node)
    # A node with a source stays, as the place where the source enters.
    free = [
        node
        for node in order
        if not node.is_leaf
        and node.source is None
        and not any(node is output for output in outputs)
    ]
    removed = True
    while removed:
        removed = False
        for node in free:
            users = [n for n in order if any(other is node for other, _ in n.links)]
            num_in, num_out = len(node.links), len(users)
            if num_in * num_out > num_in + num_out:
                continue
            for user in users:
                _pull_through(user, node)
            order = [n for n in order if n is not node]
            free = [n for n in free if n is not node]
            removed = True
            break
    return order


def _merge(node: Node) -> None:
    """Add up parallel links."""
    merged: dict[int, tuple[Node, Coefficient]] = {}
    for other, factor in node.links:
        if id(other) in merged:
            first = merged[id(other)][1]
            factor = (1.0 if first is None else first) + (
                1.0 if factor is None else factor
            )
        merged[id(other)] = (other, factor)
    node.links = list(merged.values())


def _pull_through(user: Node, node: Node) -> None:
    """Replace links of `user` to `node` by links to what `node` links to."""
    links = []
    for other, factor in user.links:
        if other is not node:
            links.append((other, factor))
            continue
        links += [(source, _product(factor, inner)) for source, inner in node.links]
    user.links = links
    _merge(user)


def _product(first: Coefficient, second: Coefficient) -> Coefficient:
    if first is None or second is None:
        return first if second is None else second
    return first * second
