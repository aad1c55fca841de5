"""Many seeds: the bits that are promised, and agreement with a run by itself.

The bits are those of a GRU on a small task. Compiling it takes seconds, so all that can
be asked of one compiled program is asked of one, and the claims about several devices
are measured in one process that has them; about two processes, in test_processes.py.
"""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from jax.tree_util import Partial

from gated_rnn import GRU, unroll
from gated_rnn.training import Problem, make_optimizer, train, train_seeds
from tests import cases

# A few operations of one update, done in another order.
FLOAT32_TOLERANCE = 1e-5
FLOAT64_TOLERANCE = 1e-12
# Sums of a few numbers of order one in float32.
ROUNDING = 1e-6

# Pairwise different, the width of a block included.
NUM_STEPS, BATCH_SIZE, IN_FEATURES, HIDDEN_FEATURES = 5, 6, 2, 3
NUM_UPDATES = 7
UPDATES_PER_PIECE = 3  # so that the last piece is a shorter one
SEED_BLOCK = 4
NUM_SEEDS = 9  # two full blocks and one that is filled up
SHUFFLED = (7, 2, 0, 8, 5, 1, 3, 6, 4)
SIXTEEN = (9, 0, 14, 5, 12, 3, 7, 10, 1, 15, 6, 11, 2, 8, 4, 13)

REPOSITORY = Path(__file__).parents[2]
# Both must be set before the first array is made, so nothing is imported before.
ON_FOUR_DEVICES = """
import jax
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 4)
from tests.training import test_seeds
test_seeds.print_digests(vectorize={vectorize})
"""


# The task: to give out the input of one step before, in each update other inputs.


def init(key, hyper):
    cell = jax.eval_shape(lambda: GRU(HIDDEN_FEATURES).init(key, IN_FEATURES))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), cell)
    flat, unravel = ravel_pytree((zeros, jnp.zeros(HIDDEN_FEATURES)))
    # One draw for all parameters: every draw is half a second of compiling.
    return unravel(hyper["size"] * jax.random.uniform(key, flat.shape, minval=-1.0))


def dataset(key, hyper):
    shape = (NUM_STEPS, BATCH_SIZE, IN_FEATURES)
    return jax.random.uniform(key, shape, minval=-2.0, maxval=2.0)


def batch(key, step, dataset):
    inputs = jnp.cos(dataset * (1 + step))
    return inputs, jnp.roll(inputs[..., 0], 1, axis=0), jax.random.key_data(key)


def loss(params, batch, key):
    cell_params, readout = params
    inputs, targets, batch_key = batch
    _, hidden = unroll(GRU(HIDDEN_FEATURES), cell_params, inputs)
    errors = hidden @ readout - targets
    return jnp.mean(errors**2), {
        "errors": jnp.mean(jnp.abs(errors), axis=1),
        "keys": jnp.stack([batch_key, jax.random.key_data(key)]),
    }


ECHO = Problem(init, loss, batch, dataset)


def adam(hyper):
    return make_optimizer(hyper["rate"], hyper["clip"])


def make_hyper(seed_ids):
    """Sizes and rates that tell the seeds apart; about half of them are clipped."""
    ids = np.asarray(seed_ids, np.float32)
    return {
        "size": 1.0 + 0.1 * ids,
        "rate": 0.01 * (1.0 + ids),
        "clip": 0.2 * (1.0 + ids),
    }


def run_echo(seed_ids, *, hyper=None, devices=None, **options):
    """Train the GRU for some seeds, by default as the fixture `nine` does."""
    return train_seeds(
        ECHO,
        jax.random.key(3),
        seed_ids,
        optimizer=adam,
        hyper=make_hyper(seed_ids) if hyper is None else hyper,
        devices=jax.devices("cpu")[:1] if devices is None else devices,
        **{
            "num_updates": NUM_UPDATES,
            "updates_per_piece": UPDATES_PER_PIECE,
            "seed_block": SEED_BLOCK,
            **options,
        },
    )


def digests(result):
    """Return a hash of all bits of each seed's run, by the seed's number."""
    run = (result.params, result.opt_state, result.metrics)
    leaves = jax.tree_util.tree_leaves_with_path(run)

    def digest(row):
        bits = hashlib.sha256()
        for path, leaf in leaves:
            name = f"{jax.tree_util.keystr(path)} {leaf.dtype} {leaf[row].shape}"
            bits.update(name.encode() + leaf[row].tobytes())
        return bits.hexdigest()

    return {str(seed_id): digest(row) for row, seed_id in enumerate(result.seed_ids)}


