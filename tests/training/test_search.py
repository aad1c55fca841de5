"""Grids and random searches, and one call that trains with values of every kind."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gated_rnn import LSTM, unroll
from gated_rnn.initializers import ForgetBias, Orthogonal
from gated_rnn.training import Problem, make_optimizer, train, train_seeds
from gated_rnn.training.search import (
    choice,
    grid,
    log_uniform,
    random_search,
    uniform,
)
from tests import cases

# A few operations of one update, in another program.
FLOAT32_TOLERANCE = 1e-5

NUM_STEPS, BATCH_SIZE, IN_FEATURES, HIDDEN_FEATURES = 5, 2, 1, 3
NUM_ROWS = 7  # of the data set


# Grids


def test_grid_has_every_combination_and_its_repeats():
    points = grid(rate=[0.1, 0.2, 0.3], size=[5, 6], repeats=2)
    pairs = list(zip(points.hyper["rate"], points.hyper["size"], strict=True))
    one_by_one = [(rate, size) for rate in (0.1, 0.2, 0.3) for size in (5, 6)]
    assert pairs == [pair for pair in one_by_one for _ in range(2)]
    assert points.seed_ids.tolist() == list(range(12))
    assert points.point.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert points.repeat.tolist() == [0, 1] * 6
    by_point = points.hyper["rate"].reshape(-1, 2)
    np.testing.assert_array_equal(by_point[:, 0], by_point[:, 1])


def test_grid_keeps_dtypes():
    points = grid(rate=[0.1], size=[5], flag=[True, False])
    kinds = {name: column.dtype.kind for name, column in points.hyper.items()}
    assert kinds == {"rate": "f", "size": "i", "flag": "b"}


# Random searches

SAMPLERS = {
    "rate": log_uniform(1e-4, 1e-1),
    "bias": uniform(-2.0, 3.0),
    "size": choice([4, 8, 32]),
}


def test_draws_have_the_distributions_that_were_asked_for():
    hyper = random_search(jax.random.key(1), 3000, **SAMPLERS).hyper
    # By quantiles; the standard error of a share of 3000 is below 0.01.
    for value, share in [(1e-4, 0.0), (1e-3, 1 / 3), (1e-2, 2 / 3), (1e-1, 1.0)]:
        assert np.mean(hyper["rate"] < value) == pytest.approx(share, abs=0.04)
    for value, share in [(-2.0, 0.0), (0.0, 0.4), (3.0, 1.0)]:
        assert np.mean(hyper["bias"] < value) == pytest.approx(share, abs=0.04)
    sizes, counts = np.unique(hyper["size"], return_counts=True)
    assert sizes.tolist() == [4, 8, 32]
    assert counts / 3000 == pytest.approx(np.full(3, 1 / 3), abs=0.04)
    # No hyper-parameter follows another.
    columns = [np.log(hyper["rate"]), hyper["bias"], hyper["size"]]
    assert np.abs(np.corrcoef(columns) - np.eye(3)).max() < 0.08


def test_draws_depend_on_key_name_and_number_alone():
    key = jax.random.key(1)
    few = random_search(key, 4, **SAMPLERS, repeats=2)
    assert few.seed_ids.tolist() == list(range(8))
    assert len(np.unique(few.hyper["rate"])) == 4
    more = random_search(key, 9, rate=SAMPLERS["rate"], other=uniform(-2.0, 3.0))
    np.testing.assert_array_equal(few.hyper["rate"][::2], more.hyper["rate"][:4])
    assert not np.any(few.hyper["bias"][::2] == more.hyper["other"][:4])
    another = random_search(jax.random.key(2), 4, **SAMPLERS)
    assert not np.any(few.hyper["bias"][::2] == another.hyper["bias"])


def test_any_inverse_distribution_function_is_a_sampler():
    points = random_search(jax.random.key(1), 6, scale=lambda u: -np.log1p(-u))
    assert np.all(points.hyper["scale"] >= 0)


# One call with values of every kind


def make_cell(hyper=None):
    if hyper is None:
        return LSTM(HIDDEN_FEATURES)
    return LSTM(
        HIDDEN_FEATURES,
        recurrent_init=Orthogonal(scale=hyper["scale"]),
        bias_init=ForgetBias(hyper["forget_bias"]),
    )


def init(key, hyper):
    # The cell is built where its settings are known: inside, from traced numbers.
    return make_cell(hyper).init(key, IN_FEATURES)


def dataset(key, hyper):
    """Draw the order of the rows by a number of its own, not by the seed's key."""
    order_key = jax.random.fold_in(jax.random.key(9), hyper["order"])
    return jax.random.permutation(order_key, NUM_ROWS)


def batch(key, step, order):
    rows = jnp.take(order, BATCH_SIZE * step + jnp.arange(BATCH_SIZE), mode="wrap")
    times = jnp.arange(1.0, NUM_STEPS + 1)[:, None]
    return jnp.sin(times * (1.0 + rows))[..., None], rows


def loss(params, batch, key):
    inputs, rows = batch
    _, hidden = unroll(make_cell(), params, inputs)
    return jnp.mean((hidden.sum(axis=-1) - inputs[..., 0]) ** 2), {"rows": rows}


def optimizer(hyper):
    return make_optimizer(hyper["learning_rate"], hyper["max_grad_norm"])


