"""docs/many_seeds.md: its code runs, and does what the page says of it."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest

from gated_rnn import training
from gated_rnn.training import StopReason
from tests.training import test_processes

PAGE = Path(__file__).parents[2] / "docs" / "many_seeds.md"
BLOCK = re.compile(r"```python([^\n]*)\n(.*?)```", re.DOTALL)
# A few updates' rounding.
TOLERANCE = 1e-4


def blocks_of(kind):
    return [code for found, code in BLOCK.findall(PAGE.read_text()) if found == kind]


@pytest.fixture(scope="module")
def page(quick_compiling):
    names = {}
    for code in blocks_of(""):
        exec(compile(code, str(PAGE), "exec"), names)
    return names


def test_every_block_is_run_but_the_one_that_must_come_first():
    (skipped,) = blocks_of(" skip")
    assert skipped == 'jax.config.update("jax_num_cpu_devices", 8)\n'
    assert len(blocks_of(" program")) == 1
    kinds = {kind for kind, _ in BLOCK.findall(PAGE.read_text())}
    assert kinds == {"", " skip", " program"}


def test_seeds_learn(page):
    curves = page["curves"]
    assert curves.shape == (10, 40)
    assert np.all(curves[:, -5:].mean(axis=1) < curves[:, :5].mean(axis=1))
    layers = jax.tree.leaves(page["network_of_seed_3"])
    for leaf, whole in zip(layers, jax.tree.leaves(page["result"].params), strict=True):
        np.testing.assert_array_equal(leaf, whole[3])


def test_points_of_the_search_share_the_data_of_a_repeat(page):
    points, search = page["points"], page["search"]
    assert page["final"].shape == (4, 3)
    assert set(page["best"]) == {
        "learning_rate",
        "max_grad_norm",
        "forget_bias",
        "scale",
    }
    rates = search.opt_state.hyperparams["learning_rate"]
    np.testing.assert_allclose(rates, points.hyper["learning_rate"], rtol=1e-6)
    keys = jax.random.split(jax.random.key(0), 4)
    drawn = [
        page["walks_by_hyper"](key, {"repeat": repeat})
        for key, repeat in zip(keys, points.repeat[:4], strict=True)
    ]
    np.testing.assert_array_equal(drawn[0], drawn[3])
    assert np.all(drawn[0] != drawn[1])
    assert page["drawn"].hyper["learning_rate"].shape == (20,)


def test_plan_is_the_width_that_is_trained(page):
    plan = page["plan"]
    assert plan.num_bytes <= 200 * 2**20
    assert plan.seed_block * plan.num_blocks >= 64
    assert plan.num_devices == min(len(jax.devices()), plan.num_blocks)
    assert page["many"].metrics["loss"].shape == (64, 2)


def test_the_seed_that_cannot_work_is_reported_and_the_best_are_kept(page):
    guarded = page["guarded"]
    assert guarded.ended[4] == (StopReason.PARAMETERS_NOT_FINITE, 0)
    assert np.isnan(guarded.metrics["loss"][4, 1:]).all()
    curve = guarded.metrics["validation"]
    for row in set(range(10)) - {4}:
        seen = curve[row][np.isfinite(curve[row])]
        assert page["best_values"][row] <= seen.min() + 1e-3
        assert guarded.best.step[row] % 5 == 0
        assert guarded.best.step[row] > 0
    assert "seed" in page["said"]


def test_run_that_was_cut_has_the_bits_of_one_that_was_not(page):
    again, result = page["again"], page["result"]
    for actual, expected in zip(
        jax.tree.leaves((again.params, again.opt_state)),
        jax.tree.leaves((result.params, result.opt_state)),
        strict=True,
    ):
        np.testing.assert_array_equal(actual, expected)
    losses = result.metrics["loss"][:, 20:]
    np.testing.assert_array_equal(again.metrics["loss"], losses)


def test_sharded_updates_are_those_of_the_loss_itself(page):
    step = jax.jit(training.make_train_step(page["loss"], page["optimizer"]))
    params = page["network"].init(jax.random.key(4), 1)
    state = training.init_train_state(params, page["optimizer"])
    for number in range(3):
        state, metrics = step(state, page["walks"], jax.random.key(number))
    for actual, expected in zip(
        jax.tree.leaves(page["state"].params),
        jax.tree.leaves(state.params),
        strict=True,
    ):
        np.testing.assert_allclose(actual, expected, atol=TOLERANCE)
    actual = float(page["metrics"]["loss"])
    assert actual == pytest.approx(float(metrics["loss"]), rel=TOLERANCE)


def test_program_for_several_machines_gathers_every_seed(tmp_path):
    (program,) = blocks_of(" program")
    paths = [tmp_path / f"{number}.npy" for number in range(2)]
    test_processes.run_processes(program, paths)
    assert [path.exists() for path in paths] == [True, False]
    # Toward 1 from any start, the faster the higher the rate.
    params = np.load(paths[0])
    assert params.shape == (10, 3)
    rates = np.linspace(0.01, 0.1, 10)
    seed_keys = [jax.random.fold_in(jax.random.key(0), number) for number in range(10)]
    starts = [jax.random.normal(jax.random.split(key, 4)[0], (3,)) for key in seed_keys]
    way = np.abs(params - np.array(starts)).mean(axis=1)
    far = np.abs(np.array(starts) - 1).mean(axis=1)
    assert np.all(way <= 20 * rates * 1.01)
    assert np.all(np.abs(params - 1).mean(axis=1) < far)
