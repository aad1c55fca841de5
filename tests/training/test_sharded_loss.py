"""A loss over two and four devices against the loss of all rows on one.

The devices are those of a process that has four; it prints what it computed there.
"""

import functools
import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from jax.sharding import PartitionSpec as P

from gated_rnn import GRU, RNN, Dense, Stack, lengths_to_mask, losses
from gated_rnn.training import (
    Problem,
    init_train_state,
    make_optimizer,
    make_train_step,
    train,
)
from gated_rnn.training.sharded_loss import shard_batch, shard_loss
from tests import cases

# A few updates' rounding; sums over rows are taken in another order.
TOLERANCE = 1e-5

NUM_STEPS, NUM_ROWS, IN_FEATURES, HIDDEN_FEATURES = 7, 8, 2, 3
NUM_UPDATES = 5
# Of four devices the last has nothing but padding; of two, the second has less.
LENGTHS = (7, 5, 6, 7, 1, 3, 0, 0)
MESH_SIZES = (2, 4)

REPOSITORY = Path(__file__).parents[2]
ON_FOUR_DEVICES = """
import jax
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 4)
from tests.training import test_sharded_loss
test_sharded_loss.print_runs()
"""

NETWORK = Stack(RNN(GRU(HIDDEN_FEATURES)), Dense(2))
OPTIMIZER = make_optimizer(0.05, 0.3)


def plain_loss(params, batch, key):
    inputs, targets, _, scale = batch
    _, predictions = NETWORK.apply(params, scale * inputs)
    value = losses.mean_squared_error(predictions, targets)
    return value, {"errors": jnp.mean((predictions - targets) ** 2, axis=(1, 2))}


def masked_loss(params, batch, key):
    inputs, targets, mask, scale = batch
    _, predictions = NETWORK.apply(params, scale * inputs, mask=mask)
    value = losses.mean_squared_error(predictions, targets, mask)
    return value, {"count": jnp.sum(mask), "one": 1.0}


def count_steps(batch):
    return jnp.sum(batch[2])


def noisy_loss(params, batch, key):
    noise = jax.random.uniform(key, (3,))
    return jnp.mean((batch - params) ** 2) + jnp.sum(noise), {"noise": noise}


def draw_batch(key=None, step=0):
    """Inputs, targets, mask, and a factor that all rows share."""
    numbers = jnp.arange(NUM_STEPS * NUM_ROWS * 2).reshape(NUM_STEPS, NUM_ROWS, 2)
    inputs, targets = jnp.sin(1.7 * numbers + step), jnp.cos(numbers * 0.9)
    mask = lengths_to_mask(jnp.array(LENGTHS), NUM_STEPS)
    return inputs, targets, mask, jnp.array([0.5, 2.0])


AXES = (1, 1, 1, None)


def init(key, hyper):
    return NETWORK.init(key, IN_FEATURES)


def loop_over_updates(loss, place):
    """Update with a loop of one's own, from parameters of a fixed key."""
    state = init_train_state(init(jax.random.key(2), None), OPTIMIZER)
    train_step = jax.jit(make_train_step(loss, OPTIMIZER))
    metrics = []
    for step in range(NUM_UPDATES):
        batch = place(draw_batch(step=step))
        state, measured = train_step(state, batch, jax.random.key(4))
        metrics.append(measured)
    metrics = jax.tree.map(lambda *values: jnp.stack(values), *metrics)
    return state.params, metrics


def train_in_one(loss):
    """Update within one compiled program, which draws the batches."""
    problem = Problem(init, loss, draw_batch)
    run = jax.jit(
        functools.partial(train, problem, num_updates=NUM_UPDATES, optimizer=OPTIMIZER)
    )
    result = run(jax.random.key(6))
    return result.params, result.metrics


def to_numbers(params, metrics):
    return {
        "params": np.asarray(ravel_pytree(params)[0]).tolist(),
        "metrics": {name: np.asarray(m).tolist() for name, m in metrics.items()},
    }


def make_mesh(size):
    return jax.make_mesh((size,), ("data",), devices=jax.devices()[:size])


def print_runs():
    """Print what four devices give; for a process that has them."""
    printed = {"devices": len(jax.devices())}
    for size in MESH_SIZES:
        mesh = make_mesh(size)
        place = functools.partial(shard_batch, mesh=mesh, axis=AXES)
        sharded = shard_loss(masked_loss, mesh, axis=AXES, weight=count_steps)
        rows = jnp.arange(24.0).reshape(3, 8)
        noisy = jax.jit(shard_loss(noisy_loss, mesh))
        unweighted = jax.jit(shard_loss(masked_loss, mesh, axis=AXES))
        params, batch = init(jax.random.key(2), None), place(draw_batch())
        printed[str(size)] = {
            "masked": to_numbers(*loop_over_updates(sharded, place)),
            "unweighted": float(unweighted(params, batch, jax.random.key(0))[0]),
            "noise": noisy(0.0, rows, jax.random.key(5))[1]["noise"].tolist(),
            "shards": [
                [list(shard.data.shape) for shard in leaf.addressable_shards]
                for leaf in batch
            ],
        }
    sharded = shard_loss(plain_loss, mesh, axis=AXES)
    printed["four rows"] = to_numbers(*loop_over_updates(sharded, place))
    printed["train"] = to_numbers(*train_in_one(sharded))
    mesh = jax.make_mesh((2, 2), ("copies", "rows"))
    sharded = shard_loss(plain_loss, mesh, axis=AXES, axis_name="rows")
    place = functools.partial(shard_batch, mesh=mesh, axis=AXES, axis_name="rows")
    printed["two axes"] = to_numbers(*loop_over_updates(sharded, place))
    print(json.dumps(printed))  # noqa: T201 (the test reads it)