TUNED = Problem(init, loss, batch, dataset)


@pytest.fixture(scope="module")
def points(quick_compiling):
    return grid(
        learning_rate=[0.01, 0.1],
        max_grad_norm=[0.05, 50.0],
        forget_bias=[-1.0, 2.5],
        scale=[0.5],
        order=[3],
    )


@pytest.fixture(scope="module")
def hyper(points):
    """The grid's; every seed also has a scale of its own, pairs share their order."""
    size = points.seed_ids.size
    return {
        **points.hyper,
        "scale": 0.5 + 0.25 * np.arange(size),
        "order": np.arange(size) // 2,
    }


@pytest.fixture(scope="module")
def result(points, hyper):
    return train_seeds(
        TUNED,
        jax.random.key(4),
        points.seed_ids,
        6,
        optimizer=optimizer,
        hyper=hyper,
    )


@pytest.fixture(scope="module")
def initial(points, hyper):
    return train_seeds(
        TUNED,
        jax.random.key(4),
        points.seed_ids,
        0,
        optimizer=optimizer,
        hyper=hyper,
    ).params


def test_initialiser_settings_differ_from_seed_to_seed(initial, hyper):
    gates = initial.bias.reshape(len(initial.bias), 4, HIDDEN_FEATURES)
    np.testing.assert_allclose(gates[:, 1], hyper["forget_bias"][:, None] * np.ones(3))
    assert not gates[:, [0, 2, 3]].any()
    blocks = np.split(initial.recurrent_kernel, 4, axis=-1)
    for block in blocks:  # each a scaled orthogonal matrix
        gram = np.einsum("sij,sik->sjk", block, block)
        expected = hyper["scale"][:, None, None] ** 2 * np.eye(HIDDEN_FEATURES)
        np.testing.assert_allclose(gram, expected, atol=1e-5)


def test_learning_rates_and_clip_norms_differ_from_seed_to_seed(result, hyper):
    held = result.opt_state.hyperparams
    for name in ("learning_rate", "max_grad_norm"):
        np.testing.assert_allclose(held[name], hyper[name], rtol=1e-6)
    exceeds = result.metrics["grad_norm"] > hyper["max_grad_norm"][:, None]
    assert exceeds[hyper["max_grad_norm"] < 1].any()
    assert not exceeds[hyper["max_grad_norm"] > 1].any()


def test_order_of_the_data_follows_its_own_number(result, hyper):
    rows = result.metrics["rows"].reshape(len(hyper["order"]), -1)
    np.testing.assert_array_equal(rows[::2], rows[1::2])
    assert len(np.unique(rows[::2], axis=0)) == len(rows) // 2
    for seen in rows[:, :NUM_ROWS]:
        assert sorted(seen) == list(range(NUM_ROWS))


def test_each_seed_is_the_run_with_its_values(points, hyper):
    together = train_seeds(
        TUNED,
        jax.random.key(4),
        points.seed_ids,
        1,
        optimizer=optimizer,
        hyper=hyper,
    )

    @jax.jit
    def alone(key, hyper):
        return train(TUNED, key, 1, optimizer=optimizer, hyper=hyper)

    for row in (0, 3, 6):
        values = jax.tree.map(lambda leaf, row=row: leaf[row], hyper)
        expected = alone(jax.random.fold_in(jax.random.key(4), row), values)
        actual = (together.params, together.opt_state, together.metrics)
        actual = jax.tree.map(lambda leaf, row=row: leaf[row], actual)
        cases.assert_close(actual, tuple(expected), FLOAT32_TOLERANCE, "run")


# Errors


@pytest.mark.parametrize(
    ("call", "name", "words"),
    [
        (lambda: grid(), "values", "none"),
        (lambda: grid(rate=[]), "rate", "[]"),
        (lambda: grid(rate=0.1), "rate", "0.1"),
        (lambda: grid(rate=[[0.1]]), "rate", "[[0.1]]"),
        (lambda: grid(cell=["lstm"]), "cell", "lstm"),
        (lambda: grid(rate=[0.1], repeats=0), "repeats", "got 0"),
        (lambda: random_search(0, 3, a=uniform(0, 1)), "key", "got 0"),
        (
            lambda: random_search(jax.random.key(0), 0, a=uniform(0, 1)),
            "num_points",
            "0",
        ),
        (lambda: random_search(jax.random.key(0), 3), "samplers", "none"),
        (lambda: random_search(jax.random.key(0), 3, a=0.5), "a", "0.5"),
        (lambda: random_search(jax.random.key(0), 3, a=lambda u: u[:2]), "a", "got 2"),
        (lambda: uniform(1.0, 1.0), "low, high", "(1.0, 1.0)"),
        (lambda: uniform(0.0, np.inf), "low, high", "inf"),
        (lambda: uniform(np.nan, 1.0), "low, high", "nan"),
        (lambda: log_uniform(0.0, 1.0), "low, high", "0 < low"),
        (lambda: log_uniform(2.0, 1.0), "low, high", "(2.0, 1.0)"),
        (lambda: choice([]), "values", "[]"),
        (lambda: choice(["a"]), "values", "a"),
    ],
)
def test_wrong_arguments_are_refused(call, name, words):
    with pytest.raises(ValueError) as error:
        call()
    cases.assert_says(error, name, words)
    assert "\n" not in str(error.value)
