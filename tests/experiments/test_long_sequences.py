import dataclasses
import functools
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from experiments.data import price_process
from experiments.data.price_process import split_heads
from experiments.long_sequences import held_out, report, tables
from experiments.long_sequences.__main__ import main
from experiments.long_sequences.config import DEFAULT_EPOCHS, PAPER_EPOCHS, Config
from experiments.long_sequences.held_out_tables import held_out_tables
from experiments.long_sequences.problem import (
    PRESETS,
    choose_optimizer,
    count_parameters,
    describe_start,
    draw_data,
    make_network,
    make_problem,
    measure_baselines,
    objective,
)
from experiments.long_sequences.run import run
from gated_rnn import initializers
from gated_rnn.training import Seconds, train_seeds
from tests.experiments.test_trader import loop_trader

ROOT = Path(__file__).parents[2]
KEY = jax.random.key(3)
PNG = b"\x89PNG\r\n"
SMALL = Config(
    num_seeds=3,
    num_epochs=4,
    num_sequences=5,
    num_steps=60,
    hidden_features=3,
    learning_rate=0.01,
    input_window=2,
    periods=(50.0, 11.0),
    discount=0.8,
    chunk_size=25,
    held_out_sequences=4,
    timing_rounds=2,
)


@pytest.fixture(scope="module", autouse=True)
def _quick_compiling():
    """Leave out most of XLA's passes: they only cost time on data this small."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def small_run(tmp_path_factory):
    """The record of a small run, what it showed, and where it wrote."""
    directory = tmp_path_factory.mktemp("small")
    shown = io.StringIO()
    config = dataclasses.replace(SMALL, output_dir=directory / "new")
    run(config, Console(file=shown, width=80))
    record = json.loads((config.output_dir / "results.json").read_text())
    return record, shown.getvalue(), config.output_dir


def test_command_trains_both_cells_and_writes_record_and_picture(tmp_path):
    directory = tmp_path / "out"
    options = (
        "--num-seeds 2 --num-steps 400 --num-sequences 8 --num-epochs 5 --output-dir"
    )
    done = subprocess.run(
        [
            *(sys.executable, "-W", "error", "-m", "experiments.long_sequences"),
            *(*options.split(), str(directory)),
        ],
        cwd=ROOT,
        env={**os.environ, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},  # as in this process
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    record = json.loads((directory / "results.json").read_text())
    for cell in ("lstm", "gru"):
        losses = np.array(record["cells"][cell]["loss"], dtype=float)
        assert losses.shape == (2, 5)
        assert np.isfinite(losses).all()
        assert (np.diff(losses, axis=1) < 0).all()
        assert cell.upper() in done.stdout
    assert (directory / "loss_curves.png").read_bytes().startswith(PNG)
    assert sorted(path.name for path in directory.iterdir()) == [
        *("checkpoints", "loss_curves.png", "metrics_gru.jsonl", "metrics_lstm.jsonl"),
        *("results.json", "summary.md"),
    ]


def test_record_keeps_every_seed_of_both_cells(small_run):
    record, _, _ = small_run
    assert record["schema"] == 1
    assert record["experiment"] == "long_sequences"
    assert record["config"]["num_steps"] == 60
    for cell in ("lstm", "gru"):
        series = record["cells"][cell]
        assert series["seeds"] == [0, 1, 2]
        losses = np.array(series["loss"])
        assert losses.shape == np.shape(series["grad_norm"]) == (3, 4)
        assert (losses[:, -1] < losses[:, 0]).all()
        assert len(np.unique(losses)) == losses.size  # the seeds differ
        for name in ("training_loss", "held_out_loss", "earned", "moves"):
            assert np.isfinite(np.array(series[name], float)).all()
            assert len(series[name]) == 3
        assert len(set(series["held_out_loss"] + series["training_loss"])) == 6
    assert record["summary"]["seeds_vary"] == ["initialisation", "data"]


def test_recorded_first_loss_is_that_of_the_untrained_network(small_run):
    # Of the library's own documented derivation of a seed's key, seed 1.
    record, _, _ = small_run
    data_key, train_key, _ = jax.random.split(jax.random.key(SMALL.seed), 3)
    params_key = jax.random.split(jax.random.fold_in(train_key, 1), 4)[0]

    @functools.partial(jax.jit, static_argnames="cell")
    def first_loss(cell):
        data = draw_data(SMALL, data_key, 1)
        network = make_network(SMALL, cell)
        params = network.init(params_key, SMALL.input_window)
        _, predictions = network.apply(params, data.inputs)
        return objective(SMALL, predictions, data.targets)

    for cell in ("lstm", "gru"):
        recorded = record["cells"][cell]["loss"][1][0]
        np.testing.assert_allclose(recorded, first_loss(cell), rtol=1e-4)


def test_summary_compares_the_cells_and_says_what_was_not_reached(small_run):
    record, shown, directory = small_run
    claims = record["summary"]["claims"]
    difference = claims["final_loss"]["gru_minus_lstm"]["mean"]
    losses = {cell: np.array(record["cells"][cell]["loss"]) for cell in ("lstm", "gru")}
    expected = (losses["gru"] - losses["lstm"])[:, -1].mean()
    np.testing.assert_allclose(difference["estimate"], expected, rtol=1e-5)
    assert difference["low"] < difference["estimate"] < difference["high"]
    assert len(claims["time"]["rounds"]["gru"]) == 2
    markdown = (directory / "summary.md").read_text()
    for text in (shown, markdown):
        assert "not reached" in text
        assert "mean of the" in text
        assert "linear readout" in text
        assert "held-out loss" in text
        assert "true values" in text
        assert "Adam's epsilon is 1e-07" in text
        assert "cannot be compared" in " ".join(text.split())
    assert "| LSTM |" in markdown
    assert "](loss_curves.png)" in markdown
    assert (directory / "loss_curves.png").read_bytes().startswith(PNG)


@pytest.mark.parametrize(
    "arguments",
    [
        "--num-steps -5",
        "--num-seeds 0",
        "--num-epochs 0",
        "--num-sequences 1.5",
        "--cells lstm transformer",
        "--cells lstm lstm",
        "--learning-rate fast",
        "--learning-rate nan",
        "--learning-rate -1",
        "--max-grad-norm 0",
        "--discount 1",
        "--periods 100",
        "--periods 1 100",
        "--cost -0.1",
        "--noise-sd nan",
        "--seed -1",
        "--seed 99999999999999999999",
        "--seed-block 1",
        "--chunk-size -1",
        "--paper --num-epochs 7",
        "--loss median",
        "--preset keras",
        "--held-out-sequences 0",
        "--no-such-flag",
        "--output-dir FILE/below",
        "--output-dir FILE",
    ],
)
def test_bad_input_is_one_line_and_status_2_and_writes_nothing(
    arguments, tmp_path, capsys, monkeypatch
):
    def train(*_, **__):
        raise AssertionError("training began")

    monkeypatch.setattr("experiments.long_sequences.run.train_seeds", train)
    monkeypatch.setattr("experiments.long_sequences.run.measure_baselines", train)
    file = tmp_path / "file"
    file.write_text("kept")
    arguments = arguments.replace("FILE", str(file)).split()
    if "--output-dir" not in arguments:
        arguments += ["--output-dir", str(tmp_path / "out")]
    assert main(arguments) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.count("\n") == 1
    assert errors.startswith("experiments.long_sequences: ")
    assert list(tmp_path.iterdir()) == [file]
    assert file.read_text() == "kept"


def test_help_names_every_setting_and_explains_it(capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["--help"])
    assert exit_.value.code == 0
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for field in dataclasses.fields(Config):
        flag = "--" + field.name.replace("_", "-")
        explanation = text.split(f" {flag} ", 1)[1].split(" --", 1)[0]
        assert len(explanation.split("(default", 1)[0].split()) > 4, flag


def test_paper_is_the_published_number_of_epochs():
    assert Config().num_epochs == DEFAULT_EPOCHS
    assert Config(paper=True).num_epochs == PAPER_EPOCHS == 1000
    assert (Config().num_steps, Config().num_sequences) == (20_000, 40)


def test_both_cells_see_the_same_data_and_every_seed_its_own():
    problems = [make_problem(SMALL, cell, KEY) for cell in ("lstm", "gru")]
    draws = {
        (cell, seed): problem.dataset(jax.random.key(cell), seed)
        for cell, problem in enumerate(problems)
        for seed in (0, 1)
    }
    for seed in (0, 1):
        lstm, gru = draws[0, seed], draws[1, seed]
        np.testing.assert_array_equal(lstm.inputs, gru.inputs)
        np.testing.assert_array_equal(lstm.targets, gru.targets)
    assert not np.isclose(draws[0, 0].inputs, draws[0, 1].inputs).all()
    given = problems[0].batch(KEY, jnp.int32(5), draws[0, 1])
    np.testing.assert_array_equal(given.targets, draws[0, 1].targets)


def test_shared_data_is_one_data_set_for_all_seeds():
    shared = dataclasses.replace(SMALL, shared_data=True)
    for cell in ("lstm", "gru"):
        problem = make_problem(shared, cell, KEY)
        assert problem.dataset is None
        batch = problem.batch(jax.random.key(9), jnp.int32(2))
        expected = draw_data(shared, KEY, 0)
        np.testing.assert_allclose(batch.inputs, expected.inputs, atol=2e-3)
        np.testing.assert_allclose(batch.targets, expected.targets, atol=1e-3)


def test_objective_sums_the_heads_or_takes_the_mean_of_all():
    rng = np.random.default_rng(0)
    predictions, targets = rng.normal(size=(2, 4, 3, 7))
    squares = ((predictions - targets) ** 2).mean(axis=(0, 1))
    heads = squares[:3].mean() + squares[3:5].mean() + squares[5:].mean()
    arguments = jnp.float32(predictions), jnp.float32(targets)
    mean = dataclasses.replace(SMALL, loss="mean")
    np.testing.assert_allclose(objective(SMALL, *arguments), heads, rtol=1e-5)
    np.testing.assert_allclose(objective(mean, *arguments), squares.mean(), rtol=1e-5)


def test_predicting_the_mean_costs_one_a_head_and_the_inputs_help():
    baselines = measure_baselines(SMALL, KEY, [0, 1])
    np.testing.assert_allclose(baselines["mean of the targets"], 3.0, rtol=1e-4)
    assert (np.array(baselines["linear readout"]) < 2.95).all()
    assert len(set(baselines["linear readout"])) == 2


def test_parameter_counts_are_those_of_the_formulas():
    config = Config()  # one input, 16 units, seven values
    assert count_parameters(config, "lstm") == {
        "recurrent": 4 * (16 + 16 * 16 + 16),
        "total": 1152 + 16 * 7 + 7,
    }
    assert count_parameters(config, "gru")["recurrent"] == 3 * (16 + 16**2 + 16) + 16


def test_presets_are_those_of_keras_and_of_the_library():
    ours = dataclasses.replace(SMALL, preset="ours")
    for cell in ("lstm", "gru"):
        start, own = (make_network(c, cell).layers[0].cell for c in (SMALL, ours))
        size, gates = SMALL.hidden_features, {"lstm": 4, "gru": 3}[cell]
        drawn, default = (layer.init(KEY, 1).recurrent_kernel for layer in (start, own))
        np.testing.assert_allclose(drawn @ drawn.T, np.eye(size), atol=1e-5)
        blocks = np.split(np.asarray(default), gates, axis=1)
        for block in blocks:
            np.testing.assert_allclose(block @ block.T, np.eye(size), atol=1e-5)
        assert start == type(start)(size, **initializers.CUDNN)
        assert own == type(own)(size)
    described = describe_start(ours)
    assert described["preset"] == "ours"
    assert described["adam_eps"] == 1e-8
    assert "Orthogonal(" in described["initialisers"]["gru"]["recurrent_init"]
    assert "Joint" not in str(described["initialisers"])
    assert "Joint" in str(describe_start(SMALL)["initialisers"]["lstm"])


def test_epsilon_of_adam_is_the_preset_s():
    # A first step of size lr / (1 + eps / |g|): at a gradient of 1e-7, half of lr.
    for preset, size in (("cudnn", 0.5), ("ours", 1 / 1.1)):
        config = dataclasses.replace(SMALL, preset=preset, max_grad_norm=float("inf"))
        optimizer = choose_optimizer(config)
        params = jnp.zeros(())
        step, _ = optimizer.update(jnp.float32(1e-7), optimizer.init(params), params)
        np.testing.assert_allclose(step, -size * config.learning_rate, rtol=1e-3)
        assert PRESETS[preset].adam_eps == {"cudnn": 1e-7, "ours": 1e-8}[preset]


#: So cheap to trade, and so quickly learned, that even three updates make traders.
TRADING = dataclasses.replace(SMALL, cost=0.01, learning_rate=0.1)
KEYS = held_out.DataKeys(KEY, jax.random.key(11))


@pytest.fixture(scope="module")
def trained_gru():
    """A network of each of two seeds, and its scores."""
    problem = make_problem(TRADING, "gru", KEYS.training)
    result = train_seeds(
        *(problem, jax.random.key(1), [0, 1], 3),
        optimizer=choose_optimizer(TRADING),
        hyper=np.arange(2),
    )
    fine = np.zeros(2, bool)
    arguments = (TRADING, "gru", KEYS, result.params, result.seed_ids)
    return result, held_out.score_networks(*arguments, fine)


def test_scores_are_of_the_last_parameters_on_old_and_fresh_sequences(trained_gru):
    result, scores = trained_gru
    network = make_network(TRADING, "gru")
    for seed in range(2):
        params = jax.tree.map(lambda leaf, s=seed: leaf[s], result.params)
        old = _draw_raw(KEYS.training, seed, TRADING.num_sequences)
        fresh = _draw_raw(KEYS.held_out, seed, TRADING.held_out_sequences)
        mean, sd = old.values.mean(axis=(0, 1)), old.values.std(axis=(0, 1))
        for series, expected in (
            (old, scores.training_loss[seed]),
            (fresh, scores.held_out_loss[seed]),
        ):
            _, predictions = jax.jit(network.apply)(params, series.inputs)
            squares = np.square(predictions - (series.values - mean) / sd)
            loss = sum(head.mean() for head in split_heads(jnp.asarray(squares)))
            np.testing.assert_allclose(expected, loss, rtol=1e-4)
        # The predictions of the last round, in price units, by a slow trader.
        prices = np.asarray(predictions) * sd + mean
        earned, moves = zip(
            *(
                loop_trader(prices[:, b], np.asarray(fresh.changes)[:, b], TRADING.cost)
                for b in range(TRADING.held_out_sequences)
            ),
            strict=True,
        )
        np.testing.assert_allclose(scores.earned[seed], np.mean(earned), atol=1e-5)
        np.testing.assert_allclose(scores.moves[seed], np.mean(moves), rtol=1e-4)
    assert (scores.moves > 0.05).all()
    assert scores.earned[0] != scores.earned[1]


def _draw_raw(key, seed, num_sequences):
    draw = jax.jit(
        price_process.draw_series,
        static_argnames=(
            *("process", "num_steps", "num_sequences", "input_window", "discount"),
            "cost",
        ),
    )
    return draw(
        jax.random.fold_in(key, seed),
        TRADING.process,
        num_steps=60,
        num_sequences=num_sequences,
        input_window=2,
        discount=0.8,
        cost=TRADING.cost,
    )


def test_diverged_seed_has_no_score(trained_gru):
    result, scores = trained_gru
    arguments = (TRADING, "gru", KEYS, result.params, result.seed_ids)
    lost = held_out.score_networks(*arguments, np.array([False, True]))
    assert np.isnan(lost).all(axis=0).tolist() == [False, True]
    np.testing.assert_array_equal(lost.earned[0], scores.earned[0])


def test_fresh_sequences_are_none_of_the_training_and_each_seed_has_its_own():
    old, fresh = (_draw_raw(key, 0, 4).inputs for key in KEYS)
    other = _draw_raw(KEYS.held_out, 1, 4).inputs
    for pair in ((old, fresh), (fresh, other)):
        for first in range(4):
            for second in range(4):
                a, b = pair[0][:, first], pair[1][:, second]
                assert not np.isclose(a, b).all(axis=0).any()


def test_baselines_on_fresh_sequences():
    baselines = held_out.score_baselines(TRADING, KEYS, [0, 1])
    mean, linear = baselines[held_out.MEAN], baselines[held_out.LINEAR]
    np.testing.assert_allclose(mean.training_loss, 3.0, rtol=1e-4)
    assert (linear.training_loss < mean.training_loss).all()
    old, fresh = _draw_raw(KEYS.training, 1, 5), _draw_raw(KEYS.held_out, 1, 4)
    rows = np.column_stack([np.reshape(old.inputs, (-1, 2)), np.ones(300)])
    weights, *_ = np.linalg.lstsq(rows, np.reshape(old.values, (-1, 7)), rcond=None)
    predicted = np.asarray(fresh.inputs) @ weights[:2] + weights[2]
    sd = old.values.std(axis=(0, 1))
    squares = np.square((predicted - fresh.values) / sd).mean(axis=(0, 1))
    expected = squares[:3].mean() + squares[3:5].mean() + squares[5:].mean()
    np.testing.assert_allclose(linear.held_out_loss[1], expected, rtol=1e-3)
    changes = np.asarray(fresh.changes)
    earned = [
        loop_trader(predicted[:, b], changes[:, b], TRADING.cost)[0] for b in range(4)
    ]
    np.testing.assert_allclose(linear.earned[1], np.mean(earned), atol=1e-5)
    held = baselines[held_out.HOLDS].earned[1]
    np.testing.assert_allclose(
        held, (changes.sum(0).mean() - TRADING.cost) / 60, atol=1e-5
    )
    best = baselines[held_out.TRUE_VALUES]
    assert (best.earned > np.maximum(linear.earned, 0)).all()
    assert baselines[held_out.NEVER].earned.tolist() == [0.0, 0.0]
    assert np.isnan(mean.earned).all()


def scores_of(held_out_loss, earned):
    seeds = len(earned)
    wobble = 0.001 * np.random.default_rng(seeds).standard_normal((2, seeds))
    return held_out.Score(
        training_loss=np.full(seeds, 0.5),
        held_out_loss=held_out_loss + wobble[0],
        earned=np.asarray(earned) + 0.01 * wobble[1],
        moves=np.full(seeds, 0.02),
    )


def test_cells_are_compared_on_fresh_sequences_with_margins():
    lstm = scores_of(np.full(12, 1.0), np.full(12, 0.010))
    gru = scores_of(np.full(12, 0.9), np.full(12, 0.0101))
    gru.earned[3] = np.nan
    nothing = np.full(2, np.nan)
    baselines = {
        name: held_out.Score(nothing, nothing, np.full(2, 0.02), np.full(2, 0.1))
        for name in (held_out.TRUE_VALUES, held_out.HOLDS, held_out.NEVER)
    }
    baselines |= {
        name: held_out.Score(*(np.array([2.0, 3.0]),) * 4)
        for name in (held_out.MEAN, held_out.LINEAR)
    }
    summary = held_out.summarise({"lstm": lstm, "gru": gru}, baselines, KEY)
    loss, gap, earned = summary["comparisons"]
    assert (loss.verdict, gap.verdict, earned.verdict) == (
        *("lower", "lower", "equivalent"),
    )
    np.testing.assert_allclose(loss.margin, 0.05 * lstm.held_out_loss.mean())
    np.testing.assert_allclose(gap.margin, 0.05 * 0.5)
    np.testing.assert_allclose(earned.margin, 0.05 * 0.02)
    assert (earned.num_seeds, earned.left_out) == (11, 1)
    assert summary["cells"]["gru"]["gap"].num_seeds == 12
    losses, traders, pairs = held_out_tables(summary)
    assert [row[0] for row in losses.rows][:2] == ["LSTM", "GRU"]
    assert traders.rows[1][2] == "50.0"  # of what the true values earn
    assert "1 left out" in pairs.rows[2][4]


def curves(num_seeds, num_epochs, end, noise):
    """Fall from 3 to `end`, with noise of its own for each seed."""
    rng = np.random.default_rng(num_epochs)
    fall = 3.0 * (end / 3.0) ** np.linspace(0, 1, num_epochs)
    wobble = 0.003 * rng.standard_normal((num_seeds, 1))
    return fall * np.exp(wobble + noise * rng.standard_normal((num_seeds, num_epochs)))


def summarise(lstm, gru):
    seconds = Seconds(compile=5.0, start=1.0, pieces=np.array([1.0, 2.0, 4.0]))
    measured = report.Measured(
        losses={"lstm": lstm, "gru": gru},
        seconds={"lstm": seconds, "gru": seconds},
        rounds={"lstm": [2.0, 2.2, 2.1], "gru": [1.0, 1.1, 1.06]},
        baselines={"mean of the targets": [3.0]},
        parameters={
            "lstm": {"recurrent": 1152, "total": 1271},
            "gru": {"recurrent": 880, "total": 999},
        },
    )
    return report.summarise(measured, KEY)


@pytest.mark.parametrize(
    ("num_seeds", "num_epochs", "gru_end", "verdict"),
    [
        (12, 1000, 0.5, "holds"),
        (12, 1000, 1.5, "does not hold"),
        (12, 1000, 1.0, "equivalent"),
        (4, 1000, 0.5, "holds, provisionally (4 seeds, a verdict takes 10)"),
        (12, 999, 0.5, "not reached (999 of 1000 epochs)"),
    ],
)
def test_verdict_on_the_final_loss(num_seeds, num_epochs, gru_end, verdict):
    summary = summarise(
        lstm=curves(num_seeds, num_epochs, end=1.0, noise=0.01),
        gru=curves(num_seeds, num_epochs, end=gru_end, noise=0.01),
    )
    final = summary["claims"]["final_loss"]
    assert final["verdict"] == verdict
    np.testing.assert_allclose(
        final["gru_minus_lstm"].mean.estimate, gru_end - 1.0, atol=0.02
    )


def test_rougher_lstm_is_seen_in_the_window_where_it_is_rough():
    lstm, gru = (curves(12, 1000, end=1.0, noise=0.01) for _ in range(2))
    rng = np.random.default_rng(8)
    lstm[:, 600:700] *= np.exp(0.05 * rng.standard_normal((12, 100)))
    rough = summarise(lstm, gru)["claims"]["roughness"]
    ratios = [window["log_gru_over_lstm"].estimate for window in rough["windows"]]
    assert np.argmin(ratios) == 6
    assert ratios[6] < np.log(0.5)
    assert abs(ratios[2]) < 0.05
    assert rough["verdict"] == "holds"
    assert rough["windows"][6]["start"] == 600


def test_time_is_compared_round_by_round():
    time = summarise(*[curves(4, 20, 1.0, 0.01)] * 2)["claims"]["time"]
    ratio = report.ratio_of_logs(time["log_gru_over_lstm"])
    np.testing.assert_allclose(ratio.estimate, 0.5016, rtol=1e-3)
    assert ratio.low < 0.5 < ratio.high < 0.52


def test_diverged_seed_is_named_and_left_out_of_both_cells():
    lstm, gru = curves(5, 20, 1.0, 0.01), curves(5, 20, 0.8, 0.01)
    expected = (gru - lstm)[[0, 1, 3, 4], -1].mean()
    gru[2, 7:] = np.nan
    summary = summarise(lstm, gru)
    claims = summary["claims"]
    assert claims["paired_seeds"] == 4
    np.testing.assert_allclose(
        claims["final_loss"]["gru_minus_lstm"].mean.estimate, expected
    )
    assert summary["cells"]["gru"]["diverged_seeds"].tolist() == [2]
    assert summary["cells"]["lstm"]["final_loss"].num_seeds == 5
    assert any(
        "GRU diverged on seeds 2" in note for note in tables.report_notes(summary)
    )


@pytest.mark.parametrize(("num_seeds", "num_epochs"), [(1, 1), (1, 2), (2, 3)])
def test_report_stands_where_there_is_too_little_to_compare(num_seeds, num_epochs):
    lstm, gru = (curves(num_seeds, num_epochs, 1.0, 0.01) for _ in range(2))
    summary = summarise(lstm, gru)
    assert len(tables.report_tables(summary, num_seeds)) in (3, 4)


def test_report_stands_where_every_seed_diverged():
    lost = np.full((2, 6), np.nan)
    summary = summarise(lost, curves(2, 6, 1.0, 0.01))
    assert summary["claims"]["final_loss"] is None
    assert len(tables.report_tables(summary, 2)) == 3


def test_published_loss_stands_beside_ours_at_the_same_epoch():
    summary = summarise(*[curves(3, 26, 1.0, 0.01)] * 2)
    losses = tables.report_tables(summary, 3)[0]
    assert losses.columns[3] == "published, epoch 25"
    assert losses.rows[0][3] == "3.57 to 3.63"
    assert losses.rows[1][3] == "3.47 to 3.53"
