"""What no network is needed for: predictors that a network has to beat."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

Loss = Callable[[jax.Array, jax.Array], jax.Array]

#: Ridge of the linear readout, relative to the inputs' mean square: for the inverse
#: only, far below what would move a prediction.
_RIDGE = 1e-6


def mean_loss(targets: jax.Array, loss: Loss) -> jax.Array:
    """Score the predictor that says the mean of each target, always.

    Args:
        targets: `[T, *batch, K]`.
        loss: `(predictions, targets) -> scalar`.

    Returns:
        Its loss.
    """
    mean = targets.mean(axis=range(targets.ndim - 1), keepdims=True)
    return loss(jnp.broadcast_to(mean, targets.shape), targets)


def linear_loss(inputs: jax.Array, targets: jax.Array, loss: Loss) -> jax.Array:
    """Score the least-squares linear readout of each step's own inputs.

    It is fitted on the data that it is scored on, as the networks are.

    Args:
        inputs: `[T, *batch, F]`.
        targets: `[T, *batch, K]`.
        loss: `(predictions, targets) -> scalar`.

    Returns:
        Its loss.
    """
    axes = tuple(range(inputs.ndim - 1))
    input_mean = inputs.mean(axis=axes, keepdims=True)
    target_mean = targets.mean(axis=axes, keepdims=True)
    centred = inputs - input_mean
    covariance = jnp.tensordot(centred, centred, axes=(axes, axes))
    ridge = _RIDGE * jnp.trace(covariance) / inputs.shape[-1]
    covariance += ridge * jnp.eye(inputs.shape[-1], dtype=inputs.dtype)
    cross = jnp.tensordot(centred, targets - target_mean, axes=(axes, axes))
    weights = jnp.linalg.solve(covariance, cross)
    return loss(centred @ weights + target_mean, targets)
