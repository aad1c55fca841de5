"""Activations that the cells use and `jax.nn` does not have (layer 0)."""

import jax
import jax.numpy as jnp

__all__ = ["hard_sigmoid", "identity", "positive"]


def identity(values: jax.Array) -> jax.Array:
    """Return the values: no activation."""
    return values


def hard_sigmoid(values: jax.Array) -> jax.Array:
    """Return clip(0.2 x + 0.5, 0, 1), the gate activation of Keras 2's GRU.

    Keras 3 and `jax.nn.hard_sigmoid` have another slope, relu6(x + 3) / 6.

    Examples:
        >>> hard_sigmoid(jnp.array([-3.0, 0.0, 1.0, 3.0])).tolist()
        [0.0, 0.5, 0.699999988079071, 1.0]
    """
    return jnp.clip(0.2 * values + 0.5, 0.0, 1.0)


def positive(values: jax.Array) -> jax.Array:
    """Return x + 1/2 where x >= 0 and sigmoid(x) elsewhere, which is positive.

    References:
        L. Feng et al.: Were RNNs all we needed?, 2024, arXiv 2410.01201, appendix B.
    """
    return jnp.where(values >= 0, values + 0.5, jax.nn.sigmoid(values))
