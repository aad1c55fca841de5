"""Predicted memory against arrays that are there, and widths against a budget."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.tree_util import Partial

from gated_rnn import GRU, unroll
from gated_rnn.training import (
    Problem,
    init_train_state,
    make_optimizer,
    make_train_step,
    train_seeds,
)
from gated_rnn.training.seed_memory import (
    Sizes,
    plan_block,
    plan_seeds,
    predict_peak,
    show_bytes,
)
from tests import cases

TOLERANCE = 0.2
FLOAT = 4  # bytes

# Sizes that tell the parts apart, in numbers.
NUM_PARAMS, NUM_DATA, NUM_SHARED = 1_000, 30_000, 200_000
ADAM_COPIES = 3  # the parameters and two moments

NUM_STEPS, BATCH_SIZE, IN_FEATURES, HIDDEN_FEATURES = 60, 8, 2, 16


def add_up(table, key, step, data):
    return jnp.sum(table) + jnp.sum(data)


SUMS = Problem(
    init=lambda key, hyper: jnp.cos(jnp.arange(NUM_PARAMS) * hyper),
    loss=lambda params, batch, key: (jnp.sum(params**2) * batch, {}),
    batch=Partial(add_up, jnp.ones(NUM_SHARED)),
    dataset=lambda key, hyper: jnp.sin(jnp.arange(NUM_DATA) * hyper),
)
ADAM = optax.adam(0.1)


def unroll_loss(params, batch, key):
    _, hidden = unroll(GRU(HIDDEN_FEATURES), params, batch)
    return jnp.mean(hidden**2), {}


def wave(key, step):
    shape = (NUM_STEPS, BATCH_SIZE, IN_FEATURES)
    return jnp.cos(step + jnp.arange(np.prod(shape)).reshape(shape))


LAYER = Problem(
    init=lambda key, hyper: jax.tree.map(
        lambda leaf: jnp.full(leaf.shape, 0.1) + hyper,
        jax.eval_shape(lambda: GRU(HIDDEN_FEATURES).init(key, IN_FEATURES)),
    ),
    loss=unroll_loss,
    batch=wave,
)
CLIPPED_ADAM = make_optimizer()


def plan_layer(width, vectorize, num_seeds=8, **options):
    return plan_block(
        LAYER,
        num_seeds,
        width,
        optimizer=CLIPPED_ADAM,
        hyper=np.linspace(0.1, 0.2, num_seeds),
        vectorize=vectorize,
        devices=jax.devices("cpu")[:1],
        **options,
    )


# Bytes


def test_seeds_and_shared_arrays_are_those_that_are_in_memory():
    num_seeds = 7  # one repeat fills the last block
    options = {
        "optimizer": ADAM,
        "hyper": np.linspace(0.5, 1.5, num_seeds).astype(np.float32),
        "devices": jax.devices("cpu")[:1],
    }
    plan = plan_block(SUMS, num_seeds, 4, **options)
    floats = ADAM_COPIES * NUM_PARAMS + NUM_DATA
    assert plan.seed_bytes == pytest.approx(FLOAT * floats, rel=0.01)
    assert plan.shared_bytes == pytest.approx(FLOAT * NUM_SHARED, rel=0.01)
    assert (plan.num_blocks, plan.num_devices) == (2, 1)

    def count_live():
        arrays = jax.live_arrays()
        buffers = {array.unsafe_buffer_pointer(): array.nbytes for array in arrays}
        return sum(buffers.values())

    seen, before = [], count_live()
    train_seeds(
        SUMS,
        jax.random.key(0),
        np.arange(num_seeds),
        1,
        on_piece=lambda piece: seen.append(count_live() - before),
        **options,
    )
    expected = 2 * 4 * plan.seed_bytes  # the shared array is there before
    assert seen == [pytest.approx(expected, rel=0.01)]
    # More than what stays there: with the host's copy of the states at the end.
    states = 8 * FLOAT * ADAM_COPIES * NUM_PARAMS
    total = expected + plan.shared_bytes + max(states, plan.scratch_bytes)
    assert plan.num_bytes == pytest.approx(total, rel=TOLERANCE)


@pytest.mark.parametrize("width", [2, 6])
def test_scratch_is_that_of_the_plain_update(width):
    """XLA's plan of `vmap` of an update, which is compiled by itself."""
    params = jax.vmap(LAYER.init, (None, 0))(jax.random.key(0), jnp.ones(width))
    train_step = make_train_step(LAYER.loss, CLIPPED_ADAM)

    @functools.partial(jax.vmap, in_axes=(0, None))
    def update(state, inputs):
        return train_step(state, inputs, jax.random.key(0))

    state = jax.vmap(lambda params: init_train_state(params, CLIPPED_ADAM))(params)
    compiled = jax.jit(update).lower(state, wave(None, 0)).compile()
    expected = compiled.memory_analysis().temp_size_in_bytes
    planned = plan_layer(width, vectorize=True).scratch_bytes
    assert planned == pytest.approx(expected, rel=TOLERANCE)


