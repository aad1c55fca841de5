"""Synthetic tasks as problems: what is scored, which length, whose gradient."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.data.synthetic import Task
from experiments.tasks import (
    choose_loss,
    draw_parts,
    loss_of,
    make_network,
    make_problem,
    make_score,
    make_task,
    score_of,
    stretch_means,
)
from gated_rnn import GRU
from tests import cases

KEY = jax.random.key(5)
LENGTHS = (12, 17)
#: Sums of a few hundred float32 terms.
TOLERANCE = 1e-5


def test_sum_is_right_within_the_published_distances_of_the_mean():
    # Errors of the sum are twice those of the mean: 0.2 and 0.04 are the borders.
    errors = np.array([0.0, 0.07, -0.07, 0.09, -0.3, 0.39, 0.41, -1.2, np.nan, 0.5])
    targets = np.linspace(0.2, 1.9, errors.size, dtype=np.float32)
    shape = (3, errors.size)
    mask = np.zeros(shape, bool)
    mask[-1] = True
    part = Task(jnp.zeros((*shape, 2)), jnp.where(mask, targets, 0.0)[..., None], mask)
    outputs = np.full((*shape, 1), 7.0, np.float32)  # what stands elsewhere is nothing
    outputs[-1, :, 0] = targets + errors
    score = score_of(make_task("adding"), jnp.asarray(outputs), part)
    np.testing.assert_allclose(score.wrong, 0.4, rtol=TOLERANCE)
    np.testing.assert_allclose(score.far, 0.7, rtol=TOLERANCE)
    assert np.isnan(score.loss)
    fine = ~np.isnan(errors)
    part = jax.tree.map(lambda leaf: leaf[:, fine], part)
    loss = score_of(make_task("adding"), jnp.asarray(outputs[:, fine]), part).loss
    np.testing.assert_allclose(loss, np.square(errors[fine]).mean(), rtol=TOLERANCE)


def test_copy_counts_the_symbols_and_scores_every_step():
    task = make_task("copy", num_symbols=3, num_copied=2)
    targets = jnp.array([[0, 0], [0, 0], [0, 0], [1, 3], [2, 2]])
    part = Task(jnp.zeros((5, 2, 5)), targets, jnp.ones((5, 2), bool))
    logits = 4.0 * jax.nn.one_hot(targets, 4)
    logits = logits.at[3, 0].set(jnp.array([0.0, 1.0, 0.0, 2.0]))  # a wrong symbol
    logits = logits.at[0, 1].set(jnp.array([0.0, 1.0, 0.0, 0.0]))  # no blank: not due
    score = score_of(task, logits, part)
    assert score.wrong == score.far == 0.25
    wide = np.asarray(logits, np.float64)
    chances = np.exp(wide) / np.exp(wide).sum(axis=-1, keepdims=True)
    taken = np.take_along_axis(chances, np.asarray(targets)[..., None], axis=-1)
    np.testing.assert_allclose(score.loss, -np.log(taken).mean(), rtol=TOLERANCE)


@pytest.mark.parametrize("name", ["temporal_order", "selective_recall"])
def test_only_the_steps_of_the_mask_are_answers(name):
    task = make_task(name, num_symbols=5, num_recalled=3)
    (part,) = draw_parts(task, KEY, [12], 40)
    logits = 3.0 * jax.nn.one_hot(part.targets, task.out_features)
    logits = jnp.where(part.mask[..., None], logits, 100.0 * logits[::-1])
    answers = np.argwhere(np.asarray(part.mask))
    assert len(answers) == (120 if name == "selective_recall" else 40)
    for time, row in answers[:7]:
        logits = logits.at[time, row].multiply(-1.0)
    score = score_of(task, logits, part)
    np.testing.assert_allclose(score.wrong, 7 / len(answers), rtol=TOLERANCE)


@pytest.mark.parametrize(
    "name", ["adding", "copy", "temporal_order", "selective_recall"]
)
def test_baseline_is_the_loss_of_what_one_can_say_without_memory(name):
    task = make_task(name, num_symbols=4, num_copied=3, num_recalled=2)
    (part,) = draw_parts(task, KEY, [20], 4000)
    shape = (*part.mask.shape, task.out_features)
    outputs = np.zeros(shape, np.float32)
    if name == "adding":
        number, marker = np.moveaxis(np.asarray(part.inputs), -1, 0)
        outputs[..., 0] = np.where(marker > 0, number + 0.5, 1.0)
    if name == "copy":
        outputs[..., 0] = np.where(np.arange(shape[0])[:, None] < 23, 50.0, -50.0)
    loss = loss_of(task, jnp.asarray(outputs), part)
    # A mean of 4000 squares; the others are exact.
    tolerance = 0.05 if name == "adding" else TOLERANCE
    np.testing.assert_allclose(loss, task.baseline(20), rtol=tolerance)


def test_sizes_reach_the_task():
    copy = make_task("copy", num_symbols=3, num_copied=4)
    assert (copy.in_features, copy.out_features) == (5, 4)
    assert copy.baseline(9) == pytest.approx(4 * math.log(3) / 17)
    (part,) = draw_parts(copy, KEY, [9], 5)
    assert part.inputs.shape == (17, 5, 5)
    recall = make_task("selective_recall", num_symbols=6, num_recalled=2)
    (part,) = draw_parts(recall, KEY, [9], 5)
    assert part.inputs.shape == (11, 5, recall.in_features)
    assert recall.baseline(9) == pytest.approx(math.log(recall.out_features))
    with pytest.raises(ValueError, match="invalid value for task"):
        make_task("subtracting")


def test_chosen_loss_has_the_value_and_gradient_of_its_branch():
    def make_branch(power):
        def branch(params, key):
            noise = jax.random.normal(key, ())
            return (params["a"] ** power).sum() * noise + params["b"]

        return branch

    branches = [make_branch(power) for power in (1, 2, 3)]
    params = {"a": jnp.array([1.5, -2.0]), "b": jnp.float32(0.25)}
    both = jax.jit(
        jax.value_and_grad(lambda p, w: 3.0 * choose_loss(branches)(p, w, KEY))
    )
    for which, branch in enumerate(branches):
        value, gradient = both(params, which)
        expected, slope = jax.value_and_grad(lambda p, f=branch: 3.0 * f(p, KEY))(
            params
        )
        np.testing.assert_allclose(value, expected, rtol=TOLERANCE)
        cases.assert_close(gradient, slope, TOLERANCE, "gradient")


def test_seed_trains_and_validates_at_its_own_length():
    task = make_task("selective_recall", num_symbols=4)
    network = make_network(task, GRU(6))
    valid = draw_parts(task, jax.random.key(1), LENGTHS, 30)
    assert [part.inputs.shape[0] for part in valid] == [15, 20]
    problem = make_problem(task, network, LENGTHS, 8, valid)
    as_loss = make_problem(task, network, LENGTHS, 8, valid, measure="loss")

    @jax.jit
    def by_the_problem(params, which, step):
        own = problem.dataset(KEY, {"length": which})
        loss, _ = problem.loss(params, problem.batch(KEY, step, own), KEY)
        score = make_score(task, network, valid)((params, own))
        validations = (problem.validate(params, own), as_loss.validate(params, own))
        return loss, validations, score

    @jax.jit
    def by_hand(params, step):
        found = []
        for part, length in zip(valid, LENGTHS, strict=True):
            drawn = task.draw(jax.random.fold_in(KEY, step), length, 8)
            loss = loss_of(task, network.apply(params, drawn.inputs)[1], drawn)
            outputs = network.apply(params, part.inputs)[1]
            found.append((loss, loss_of(task, outputs, part), outputs))
        return found

    params = problem.init(KEY, {})
    losses = []
    for step in (3, 4):
        for which, expected in enumerate(by_hand(params, step)):
            loss, (wrong, valid_loss), score = by_the_problem(
                params, np.int32(which), step
            )
            np.testing.assert_allclose(loss, expected[0], rtol=TOLERANCE)
            losses.append(float(loss))
            np.testing.assert_allclose(valid_loss, expected[1], rtol=TOLERANCE)
            right = np.argmax(expected[2], axis=-1) == valid[which].targets
            share = 1 - right[valid[which].mask].mean()
            np.testing.assert_allclose([wrong, score.wrong], share, rtol=TOLERANCE)
    assert len(set(losses)) == 4  # every update and length draws its own
    assert problem.dataset(KEY, {}) == 0


def test_stretches_are_means_of_what_is_there():
    curves = np.array([[1.0, 3.0, 5.0, 7.0, 9.0], [2.0, np.nan, np.nan, np.nan, 4.0]])
    np.testing.assert_array_equal(
        stretch_means(curves, 3), [[2.0, 6.0, 9.0], [2.0, np.nan, 4.0]]
    )
    np.testing.assert_array_equal(stretch_means(curves, 5), curves)
