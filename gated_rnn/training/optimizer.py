"""The optimiser of the experiments: clip by the global norm, then Adam (layer 4).

Learning rate and clip norm are kept in the optimiser state, so they may follow a
schedule or differ from seed to seed, and changing one compiles nothing again.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gated_rnn.types import Params, invalid

__all__ = ["clip_by_global_norm", "global_norm", "make_optimizer"]

ScalarOrSchedule = float | jax.Array | Callable[[jax.Array], Any]


def make_optimizer(
    learning_rate: ScalarOrSchedule = 1e-3,
    max_grad_norm: ScalarOrSchedule | None = 1.0,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
) -> optax.GradientTransformation:
    """Build Adam on gradients clipped by their global norm.

    With all gradients as one vector g, c the clip norm, a the learning rate and
    t = 1, 2, ... counting updates:

        g'    = g min(1, c / |g|)
        m_t   = b1 m_{t-1} + (1 - b1) g'
        v_t   = b2 v_{t-1} + (1 - b2) g'^2
        delta = -a (m_t / (1 - b1^t)) / (sqrt(v_t / (1 - b2^t)) + eps)

    The norm is taken over all parameters together: `clipnorm` of standalone Keras,
    `global_clipnorm` of Keras 3. Everything is computed in at least float32, because
    in bfloat16 b2 would round to 1; `optax.apply_updates` then casts the sum.

    Args:
        learning_rate: A number, a traced scalar, or a schedule from the number of
            updates made so far (int32 scalar) to a number.
        max_grad_norm: The same, or None for no clipping.
        b1: Decay rate of the first moment, in [0, 1).
        b2: Decay rate of the second moment, in [0, 1).
        eps: Added to the square root.

    Returns:
        An optax transformation. `state.hyperparams` is a dict of the learning rate
        and the clip norm of the update that led to the state.

    Raises:
        ValueError: If a number is out of its range.

    Example:
        >>> params = {"w": jnp.array([1.0, -2.0])}
        >>> optimizer = make_optimizer(learning_rate=0.1)
        >>> opt_state = optimizer.init(params)
        >>> grads = {"w": jnp.array([30.0, 40.0])}  # norm 50, clipped to [0.6, 0.8]
        >>> updates, opt_state = optimizer.update(grads, opt_state, params)
        >>> bool(jnp.allclose(updates["w"], -0.1))  # Adam's first step has size a
        True

    References:
        Kingma, Ba. Adam: a method for stochastic optimization. ICLR 2015,
        arXiv:1412.6980. Pascanu, Mikolov, Bengio. On the difficulty of training
        recurrent neural networks. ICML 2013, arXiv:1211.5063.
    """
    learning_rate = _checked_number("learning_rate", learning_rate)
    max_grad_norm = _checked_number("max_grad_norm", max_grad_norm)
    eps = _checked_number("eps", eps)
    _check_decay_rate("b1", b1)
    _check_decay_rate("b2", b2)

    def clipped_adam(
        learning_rate: jax.Array, max_grad_norm: jax.Array | None
    ) -> optax.GradientTransformation:
        return optax.chain(
            clip_by_global_norm(max_grad_norm),
            optax.scale_by_adam(b1=b1, b2=b2, eps=eps),
            optax.scale_by_learning_rate(learning_rate),
        )

    inner = optax.inject_hyperparams(clipped_adam)(
        learning_rate=learning_rate, max_grad_norm=max_grad_norm
    )

    def init(params: Params) -> optax.OptState:
        return inner.init(_at_least_float32(params))

    def update(
        updates: Params, state: optax.OptState, params: Any = None, **extra_args: Any
    ) -> tuple[Params, optax.OptState]:
        updates, params = _at_least_float32((updates, params))
        return inner.update(updates, state, params, **extra_args)

    return optax.GradientTransformationExtraArgs(init, update)


def clip_by_global_norm(
    max_norm: jax.typing.ArrayLike | None,
) -> optax.GradientTransformation:
    """Scale all gradients by min(1, max_norm / |g|); None leaves them as they are.

    As `optax.clip_by_global_norm`, which divides 0 by 0 where gradient and max_norm
    are both zero and fails where max_norm has another dtype than a gradient. A norm
    that overflows scales finite gradients to zero; NaN is left to be seen.
    """
    if max_norm is None:
        return optax.identity()

    def update(
        updates: Params, state: optax.OptState, params: Any = None
    ) -> tuple[Params, optax.OptState]:
        del params
        norm = global_norm(updates)
        exceeds = norm > max_norm
        scale = jnp.where(exceeds, max_norm / jnp.where(exceeds, norm, 1.0), 1.0)
        return jax.tree.map(lambda g: g * scale.astype(g.dtype), updates), state

    return optax.GradientTransformation(optax.init_empty_state, update)


def global_norm(tree: Any) -> jax.Array:
    """Return the Euclidean norm of all leaves as one vector, in at least float32."""
    return optax.tree.norm(_at_least_float32(tree))


def _at_least_float32(tree: Any) -> Any:
    def widen(leaf: Any) -> jax.Array:
        return jnp.asarray(leaf, jnp.promote_types(jnp.result_type(leaf), jnp.float32))

    return jax.tree.map(widen, tree)


def _checked_number(name: str, value: Any) -> Any:
    """Return a number as a float, once it is known to be none below 0."""
    if isinstance(value, str):
        raise invalid(name, "a number of at least 0", repr(value))
    if isinstance(value, np.generic):
        value = value.item()
    if not isinstance(value, int | float):
        return value
    if not value >= 0:
        raise invalid(name, "a number of at least 0", repr(value))
    return float(value)


def _check_decay_rate(name: str, value: float) -> None:
    if not 0 <= value < 1:
        raise invalid(name, "a number in [0, 1)", repr(value))