# How a run may differ from sixteen seeds on the one device of a process.
SAME_BITS = {
    "four seeds": {"seed_ids": range(4)},
    "nine seeds": {"seed_ids": range(NUM_SEEDS)},
    "one seed": {"seed_ids": [2]},
    "another order": {"seed_ids": SHUFFLED},
    "sixteen seeds in a process with four devices": {"seed_ids": range(16)},
    "sixteen in another order": {"seed_ids": SIXTEEN},
    "on the second device": {"seed_ids": range(4), "device_numbers": [1]},
    "on two devices": {"seed_ids": range(16), "device_numbers": [0, 1]},
    "another order on two devices": {"seed_ids": SHUFFLED, "device_numbers": [1, 0]},
    "on four devices": {"seed_ids": range(16), "device_numbers": [0, 1, 2, 3]},
    "sixteen in another order on four devices": {
        "seed_ids": SIXTEEN,
        "device_numbers": [2, 0, 3, 1],
    },
    "on more devices than blocks": {
        "seed_ids": SHUFFLED,
        "device_numbers": [3, 2, 1, 0],
    },
    "pieces of one update": {"seed_ids": range(4), "updates_per_piece": 1},
    "pieces longer than the run": {"seed_ids": range(4), "updates_per_piece": 10},
}


def print_digests(vectorize):
    """Print the digests of every run in the table; for a process with four devices."""
    devices = jax.devices()
    table = {}
    for claim, options in SAME_BITS.items():
        numbers = options.get("device_numbers", [0])
        rest = {name: options[name] for name in options if name != "device_numbers"}
        used = [devices[number] for number in numbers]
        result = run_echo(devices=used, vectorize=vectorize, **rest)
        table[claim] = digests(result)
    print(json.dumps({"devices": len(devices), "digests": table}))  # noqa: T201 (the test reads it)


@pytest.fixture(scope="module", params=[True, False], ids=["vmap", "in_turn"])
def vectorize(request):
    """Whether the seeds of a block run side by side."""
    return request.param


@pytest.fixture(scope="module")
def nine(vectorize):
    """Nine seeds on the one device of this process."""
    return run_echo(range(NUM_SEEDS), vectorize=vectorize)


def run_on_four_devices(vectorize):
    """Return what `print_digests` prints in a process that has four devices."""
    program = ON_FOUR_DEVICES.format(vectorize=vectorize)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def only_row(result, seed_id):
    """Return params, opt_state and metrics of one seed."""
    row = result.seed_ids.tolist().index(seed_id)
    run = (result.params, result.opt_state, result.metrics)
    return jax.tree.map(lambda leaf: leaf[row], run)


# Bits


def test_bits_of_a_seed_do_not_depend_on_other_seeds_devices_or_pieces(nine, vectorize):
    # One test, so that workers of one test run do not each compile it all.
    printed = run_on_four_devices(vectorize)
    expected = digests(run_echo(range(16), vectorize=vectorize))
    assert len(set(expected.values())) == 16
    assert digests(nine) == {seed_id: expected[seed_id] for seed_id in digests(nine)}
    assert printed["devices"] == 4
    for claim, options in SAME_BITS.items():
        actual = printed["digests"][claim]
        assert list(actual) == [str(seed_id) for seed_id in options["seed_ids"]], claim
        differing = [i for i, digest in actual.items() if digest != expected[i]]
        assert differing == [], claim


def test_seeds_differ_and_some_are_clipped(nine):
    # Else equal bits would say little.
    assert len(set(digests(nine).values())) == NUM_SEEDS
    losses, norms = nine.metrics["loss"], nine.metrics["grad_norm"]
    assert losses.shape == (NUM_SEEDS, NUM_UPDATES)
    assert len(np.unique(losses)) == losses.size
    limits = make_hyper(range(NUM_SEEDS))["clip"][:, None]
    assert 0 < np.sum(norms > limits) < norms.size


