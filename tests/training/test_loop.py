"""One run: its updates against NumPy, its random streams, and its transformations."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gated_rnn.training import (
    Problem,
    TrainState,
    init_train_state,
    make_optimizer,
    make_train_step,
    train,
)

FLOAT64_TOLERANCE = 1e-11  # relative, after several updates
FLOAT32_TOLERANCE = 1e-5  # relative, jit or vmap against neither
IN_FEATURES = 3
BATCH_SIZE = 8
TRUE_KERNEL = np.array([0.7, -1.1, 0.4])
TRUE_BIAS = 0.6


def init(key, hyper):
    del hyper
    values = jax.random.uniform(key, (IN_FEATURES + 1,), minval=-1.0)
    return {"kernel": values[1:], "bias": values[0]}


def loss(params, batch, key):
    del key
    inputs, targets = batch
    errors = inputs @ params["kernel"] + params["bias"] - targets
    return jnp.mean(errors**2), {"largest": jnp.max(jnp.abs(errors)), "errors": errors}


def batch(key, step):
    key = jax.random.fold_in(key, step)
    inputs = jax.random.uniform(key, (BATCH_SIZE, IN_FEATURES), minval=-1.0)
    return inputs, inputs @ jnp.asarray(TRUE_KERNEL, inputs.dtype) + TRUE_BIAS


LINEAR = Problem(init, loss, batch)


def relative_error(actual, expected):
    actual, expected = (np.asarray(x, np.float64) for x in (actual, expected))
    return np.max(np.abs(actual - expected)) / np.max(np.abs(expected))


def assert_trees_close(actual, expected, tolerance):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    pairs = zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True)
    assert max(relative_error(*pair) for pair in pairs) <= tolerance


def updates_by_hand(params, batches, learning_rate, max_grad_norm):
    """Least squares by Adam with clipping in NumPy; theta = (bias, kernel)."""
    theta = np.concatenate([[params["bias"]], params["kernel"]])
    m, v, losses, norms = np.zeros_like(theta), np.zeros_like(theta), [], []
    for t, (inputs, targets) in enumerate(batches, start=1):
        design = np.concatenate([np.ones((len(inputs), 1)), inputs], axis=1)
        errors = design @ theta - targets
        g = 2 * design.T @ errors / len(errors)
        norms.append(np.sqrt(g @ g))
        losses.append(errors @ errors / len(errors))
        g = g * min(1.0, max_grad_norm / norms[-1])
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        step = (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        theta = theta - learning_rate * step
    return {"bias": theta[0], "kernel": theta[1:]}, np.array(losses), np.array(norms)


@pytest.mark.parametrize(
    ("max_grad_norm", "bites"),
    [(0.5, True), (1e3, False)],
    ids=["clipped", "unclipped"],
)
def test_train_step_equals_adam_by_hand(max_grad_norm, bites, x64):
    rng = np.random.default_rng(3)
    params = {"kernel": rng.normal(size=3), "bias": np.float64(rng.normal())}
    batches = []
    for _ in range(7):
        inputs = rng.normal(size=(BATCH_SIZE, IN_FEATURES))
        batches.append((inputs, inputs @ TRUE_KERNEL + TRUE_BIAS))
    expected, losses, norms = updates_by_hand(params, batches, 0.05, max_grad_norm)
    assert np.any(norms > max_grad_norm) == bites

    optimizer = make_optimizer(0.05, max_grad_norm)
    train_step = jax.jit(make_train_step(loss, optimizer))
    state = init_train_state(jax.tree.map(jnp.asarray, params), optimizer)
    curves = []
    for number, (inputs, targets) in enumerate(batches):
        assert state.step == number
        data = (jnp.asarray(inputs), jnp.asarray(targets))
        state, metrics = train_step(state, data, jax.random.key(number))
        curves.append(metrics)
    assert_trees_close(state.params, expected, FLOAT64_TOLERANCE)
    for name, by_hand in {"loss": losses, "grad_norm": norms}.items():
        ours = [metrics[name] for metrics in curves]
        assert relative_error(ours, by_hand) <= FLOAT64_TOLERANCE


def test_train_equals_a_loop_over_train_steps():
    optimizer = make_optimizer(0.1, 0.5)
    result = train(LINEAR, jax.random.key(5), 6, optimizer=optimizer)
    params_key, _, batch_key, loss_key = jax.random.split(jax.random.key(5), 4)
    state = init_train_state(init(params_key, None), optimizer)
    train_step, curves = make_train_step(loss, optimizer), []
    for step in range(6):
        data, key = batch(batch_key, step), jax.random.fold_in(loss_key, step)
        state, metrics = train_step(state, data, key)
        curves.append(metrics)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *curves)
    assert result.metrics["errors"].shape == (6, BATCH_SIZE)
    assert_trees_close(result.metrics, stacked, FLOAT32_TOLERANCE)
    assert_trees_close(result.params, state.params, FLOAT32_TOLERANCE)


def test_train_finds_the_parameters_of_the_data():
    result = train(LINEAR, jax.random.key(0), 300, optimizer=make_optimizer(0.03))
    np.testing.assert_allclose(result.params["kernel"], TRUE_KERNEL, atol=1e-3)
    np.testing.assert_allclose(result.params["bias"], TRUE_BIAS, atol=1e-3)
    assert result.metrics["loss"][-1] < 1e-5 < result.metrics["loss"][0]


def test_train_follows_a_schedule(x64):
    rates = jnp.array([0.3, 0.0, 0.1, 0.0])
    optimizer = make_optimizer(lambda step: rates[step])
    fixed = LINEAR._replace(batch=lambda key, step: batch(key, 0 * step))
    losses = train(fixed, jax.random.key(2), 4, optimizer=optimizer).metrics["loss"]
    assert losses[0] != losses[1]
    assert losses[1] == losses[2] != losses[3]


@pytest.mark.parametrize("transform", [jax.jit, jax.vmap], ids=["jit", "vmap"])
def test_train_may_be_transformed(transform):
    def run(key, rate):
        return train(LINEAR, key, 3, optimizer=make_optimizer, hyper=rate)

    keys = jax.random.split(jax.random.key(1), 2)
    rates = jnp.array([0.1, 0.02])
    alone = [run(keys[row], rates[row]) for row in range(2)]
    if transform is jax.vmap:
        together = transform(run)(keys, rates)
        rows = [jax.tree.map(lambda x, row=row: x[row], together) for row in range(2)]
    else:
        compiled = transform(run)
        rows = [compiled(keys[row], rates[row]) for row in range(2)]
    for row, expected in zip(rows, alone, strict=True):
        assert_trees_close(row, expected, FLOAT32_TOLERANCE)


def as_data(key):
    return jax.random.key_data(key)


STREAMS = Problem(
    init=lambda key, hyper: jnp.append(as_data(key), 0).astype(jnp.float32),
    loss=lambda params, batch, key: (
        jnp.mean(params),
        {"loss_key": as_data(key), **batch},
    ),
    batch=lambda key, step, dataset: {
        "batch_key": as_data(key),
        "step": step,
        "dataset_key": dataset,
    },
    dataset=lambda key, hyper: as_data(key),
)


def test_random_streams_are_separate_and_named_by_step():
    result = train(STREAMS, jax.random.key(9), 4, optimizer=optax.sgd(0.0))
    metrics = result.metrics
    assert metrics["step"].tolist() == [0, 1, 2, 3]
    for constant in ("batch_key", "dataset_key"):
        assert len(np.unique(metrics[constant], axis=0)) == 1
    assert len(np.unique(metrics["loss_key"], axis=0)) == 4
    keys = [metrics[name][0] for name in ("batch_key", "dataset_key", "loss_key")]
    init_key = jax.random.split(jax.random.key(9), 4)[0]
    np.testing.assert_array_equal(
        result.params[:2], as_data(init_key).astype(jnp.float32)
    )
    assert len(np.unique([as_data(init_key), *keys], axis=0)) == 4


def test_no_key_is_used_twice(no_key_reuse):
    def noisy_loss(params, batch, key):
        value, _ = loss(params, batch, key)
        return value + 0.1 * jax.random.uniform(key) * params["bias"], {}

    problem = LINEAR._replace(
        loss=noisy_loss,
        batch=lambda key, step, dataset: dataset,
        dataset=lambda key, hyper: batch(key, 0),
    )
    result = train(problem, jax.random.key(4), 3, optimizer=make_optimizer())
    assert np.all(np.isfinite(result.metrics["loss"]))


def test_hyper_reaches_init_dataset_and_optimizer():
    problem = Problem(
        init=lambda key, hyper: jnp.float32(hyper["start"]),
        loss=lambda params, batch, key: (params * batch, {}),
        batch=lambda key, step, dataset: dataset + step,
        dataset=lambda key, hyper: jnp.float32(hyper["slope"]),
    )
    result = train(
        problem,
        jax.random.key(0),
        3,
        optimizer=lambda hyper: optax.sgd(hyper["rate"]),
        hyper={"start": 5.0, "slope": 2.0, "rate": 0.1},
    )
    # The gradient of update t is slope + t: 2, 3, 4.
    assert float(result.params) == pytest.approx(5.0 - 0.1 * (2 + 3 + 4), rel=1e-6)
    np.testing.assert_allclose(result.metrics["grad_norm"], [2, 3, 4])


def test_no_updates_return_the_initial_parameters():
    optimizer = make_optimizer()
    result = train(LINEAR, jax.random.key(7), 0, optimizer=optimizer)
    params_key = jax.random.split(jax.random.key(7), 4)[0]
    np.testing.assert_array_equal(
        result.params["kernel"], init(params_key, None)["kernel"]
    )
    assert result.metrics["loss"].shape == (0,)
    assert result.metrics["errors"].shape == (0, BATCH_SIZE)


def test_state_keeps_dtypes_of_bfloat16_parameters():
    problem = LINEAR._replace(
        init=lambda key, hyper: jax.tree.map(jnp.bfloat16, init(key, hyper)),
        batch=lambda key, step: jax.tree.map(jnp.bfloat16, batch(key, step)),
    )
    result = train(problem, jax.random.key(0), 100, optimizer=make_optimizer(0.05))
    assert result.params["kernel"].dtype == jnp.bfloat16
    assert result.metrics["grad_norm"].dtype == jnp.float32
    np.testing.assert_allclose(
        np.asarray(result.params["kernel"], np.float32), TRUE_KERNEL, atol=0.05
    )


@pytest.mark.parametrize(
    "metrics", [{"loss": 1.0}, {"grad_norm": 1.0, "other": 2.0}, None, (1.0,)], ids=str
)
def test_metrics_that_clash_or_have_no_names_are_refused(metrics):
    optimizer = make_optimizer()

    def clashing(params, batch, key):
        return jnp.sum(params), metrics

    train_step = make_train_step(clashing, optimizer)
    state = init_train_state(jnp.ones(2), optimizer)
    with pytest.raises(ValueError, match="invalid value for metrics: expected a dict"):
        train_step(state, None, jax.random.key(0))


@pytest.mark.parametrize("num_updates", [-1, 1.5, True, "3"], ids=str)
def test_number_of_updates_is_checked(num_updates):
    with pytest.raises(ValueError, match="num_updates: expected an integer"):
        train(LINEAR, jax.random.key(0), num_updates, optimizer=make_optimizer())


@pytest.mark.parametrize(
    "make_key",
    [lambda: 0, lambda: jnp.zeros(2, jnp.uint32), lambda: jax.random.key(0)[None]],
    ids=["number", "old style", "several"],
)
def test_key_is_checked(make_key):
    with pytest.raises(ValueError, match="key: expected a scalar key"):
        train(LINEAR, make_key(), 1, optimizer=make_optimizer())


def test_train_state_counts_in_int32():
    state = init_train_state(jnp.ones(2), optax.sgd(0.1))
    assert isinstance(state, TrainState)
    assert state.step.dtype == jnp.int32
