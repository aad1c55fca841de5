"""Which features dropout keeps: functions of key, time and row alone (layer 3).

A mask that depends on nothing else is the same bit for bit whether a sequence is run
whole, in pieces or step by step. Rows are numbered within the arrays a call sees.
"""

import math

import jax
import jax.numpy as jnp

from gated_rnn.types import Shape, invalid

__all__ = ["check_rate", "drop", "keep_by_row", "keep_by_step"]


def check_rate(name: str, rate: float) -> None:
    """Raise unless `rate` is a probability below one."""
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate < 1:
        raise invalid(name, "a probability in [0, 1)", repr(rate))


def keep_by_step(
    key: jax.Array, times: jax.Array, features: int, rate: float
) -> jax.Array:
    """Draw what every step keeps, anew for each.

    Args:
        key: Key of this place in the network.
        times: int32 `[T, *batch]`, the time of each step.
        features: How many features there are.
        rate: Probability of losing one.

    Returns:
        bool `[T, *batch, features]`.
    """

    def keep(time: jax.Array, row: jax.Array) -> jax.Array:
        step_key = jax.random.fold_in(jax.random.fold_in(key, time), row)
        return jax.random.bernoulli(step_key, 1.0 - rate, (features,))

    rows = jnp.arange(math.prod(times.shape[1:]), dtype=jnp.int32)
    kept = jax.vmap(jax.vmap(keep), in_axes=(0, None))(
        times.reshape(len(times), len(rows)), rows
    )
    return kept.reshape(*times.shape, features)


def keep_by_row(
    key: jax.Array, batch_shape: Shape, features: int, rate: float
) -> jax.Array:
    """Draw what every row keeps at all of its steps, bool `[*batch, features]`."""
    times = jnp.zeros((1, *batch_shape), jnp.int32)
    return keep_by_step(key, times, features, rate)[0]


def drop(x: jax.Array, kept: jax.Array, rate: float) -> jax.Array:
    """Zero what is not kept and divide the rest by 1 - rate.

    References:
        N. Srivastava et al.: Dropout, JMLR 2014.
    """
    scale = jnp.asarray(1.0 / (1.0 - rate), x.dtype)
    return jnp.where(kept, x * scale, jnp.zeros_like(x))
