import functools
import math

import jax
import numpy as np
import pytest

from experiments.data.synthetic import (
    adding_baseline,
    adding_problem,
    copy_baseline,
    copy_memory,
    selective_recall,
    selective_recall_baseline,
    temporal_order,
    temporal_order_baseline,
)
from tests.cases import assert_says

KEY = jax.random.key(11)
B = 4000
TASKS = {
    "adding": functools.partial(adding_problem, num_steps=23, batch_size=B),
    "copy": functools.partial(
        copy_memory, delay=9, batch_size=B, num_symbols=5, num_copied=3
    ),
    "temporal order": functools.partial(temporal_order, num_steps=43, batch_size=B),
    "selective recall": functools.partial(
        selective_recall, num_steps=17, batch_size=B, num_symbols=6, num_recalled=4
    ),
}


@functools.cache
def drawn(name):
    return jax.device_get(compiled(name)(KEY))


@functools.cache
def compiled(name):
    return jax.jit(TASKS[name])


@pytest.mark.parametrize("name", TASKS)
def test_same_key_gives_same_batch_and_another_key_another(name):
    batch, again = drawn(name), compiled(name)(KEY)
    other = compiled(name)(jax.random.key(12))
    for first, second in zip(batch, again, strict=True):
        np.testing.assert_array_equal(first, second)
    assert (np.asarray(other.inputs) != batch.inputs).any()


@pytest.mark.parametrize("name", TASKS)
def test_shapes_dtypes_and_silence_under_the_mask(name):
    inputs, targets, mask = drawn(name)
    assert inputs.shape[:2] == targets.shape[:2] == mask.shape
    assert inputs.dtype == np.float32
    assert targets.dtype == (np.float32 if name == "adding" else np.int32)
    assert mask.dtype == bool
    assert not targets[~mask].any()
    assert mask.any(axis=0).all()


@pytest.mark.parametrize("name", TASKS)
def test_key_is_used_once(name, no_key_reuse):
    jax.jit(TASKS[name])(jax.random.key(3))


@pytest.mark.parametrize("num_steps", [2, 7, 23])
def test_sum_is_of_one_marked_number_in_each_half(num_steps):
    inputs, targets, mask = adding_problem(KEY, num_steps, 50)
    values, markers = np.moveaxis(np.asarray(inputs), -1, 0)
    half = num_steps // 2
    assert (markers[:half].sum(axis=0) == 1).all()
    assert (markers[half:].sum(axis=0) == 1).all()
    sums = (values * markers).sum(axis=0)
    np.testing.assert_allclose(targets[-1, :, 0], sums, rtol=1e-6)
    assert list(np.asarray(mask).sum(axis=0)) == [1] * 50
    assert np.asarray(mask)[-1].all()


def test_marked_steps_and_values_are_spread():
    inputs, _, _ = drawn("adding")
    counts = inputs[..., 1].sum(axis=1)
    for part, size in ((counts[:11], 11), (counts[11:], 12)):
        expected = B / size
        assert np.abs(part - expected).max() < 5 * math.sqrt(expected)
    assert abs(inputs[..., 0].mean() - 0.5) < 0.005
    assert abs(inputs[..., 0].var() - 1 / 12) < 0.002


def test_adding_baseline_is_reached_and_beats_the_constant():
    inputs, targets, _ = drawn("adding")
    due, last = targets[-1, :, 0], inputs[-1]
    # The best guess: 1, or the last number and 1/2 if it is marked.
    guess = np.where(last[:, 1] == 1, last[:, 0] + 0.5, 1.0)
    errors = (due - guess) ** 2
    margin = 4 * errors.std() / math.sqrt(B)
    assert abs(errors.mean() - adding_baseline(23)) < margin
    constant = (due - 1) ** 2
    assert abs(constant.mean() - 1 / 6) < margin
    assert adding_baseline(10**6) == pytest.approx(1 / 6, abs=1e-6)


