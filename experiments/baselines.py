"""What no network is needed for: predictors that a network has to beat."""

from collections.abc import Callable
from typing import NamedTuple

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


class LinearReadout(NamedTuple):
    """An affine map of a step's own inputs.

    Attributes:
        input_mean: `[F]`.
        weights: `[F, K]`.
        target_mean: `[K]`.
    """

    input_mean: jax.Array
    weights: jax.Array
    target_mean: jax.Array

    def predict(self, inputs: jax.Array) -> jax.Array:
        """Map inputs `[T, *batch, F]` to predictions `[T, *batch, K]`."""
        return (inputs - self.input_mean) @ self.weights + self.target_mean


def fit_linear(inputs: jax.Array, targets: jax.Array) -> LinearReadout:
    """Fit the least-squares linear readout of each step's own inputs.

    Args:
        inputs: `[T, *batch, F]`.
        targets: `[T, *batch, K]`.

    Returns:
        The readout.
    """
    axes = tuple(range(inputs.ndim - 1))
    input_mean, target_mean = inputs.mean(axis=axes), targets.mean(axis=axes)
    centred = inputs - input_mean
    covariance = jnp.tensordot(centred, centred, axes=(axes, axes))
    ridge = _RIDGE * jnp.trace(covariance) / inputs.shape[-1]
    covariance += ridge * jnp.eye(inputs.shape[-1], dtype=inputs.dtype)
    cross = jnp.tensordot(centred, targets - target_mean, axes=(axes, axes))
    return LinearReadout(input_mean, jnp.linalg.solve(covariance, cross), target_mean)


def linear_loss(inputs: jax.Array, targets: jax.Array, loss: Loss) -> jax.Array:
    """Score the linear readout on the data that it is fitted on, as the networks are.

    Args:
        inputs: `[T, *batch, F]`.
        targets: `[T, *batch, K]`.
        loss: `(predictions, targets) -> scalar`.

    Returns:
        Its loss.
    """
    return loss(fit_linear(inputs, targets).predict(inputs), targets)