def test_seed_that_diverges_does_not_touch_the_bits_of_the_others(nine, vectorize):
    hyper = make_hyper(range(NUM_SEEDS))
    hyper["size"][5] = np.nan
    broken = run_echo(range(NUM_SEEDS), hyper=hyper, vectorize=vectorize)
    finite = np.isfinite(broken.metrics["loss"]).all(axis=1)
    assert finite.tolist() == [seed_id != 5 for seed_id in range(NUM_SEEDS)]
    before, after = digests(nine), digests(broken)
    assert [i for i in before if before[i] != after[i]] == ["5"]


def test_observer_that_writes_into_its_metrics_changes_no_bit(nine, vectorize):
    pieces = []

    def spoil(piece):
        pieces.append(jax.tree.map(np.copy, piece))
        for curve in piece.metrics.values():
            curve[...] = 0
        piece.metrics.clear()

    told = run_echo(range(NUM_SEEDS), on_piece=spoil, vectorize=vectorize)
    assert digests(told) == digests(nine)
    assert [piece.step for piece in pieces] == [3, 6, 7]
    assert {int(piece.num_updates) for piece in pieces} == {NUM_UPDATES}
    assert all(piece.seconds >= 0 for piece in pieces)
    for piece, count in zip(pieces, (3, 3, 1), strict=True):
        assert piece.seed_ids.tolist() == list(range(NUM_SEEDS))
        assert piece.metrics["errors"].shape == (NUM_SEEDS, count, NUM_STEPS)
    for name, curve in nine.metrics.items():
        told = np.concatenate([piece.metrics[name] for piece in pieces], axis=1)
        np.testing.assert_array_equal(told, curve)


# A run by itself


@pytest.fixture(scope="module")
def train_echo():
    """One update of one seed by `training.train`, compiled once for all seeds."""

    @jax.jit
    def run(seed_id, hyper):
        key = jax.random.fold_in(jax.random.key(3), seed_id)
        return train(ECHO, key, 1, optimizer=adam, hyper=hyper)

    return run


@pytest.mark.parametrize("seed_id", [8, 0, 5])
def test_first_update_is_that_of_train_with_the_key_folded_in(
    seed_id, vectorize, train_echo
):
    together = run_echo(SHUFFLED, num_updates=1, vectorize=vectorize)
    hyper = jax.tree.map(lambda leaf: leaf[seed_id], make_hyper(range(NUM_SEEDS)))
    alone = train_echo(seed_id, hyper)
    run, expected = only_row(together, seed_id), tuple(alone)
    assert jax.tree.structure(run) == jax.tree.structure(expected)
    cases.assert_close(run, expected, FLOAT32_TOLERANCE, "run")


def noisy_loss(params, batch, key):
    inputs, targets = batch
    noise = jax.random.uniform(key, targets.shape, targets.dtype)
    return jnp.mean((inputs @ params - targets - noise) ** 2), {"noise": noise}


def noisy_batch(key, step, true_params):
    inputs = jax.random.uniform(jax.random.fold_in(key, step), (BATCH_SIZE, 3))
    return inputs, inputs @ true_params


# Draws from each of a seed's four keys.
NOISY = Problem(
    init=lambda key, hyper: jax.random.uniform(key, (3,)),
    loss=noisy_loss,
    batch=noisy_batch,
    dataset=lambda key, hyper: jax.random.uniform(key, (3,)),
)


def test_first_update_is_that_of_train_in_float64_in_wider_blocks(x64):
    key, optimizer, ids = jax.random.key(11), make_optimizer(0.05, 0.1), [6, 0, 3]
    together = train_seeds(NOISY, key, ids, 1, optimizer=optimizer, seed_block=5)
    alone = jax.jit(lambda key: train(NOISY, key, 1, optimizer=optimizer))
    assert together.params.dtype == np.float64
    for seed_id in ids:
        expected = tuple(alone(jax.random.fold_in(key, seed_id)))
        cases.assert_close(only_row(together, seed_id), expected, FLOAT64_TOLERANCE)


def test_no_key_is_used_twice(no_key_reuse):
    key = jax.random.key(11)
    result = train_seeds(NOISY, key, [2, 4, 7], 3, optimizer=make_optimizer())
    noise = result.metrics["noise"].reshape(3 * 3 * BATCH_SIZE)
    assert len(np.unique(noise)) == noise.size


