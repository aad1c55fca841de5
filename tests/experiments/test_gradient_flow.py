"""Gradients are those of explicit Jacobian products; rates and half-lives by hand."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import tasks
from experiments.data.synthetic import Task
from experiments.gradient_flow import flow, setups
from experiments.gradient_flow.__main__ import main
from experiments.gradient_flow.config import Config
from gated_rnn import GRU, RNN, Dense, Elman, Stack

NUM_SEEDS = 2


def task_of(inputs, due):
    """Sequences `[T, B, F]` of which only the step `due[b]` is scored."""
    num_steps, batch_size, _ = inputs.shape
    mask = np.arange(num_steps)[:, None] == np.asarray(due)
    targets = jnp.zeros((num_steps, batch_size), jnp.int32)
    return Task(jnp.asarray(inputs), targets, jnp.asarray(mask))


def elman_gradients(params, inputs, due, probe):
    """Multiply Jacobians in float64: |d (probe . V h_due) / d x_{due - lag}|."""
    cell, dense = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    h, states = np.zeros(cell.recurrent_kernel.shape[0]), []
    for x in np.asarray(inputs, np.float64)[: due + 1]:
        h = np.tanh(x @ cell.kernel + h @ cell.recurrent_kernel + cell.bias)
        states.append(h)
    product = np.asarray(probe, np.float64) @ dense.kernel.T  # d answer / d h_due
    sizes = []
    for h in reversed(states):
        before_tanh = product * (1 - h**2)
        sizes.append(np.linalg.norm(before_tanh @ cell.kernel.T))
        product = before_tanh @ cell.recurrent_kernel.T
    return np.array(sizes)


def test_gradient_sizes_are_those_of_jacobian_products():
    network = Stack(RNN(Elman(5)), Dense(2))
    params = network.init(jax.random.key(0), in_features=3)
    noise = 0.3 * jax.random.normal(jax.random.key(1), (5,))
    params = (params[0]._replace(bias=noise), *params[1:])
    inputs = np.random.default_rng(2).normal(size=(14, 3, 3)).astype(np.float32)
    due, num_lags = [13, 9, 11], 10
    probe = flow.draw_probe(jax.random.key(3), 3, 2)
    part = task_of(inputs, due)
    found = flow.gradient_sizes(network, part, probe, num_lags, params)
    expected = [
        elman_gradients(params, inputs[:, row], due[row], probe[row])[:num_lags]
        for row in range(3)
    ]
    np.testing.assert_allclose(found, np.log2(expected).mean(axis=0), atol=2e-5)
    assert np.ptp(found) > 2  # a constant would not be told from a gradient


def test_an_update_gate_alone_halves_the_gradient_as_its_bias_says():
    bias = 1.5
    cell = GRU(4)
    network = Stack(RNN(cell), Dense(3))
    params = network.init(jax.random.key(0), in_features=2)
    gru = params[0]
    gates = np.zeros_like(gru.bias)
    gates[4:8] = bias
    # The gate sees neither inputs nor past, the candidate no past.
    kernel = np.array(gru.kernel)
    kernel[:, :8] = 0
    gru = gru._replace(
        kernel=jnp.asarray(kernel),
        recurrent_kernel=jnp.zeros_like(gru.recurrent_kernel),
        bias=jnp.asarray(gates),
    )
    inputs = np.zeros((30, 2, 2), np.float32)
    probe = flow.draw_probe(jax.random.key(1), 2, 3)
    part = task_of(inputs, [29, 24])
    curve = flow.gradient_sizes(network, part, probe, 25, (gru, *params[1:]))
    (rate,) = flow.halvings_per_step(np.asarray(curve)[None])
    assert rate == pytest.approx(1 / flow.gate_half_life(bias), rel=1e-4)


def test_gate_half_life_is_that_of_a_power():
    for bias in (-1.0, 0.0, 2.5):
        kept = 1 / (1 + np.exp(-bias))
        assert kept ** flow.gate_half_life(bias) == pytest.approx(0.5)


def test_halvings_leave_out_what_float32_cannot_hold():
    lags = np.arange(60)
    curves = np.stack([5 - 0.25 * lags, np.maximum(-4.0 * lags, flow.LOWEST)])
    np.testing.assert_allclose(flow.halvings_per_step(curves), [0.25, 4.0])
    lost = np.stack([np.full(60, np.nan), np.full(60, flow.LOWEST)])
    assert np.isnan(flow.halvings_per_step(lost)).all()
    growing = flow.halvings_per_step(0.5 * lags[None])
    assert growing[0] == pytest.approx(-0.5)
    assert np.isinf(flow.half_life(growing))[0]
    assert np.isnan(flow.half_life(np.array([np.nan])))[0]


def test_a_vanished_gradient_is_taken_for_the_least_that_is_told():
    network = Stack(RNN(Elman(4)), Dense(1))
    params = network.init(jax.random.key(0), in_features=2)
    cut = params[0]._replace(recurrent_kernel=jnp.zeros((4, 4)))
    part = task_of(np.ones((5, 1, 2), np.float32), [4])
    curve = flow.gradient_sizes(network, part, jnp.ones((1, 1)), 3, (cut, *params[1:]))
    assert curve[0] > -20
    np.testing.assert_allclose(curve[1:], flow.LOWEST)


def test_starts_draw_what_they_say():
    config = Config(hidden_features=8, length=20)
    starts = setups.initial_starts(config)
    params = {
        name: setups.start_cell(config, start).init(jax.random.key(0), 3)
        for name, start in starts.items()
    }
    np.testing.assert_array_equal(params["elman_irnn"].recurrent_kernel, np.eye(8))
    block = np.asarray(params["gru_blocks"].recurrent_kernel)[:, 8:16]
    np.testing.assert_allclose(block @ block.T, np.eye(8), atol=1e-5)
    kept = np.asarray(params["lstm_chrono"].bias)[8:16]
    assert ((kept >= 0) & (kept <= np.log(19))).all()
    assert np.ptp(kept) > 0.1
    for name, gate in (("gru", 8), ("lstm", 8)):
        biased = setups.biased_cell(config, name, 2.5).init(jax.random.key(0), 3)
        assert biased.bias[gate : gate + 8].tolist() == [2.5] * 8
        assert not np.delete(biased.bias, range(gate, gate + 8)).any()
    # All of one kind run as one program.
    kinds = {
        setups.without_initializers(setups.start_cell(config, start))
        for start in starts.values()
    }
    assert len(kinds) == 4


# The command


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    folder = tmp_path_factory.mktemp("flow")
    arguments = (
        "--cells gru --num-seeds 2 --seed-block 2 --tuning-seeds 1 --learning-rates "
        "0.01 --num-updates 30 --validate-every 15 --length 12 --hidden-features 6 "
        "--gate-biases 0 4 --num-test 16 --num-validation 16 --picture-format svg "
        f"--save-models --output-dir {folder}"
    )
    assert main(arguments.split()) == 0
    for name in ("gradient.svg", "gate_bias.svg", "models/gru_seed_1.safetensors"):
        assert (folder / name).stat().st_size > 1000
    return json.loads((folder / "results.json").read_text())


def test_record_holds_every_seed(record):
    cells, summary = record["cells"], record["summary"]
    for when in ("before", "after"):
        curves = np.array(cells["gru"][when], float)
        assert curves.shape == (NUM_SEEDS, 12)
        assert np.isfinite(curves).all()
    assert np.shape(cells["lstm_bias_4"]["before"]) == (NUM_SEEDS, 12)
    assert np.shape(cells["elman_irnn"]["before"]) == (NUM_SEEDS, 12)
    rates = np.array(summary["rates"]["gru"]["before"])
    np.testing.assert_allclose(
        rates,
        flow.halvings_per_step(np.array(cells["gru"]["before"])),
        atol=2e-3,  # the record's curves are rounded
    )
    # The gate's bias lengthens the memory of gradients.
    by_bias = summary["rates_by_bias"]["gru"]
    assert np.max(by_bias["4.0"]) < 0.5 * np.min(by_bias["0.0"])
    assert len(cells["gru"]["test_loss"]) == NUM_SEEDS


def test_before_is_how_the_trained_seeds_began(record):
    config = Config(hidden_features=6, length=12, num_test=16)
    task = config.synthetic_task
    keys = jax.random.split(jax.random.key(config.seed), 6)
    (test,) = tasks.draw_parts(task, keys[1], [12], 16)
    probe = flow.draw_probe(keys[2], 16, task.out_features)
    network = tasks.make_network(task, setups.cell_of(config, "gru", task.in_features))
    for seed in range(NUM_SEEDS):
        first, *_ = jax.random.split(jax.random.fold_in(keys[3], seed), 4)
        params = network.init(first, task.in_features)
        expected = flow.gradient_sizes(network, test, probe, 12, params)
        found = record["cells"]["gru"]["before"][seed]
        np.testing.assert_allclose(found, expected, atol=0.006)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("--length 9", "length: expected at least 10, got 9"),
        ("--gate-biases 1 0", "gate_biases: expected ascending numbers"),
        ("--tuning-seeds 0", "tuning_seeds: expected at least 1"),
        ("--validate-every 700", "validate_every: expected at most num_updates"),
    ],
)
def test_bad_settings_are_one_line(arguments, says, capsys, tmp_path):
    folder = tmp_path / "out"
    assert main([*arguments.split(), "--output-dir", str(folder)]) == 2
    errors = capsys.readouterr().err
    assert says in errors
    assert errors.count("\n") == 1
    assert not folder.exists()