def test_copied_symbols_come_back_in_order_after_the_delay():
    inputs, targets, mask = drawn("copy")
    assert inputs.shape == (15, B, 7)
    assert (inputs.sum(axis=-1) == 1).all()
    shown = inputs.argmax(axis=-1)
    assert ((shown[:3] >= 1) & (shown[:3] <= 5)).all()
    assert (shown[3:11] == 0).all()
    assert (shown[11] == 6).all()  # the delay of 9 ends with the delimiter
    assert (shown[12:] == 0).all()
    np.testing.assert_array_equal(targets[12:], shown[:3])
    assert not targets[:12].any()
    assert mask.all()
    counts = np.bincount(shown[:3].ravel(), minlength=6)[1:]
    assert np.abs(counts - 3 * B / 5).max() < 5 * math.sqrt(3 * B / 5)


def test_copy_baseline_is_ln_a_where_symbols_are_due():
    expected = 3 * math.log(5) / 15
    assert copy_baseline(9, num_symbols=5, num_copied=3) == pytest.approx(expected)
    assert copy_baseline(500) == pytest.approx(0.0400, abs=5e-5)


def test_order_of_the_two_relevant_symbols_is_the_class():
    inputs, targets, mask = drawn("temporal order")
    assert inputs.shape == (47, B, 8)
    lengths = mask.argmax(axis=0) + 1
    assert (mask.sum(axis=0) == 1).all()
    assert set(lengths) == {43, 44, 45, 46, 47}
    for row in range(200):
        length = lengths[row]
        assert (inputs[:length, row].sum(axis=-1) == 1).all()
        assert not inputs[length:, row].any()
        shown = inputs[:length, row].argmax(axis=-1)
        assert shown[0] == 0
        assert shown[-1] == 1
        assert (shown[1:-1] >= 2).all()
        relevant = np.flatnonzero(shown >= 6)
        assert len(relevant) == 2
        assert 4 <= relevant[0] < 8
        assert 21 <= relevant[1] < 25
        first, second = shown[relevant] - 6
        assert targets[length - 1, row] == 2 * first + second
    due = targets[mask.argmax(axis=0), np.arange(B)]
    assert np.abs(np.bincount(due) - B / 4).max() < 5 * math.sqrt(B / 4)
    assert temporal_order_baseline() == pytest.approx(math.log(4))
    distractors = inputs[1:4].argmax(axis=-1)
    counts = np.bincount(distractors.ravel(), minlength=6)[2:]
    assert np.abs(counts - 3 * B / 4).max() < 5 * math.sqrt(3 * B / 4)


def test_marked_symbols_are_recalled_in_order():
    inputs, targets, mask = drawn("selective recall")
    assert inputs.shape == (21, B, 8)
    symbols, marker, cue = inputs[..., :6], inputs[..., 6], inputs[..., 7]
    assert (symbols[:17].sum(axis=-1) == 1).all()
    assert not symbols[17:].any()
    assert not marker[17:].any()
    np.testing.assert_array_equal(cue, mask)
    assert mask[17:].all()
    assert not mask[:17].any()
    assert (marker.sum(axis=0) == 4).all()
    shown = symbols.argmax(axis=-1)
    for row in range(200):
        places = np.flatnonzero(marker[:, row])
        np.testing.assert_array_equal(targets[17:, row], shown[places, row])
    places = marker[:17].sum(axis=1)
    expected = 4 * B / 17
    assert np.abs(places - expected).max() < 5 * math.sqrt(expected)
    # Distractors look like what is asked for: the marker alone tells them apart.
    for kind in (shown[:17][marker[:17] == 1], shown[:17][marker[:17] == 0]):
        counts = np.bincount(kind, minlength=6)
        assert np.abs(counts - kind.size / 6).max() < 5 * math.sqrt(kind.size / 6)
    assert selective_recall_baseline(6) == pytest.approx(math.log(6))


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: adding_problem(KEY, 1, 3), "num_steps"),
        (lambda: adding_problem(KEY, 5, 0), "batch_size"),
        (lambda: copy_memory(KEY, 0, 3), "num_steps"),
        (lambda: copy_memory(KEY, 3, 3, num_copied=0), "num_copied"),
        (lambda: temporal_order(KEY, 9, 3), "num_steps"),
        (lambda: selective_recall(KEY, 2, 3), "num_steps"),
        (lambda: selective_recall(KEY, 5, 3, num_symbols=0), "num_symbols"),
        (lambda: adding_baseline(1), "num_steps"),
    ],
)
def test_sizes_out_of_range_are_refused(call, name):
    with pytest.raises(ValueError) as error:
        call()
    assert_says(error, name)
