"""A loss folded into the loop over time, chunk by chunk (layer 3)."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gated_rnn.arithmetic import match_varying
from gated_rnn.engines.chunks import scan_chunks, split_chunks
from gated_rnn.engines.plan import even_size
from gated_rnn.types import Carry, Cell, Engine, Params, check_positive, invalid
from gated_rnn.unrolling import prepare_run

__all__ = ["unroll_reduce"]


def unroll_reduce(
    cell: Cell,
    params: Params,
    inputs: Any,
    reduce_fn: Callable[[Any, Any, Any], Any],
    init: Any,
    carry: Carry | None = None,
    *,
    aligned: Any = (),
    chunk_size: int | None = None,
    reset_carry: Carry | None = None,
    mask: jax.Array | None = None,
    resets: jax.Array | None = None,
    reverse: bool = False,
    engine: Engine | None = None,
) -> tuple[Carry, Any]:
    """Run a cell over a sequence and reduce its outputs as they come.

    The outputs of one chunk exist at a time, forward and backward: memory is that of
    one carry per chunk and of one chunk, for one more forward pass in a gradient.

    Args:
        cell: The cell.
        params: Its parameters.
        inputs: `[T, *batch, F]`.
        reduce_fn: `(reduced, outputs, aligned) -> reduced` for a chunk of steps, in
            the order of processing; the last chunk in time may be shorter. Within a
            chunk time runs forward.
        init: What the first chunk's `reduced` is.
        carry: As in `gated_rnn.unroll`.
        aligned: Pytree of `[T, ...]` that `reduce_fn` sees beside the outputs: targets,
            weights, a mask.
        chunk_size: Steps per chunk. None: about the square root of T.
        reset_carry: As these and all that follow in `gated_rnn.unroll`.
        mask: See there; `reduce_fn` sees zeros where a step is not real.
        resets: See there.
        reverse: See there.
        engine: See there.

    Returns:
        The carry after the last step processed, and what `reduce_fn` returned last.

    Raises:
        ValueError: As `unroll` does, and if `aligned` has another number of steps.

    Examples:
        >>> from gated_rnn import GRU
        >>> cell = GRU(16)
        >>> params = cell.init(jax.random.key(0), in_features=1)
        >>> def add_squares(total, outputs, targets):
        ...     return total + jnp.sum((outputs.mean(-1) - targets) ** 2)
        >>> targets = jnp.ones((100, 2))
        >>> carry, total = unroll_reduce(
        ...     cell, params, jnp.ones((100, 2, 1)), add_squares, 0.0, aligned=targets
        ... )
        >>> total.shape
        ()
    """
    run = prepare_run(
        cell,
        params,
        inputs,
        carry,
        reset_carry=reset_carry,
        mask=mask,
        resets=resets,
        reverse=reverse,
        engine=engine,
    )
    num_steps = jax.tree.leaves(inputs)[0].shape[0]
    for leaf in jax.tree.leaves(aligned):
        if jnp.shape(leaf)[:1] != (num_steps,):
            raise invalid(
                "aligned", f"arrays of {num_steps} steps", f"shape {jnp.shape(leaf)}"
            )
    if chunk_size is None:
        chunk_size = even_size(num_steps, 2 * max(1, math.isqrt(num_steps)))
    check_positive("chunk_size", chunk_size)
    if num_steps == 0:
        return run.carry, init

    @jax.checkpoint
    def run_chunk(state: tuple[Carry, Any], chunk: Any) -> tuple[Any, None]:
        carry, reduced = state
        inputs, aligned = chunk
        carry, outputs = run(inputs, carry, True)
        return (carry, reduce_fn(reduced, outputs, aligned)), None

    parts = split_chunks((run.inputs, aligned), chunk_size)
    init = jax.tree.map(jnp.asarray, init)
    init = match_varying(init, run.params, run.inputs, run.carry, aligned)
    state, _ = scan_chunks(run_chunk, (run.carry, init), parts, reverse)
    return state
