"""The size of a gradient against lag, and how fast it falls.

Pure functions. Layer: experiments.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.data.synthetic import Task
from gated_rnn.networks import Network

#: Sizes below 2 to this power are not told from 0: float32 ends at 2^-126.
LOWEST = -120.0
#: Lags whose mean is that near to it are left out of a rate.
_CUT = -100.0
_MIN_POINTS = 3


def draw_probe(key: jax.Array, num_sequences: int, out_features: int) -> jax.Array:
    """Draw the combinations of the answers whose gradient is taken.

    Args:
        key: The draw.
        num_sequences: B.
        out_features: K.

    Returns:
        `[B, K]`, standard normal.
    """
    return jax.random.normal(key, (num_sequences, out_features))


def gradient_sizes(
    network: Network, part: Task, probe: jax.Array, num_lags: int, params: Any
) -> jax.Array:
    """Measure the gradient of answers with respect to the inputs before them.

    For each sequence it is |d (probe . outputs_due) / d inputs_{due - lag}|, where due
    is its first step that is scored.

    Args:
        network: The network.
        part: Sequences; every one has its due step at `num_lags - 1` or later.
        probe: `[B, K]`.
        num_lags: L.
        params: The parameters.

    Returns:
        `[L]`: the mean over the sequences of log2 of the size, at lags 0 to L - 1; a
        size is taken for at least 2^-120.
    """
    due = jnp.argmax(part.mask, axis=0)

    def answer(inputs: jax.Array) -> jax.Array:
        _, outputs = network.apply(params, inputs)
        at_due = jnp.take_along_axis(outputs, due[None, :, None], axis=0)[0]
        return (at_due * probe).sum()

    # One sum over all sequences: none of them depends on another's inputs.
    sizes = jnp.linalg.norm(jax.grad(answer)(part.inputs), axis=-1)
    steps = due - jnp.arange(num_lags)[:, None]
    of_lag = jnp.take_along_axis(sizes, steps, axis=0)
    return jnp.log2(jnp.maximum(of_lag, 2.0**LOWEST)).mean(axis=-1)


def halvings_per_step(curves: np.ndarray) -> np.ndarray:
    """Measure how fast gradients fall: minus the least-squares slope of log2 over lag.

    Args:
        curves: `[S, L]`, log2 of sizes.

    Returns:
        `[S]`: how often the gradient halves in a step; below 0 it grows. NaN where it
        is not finite, or too small for float32 at nearly all lags.

    Examples:
        >>> halvings_per_step(np.array([[3.0, 2.5, 2.0, 1.5]])).round(6).tolist()
        [0.5]
    """
    return np.array([_halvings(np.asarray(curve, np.float64)) for curve in curves])


def half_life(rates: np.ndarray) -> np.ndarray:
    """Turn halvings a step into the steps of one halving.

    Args:
        rates: Of `halvings_per_step`.

    Returns:
        Steps; infinite where the gradient does not fall.

    Examples:
        >>> half_life(np.array([0.5, 0.0, -0.25])).tolist()
        [2.0, inf, inf]
    """
    falls = rates > 0
    lives = np.where(falls, 1 / np.where(falls, rates, 1.0), np.inf)
    return np.where(np.isnan(rates), np.nan, lives)


def gate_half_life(bias: float) -> float:
    """Give the half-life of what a gate at sigmoid(bias) keeps, and nothing else moves.

    Args:
        bias: Of the gate.

    Returns:
        -1 / log2(sigmoid(bias)), in steps.

    Examples:
        >>> gate_half_life(0.0)
        1.0
    """
    return float(np.log(2) / np.logaddexp(0.0, -bias))


def _halvings(curve: np.ndarray) -> float:
    if not np.isfinite(curve).all():
        return np.nan
    lags = np.flatnonzero(curve > _CUT)
    if lags.size < _MIN_POINTS:
        return np.nan
    return float(-np.polyfit(lags, curve[lags], 1)[0])