def test_no_updates_return_the_initial_parameters():
    pieces = []
    result = run_echo([4, 2], num_updates=0, on_piece=pieces.append)
    shapes = jax.tree.map(np.shape, result.metrics)
    assert shapes == {
        "errors": (2, 0, NUM_STEPS),
        "grad_norm": (2, 0),
        "keys": (2, 0, 2, 2),
        "loss": (2, 0),
    }
    assert pieces == []
    assert result.seconds.pieces.shape == (0,)
    for row, seed_id in enumerate(result.seed_ids):
        params_key = jax.random.split(jax.random.fold_in(jax.random.key(3), seed_id), 4)
        hyper = jax.tree.map(lambda leaf, row=row: leaf[row], make_hyper([4, 2]))
        expected = init(params_key[0], hyper)
        actual = jax.tree.map(lambda leaf, row=row: leaf[row], result.params)
        cases.assert_close(actual, expected, ROUNDING, "params")


# A problem with an answer: the gradient of update t is table * (slope + t).


def line_loss(params, batch, key):
    return jnp.sum(params * batch), {}


def line_batch(table, key, step, slope):
    return table * (slope + step)


def make_line(table):
    return Problem(
        init=line_start,
        loss=line_loss,
        batch=Partial(line_batch, jnp.asarray(table)),
        dataset=line_slope,
    )


def line_start(key, hyper):
    return hyper["start"]


def line_slope(key, hyper):
    return hyper["slope"]


def descent(hyper):
    return optax.sgd(hyper["rate"])


def draw_line(num_seeds, seed):
    rng = np.random.default_rng(seed)
    hyper = {
        "start": rng.normal(size=(num_seeds, 2)).astype(np.float32),
        "slope": rng.uniform(1.0, 2.0, num_seeds).astype(np.float32),
        "rate": rng.uniform(0.1, 0.2, num_seeds).astype(np.float32),
    }
    return rng.normal(size=2).astype(np.float32), hyper


def end_of_line(table, hyper, num_updates):
    way = num_updates * hyper["slope"] + sum(range(num_updates))
    return hyper["start"] - (hyper["rate"] * way)[:, None] * table


def test_new_values_and_numbers_are_heeded_and_compile_nothing(compilations):
    # Hyper, keys, seeds, shared data, numbers of seeds and of updates.
    calls = [
        (0, [0, 1, 2], 5),
        (1, [0, 1, 2], 5),
        (2, [7, 3, 12, 4, 9], 2),
        (3, [5], 4),
    ]
    for number, (draw, ids, num_updates) in enumerate(calls):
        table, hyper = draw_line(len(ids), draw)
        problem, key = make_line(table), jax.random.key(draw)
        compilations.clear()
        result = train_seeds(
            problem, key, ids, num_updates, optimizer=descent, hyper=hyper
        )
        assert bool(compilations) == (number == 0), number
        expected = end_of_line(table, hyper, num_updates)
        cases.assert_close(result.params, expected, ROUNDING, f"call {number}")
        assert result.seed_ids.tolist() == ids


def test_result_is_in_host_memory_and_leaves_the_arguments_alone():
    # Parameters and data set are the hyperparameters themselves, on the device.
    table, hyper = draw_line(3, 4)
    hyper = jax.tree.map(jnp.asarray, hyper)
    problem, key = make_line(table), jax.random.key(1)
    result = train_seeds(
        problem, key, [2, 1, 3], 3, optimizer=descent, hyper=hyper, seed_block=3
    )
    assert {type(leaf) for leaf in jax.tree.leaves(result[:4])} == {np.ndarray}
    assert result.seconds.pieces.shape == (1,)
    expected = end_of_line(table, jax.tree.map(np.asarray, hyper), 3)
    cases.assert_close(result.params, expected, ROUNDING, "params")


class KeyState(NamedTuple):
    key: jax.Array


def test_keys_in_the_optimiser_state_are_returned_as_keys():
    def update(updates, state, params=None):
        return updates, state

    keep = optax.GradientTransformation(
        lambda params: KeyState(jax.random.key(8)), update
    )
    table, hyper = draw_line(3, 5)
    problem = make_line(table)
    result = train_seeds(
        problem,
        jax.random.key(1),
        [2, 1, 3],
        3,
        optimizer=keep,
        hyper=hyper,
        seed_block=2,
    )
    keys = jax.random.key_data(result.opt_state.key)
    expected = jax.random.key_data(jax.random.key(8))
    np.testing.assert_array_equal(keys, np.tile(expected, (3, 1)))


