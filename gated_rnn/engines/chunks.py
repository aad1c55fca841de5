"""Time cut into chunks, each run whole before the next (layer 1)."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gated_rnn.types import Carry

__all__ = ["join_chunks", "scan_chunks", "split_chunks"]


def split_chunks(sequences: Any, chunk_size: int) -> list[Any]:
    """Cut sequences into chunks; a shorter one stands at the end of time.

    Args:
        sequences: Pytree of `[T, ...]`, T at least 1.
        chunk_size: Steps of a chunk.

    Returns:
        One or two pytrees of `[num_chunks, steps, ...]`, in time's order: the whole
        chunks, and what is left of the last one.
    """
    num_steps = jax.tree.leaves(sequences)[0].shape[0]
    if chunk_size == num_steps:  # also where the number is a symbol
        return [jax.tree.map(lambda x: x[None], sequences)]
    size = min(chunk_size, num_steps)
    whole = num_steps - num_steps % size

    def cut(x: jax.Array) -> jax.Array:
        return x[:whole].reshape(whole // size, size, *x.shape[1:])

    parts = [jax.tree.map(cut, sequences)]
    if whole < num_steps:
        parts.append(jax.tree.map(lambda x: x[None, whole:], sequences))
    return parts


def scan_chunks(
    run_chunk: Callable[[Carry, Any], tuple[Carry, Any]],
    carry: Carry,
    parts: list[Any],
    reverse: bool,
) -> tuple[Carry, list[Any]]:
    """Run chunk after chunk.

    Args:
        run_chunk: `(carry, chunk) -> (carry, results)`.
        carry: What the first chunk processed starts from.
        parts: As `split_chunks` returns them.
        reverse: Whether the last chunk is the first.

    Returns:
        The last carry, and the results in parts like those given.
    """
    results = []
    for part in reversed(parts) if reverse else parts:
        if jax.tree.leaves(part)[0].shape[0] == 1:
            # No loop around a single chunk: the compiler sees into it.
            carry, result = run_chunk(carry, jax.tree.map(lambda x: x[0], part))
            result = jax.tree.map(lambda x: x[None], result)
        else:
            carry, result = jax.lax.scan(run_chunk, carry, part, reverse=reverse)
        results.append(result)
    return carry, results[::-1] if reverse else results


def join_chunks(parts: list[Any]) -> Any:
    """Undo `split_chunks`."""

    def flatten(x: jax.Array) -> jax.Array:
        return x.reshape(x.shape[0] * x.shape[1], *x.shape[2:])

    joined = [jax.tree.map(flatten, part) for part in parts]
    if len(joined) == 1:
        return joined[0]
    return jax.tree.map(lambda *xs: jnp.concatenate(xs), *joined)
