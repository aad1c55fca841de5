"""The activations against their definitions, at their kinks and far from them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gated_rnn import activations
from gated_rnn.activations import hard_sigmoid, identity, positive
from tests import cases, reference

pytestmark = pytest.mark.usefixtures("strict_promotion")

# One operation or two in float64.
ROUNDING = 1e-15
# Steps to either side of a kink: one that float64 and one that float32 can take.
NEAR = (1e-12, 1e-3)
FAR = np.array([-1e300, -1e3, -40.0, 40.0, 1e3, 1e300])
GRID = np.linspace(-6.0, 6.0, 97) + 0.01  # on no kink

ALL = {"hard_sigmoid": hard_sigmoid, "identity": identity, "positive": positive}
each_activation = pytest.mark.parametrize("activation", ALL.values(), ids=ALL)


def gradient(activation, points):
    slope = cases.quick_jit(jax.vmap(jax.grad(activation)))
    return np.asarray(slope(jnp.asarray(points, np.float64)))


def test_names_are_those_tested():
    assert sorted(ALL) == activations.__all__


@pytest.mark.usefixtures("x64")
def test_identity_returns_its_values():
    values = jnp.asarray(GRID)
    assert identity(values) is values


@pytest.mark.usefixtures("x64")
def test_hard_sigmoid_is_a_line_between_two_levels():
    points = np.concatenate([GRID, FAR, [-2.5, 0.0, 2.5]])
    expected = [0.0 if x < -2.5 else 1.0 if x > 2.5 else x / 5 + 0.5 for x in points]
    actual = hard_sigmoid(jnp.asarray(points))
    assert np.max(np.abs(actual - np.array(expected))) <= ROUNDING


@pytest.mark.usefixtures("x64")
def test_gradient_of_hard_sigmoid_is_the_slope_of_its_piece():
    inside = GRID[np.abs(GRID) < 2.5]
    outside = np.concatenate([GRID[np.abs(GRID) > 2.5], FAR])
    assert np.max(np.abs(gradient(hard_sigmoid, inside) - 0.2)) <= ROUNDING
    assert not gradient(hard_sigmoid, outside).any()
    for near in NEAR:
        slopes = gradient(hard_sigmoid, [-2.5 - near, -2.5 + near, 2.5 - near])
        assert np.max(np.abs(slopes - [0.0, 0.2, 0.2])) <= ROUNDING
        assert not gradient(hard_sigmoid, [2.5 + near]).any()
    # At a kink, something between both sides.
    at_kinks = gradient(hard_sigmoid, [-2.5, 2.5])
    assert np.all((at_kinks >= 0.0) & (at_kinks <= 0.2))


@pytest.mark.usefixtures("x64")
def test_hard_sigmoid_is_not_that_of_jax():
    # relu6(x + 3) / 6: the same levels and the same middle, another slope.
    points = jnp.array([-10.0, 0.0, 10.0])
    assert np.array_equal(hard_sigmoid(points), jax.nn.hard_sigmoid(points))
    apart = abs(hard_sigmoid(1.0) - jax.nn.hard_sigmoid(1.0))
    assert abs(apart - (0.2 - 1 / 6)) <= ROUNDING


@pytest.mark.usefixtures("x64")
def test_positive_is_a_line_to_the_right_and_the_sigmoid_to_the_left():
    points = np.concatenate([GRID, FAR])
    expected = np.where(points >= 0, points + 0.5, reference.sigmoid(points))
    actual = np.asarray(positive(jnp.asarray(points)))
    assert np.max(np.abs(actual - expected) / (1 + np.abs(expected))) <= ROUNDING
    assert np.all(actual >= 0.0)
    assert np.all(actual[points > -700.0] > 0.0)  # exp(-700) is still a number


@pytest.mark.usefixtures("x64")
def test_gradient_of_positive_is_that_of_its_piece():
    right = np.concatenate([GRID[GRID > 0], [0.0], NEAR, FAR[FAR > 0]])
    assert np.all(gradient(positive, right) == 1.0)
    left = np.concatenate([GRID[GRID < 0], np.negative(NEAR), FAR[FAR < 0]])
    s = reference.sigmoid(left)
    assert np.max(np.abs(gradient(positive, left) - s * (1 - s))) <= ROUNDING
    jump = positive(jnp.asarray(NEAR[0])) - positive(jnp.asarray(-NEAR[0]))
    assert abs(jump) <= 2 * NEAR[0]


@each_activation
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32, jnp.float64])
def test_activation_keeps_the_dtype(activation, dtype):
    with jax.enable_x64(dtype == jnp.float64):
        values = jnp.asarray([-3.0, -0.5, 0.5, 3.0], dtype)
        assert activation(values).dtype == dtype
        assert jax.vmap(jax.grad(activation))(values).dtype == dtype
