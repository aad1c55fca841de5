"""Many seeds over several processes, on one machine or many (layer 5).

After `jax.distributed.initialize` every process trains its share of the seeds on its
own devices. They talk to each other when results are gathered, and not before.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from gated_rnn.training.seeds import SeedResult, SeedState, check_seed_ids
from gated_rnn.types import check_positive, invalid

__all__ = ["Share", "gather_seeds", "gather_state", "share_seeds"]


class Share(NamedTuple):
    """What a process gives to `train_seeds`.

    Attributes:
        seed_ids: int64 `[s]`, as many as every other process has.
        hyper: The rows of these seeds, leaves `[s, ...]`.
        state: The state of these seeds; None to start.
    """

    seed_ids: np.ndarray
    hyper: Any
    state: SeedState | None


def share_seeds(
    seed_ids: Sequence[int] | np.ndarray,
    *,
    seed_block: int,
    hyper: Any = None,
    state: SeedState | None = None,
) -> Share:
    """Take this process' share of the seeds: whole blocks of them.

    All processes get equally many; what is left over at the end is filled up with
    seeds from the beginning, which two processes then train to the same bits. With one
    process the share is everything.

    Args:
        seed_ids: Of all processes, distinct; the same in every process.
        seed_block: As in `train_seeds`.
        hyper: Leaves `[S, ...]`, of all seeds.
        state: Of all seeds, from `gather_state`, to go on from.

    Returns:
        What to call `train_seeds` with, beside the same `seed_block`.

    Raises:
        ValueError: If an argument is not as said above.

    Example:
        >>> share = share_seeds([3, 1, 8], seed_block=2, hyper=np.array([1, 2, 3]))
        >>> share.seed_ids  # of the one process
        array([3, 1, 8])
    """
    ids = check_seed_ids(seed_ids)
    check_positive("seed_block", seed_block)
    if state is not None and state.seed_ids.tolist() != ids.tolist():
        expected = f"the state of the seeds {ids.tolist()}"
        raise invalid("state", expected, f"that of {state.seed_ids.tolist()}")
    count = jax.process_count()
    num_blocks = -(-ids.size // seed_block)
    size = min(-(-num_blocks // count) * seed_block, ids.size)
    rows = np.resize(np.arange(ids.size), (count, size))[jax.process_index()]

    def take(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf[rows], tree)

    if state is not None:
        state = SeedState(ids[rows], state.step, *take(tuple(state[2:])))
    return Share(ids[rows], take(hyper), state)


def gather_seeds(result: SeedResult, num_seeds: int) -> SeedResult:
    """Bring the results of all processes together, in every process.

    Every process has to call it, and waits for the others.

    Args:
        result: Of the share of this process.
        num_seeds: How many seeds all processes have trained together.

    Returns:
        The result of all seeds in the order that `share_seeds` was given; its seconds
        are those of this process.

    Raises:
        ValueError: If the shares are not those of so many seeds.
    """
    rows = (result.params, result.opt_state, result.status, result.best)
    ids, metrics, rows = _gather((result.seed_ids, result.metrics, rows), num_seeds)
    params, opt_state, status, best = rows
    return SeedResult(
        seed_ids=ids,
        params=params,
        opt_state=opt_state,
        metrics=metrics,
        seconds=result.seconds,
        status=status,
        best=best,
        state=SeedState(ids, result.state.step, *rows),
    )


def gather_state(state: SeedState, num_seeds: int) -> SeedState:
    """Bring the states of all processes together, in every process.

    As `gather_seeds`, for the state that `Piece.take_state` gives on the way: the seeds
    of all processes have then made as many updates.

    Args:
        state: Of the share of this process.
        num_seeds: How many seeds all processes train together.

    Returns:
        The state of all seeds.

    Raises:
        ValueError: If the shares are not those of so many seeds.
    """
    ids, rows = _gather((state.seed_ids, tuple(state[2:])), num_seeds)
    return SeedState(ids, state.step, *rows)


def _gather(rows: tuple, num_seeds: int) -> tuple:
    """Join leaves `[s, ...]` of all processes; the first must be the seed ids."""
    joined = jax.tree.map(_join, rows)
    first, distinct = joined[0][:num_seeds], np.unique(joined[0])
    if not len(np.unique(first)) == len(distinct) == num_seeds:
        expected = f"that of the shares, {len(distinct)}"
        raise invalid("num_seeds", expected, num_seeds)
    return jax.tree.map(lambda leaf: leaf[:num_seeds], joined)


def _join(leaf: Any) -> Any:
    """Join `[s, ...]` of all processes, as bytes: so every dtype keeps its bits."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):  # NumPy has no keys
        data = _join(np.asarray(jax.random.key_data(leaf)))
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
    if jax.process_count() == 1:
        return leaf
    octets = np.frombuffer(leaf.tobytes(), np.uint8)
    joined = np.asarray(multihost_utils.process_allgather(octets))
    count = jax.process_count() * len(leaf)
    return joined.reshape(-1).view(leaf.dtype).reshape(count, *leaf.shape[1:])