@pytest.mark.parametrize(
    ("num_seeds", "seed_block", "num_runs"), [(7, 3, 9), (2, 5, 5)], ids=str
)
def test_blocks_have_their_width_and_are_filled_up_with_repeats(
    num_seeds, seed_block, num_runs
):
    # The width of a vmap may change bits, so it must not follow the number of seeds.
    widths, started, drawn = set(), [], []

    @jax.custom_batching.custom_vmap
    def observe_width(value):
        return value

    @observe_width.def_vmap
    def _(axis_size, in_batched, value):
        widths.add(axis_size)
        return value, in_batched[0]

    def note(values, value):
        jax.debug.callback(lambda v: values.extend(np.ravel(v).tolist()), value)

    def start(key, hyper):
        note(started, hyper)
        return observe_width(hyper)

    def dataset(key, hyper):
        note(drawn, hyper)
        return hyper

    problem = Problem(
        init=start,
        loss=lambda params, batch, key: (params * batch, {}),
        batch=lambda key, step, dataset: dataset,
        dataset=dataset,
    )
    ids = np.array([3, 14, 1, 5, 9, 2, 6], np.float32)[:num_seeds]
    result = train_seeds(
        problem,
        jax.random.key(0),
        ids.astype(int),
        4,
        optimizer=optax.sgd(0.1),
        hyper=ids,
        seed_block=seed_block,
        vectorize=True,
        updates_per_piece=3,
    )
    jax.effects_barrier()
    assert widths == {seed_block}
    for values in (started, drawn):  # each once, whatever the number of updates
        assert len(values) == num_runs
        assert set(values) == set(ids.tolist())
    assert result.metrics["loss"].shape == (num_seeds, 4)


# Errors


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("seed_ids", [], "[]"),
        ("seed_ids", [1, 5, 1], "distinct"),
        ("seed_ids", [0, -1], "-1"),
        ("seed_ids", [0.0, 1.0], "1.0"),
        ("seed_ids", [True, False], "True"),
        ("seed_ids", [2**32], str(2**32)),
        ("seed_ids", [[1, 2]], "[[1, 2]]"),
        ("seed_ids", 2, "got 2"),
        ("hyper", {"rate": np.ones(2), "clip": np.ones(3)}, "(2,)"),
        ("hyper", np.ones((2, 3)), "each of 3 seeds"),
        ("hyper", {"rate": 0.1}, "()"),
        ("seed_block", 1, "at least 2"),
        ("seed_block", 0, "got 0"),
        ("seed_block", 4.0, "integer"),
        ("seed_block", True, "True"),
        ("updates_per_piece", 0, "positive"),
        ("updates_per_piece", 2.5, "2.5"),
        ("updates_per_piece", True, "True"),
        ("num_updates", -1, "at least 0"),
        ("num_updates", 1.5, "integer"),
        ("num_updates", True, "True"),
        ("devices", [], "at least one device"),
    ],
    ids=str,
)
def test_wrong_arguments_are_refused_before_anything_runs(name, value, words):
    refused(name, words, **{name: value})


@pytest.mark.parametrize(
    "make_key",
    [lambda: 0, lambda: jnp.zeros(2, jnp.uint32), lambda: jax.random.key(0)[None]],
    ids=["number", "old style", "several"],
)
def test_key_is_checked(make_key):
    refused("key", "a scalar key made by jax.random.key", key=make_key())


def refused(name, words, **changes):
    """Call with some arguments changed; check that the error is one line on `name`."""

    def never(*arguments):
        raise AssertionError("it ran")

    arguments = {
        "problem": Problem(never, never, never),
        "key": jax.random.key(0),
        "seed_ids": [0, 1, 2],
        "num_updates": 1,
        "optimizer": optax.sgd(0.1),
    }
    with pytest.raises(ValueError) as error:
        train_seeds(**{**arguments, **changes})
    cases.assert_says(error, name, words)
    assert "\n" not in str(error.value)


def test_observer_cannot_write_into_the_seed_ids_of_the_result():
    def spoil(piece):
        piece.seed_ids[...] = 0

    problem = Problem(
        init=lambda key, hyper: hyper,
        loss=lambda params, batch, key: (params * batch, {}),
        batch=lambda key, step: 2.0,
    )
    result = train_seeds(
        problem,
        jax.random.key(0),
        [3, 1],
        2,
        optimizer=optax.sgd(0.1),
        hyper=np.ones(2, np.float32),
        on_piece=spoil,
    )
    assert result.seed_ids.tolist() == [3, 1]
