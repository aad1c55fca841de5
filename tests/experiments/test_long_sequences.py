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

from experiments.long_sequences import report, tables
from experiments.long_sequences.__main__ import main
from experiments.long_sequences.config import DEFAULT_EPOCHS, PAPER_EPOCHS, Config
from experiments.long_sequences.problem import (
    count_parameters,
    draw_data,
    make_network,
    make_problem,
    measure_baselines,
    objective,
)
from experiments.long_sequences.run import run
from gated_rnn.training import Seconds

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
    timing_rounds=2,
)


@pytest.fixture(scope="module")
def small_run(tmp_path_factory):
    """The record of a small run, what it showed, and where it wrote."""
    directory = tmp_path_factory.mktemp("small")
    shown = io.StringIO()
    # Most of XLA's passes only cost time on data this small.
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        config = dataclasses.replace(SMALL, output_dir=directory / "new")
        run(config, Console(file=shown, width=80))
    finally:
        jax.config.update("jax_disable_most_optimizations", False)
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
        env={**os.environ, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},  # as in small_run
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
