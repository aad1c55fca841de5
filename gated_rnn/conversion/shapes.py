"""Whether parameters are those of a network, by names and shapes (layer 4)."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from gated_rnn.networks import Network
from gated_rnn.networks.network import reads_tokens
from gated_rnn.types import Params, Shape, invalid

__all__ = ["in_features_of", "match_leaves", "name_leaves", "shapes_of"]


def in_features_of(network: Network, params: Params) -> int | None:
    """Return F: the rows of the first array, which is a kernel; None for tokens."""
    leaves = jax.tree.leaves(params)
    if reads_tokens(network) or not leaves:
        return None
    if np.ndim(leaves[0]) < 2:
        raise invalid("params", "a kernel first", f"shape {np.shape(leaves[0])}")
    return int(np.shape(leaves[0])[-2])


def shapes_of(network: Network, in_features: int | None) -> Params:
    """Return what `network.init` would, as shapes."""
    init: Any = network.init  # tokens have no in_features
    try:
        return jax.eval_shape(lambda key: init(key, in_features), jax.random.key(0))
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError) as e:
        reason = " ".join(str(e).split())[:200]
        raise invalid("network", "one whose init runs", reason) from None


def name_leaves(params: Params) -> dict[str, Any]:
    """Return the leaves by their paths, such as "0/kernel"."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in leaves
    }


def match_leaves(
    name: str, expected: Params, leaves: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the arrays in the order of the expected ones, if names and shapes fit."""
    wanted = name_leaves(expected)
    if set(wanted) != set(leaves):
        odd = sorted(set(wanted) ^ set(leaves))[0]
        state = "none" if odd in wanted else "one"
        needed = "the arrays that the network has"
        raise invalid(name, needed, f"{state} called {odd[:80]!r}")
    leading: Shape | None = None
    for key, shape in wanted.items():
        got = np.shape(leaves[key])
        own = got[: max(0, len(got) - len(shape.shape))]
        leading = own if leading is None else leading
        if own != leading or got[len(own) :] != shape.shape:
            needed = f"shape {(*leading, *shape.shape)} of {key!r}"
            raise invalid(name, needed, f"shape {got}")
    return {key: leaves[key] for key in wanted}
