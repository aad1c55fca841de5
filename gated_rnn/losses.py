"""Losses and accuracies over sequences, with an optional mask (layer 0).

Every function takes the mean over the steps that are real (`mask` true), so padding
changes neither a value nor a gradient; what stands under the mask, NaN included, is
replaced before anything is computed from it. If no step is real the result is 0.
"""

import jax
import jax.numpy as jnp

from gated_rnn.arithmetic import at_least_float32, where
from gated_rnn.types import check_flags, invalid

__all__ = ["accuracy", "bernoulli_nll", "cross_entropy", "mean_squared_error"]


def mean_squared_error(
    predictions: jax.Array, targets: jax.Array, mask: jax.Array | None = None
) -> jax.Array:
    """Return the mean of (predictions - targets)^2 over steps and features.

    Args:
        predictions: `[T, *batch, F]`, or any leading axes.
        targets: Same shape.
        mask: bool over the leading axes of `targets`, or None.

    Returns:
        Scalar.

    Raises:
        ValueError: If the shapes differ or the mask is not bool.
    """
    predictions, targets = _same_shape(predictions, targets, mask)
    return _mean(jnp.square(predictions - targets), mask)


def cross_entropy(
    logits: jax.Array, labels: jax.Array, mask: jax.Array | None = None
) -> jax.Array:
    """Return the mean of -log softmax(logits)[label], in nats per step.

    Args:
        logits: `[*leading, classes]`.
        labels: Integers `[*leading]`, 0 to classes - 1.
        mask: bool `[*leading]`, or None.

    Returns:
        Scalar.

    Raises:
        ValueError: If the labels are no integers or the shapes do not fit.
    """
    logits, labels = _labelled(logits, labels, mask)
    log_probabilities = jax.nn.log_softmax(logits)
    taken = jnp.take_along_axis(log_probabilities, labels[..., None], axis=-1)
    return _mean(-taken[..., 0], mask)


def accuracy(
    logits: jax.Array, labels: jax.Array, mask: jax.Array | None = None
) -> jax.Array:
    """Return the share of steps whose largest logit is the label's.

    Args:
        logits: `[*leading, classes]`.
        labels: Integers `[*leading]`.
        mask: bool `[*leading]`, or None.

    Returns:
        Scalar in [0, 1], in the dtype of the logits.
    """
    logits, labels = _labelled(logits, labels, mask)
    right = jnp.argmax(logits, axis=-1).astype(labels.dtype) == labels
    return _mean(right.astype(logits.dtype), mask)


def bernoulli_nll(
    logits: jax.Array, targets: jax.Array, mask: jax.Array | None = None
) -> jax.Array:
    """Return the negative log-likelihood of independent binary features.

    Per step: sum over the features of softplus(logit) - target * logit; the mean over
    steps, in nats. This is the loss of next-step prediction on piano rolls.

    Args:
        logits: `[*leading, features]`.
        targets: 0 or 1 (or a probability), same shape, any dtype.
        mask: bool `[*leading]`, or None.

    Returns:
        Scalar.
    """
    if mask is not None:
        check_flags("mask", mask, jnp.shape(targets)[:-1][: jnp.ndim(mask)])
    logits, targets = _same_shape(logits, jnp.asarray(targets), mask)
    losses = jax.nn.softplus(logits) - targets * logits
    return _mean(losses.sum(axis=-1), mask)


def _same_shape(
    predictions: jax.Array, targets: jax.Array, mask: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """Check two arrays of equal shape and replace what stands under the mask by 0."""
    if jnp.shape(predictions) != jnp.shape(targets):
        raise invalid(
            "targets",
            f"the shape of the predictions {jnp.shape(predictions)}",
            f"shape {jnp.shape(targets)}",
        )
    targets = jnp.asarray(targets, predictions.dtype)
    if mask is None:
        return predictions, targets
    check_flags("mask", mask, jnp.shape(targets)[: jnp.ndim(mask)])
    zeros = jnp.zeros_like(targets)
    return where(mask, (predictions, targets), (zeros, zeros))


def _labelled(
    logits: jax.Array, labels: jax.Array, mask: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """Check logits against integer labels and clean both under the mask."""
    labels = jnp.asarray(labels)
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise invalid("labels", "an integer array", f"dtype {labels.dtype}")
    if labels.shape != logits.shape[:-1]:
        raise invalid("labels", f"shape {logits.shape[:-1]}", f"shape {labels.shape}")
    if mask is None:
        return logits, labels
    check_flags("mask", mask, labels.shape[: jnp.ndim(mask)])
    return where(
        mask, (logits, labels), (jnp.zeros_like(logits), jnp.zeros_like(labels))
    )


def _mean(values: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Return the mean of `[*leading, ...]` over the entries whose mask is true."""
    wide = values.astype(at_least_float32(values.dtype))
    if mask is None:
        total, count = wide.sum(), max(wide.size, 1)
        return (total / count).astype(values.dtype)
    per_step = values.size // max(mask.size, 1)
    count = jnp.maximum(mask.sum() * per_step, 1).astype(wide.dtype)
    total = where(mask, wide, jnp.zeros_like(wide)).sum()
    return (total / count).astype(values.dtype)
