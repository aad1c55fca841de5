"""Seeds with their metrics, and as arrays by name for a checkpoint (layer 5)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gated_rnn.training.checkpoints import CheckpointError
from gated_rnn.training.seeds import SeedState

__all__ = ["Curves", "Group", "from_arrays", "join_curves", "join_equal", "to_arrays"]

Curves = dict[str, np.ndarray]


class Group(NamedTuple):
    """Seeds that have made equally many updates, and their metrics so far."""

    state: SeedState
    curves: Curves


def to_arrays(prefix: str, tree: Any) -> dict[str, np.ndarray]:
    """Return the leaves by the names of their places; a key as its bits."""
    return {
        prefix + jax.tree_util.keystr(path): np.asarray(
            jax.random.key_data(leaf) if _is_key(leaf) else leaf
        )
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def from_arrays(
    prefix: str, template: Any, arrays: Mapping[str, np.ndarray], directory: Path
) -> Any:
    """Return a pytree like `template` from what `to_arrays` made; say what differs."""

    def take(path: Any, like: Any) -> Any:
        name = prefix + jax.tree_util.keystr(path)
        bits = np.asarray(jax.random.key_data(like) if _is_key(like) else like)
        array = arrays.get(name)
        wanted = f"{bits.dtype.name}{list(bits.shape)}"
        if array is None or (array.shape, array.dtype) != (bits.shape, bits.dtype):
            got = "none" if array is None else f"{array.dtype.name}{list(array.shape)}"
            raise CheckpointError(
                f"The checkpoints in {directory} do not fit this run: expected {name} "
                f"as {wanted}, got {got}."
            )
        if _is_key(like):
            return jax.random.wrap_key_data(
                jnp.asarray(array), impl=jax.random.key_impl(like)
            )
        return array

    return jax.tree_util.tree_map_with_path(take, template)


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def join_equal(groups: list[Group]) -> list[Group]:
    """Join the groups that have made equally many updates."""
    steps = sorted({group.state.step for group in groups})
    return [
        _join([group for group in groups if group.state.step == step]) for step in steps
    ]


def _join(groups: list[Group]) -> Group:
    if len(groups) == 1:
        return groups[0]
    ids = np.concatenate([group.state.seed_ids for group in groups])
    trees = [(group.state[2:], group.curves) for group in groups]
    tree, curves = jax.tree.map(_concatenate, *trees)
    return Group(SeedState(ids, groups[0].state.step, *tree), curves)


def _concatenate(*leaves: Any) -> Any:
    return (jnp if _is_key(leaves[0]) else np).concatenate(leaves)


def join_curves(pieces: list[Curves]) -> Curves:
    """Join metrics `[S, updates, ...]` along the updates."""
    return {
        name: np.concatenate([piece[name] for piece in pieces], axis=1)
        for name in pieces[0]
    }
