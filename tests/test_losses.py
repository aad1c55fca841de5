"""Losses against NumPy in float64: masks, gradients, extremes, what is refused."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gated_rnn import losses
from tests import cases

pytestmark = pytest.mark.usefixtures("strict_promotion")

# Pairwise different: steps, rows, features or classes.
T, B, C = 6, 4, 5

ROUNDING = 1e-12  # float64, sums of a hundred numbers
FLOAT32 = 1e-6  # the same in float32
BFLOAT16 = 2e-2  # 8 bits in each of a few operations
# Central differences in float64: rounding errs by 1e-10, the third derivative by 1e-12.
STEP_SIZE = 1e-6
FINITE_DIFFERENCES = 1e-8


def squared_error(predictions, targets):
    return np.mean((predictions - targets) ** 2)


def negative_log_softmax(logits, label):
    return np.log(np.sum(np.exp(logits))) - logits[label]


def is_largest(logits, label):
    return float(all(logits[label] >= logit for logit in logits))


def negative_log_likelihood(logits, targets):
    chance = 1.0 / (1.0 + np.exp(-logits))
    return -np.sum(targets * np.log(chance) + (1.0 - targets) * np.log(1.0 - chance))


class Case(NamedTuple):
    """A loss, what it is for one step, and how its targets are drawn."""

    loss: Callable[..., Any]
    of_step: Callable[..., Any]
    draw_targets: Callable[..., Any]


def draw_labels(rng):
    return rng.integers(0, C, size=(T, B))


CASES = {
    "mean_squared_error": Case(
        losses.mean_squared_error,
        squared_error,
        lambda rng: rng.normal(size=(T, B, C)),
    ),
    "cross_entropy": Case(losses.cross_entropy, negative_log_softmax, draw_labels),
    "accuracy": Case(losses.accuracy, is_largest, draw_labels),
    "bernoulli_nll": Case(
        losses.bernoulli_nll,
        negative_log_likelihood,
        lambda rng: rng.uniform(size=(T, B, C)),
    ),
}
LABELLED = ("cross_entropy", "accuracy")
UNLABELLED = ("mean_squared_error", "bernoulli_nll")

each_loss = pytest.mark.parametrize("name", CASES)


def draw(name):
    """Random predictions, targets and a mask that is neither full nor empty."""
    rng = np.random.default_rng(5)
    predictions = 2.0 * rng.normal(size=(T, B, C))
    targets = CASES[name].draw_targets(rng)
    if name in LABELLED:  # so that a third of the steps is right
        targets = np.where(rng.random((T, B)) < 0.3, predictions.argmax(-1), targets)
    mask = rng.random((T, B)) < 0.6
    mask[:, 1] = False  # a row that is all padding
    mask[2] = False  # a step that is no row's
    return predictions, targets, mask


def by_hand(name, predictions, targets, mask=None):
    """The mean over the real steps, one at a time."""
    mask = np.ones((T, B), bool) if mask is None else mask
    steps = [
        CASES[name].of_step(predictions[index], targets[index])
        for index in np.ndindex(T, B)
        if mask[index]
    ]
    return np.mean(steps)


@functools.cache
def jitted(name):
    return cases.quick_jit(CASES[name].loss)


# Values


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("masked", [False, True], ids=["whole", "masked"])
@each_loss
def test_value_is_the_mean_over_real_steps(name, masked):
    predictions, targets, mask = draw(name)
    mask = mask if masked else None
    actual = jitted(name)(predictions, targets, mask)
    expected = by_hand(name, predictions, targets, mask)
    assert expected > 0.1
    assert actual.shape == ()
    assert cases.relative_error(actual, expected) < ROUNDING


@pytest.mark.usefixtures("x64")
@each_loss
def test_mask_may_lack_the_last_leading_axes(name):
    predictions, targets, _ = draw(name)
    steps = np.array([True, False, False, True, True, False])
    actual = jitted(name)(predictions, targets, steps)
    rows = np.broadcast_to(steps[:, None], (T, B))
    expected = by_hand(name, predictions, targets, rows)
    assert cases.relative_error(actual, expected) < ROUNDING


@pytest.mark.usefixtures("x64")
@each_loss
def test_leading_axes_may_be_any(name):
    predictions, targets, mask = draw(name)
    expected = by_hand(name, predictions, targets, mask)
    folded = [
        array.reshape(2, 3, *array.shape[1:]) for array in (predictions, targets, mask)
    ]
    assert cases.relative_error(jitted(name)(*folded), expected) < ROUNDING
    one = jitted(name)(predictions[0, 0], targets[0, 0])
    of_step = CASES[name].of_step(predictions[0, 0], targets[0, 0])
    np.testing.assert_allclose(one, of_step, rtol=ROUNDING)


@each_loss
def test_dtype_is_that_of_the_predictions(name):
    predictions, targets, mask = draw(name)
    expected = by_hand(name, predictions, targets, mask)
    for dtype, tolerance in (("float32", FLOAT32), ("bfloat16", BFLOAT16)):
        actual = jitted(name)(jnp.asarray(predictions, dtype), targets, mask)
        assert actual.dtype == dtype
        assert cases.relative_error(actual, expected) < tolerance


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "uint32"])
@pytest.mark.parametrize("name", LABELLED)
def test_labels_may_be_any_integers(name, dtype):
    predictions, targets, mask = draw(name)
    with jax.numpy_dtype_promotion("standard"):
        actual = jitted(name)(np.float32(predictions), targets.astype(dtype), mask)
    expected = by_hand(name, predictions, targets, mask)
    assert cases.relative_error(actual, expected) < FLOAT32


@pytest.mark.parametrize("dtype", ["bool", "int32", "float32"])
def test_binary_targets_may_have_any_dtype(dtype):
    predictions, targets, mask = draw("bernoulli_nll")
    targets = np.round(targets)
    arguments = np.float32(predictions), targets.astype(dtype), mask
    actual = jitted("bernoulli_nll")(*arguments)
    expected = by_hand("bernoulli_nll", predictions, targets, mask)
    assert cases.relative_error(actual, expected) < FLOAT32


def test_losses_of_saturated_logits_are_finite_with_finite_gradients():
    # softmax and sigmoid are 0 and 1 here, and their logarithms would be infinite.
    logits = jnp.array([[1e4, -1e4, 0.0]])
    for loss, targets, expected in (
        (losses.cross_entropy, jnp.array([1]), 2e4),
        (losses.cross_entropy, jnp.array([0]), 0.0),
        (losses.bernoulli_nll, jnp.array([[0.0, 1.0, 1.0]]), 2e4 + np.log(2.0)),
        (losses.bernoulli_nll, jnp.array([[1.0, 0.0, 0.0]]), np.log(2.0)),
    ):
        value, gradient = cases.quick_jit(jax.value_and_grad(loss))(logits, targets)
        np.testing.assert_allclose(value, expected, rtol=FLOAT32)
        assert np.all(np.isfinite(gradient))
        assert np.max(np.abs(gradient)) <= 1.0


# What is not real


@functools.cache
def value_and_gradients(name):
    """The value and its gradient by whatever is a float."""
    argnums = (0, 1) if name in UNLABELLED else 0
    return cases.quick_jit(jax.value_and_grad(CASES[name].loss, argnums=argnums))


def garbage(name, value):
    """What may stand under the mask of the targets."""
    if name in LABELLED:
        return {"nan": -1, "inf": C + 3, "huge": 0}[value]
    return {"nan": np.nan, "inf": -np.inf, "huge": 1e30}[value]


@each_loss
def test_what_stands_under_the_mask_changes_no_bit_and_has_no_gradient(name):
    predictions, targets, mask = draw(name)
    run = value_and_gradients(name)
    runs = {}
    for value, number in (("nan", np.nan), ("inf", np.inf), ("huge", -1e30)):
        padding = garbage(name, value)
        full = mask if name in LABELLED else mask[..., None]
        x = np.where(mask[..., None], predictions, number).astype(np.float32)
        y = np.where(full, targets, padding)
        y = y.astype(np.int32 if name in LABELLED else np.float32)
        runs[value] = run(x, y, mask)
    value, gradients = runs["huge"]
    assert cases.relative_error(value, by_hand(name, predictions, targets, mask)) < 1e-6
    for gradient in jax.tree.leaves(gradients):
        assert not gradient[~mask].any()
    for other in ("nan", "inf"):
        assert jax.tree.all(jax.tree.map(np.array_equal, runs[other], runs["huge"]))


@each_loss
def test_without_a_real_step_value_and_gradient_are_zero(name):
    predictions, targets, _ = draw(name)
    x = np.full_like(predictions, np.nan, np.float32)
    dtype = np.int32 if name in LABELLED else np.float32
    run = value_and_gradients(name)
    value, gradients = run(x, targets.astype(dtype), np.zeros((T, B), bool))
    assert value == 0.0
    assert not any(leaf.any() for leaf in jax.tree.leaves(gradients))


@pytest.mark.parametrize("masked", [False, True], ids=["whole", "masked"])
@each_loss
def test_no_steps_give_zero(name, masked):
    _, targets, mask = draw(name)
    predictions = np.zeros((0, B, C), np.float32)
    value = jitted(name)(predictions, targets[:0], mask[:0] if masked else None)
    assert value == 0.0


# Gradients


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "name", ["mean_squared_error", "cross_entropy", "bernoulli_nll"]
)
def test_gradient_equals_finite_differences(name):
    predictions, targets, mask = draw(name)
    run = value_and_gradients(name)
    # The run may read the arrays themselves, which are moved in place below.
    _, gradients = jax.block_until_ready(run(predictions, targets, mask))

    def differences(array):
        slopes = np.zeros_like(array)
        for index in np.ndindex(array.shape):
            value, ends = array[index], []
            for shift in (STEP_SIZE, -STEP_SIZE):
                array[index] = value + shift
                ends.append(by_hand(name, predictions, targets, mask))
            array[index] = value
            slopes[index] = (ends[0] - ends[1]) / (2.0 * STEP_SIZE)
        return slopes

    moved = (predictions, targets) if name in UNLABELLED else (predictions,)
    for gradient, array in zip(jax.tree.leaves(gradients), moved, strict=True):
        expected = differences(array)
        assert np.max(np.abs(expected)) > 1e-3
        assert cases.relative_error(gradient, expected) < FINITE_DIFFERENCES


def test_accuracy_has_a_zero_gradient():
    predictions, targets, mask = draw("accuracy")
    run = value_and_gradients("accuracy")
    _, gradient = run(np.float32(predictions), targets.astype(np.int32), mask)
    assert not gradient.any()


# Errors


def refused(name, argument, *words, **changes):
    """Call with some arguments changed; check the error."""
    predictions, targets, mask = draw(name)
    arguments = {"x": jnp.float32(predictions), "y": targets, "mask": mask, **changes}
    with pytest.raises(ValueError) as error:
        CASES[name].loss(arguments["x"], arguments["y"], arguments["mask"])
    cases.assert_says(error, argument, *words)


@pytest.mark.parametrize("name", UNLABELLED)
def test_targets_of_another_shape_are_refused(name):
    # Broadcasting them would give a number that means nothing.
    for shape in ((T, B), (B, T, C), (T, B, 1), (T, 1, C)):
        words = (str((T, B, C)), str(shape))
        refused(name, "targets", *words, y=np.ones(shape), mask=None)


@pytest.mark.parametrize("name", LABELLED)
def test_labels_that_are_no_integers_or_do_not_fit_are_refused(name):
    refused(name, "labels", "integer", "float32", y=jnp.ones((T, B)))
    refused(name, "labels", "integer", "bool", y=jnp.ones((T, B), bool))
    for shape in ((B, T), (T, B, 1), (T, B, C), (T,)):
        words = (str((T, B)), str(shape))
        refused(name, "labels", *words, y=np.ones(shape, int), mask=None)


@each_loss
def test_mask_that_is_not_bool_or_does_not_fit_is_refused(name):
    refused(name, "mask", "bool", "float32", mask=jnp.ones((T, B)))
    refused(name, "mask", "bool", "int32", mask=jnp.ones((T, B), jnp.int32))
    for shape in ((B, T), (B,), (T, 1), (T + 1, B)):
        refused(name, "mask", str(shape), mask=np.ones(shape, bool))


@pytest.mark.parametrize("dtype", ["int8", "uint8", "uint32"])
def test_labels_may_be_any_integers_under_strict_promotion(dtype):
    logits = jnp.array([[0.1, 2.0, -1.0], [3.0, 0.0, 1.0]])
    with jax.numpy_dtype_promotion("strict"):
        assert losses.accuracy(logits, jnp.array([1, 2], dtype)) == 0.5


def test_mask_of_single_features_is_refused():
    logits = jnp.ones((3, 3, 3))
    with pytest.raises(ValueError, match="invalid value") as error:
        losses.bernoulli_nll(logits, 0 * logits, jnp.ones((3, 3, 3), jnp.bool_))
    cases.assert_says(error, "mask")


def test_masked_mean_of_float16_does_not_overflow():
    ones = jnp.ones((700, 10, 12), jnp.float16)
    for mask in (None, jnp.ones((700, 10), jnp.bool_)):
        assert losses.mean_squared_error(ones, 0 * ones, mask) == 1.0