@pytest.fixture(scope="module")
def printed():
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", ON_FOUR_DEVICES],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["devices"] == 4
    return found


@functools.cache
def run_alone(loss):
    return to_numbers(*loop_over_updates(loss, place=lambda batch: batch))


def assert_same_run(actual, expected, names):
    def close(actual, expected, name):
        arrays = np.array(actual), np.array(expected)
        cases.assert_close(*arrays, TOLERANCE, name)

    close(actual["params"], expected["params"], "params")
    for name in names:
        close(actual["metrics"][name], expected["metrics"][name], name)


@pytest.mark.parametrize("mesh", ["four rows", "two axes"])
def test_updates_are_those_of_all_rows_at_once(mesh, printed):
    # Of two axes, the devices of the other one do the same work.
    names = ("loss", "grad_norm", "errors")
    assert_same_run(printed[mesh], run_alone(plain_loss), names)


@pytest.mark.parametrize("size", MESH_SIZES)
def test_unequal_rows_are_weighed_by_their_real_steps(size, printed):
    expected = run_alone(masked_loss)
    actual = printed[str(size)]["masked"]
    assert_same_run(actual, expected, ("loss", "grad_norm", "one"))
    # A metric is averaged as the loss is, with numbers of steps for weights.
    counts = np.array(LENGTHS).reshape(size, -1).sum(axis=1)
    mean = np.sum(counts**2) / np.sum(counts)
    np.testing.assert_allclose(actual["metrics"]["count"], mean, rtol=1e-6)


@pytest.mark.parametrize("size", MESH_SIZES)
def test_without_weight_it_is_the_mean_of_the_devices_losses(size, printed):
    inputs, targets, mask, scale = draw_batch()
    params = init(jax.random.key(2), None)
    parts = [
        masked_loss(
            params, (*(leaf[:, rows] for leaf in (inputs, targets, mask)), scale), None
        )[0]
        for rows in np.split(np.arange(NUM_ROWS), size)
    ]
    actual = printed[str(size)]["unweighted"]
    assert actual == pytest.approx(np.mean(parts), rel=TOLERANCE)
    weighted = run_alone(masked_loss)["metrics"]["loss"][0]
    assert abs(actual - weighted) > 0.01 * weighted  # else it would say little


def test_train_takes_a_sharded_loss(printed):
    expected = to_numbers(*train_in_one(plain_loss))
    assert_same_run(printed["train"], expected, ("loss", "errors"))


@pytest.mark.parametrize("size", MESH_SIZES)
def test_every_device_draws_noise_of_its_own(size, printed):
    keys = [jax.random.fold_in(jax.random.key(5), number) for number in range(size)]
    expected = np.mean([jax.random.uniform(key, (3,)) for key in keys], axis=0)
    actual = np.array(printed[str(size)]["noise"])
    cases.assert_close(actual, expected, TOLERANCE)


@pytest.mark.parametrize("size", MESH_SIZES)
def test_batch_is_dealt_by_rows(size, printed):
    rows = NUM_ROWS // size
    sequences = size * [[NUM_STEPS, rows, 2]]
    mask, factor = size * [[NUM_STEPS, rows]], size * [[2]]
    assert printed[str(size)]["shards"] == [sequences, sequences, mask, factor]


# One device


def test_one_device_gives_the_loss_itself():
    mesh = make_mesh(1)
    batch, params = draw_batch(), init(jax.random.key(2), None)
    for loss, weight in [(plain_loss, None), (masked_loss, count_steps)]:
        sharded = jax.jit(shard_loss(loss, mesh, axis=AXES, weight=weight))
        actual = sharded(params, batch, jax.random.key(0))
        expected = loss(params, batch, jax.random.key(0))
        cases.assert_close(actual, expected, TOLERANCE)
        assert actual[0].dtype == np.float32


def test_specs_of_a_batch_follow_its_axes():
    mesh = make_mesh(1)
    batch = {"x": jnp.ones((3, 4)), "rest": (jnp.ones(5), jnp.ones(2))}
    placed = shard_batch(batch, mesh, axis={"x": 1, "rest": (0, None)})
    specs = jax.tree.map(lambda leaf: leaf.sharding.spec, placed)
    assert specs == {"x": P(None, "data"), "rest": (P("data"), P())}


# Errors


def shard_over_four(batch):
    """Ask for it on a mesh whose one device stands for four; refused before its use."""
    mesh = jax.sharding.Mesh(np.tile(jax.devices()[:1], 4), ("data",))
    return shard_batch(batch, mesh)


@pytest.mark.parametrize(
    ("name", "words", "call"),
    [
        (
            "axis_name",
            ["data", "'rows'"],
            lambda: shard_loss(plain_loss, make_mesh(1), axis_name="rows"),
        ),
        (
            "axis_name",
            ["data", "'rows'"],
            lambda: shard_batch(jnp.ones((3, 4)), make_mesh(1), axis_name="rows"),
        ),
        (
            "batch",
            ["axis 1", "4 devices", "['b']", "(3, 6)"],
            lambda: shard_over_four({"a": jnp.ones((3, 8)), "b": jnp.ones((3, 6))}),
        ),
        (
            "batch",
            ["axis 1", "4 devices", "(8,)"],
            lambda: shard_over_four(jnp.ones(8)),
        ),
    ],
)
def test_wrong_arguments_are_refused(name, words, call):
    with pytest.raises(ValueError) as error:
        call()
    cases.assert_says(error, name, *words)
    assert "\n" not in str(error.value)
