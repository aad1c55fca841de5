"""Rows in batches of one size: nothing lost, nothing counted twice, compiled once."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gated_rnn import (
    GRU,
    RNN,
    Dense,
    Embedding,
    LastStep,
    Stack,
    lengths_to_mask,
    losses,
)
from gated_rnn.training import evaluate, predict

FLOAT32_TOLERANCE = 1e-5  # relative: matmuls of other shapes sum in another order
FLOAT64_TOLERANCE = 1e-12  # relative: averages of a few tens of numbers

T, B, F, H, OUT = 6, 7, 4, 5, 3
NET = Stack(RNN(GRU(H)), Dense(OUT), dropout=0.5)
LENGTHS = np.array([6, 1, 4, 2, 5, 3, 6])


def relative_error(actual, expected):
    actual, expected = (np.asarray(x, np.float64) for x in (actual, expected))
    assert actual.shape == expected.shape
    return np.max(np.abs(actual - expected)) / np.max(np.abs(expected))


@functools.cache
def make_params(net, in_features=F):
    shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), in_features))
    rng = np.random.default_rng(1)
    return jax.tree.map(
        lambda leaf: jnp.asarray(0.7 * rng.normal(size=leaf.shape), leaf.dtype), shapes
    )


def make_inputs(*batch, features=F):
    rng = np.random.default_rng(2)
    return rng.normal(size=(T, *batch, features)).astype(np.float32)


def make_mask():
    return np.array(lengths_to_mask(LENGTHS, T))


# predict


@pytest.mark.parametrize("batch_size", [3, B, 2 * B], ids=lambda n: f"{n} at once")
@pytest.mark.parametrize("on_device", [False, True], ids=["host", "device"])
def test_predictions_equal_those_of_all_rows_at_once(batch_size, on_device):
    params, inputs, mask = make_params(NET), make_inputs(B), make_mask()
    given = jax.device_put((inputs, mask)) if on_device else (inputs, mask)
    actual = predict(NET, params, given[0], mask=given[1], batch_size=batch_size)
    _, expected = jax.jit(NET.apply)(params, inputs, mask=mask)
    assert type(actual) is np.ndarray
    assert actual.dtype == np.float32
    assert relative_error(actual, expected) <= FLOAT32_TOLERANCE


def test_predictions_without_mask_take_every_step_for_real():
    params, inputs = make_params(NET), make_inputs(B)
    actual = predict(NET, params, inputs, batch_size=3)
    _, expected = jax.jit(NET.apply)(params, inputs)
    assert relative_error(actual, expected) <= FLOAT32_TOLERANCE


def test_predictions_keep_further_batch_axes():
    params, inputs = make_params(NET), make_inputs(B, 2)
    actual = predict(NET, params, inputs, batch_size=3)
    _, expected = jax.jit(NET.apply)(params, inputs)
    assert relative_error(actual, expected) <= FLOAT32_TOLERANCE


def test_predictions_of_a_network_that_reads_tokens_and_reduces_time():
    net = Stack(Embedding(9, F), RNN(GRU(H)), LastStep(), Dense(OUT))
    params, mask = make_params(net, None), make_mask()
    tokens = np.random.default_rng(3).integers(9, size=(T, B))
    actual = predict(net, params, tokens, mask=mask, batch_size=3)
    _, expected = jax.jit(net.apply)(params, tokens, mask=mask)
    assert actual.shape == (B, OUT)
    assert relative_error(actual, expected) <= FLOAT32_TOLERANCE


@jax.tree_util.register_static
class Counting:
    """A network that notes the shape of each call it is traced for."""

    out_features = None

    def __init__(self):
        self.shapes = []

    def apply(self, params, inputs, carry=None, *, mask=None, resets=None, key=None):
        self.shapes.append(inputs.shape)
        return (), inputs * params


def test_predict_compiles_once_for_all_batches_and_calls():
    net = Counting()
    inputs = make_inputs(B)
    for scale in (2.0, 3.0):
        actual = predict(net, jnp.full((), scale), inputs, batch_size=3)
        assert relative_error(actual, scale * inputs) <= FLOAT32_TOLERANCE
    assert net.shapes == [(T, 3, F)]


def test_predict_runs_no_more_rows_than_there_are():
    net = Counting()
    predict(net, jnp.ones(()), make_inputs(B), batch_size=B + 5)
    assert net.shapes == [(T, B, F)]


@pytest.mark.parametrize(
    ("inputs", "options", "message"),
    [
        (make_inputs(), {}, "inputs: expected sequences"),
        (make_inputs(0), {}, "inputs: expected sequences"),
        (make_inputs(B)[0, 0], {}, "inputs: expected a time-major array"),
        (make_inputs(B), {"batch_size": 0}, "batch_size: expected a positive integer"),
        (make_inputs(B), {"mask": make_mask().T}, "mask: expected shape"),
        (make_inputs(B), {"mask": LENGTHS}, "mask: expected a bool array"),
        (make_inputs(B, features=F + 1), {}, "inputs: expected 4 features"),
    ],
    ids=["no batch", "no rows", "no time", "batch size", "mask", "lengths", "features"],
)
def test_wrong_arguments_of_predict_are_named(inputs, options, message):
    with pytest.raises(ValueError, match=message):
        predict(NET, make_params(NET), inputs, **options)


# evaluate


def masked_loss(params, batch, key):
    assert key is None
    inputs, targets, mask = batch
    _, outputs = NET.apply(params, inputs, mask=mask, key=key)
    value = losses.mean_squared_error(outputs, targets, mask)
    errors = jnp.where(mask[..., None], abs(outputs - targets), 0.0)
    mean_error = errors.sum(axis=(0, 1)) / jnp.maximum(mask.sum(), 1)
    return value, {"error": mean_error}


def make_batch(*, mask=None):
    targets = np.random.default_rng(4).normal(size=(T, B, OUT)).astype(np.float32)
    return make_inputs(B), targets, make_mask() if mask is None else mask


def rows_of(batch, first, last):
    return jax.tree.map(lambda leaf: leaf[:, first:last], batch)


def count_steps(batch):
    return batch[2].sum()


@pytest.mark.parametrize(
    "cuts", [[0, 7], [0, 2, 7], [0, 4, 5, 7]], ids=["one", "short first", "long first"]
)
def test_loss_weighted_by_real_steps_is_that_of_all_rows_at_once(cuts):
    params, batch = make_params(NET), make_batch()
    pieces = [rows_of(batch, *ends) for ends in itertools.pairwise(cuts)]
    actual = evaluate(masked_loss, params, pieces, weight=count_steps, batch_size=3)
    loss, metrics = jax.jit(masked_loss, static_argnums=2)(params, batch, None)
    assert relative_error(actual["loss"], loss) <= FLOAT32_TOLERANCE
    assert relative_error(actual["error"], metrics["error"]) <= FLOAT32_TOLERANCE
    assert actual["error"].dtype == actual["loss"].dtype == np.float64
    unweighted = evaluate(masked_loss, params, [batch], batch_size=3)
    assert relative_error(unweighted["loss"], loss) > 0.01


def score(params, batch, key):
    return jnp.mean(params * batch**2), {"half": jnp.mean(batch) / 2}


def test_unequal_batches_are_averaged_by_rows():
    values = np.random.default_rng(5).normal(size=(1, 10)).astype(np.float32)
    batches = (values[:, first:last] for first, last in [(0, 4), (4, 5), (5, 10)])
    actual = evaluate(score, 3.0, batches)
    wide = values.astype(np.float64)
    assert relative_error(actual["loss"], 3 * np.mean(wide**2)) <= FLOAT32_TOLERANCE
    assert relative_error(actual["half"], np.mean(wide) / 2) <= FLOAT32_TOLERANCE


@pytest.mark.usefixtures("x64")
def test_averages_are_taken_in_float64():
    values = np.array([[1.0, 1e-9, 1e9, 3.0, 7e-9]])
    weights = np.array([[0.3, 0.05, 0.1, 0.025, 0.2]])  # less than 1 in all

    def loss(params, batch, key):
        return batch[0].sum(), {}

    actual = evaluate(
        loss, (), [(values, weights)], weight=lambda b: b[1].sum(), batch_size=2
    )
    expected = np.average(values, weights=weights)
    assert relative_error(actual["loss"], expected) <= FLOAT64_TOLERANCE


def test_evaluate_compiles_once_for_unequal_batches_and_further_calls():
    shapes = []

    def loss(params, batch, key):
        shapes.append(batch.shape)
        return jnp.mean(batch * params), {}

    inputs = make_inputs(B)
    batches = [inputs[:, :3], inputs[:, 3:5], inputs[:, 2:]]
    for scale in (2.0, 5.0):
        actual = evaluate(loss, jnp.full((), scale), batches)
        rows = np.concatenate(batches, axis=1).astype(np.float64)
        assert relative_error(actual["loss"], scale * rows.mean()) <= FLOAT32_TOLERANCE
    assert shapes == [(T, 1, F)]


def test_a_new_loss_or_weight_is_not_taken_for_an_old_one():
    values = np.array([[1.0, 3.0]], np.float32)
    results = [
        evaluate(
            lambda params, batch, key, s=scale: (s * batch.sum(), {}),
            (),
            [values],
            weight=lambda batch, p=power: batch.sum() ** p,
        )["loss"]
        for scale, power in [(1.0, 1), (2.0, 1), (1.0, 2)]
    ]
    assert results == pytest.approx([10 / 4, 20 / 4, 28 / 10], rel=FLOAT32_TOLERANCE)


def test_arrays_of_a_partial_loss_are_arguments_of_the_program():
    traces = []

    def loss(scale, params, batch, key):
        traces.append(scale)
        return jnp.sum(scale * batch), {}

    values = np.array([[1.0, 4.0]], np.float32)
    partials = [jax.tree_util.Partial(loss, jnp.full((), s)) for s in (2.0, 6.0)]
    results = [evaluate(partial, (), [values])["loss"] for partial in partials]
    assert results == [5.0, 15.0]
    assert len(traces) == 1


def test_each_leaf_may_have_its_own_axis_of_rows():
    inputs = make_inputs(B)
    labels = np.arange(B, dtype=np.float32) * 0.3
    shared = np.linspace(0.5, 2.0, T).astype(np.float32)

    def loss(params, batch, key):
        inputs, labels, shared = batch["inputs"], *batch["rest"]
        assert (inputs.shape, labels.shape, shared.shape) == ((T, 1, F), (1,), (T,))
        return jnp.mean(shared @ inputs.sum(axis=-1) - labels), {}

    actual = evaluate(
        loss,
        (),
        [{"inputs": inputs, "rest": (labels, shared)}],
        axis={"inputs": 1, "rest": (0, None)},
        batch_size=2,
    )
    expected = np.mean(shared @ inputs.sum(axis=-1) - labels, dtype=np.float64)
    assert relative_error(actual["loss"], expected) <= FLOAT32_TOLERANCE


def test_rows_may_stand_on_the_last_axis():
    values = np.random.default_rng(6).normal(size=(2, 3, 5)).astype(np.float32)

    def loss(params, batch, key):
        assert batch.shape == (2, 3, 1)
        return jnp.sum(batch), {}

    actual = evaluate(loss, (), [values], axis=-1, batch_size=4)
    expected = values.sum(axis=(0, 1), dtype=np.float64).mean()
    assert relative_error(actual["loss"], expected) <= FLOAT32_TOLERANCE


def test_rows_without_weight_do_not_count_whatever_they_give():
    values = np.array([[2.0, np.nan, 4.0]], np.float32)

    def loss(params, batch, key):
        return batch.sum(), {"double": 2 * batch.sum()}

    actual = evaluate(loss, (), [values], weight=lambda b: jnp.isfinite(b).sum())
    assert actual == {"loss": 3.0, "double": 6.0}


def test_a_loss_that_is_not_finite_is_reported():
    values = np.array([[2.0, np.nan, 4.0]], np.float32)
    assert np.isnan(evaluate(score, 1.0, [values])["loss"])


@pytest.mark.parametrize(
    ("loss", "batches", "options", "message"),
    [
        (score, [], {}, "batches: expected at least one row"),
        (score, [np.ones((2, 0))], {}, "batches: expected arrays with the same number"),
        (score, [np.ones(2)], {}, "batches: expected arrays with the same number"),
        (score, [()], {}, "batches: expected arrays with the same number"),
        (
            score,
            [(np.ones((2, 3)), np.ones((2, 4)))],
            {},
            r"the axes \(1, 1\), got shapes \(2, 3\), \(2, 4\)",
        ),
        (score, [np.ones((2, 3))], {"weight": lambda b: 0.0}, "not zero, got none"),
        (score, [np.ones((2, 3))], {"weight": lambda b: b}, "weight: expected a func"),
        (score, [np.ones((2, 3))], {"batch_size": -1}, "batch_size: expected a pos"),
        (
            lambda params, batch, key: (jnp.sum(batch), {"loss": 1.0}),
            [np.ones((2, 3))],
            {},
            "metrics: expected a dict with names other than",
        ),
    ],
    ids=[
        "none",
        "no rows",
        "no axis",
        "empty",
        "unequal",
        "zero",
        "shape",
        "size",
        "x",
    ],
)
def test_wrong_arguments_of_evaluate_are_named(loss, batches, options, message):
    with pytest.raises(ValueError, match=message):
        evaluate(loss, 1.0, batches, **options)


def test_data_that_was_not_put_in_a_list_is_refused():
    inputs = np.ones((T, 2, 1))
    for batches in ((inputs, inputs), inputs):
        with pytest.raises(ValueError, match=r"invalid value for batches: .*\[data\]"):
            evaluate(lambda params, batch, key: (0.0, {}), 0.0, batches)