def test_scratch_grows_with_the_width_side_by_side_and_hardly_in_turn():
    beside = [plan_layer(width, vectorize=True) for width in (2, 6)]
    in_turn = [plan_layer(width, vectorize=False) for width in (2, 6)]
    ratio = beside[1].scratch_bytes / beside[0].scratch_bytes
    assert ratio == pytest.approx(3, rel=TOLERANCE)
    ratio = in_turn[1].scratch_bytes / in_turn[0].scratch_bytes
    assert 1 <= ratio < 1 + TOLERANCE
    # A seed in turn needs what a seed beside another one does.
    ratio = beside[0].scratch_bytes / in_turn[0].scratch_bytes
    assert ratio == pytest.approx(2, rel=TOLERANCE)
    assert not plan_layer(2, vectorize=None).vectorize  # on a CPU


def test_peak_is_that_of_the_fullest_memory():
    sizes = Sizes(
        shared=1, state=10, inputs=100, start_scratch=0, scratch=10_000, curves=1_000
    )
    # Five blocks on two devices: the host holds all, an accelerator at most three.
    assert predict_peak(sizes, 5, 2, share_memory=True) == 2 + 550 + 25_000
    assert predict_peak(sizes, 5, 2, share_memory=False) == 1 + 330 + 13_000
    drawing = sizes._replace(start_scratch=50_000)
    assert predict_peak(drawing, 5, 2, share_memory=True) == 2 + 550 + 50_010
    assert predict_peak(drawing, 5, 2, share_memory=False) == 1 + 330 + 50_010
    large = sizes._replace(state=10**6)
    assert predict_peak(large, 5, 2, share_memory=True) == 2 + 5 * (2 * 10**6 + 100)
    assert predict_peak(large, 5, 2, share_memory=False) == 1 + 300 + 4 * 10**6


# Widths


def plan_within(memory_budget, num_seeds=12, num_devices=1, vectorize=True, **options):
    return plan_seeds(
        LAYER,
        num_seeds,
        optimizer=CLIPPED_ADAM,
        memory_budget=memory_budget,
        hyper=np.linspace(0.1, 0.2, num_seeds),
        vectorize=vectorize,
        devices=num_devices * jax.devices("cpu")[:1],
        **options,
    )


@pytest.mark.parametrize(
    ("num_seeds", "num_devices", "seed_block", "num_blocks"),
    [(12, 1, 12, 1), (12, 2, 6, 2), (12, 5, 3, 4), (3, 4, 2, 2), (1, 1, 2, 1)],
    ids=str,
)
def test_width_without_a_tight_budget_gives_every_device_a_block(
    num_seeds, num_devices, seed_block, num_blocks
):
    plan = plan_within(10**12, num_seeds, num_devices, vectorize=False)
    assert (plan.seed_block, plan.num_blocks) == (seed_block, num_blocks)
    assert plan.num_devices == min(num_devices, num_blocks)


def test_width_is_the_widest_that_fits():
    # 12 seeds on one device: blocks of 12, 6, 4, 3 or 2.
    bytes_of = {
        width: plan_layer(width, vectorize=True, num_seeds=12).num_bytes
        for width in (12, 6, 4, 3, 2)
    }
    assert list(bytes_of.values()) == sorted(bytes_of.values(), reverse=True)
    for width, num_bytes in bytes_of.items():
        plan = plan_within(num_bytes)
        assert (plan.seed_block, plan.num_bytes) == (width, num_bytes)
    below = {12: 6, 6: 4, 4: 3, 3: 2}
    for width, narrower in below.items():
        assert plan_within(bytes_of[width] - 1).seed_block == narrower
    with pytest.raises(ValueError) as error:
        plan_within(bytes_of[2] - 1)
    cases.assert_says(
        error, "memory_budget", str(bytes_of[2]), "12 seeds", "blocks of 2"
    )
    assert "\n" not in str(error.value)


def test_training_compiles_nothing_after_its_plan(compilations):
    plan = plan_within(10**12, vectorize=None)
    compilations.clear()
    result = train_seeds(
        LAYER,
        jax.random.key(1),
        np.arange(12),
        2,
        optimizer=CLIPPED_ADAM,
        hyper=np.linspace(0.1, 0.2, 12),
        seed_block=plan.seed_block,
        devices=jax.devices("cpu")[:1],
    )
    assert compilations == []
    assert np.isfinite(result.metrics["loss"]).all()


# Words


def test_plan_is_described_in_a_line():
    plan = plan_within(10**12, num_devices=2)
    said = plan.describe()
    assert said.startswith("2 blocks of 6 seeds side by side on 2 devices: ")
    sizes = (plan.num_bytes, plan.seed_bytes, plan.scratch_bytes, plan.shared_bytes)
    found = re.findall(r"[\d.]+ (?:B|KiB|MiB)", said)
    assert found == [show_bytes(size) for size in sizes]
    assert (
        "1 block of 12 seeds in turn on 1 device:"
        in plan_within(10**12, vectorize=False).describe()
    )


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "0.977 KiB"),
        (1536, "1.5 KiB"),
        (10 * 2**20, "10 MiB"),
        (int(999.6 * 2**20), "0.976 GiB"),
        (5 * 2**50, "5.12e+03 TiB"),
    ],
)
def test_bytes_are_written_with_a_unit(count, said):
    assert show_bytes(count) == said


@pytest.mark.parametrize(
    ("name", "value"),
    [("num_seeds", 0), ("memory_budget", 0), ("memory_budget", 1.5)],
)
def test_wrong_arguments_are_refused(name, value):
    arguments = {"num_seeds": 3, "memory_budget": 10**9, name: value}
    with pytest.raises(ValueError) as error:
        plan_seeds(LAYER, optimizer=CLIPPED_ADAM, **arguments)
    cases.assert_says(error, name, str(value))
