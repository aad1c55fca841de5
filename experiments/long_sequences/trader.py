"""A trader who believes what a network says an action is worth, and what that earns."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from experiments.data.price_process import split_heads

#: What a unit of the price's change earns in each position: flat, long, short, the
#: order of the heads.
DIRECTIONS = (0, 1, -1)
FLAT, LONG, SHORT = range(3)


class Traded(NamedTuple):
    """What came of trading, mean over the steps; `[B]` each.

    Attributes:
        earned: Price units a step, costs paid.
        moves: Changes of position a step.
    """

    earned: jax.Array
    moves: jax.Array


def follow_values(
    action_values: jax.Array, changes: jax.Array, cost: float | jax.Array
) -> Traded:
    r"""Trade by values: at each step take the action that is worth most.

    The trader starts flat, d_{-1} = 0. At each step its position has a head of values:
    flat (stay, buy, sell), long (hold, close), short (hold, close); the first of equal
    ones is taken. With d the direction that it leads to, +1, 0 or -1,

        earned = 1/T sum over t of d_t change_t - cost |d_t - d_{t-1}|

    without a discount. At the end a position is worth what the market says: closing it
    is not paid for, as in `trader_values`.

    Args:
        action_values: `[T, B, 7]`, in price units: a z-score would compare actions by
            different units.
        changes: `[T, B]`, the price change after each action, price units.
        cost: Of one change of position, price units.

    Returns:
        What each of the B sequences brought.
    """
    flat, long, short = (head.argmax(axis=-1) for head in split_heads(action_values))
    # Where each step leads to, from every position: [T, 3, B].
    leads = jnp.stack(
        [flat, jnp.where(long == 0, LONG, FLAT), jnp.where(short == 0, SHORT, FLAT)],
        axis=1,
    )

    def step(
        position: jax.Array, leads: jax.Array
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        after = jnp.take_along_axis(leads, position[None], axis=0)[0]
        return after, (after, position)

    start = jnp.zeros_like(leads[0, 0])
    _, (after, before) = jax.lax.scan(step, start, leads)
    return _settle(before, after, changes, cost)


def buy_and_hold(changes: jax.Array, cost: float | jax.Array) -> Traded:
    """Buy at the first step and never sell.

    Args:
        changes: `[T, B]`, price units.
        cost: Of one change of position, price units.

    Returns:
        What each of the B sequences brought.
    """
    after = jnp.full(changes.shape, LONG)
    return _settle(after.at[0].set(FLAT), after, changes, cost)


def _settle(
    before: jax.Array, after: jax.Array, changes: jax.Array, cost: float | jax.Array
) -> Traded:
    """Add up what positions `[T, B]`, by their numbers, brought."""
    direction = jnp.asarray(DIRECTIONS, changes.dtype)
    moves = jnp.abs(direction[after] - direction[before])
    earned = direction[after] * changes - cost * moves
    return Traded(earned.mean(axis=0), moves.mean(axis=0))
