import dataclasses
import datetime
import io
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from experiments.bitcoin import report
from experiments.bitcoin.__main__ import main
from experiments.bitcoin.config import DEFAULT_EPOCHS, PAPER_EPOCHS, Config
from experiments.bitcoin.forecasts import Task, baseline_forecasts, measure_errors
from experiments.bitcoin.problem import (
    batches_per_epoch,
    count_recurrent_parameters,
    forecaster,
    keras_rmsprop,
    make_network,
    make_problem,
    match_layers,
)
from experiments.bitcoin.run import make_tasks, run, side_variants
from experiments.bitcoin.tables import report_notes, report_tables
from experiments.bitcoin.variants import Outcome, Variant
from experiments.data import bitcoin
from experiments.data.splits import Split
from experiments.training import INTERRUPTION
from gated_rnn.networks import count_parameters
from gated_rnn.training import Stopped, train_seeds

KEY = jax.random.key(6)
NUM_DAYS, WINDOW = 90, 5
FIRST_DAY = datetime.date(2015, 3, 1)
RNG = np.random.default_rng(3)
WAVE = 900 + 250 * np.sin(2 * np.pi * np.arange(NUM_DAYS) / 9)
CLOSES = np.round(WAVE * np.exp(RNG.normal(0, 0.01, NUM_DAYS)), 2)
SMALL = Config(
    cells=("lstm", "elman"),
    num_seeds=2,
    seed_block=2,
    num_epochs=3,
    learning_rates=(1e-3, 1e-2),
    start_date=FIRST_DAY,
    end_date=None,
    window_days=WINDOW,
    test_days=10,
    valid_days=7,
    hidden_features=(3,),
    batch_size=16,
    side_seeds=2,
    num_folds=1,
    fold_days=8,
    fold_train_days=73,  # as many as the comparison: nothing is compiled for it
    timing_rounds=2,
)


def write_prices(path, closes=CLOSES):
    days = [FIRST_DAY + datetime.timedelta(n) for n in range(len(closes))]
    rows = [f"{day},{close}" for day, close in zip(days, closes, strict=True)]
    path.write_text("\n".join(["Date,Close", *rows]) + "\n")
    return path


@pytest.fixture(scope="module", autouse=True)
def _compile_quickly():
    """Leave out most of XLA's passes, which only cost time on data this small."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def prices(tmp_path_factory):
    return bitcoin.read_prices(
        write_prices(tmp_path_factory.mktemp("prices") / "daily.csv")
    )


def make_task(prices, target="close", split=None):
    split = split or Split(slice(0, 75), slice(75, 82), slice(82, 90))
    data = bitcoin.make_dataset(prices, split, window=WINDOW, target=target)
    return Task(prices, split, target, data)


# Errors and baselines


def test_errors_of_each_row_are_those_computed_by_hand():
    forecasts = np.array([[3.0, 11.0, 5.0], [4.0, 8.0, 5.0]])
    errors = measure_errors(forecasts, np.array([4.0, 8.0, 10.0]))
    np.testing.assert_allclose(errors.mae, [9 / 3, 5 / 3])
    np.testing.assert_allclose(errors.rmse, np.sqrt([35 / 3, 25 / 3]))
    np.testing.assert_allclose(errors.mape, [100 * (1 / 4 + 3 / 8 + 1 / 2) / 3, 50 / 3])


@pytest.mark.parametrize("target", ["close", "log_return"])
def test_baselines_know_the_days_before_and_the_training_days(prices, target):
    task = make_task(prices, target)
    found = baseline_forecasts(task, task.data.test)
    series = CLOSES if target == "close" else np.append(np.nan, np.diff(np.log(CLOSES)))
    first = WINDOW if target == "close" else WINDOW + 1
    rows = [[*series[day - WINDOW : day], 1.0] for day in range(first, 75)]
    known = np.array(rows)
    weights = np.linalg.solve(known.T @ known, known.T @ series[first:75])
    told = [series[day - WINDOW : day] @ weights[:-1] for day in range(82, 90)]
    told = np.array(told) + weights[-1]
    before = CLOSES[81:89]
    if target == "log_return":
        told = before * np.exp(told)
    change = (CLOSES[74] - CLOSES[0]) / 74
    assert list(found) == ["persistence", "drift", "linear autoregression"]
    np.testing.assert_array_equal(found["persistence"], before)
    np.testing.assert_allclose(found["drift"], before + change, rtol=1e-12)
    np.testing.assert_allclose(found["linear autoregression"], told, rtol=1e-8)
    np.testing.assert_array_equal(task.truth(task.data.test), CLOSES[82:])


# The problem


def test_an_epoch_sees_every_window_once_in_an_order_of_its_own(prices):
    task = make_task(prices)
    network = make_network("elman", (2,), 0.0)
    problem = make_problem(task, network, 16)
    every = batches_per_epoch(task, 16)
    assert (len(task.data.train.targets), every) == (70, 5)
    take = jax.jit(lambda problem, key, step: problem.batch(key, step))
    orders = []
    for key, epoch in ((KEY, 0), (KEY, 1), (jax.random.key(7), 0)):
        steps = jnp.arange(epoch * every, (epoch + 1) * every)
        batches = [take(problem, key, step) for step in steps]
        assert [int(batch.real.sum()) for batch in batches] == [16, 16, 16, 16, 6]
        targets = np.concatenate([batch.targets[batch.real, 0] for batch in batches])
        inputs = np.concatenate([batch.inputs[:, batch.real] for batch in batches], 1)
        order = np.argsort(targets)
        np.testing.assert_allclose(
            targets[order], np.sort(task.data.train.targets), rtol=1e-6
        )
        by_target = task.data.train.inputs[np.argsort(task.data.train.targets)]
        np.testing.assert_allclose(inputs[:, order, 0].T, by_target, rtol=1e-6)
        orders.append(targets)
    assert not (orders[0] == orders[1]).all()
    assert not (orders[0] == orders[2]).all()


def test_loss_of_a_filled_batch_is_that_of_its_real_windows(prices):
    task = make_task(prices)
    network = make_network("gru", (3, 2), 0.0)
    problem = make_problem(task, network, 16)

    @jax.jit
    def measure(problem):
        params = network.init(KEY, 1)
        batch = problem.batch(KEY, jnp.int32(4))
        _, told = network.apply(params, batch.inputs[:, :6])
        loss, _ = problem.loss(params, batch, KEY)
        return loss, jnp.square(told - batch.targets[:6]).mean()

    loss, expected = measure(problem)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_validation_is_the_loss_on_validation_days_without_dropout(prices):
    task = make_task(prices)
    network = make_network("lstm", (3, 2), 0.5)
    params = jax.jit(network.init, static_argnums=1)(KEY, 1)
    valid = task.data.valid
    problem, score = make_problem(task, network, 16), forecaster(network, valid)
    found, told = jax.jit(lambda p: (problem.validate(p), score(p)))(params)
    expected = np.square(told - valid.targets).mean()
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert valid.positions.tolist() == list(range(75, 82))


def test_dropout_acts_behind_both_layers_and_only_with_a_key():
    inputs = jnp.asarray(RNG.normal(size=(WINDOW, 4, 1)), jnp.float32)
    network = make_network("elman", (40, 30), 0.5)
    params = jax.jit(network.init, static_argnums=1)(KEY, 1)
    apply = jax.jit(lambda params, key: network.apply(params, inputs, key=key)[1])
    plain, noisy = apply(params, None), apply(params, KEY)
    assert plain.shape == (4, 1)
    assert (np.abs(plain - noisy) > 1e-4).all()
    # With no way from layer to layer, what is left is the dropout behind the last one.
    below, (top, last), dense = params
    top = top._replace(kernel=0 * top.kernel, bias=top.bias + 0.3)
    noisy = apply((below, (top, last), dense), KEY)
    assert np.unique(noisy).size == 4


def test_text_networks_have_the_parameters_of_keras():
    counts = {}
    for cell in ("lstm", "gru", "elman"):
        network = make_network(cell, (50, 100), 0.2)
        params = jax.eval_shape(lambda key, net=network: net.init(key, 1), KEY)
        counts[cell] = count_parameters(params)
        layers = count_recurrent_parameters(cell, (50, 100))
        assert counts[cell] == layers + 101
    keras_gru = 53_651  # with two biases where ours has one for the gates r and z
    elman = (1 * 50 + 50 * 50 + 50) + (50 * 100 + 100 * 100 + 100) + 101
    assert counts == {"lstm": 70_901, "gru": keras_gru - 2 * 150, "elman": elman}


@pytest.mark.parametrize("cell", ["gru", "elman"])
def test_matched_layers_come_as_near_to_the_lstm_as_they_can(cell):
    wanted = count_recurrent_parameters("lstm", (50, 100))
    first, second = match_layers(cell, (50, 100))
    found = count_recurrent_parameters(cell, (first, second))
    assert abs(found - wanted) < 0.02 * wanted
    for other in (second - 1, second + 1):
        away = count_recurrent_parameters(cell, (first, other)) - wanted
        assert abs(away) >= abs(found - wanted) - 0.01 * wanted


def test_rmsprop_is_that_of_keras_2():
    optimizer = keras_rmsprop(0.01)
    params = jnp.array([1.0, -2.0])
    state = optimizer.init(params)
    square, moved = np.zeros(2), np.array([1.0, -2.0])
    for grads in (np.array([3e-7, 0.5]), np.array([-2e-7, 4.0])):
        updates, state = optimizer.update(jnp.float32(grads), state, params)
        params = params + updates
        square = 0.9 * square + 0.1 * grads**2
        moved = moved - 0.01 * grads / (np.sqrt(square) + 1e-7)
        np.testing.assert_allclose(params, moved, rtol=1e-5)


def test_network_learns_a_wave_better_than_persistence(prices):
    task = make_task(prices)
    network = make_network("elman", (8, 8), 0.0)
    problem = make_problem(task, network, 16)
    result = train_seeds(
        *(problem, KEY, [0, 1], 300),
        optimizer=keras_rmsprop(5e-3),
        seed_block=2,
        updates_per_piece=300,
        validate_every=10,
    )
    score = jax.jit(jax.vmap(forecaster(network, task.data.test)))
    told = task.to_closes(task.data.test, np.asarray(score(result.best.params)))
    truth = task.truth(task.data.test)
    persistence = measure_errors(CLOSES[81:89], truth).mae
    assert (measure_errors(told, truth).mae < 0.5 * persistence).all()


# Parts


def test_parts_are_the_last_days_and_folds_train_on_the_past_alone(prices):
    config = dataclasses.replace(SMALL, num_folds=2)
    tasks = make_tasks(config, prices)
    assert tasks.main.split == Split(slice(0, 73), slice(73, 80), slice(80, 90))
    assert [fold.split for fold in tasks.folds] == [
        Split(slice(0, 67), slice(67, 74), slice(74, 82)),
        Split(slice(2, 75), slice(75, 82), slice(82, 90)),
    ]
    for task in (tasks.main, tasks.other_target, tasks.other_scaling):
        np.testing.assert_array_equal(task.truth(task.data.test), CLOSES[80:])
    known = CLOSES[2:75]
    assert tasks.folds[1].data.scaler == (known.min(), known.max())
    assert tasks.other_target.target == "log_return"
    assert type(tasks.other_scaling.data.scaler) is not type(tasks.main.data.scaler)


def test_variants_beside_the_comparison_differ_in_what_they_say(prices):
    tasks = make_tasks(SMALL, prices)
    config = dataclasses.replace(SMALL, cells=("lstm", "gru", "elman"))
    side = {one.name: one for one in side_variants(config, tasks)}
    assert list(side) == [
        *("gru_matched", "elman_matched", "lstm_log_return", "gru_log_return"),
        *("elman_log_return", "gru_other_scaling", "gru_no_dropout"),
    ]
    assert side["gru_matched"].hidden_features == match_layers("gru", (3,))
    assert side["gru_no_dropout"].dropout == 0.0
    assert side["gru_other_scaling"].task is tasks.other_scaling
    assert side["elman_log_return"].task is tasks.other_target
    assert {side[name].dropout for name in list(side)[:-1]} == {0.2}


# What is reported


def make_outcome(task, cell, away, *, num_seeds=12, worse=0.0):
    """Forecasts `away` from the truth, alternately above and below it."""
    truth = task.truth(task.data.test)
    seeds = np.arange(num_seeds)[:, None]
    best = truth + (away + 0.01 * seeds) * (-1) ** np.arange(len(truth))
    return Outcome(
        Variant(cell, cell.upper(), cell, task, (3, 2), 0.2),
        rate=1e-3,
        loss=np.ones((num_seeds, 4)),
        validation=np.ones((num_seeds, 4)),
        best_epoch=np.full(num_seeds, 2),
        diverged=np.zeros(num_seeds, bool),
        last=best + worse,
        best=best,
    )


@pytest.fixture
def measured(prices):
    task = make_task(prices)
    before = measure_errors(CLOSES[81:89], CLOSES[82:]).mae
    outcomes = {
        "lstm": make_outcome(task, "lstm", 0.50 * before, worse=0.1),
        "gru": make_outcome(task, "gru", 0.54 * before, worse=0.1),
        "elman": make_outcome(task, "elman", 1.5 * before, worse=3 * before),
    }
    rounds = {"lstm": [4.0] * 10, "gru": [3.0] * 10, "elman": [2.96] * 10}
    return report.Measured(task, outcomes, {}, [], {}, rounds)


def test_claims_are_judged_by_a_share_of_what_persistence_costs(measured):
    summary = report.summarise(measured, KEY)
    before = measure_errors(CLOSES[81:89], CLOSES[82:]).mae
    last, best = summary["comparisons"].values()
    words = {(one.first, one.second): one.verdict for one in best}
    assert words == {
        ("gru", "lstm"): "equivalent",
        ("gru", "elman"): "lower",
        ("lstm", "elman"): "lower",
        ("lstm", "persistence"): "lower",
        ("gru", "persistence"): "lower",
        ("elman", "persistence"): "higher",
    }
    gru = best[0]
    np.testing.assert_allclose(gru.margin, 0.1 * before)
    np.testing.assert_allclose(gru.difference.mean.estimate, 0.04 * before, rtol=1e-6)
    assert [one.measure for one in last] == ["MAE in US dollars, last epoch"] * 6
    chosen = {one.first: one.verdict for one in summary["epoch_chosen"]}
    assert chosen == {"lstm": "equivalent", "gru": "equivalent", "elman": "lower"}
    times = {one.first: one.verdict for one in summary["time"]["comparisons"]}
    assert times == {"gru": "equivalent", "lstm": "higher"}  # the last of each


def test_gru_is_the_faster_of_both_by_rounds(measured):
    gru, *_ = report.summarise(measured, KEY)["time"]["comparisons"]
    assert (gru.first, gru.second, gru.verdict) == ("gru", "lstm", "lower")
    np.testing.assert_allclose(gru.difference.mean.estimate, np.log(0.75))
    table = report_tables(report.summarise(measured, KEY))[-1]
    assert table.rows[0][1].startswith("0.750")


def test_days_are_a_sample_of_their_own(measured):
    found = report.summarise(measured, KEY)["over_days"]["gru"]
    best = measured.outcomes["gru"].best
    own = np.abs(best - CLOSES[82:]).mean(axis=0)
    daily = own - np.abs(CLOSES[81:89] - CLOSES[82:])
    error = daily.std(ddof=1) / np.sqrt(8)
    np.testing.assert_allclose(found.estimate, daily.mean())
    np.testing.assert_allclose(found.high - daily.mean(), 2.364624 * error, rtol=1e-5)


def test_diverged_seed_is_named_and_left_out(measured):
    gru = measured.outcomes["gru"]
    lost = np.arange(12) == 4
    nothing = np.where(lost[:, None], np.nan, gru.best)
    outcomes = {
        **measured.outcomes,
        "gru": gru._replace(diverged=lost, best=nothing, last=nothing),
    }
    summary = report.summarise(measured._replace(outcomes=outcomes), KEY)
    one = next(iter(summary["comparisons"].values()))[0]
    assert (one.num_seeds, one.left_out) == (11, 1)
    assert summary["arms"]["gru"]["best"]["mae"].num_seeds == 11
    assert "gru diverged on seeds 4: left out above." in report_notes(summary)
    assert len(report_tables(summary)) == 6


# The command


@pytest.fixture(scope="module")
def small_run(tmp_path_factory):
    """The record of a small run, what it showed, and where it wrote."""
    directory = tmp_path_factory.mktemp("small")
    shown = io.StringIO()
    config = dataclasses.replace(
        SMALL,
        data_dir=write_prices(directory / "daily.csv"),
        output_dir=directory / "out",
    )
    run(config, Console(file=shown, width=200))
    again = dataclasses.replace(config, output_dir=directory / "again")
    stopped = _run_stopped_on_the_way(again)
    run(dataclasses.replace(again, resume=True), Console(file=io.StringIO()))
    records = [
        json.loads((directory / name / "results.json").read_text())
        for name in ("out", "again")
    ]
    return *records, shown.getvalue(), config.output_dir, stopped


def _run_stopped_on_the_way(config):
    """Ask for a stop when the line of an arm beside the comparison appears."""
    shown = io.StringIO()

    class Watching(io.StringIO):
        def write(self, text):
            if text.startswith("ELMAN_MATCHED: 5/"):
                INTERRUPTION.signal = 2
            return shown.write(text)

    try:
        with pytest.raises(Stopped):
            run(config, Console(file=Watching(), width=200))
    finally:
        INTERRUPTION.signal = None
    return shown.getvalue()


def test_record_has_every_arm_and_seed(small_run):
    record, _, _, directory, _ = small_run
    assert record["schema"] == 1
    assert record["experiment"] == "bitcoin"
    assert record["config"]["start_date"] == str(FIRST_DAY)
    assert list(record["cells"]) == [
        *("lstm", "elman", "lstm_tuned", "elman_tuned", "elman_matched"),
        *("lstm_log_return", "elman_log_return", "lstm_other_scaling"),
        *("lstm_no_dropout", "lstm_fold_1", "elman_fold_1"),
    ]
    for name, cell in record["cells"].items():
        assert cell["seeds"] == [0, 1]
        maes = np.array(cell["mae_last_epoch"], float)
        assert np.isfinite(maes).all()
        assert maes[0] != maes[1]
        if "fold" not in name:
            assert np.shape(cell["loss"]) == np.shape(cell["validation"]) == (2, 3)
            best = np.argmin(cell["validation"], axis=1) + 1
            assert cell["best_epoch"] == best.tolist()
    assert (directory / "results.json").stat().st_size < 100_000
    for name in ("forecasts", "training", "validation", "walk_forward"):
        assert (directory / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_errors_in_the_record_are_those_of_its_forecasts(small_run):
    record, *_ = small_run
    truth = np.array(record["summary"]["truth"])
    np.testing.assert_array_equal(truth, CLOSES[80:])
    for cell in ("lstm", "elman"):
        for which in ("last", "best"):
            series = record["cells"][cell]
            misses = np.array(series[f"forecasts_{which}_epoch"]) - truth
            for measure, expected in {
                "mae": np.abs(misses).mean(axis=1),
                "rmse": np.sqrt((misses**2).mean(axis=1)),
                "mape": 100 * np.abs(misses / truth).mean(axis=1),
            }.items():
                found = series[f"{measure}_{which}_epoch"]
                np.testing.assert_allclose(found, expected, rtol=1e-4)
            summary = record["summary"]["arms"][cell][which]["mae"]
            np.testing.assert_allclose(
                summary["estimate"], np.abs(misses).mean(), rtol=1e-4
            )


def test_tuned_cells_have_the_rate_that_was_best_on_validation_days(small_run):
    record, *_ = small_run
    for cell, found in record["summary"]["tuning"].items():
        assert found["rate"] == found["rates"][int(np.argmin(found["values"]))]
        tuned = record["summary"]["arms"][f"{cell}_tuned"]
        assert tuned["learning_rate"] == found["rate"]
        plain = record["cells"][cell]["mae_last_epoch"]
        same = record["cells"][f"{cell}_tuned"]["mae_last_epoch"] == plain
        assert same == (found["rate"] == 1e-3)


def test_fold_is_scored_on_its_own_days(small_run):
    record, *_ = small_run
    (fold,) = record["summary"]["folds"]
    assert fold["days"]["test"] == ["2015-05-22", "2015-05-29"]
    expected = np.abs(np.diff(CLOSES))[-8:].mean()
    np.testing.assert_allclose(fold["baselines"]["persistence"]["mae"], expected)
    found = fold["arms"]["lstm_fold_1"]["over_persistence"]["estimate"]
    maes = record["cells"]["lstm_fold_1"]["mae_best_epoch"]
    np.testing.assert_allclose(found, np.mean(maes) / expected)


def test_run_that_was_stopped_goes_on_to_the_same_record(small_run):
    record, again, _, _, stopped = small_run
    assert "ELMAN_MATCHED: 15/15" not in stopped
    assert "LSTM_LOG_RETURN" not in stopped
    assert again["cells"] == record["cells"]
    for summary in (record["summary"], again["summary"]):
        for name in ("time", "total_seconds", "peak_memory_bytes"):
            summary.pop(name)
    assert again["summary"] == record["summary"]


def test_report_shows_dollars_beside_persistence(small_run):
    _, _, shown, directory, _ = small_run
    markdown = (directory / "summary.md").read_text()
    for text in (shown, markdown):
        said = " ".join(text.split())
        for words in (
            *("persistence", "drift", "linear autoregression", "MAPE, %"),
            *("LSTM, no dropout", "--paper"),
            *("provisionally (2 seeds of 10)", "Walk forward", "Time of an update"),
        ):
            assert words in said, words
    assert "](forecasts.png)" in markdown
    assert "](walk_forward.png)" in markdown


@pytest.mark.parametrize(
    "arguments",
    [
        "--cells lstm transformer",
        "--cells gru gru",
        "--num-epochs 0",
        "--num-seeds 0",
        "--seed-block 1",
        "--window-days 0",
        "--window-days 200",
        "--test-days 90",
        "--num-folds -1",
        "--num-folds 9 --fold-days 20",
        "--side-seeds -2",
        "--hidden-features 0",
        "--dropout 1",
        "--learning-rate nan",
        "--learning-rates 0.1 -1",
        "--batch-size 0",
        "--target price",
        "--scaling log",
        "--start-date yesterday",
        "--start-date 2021-01-01",
        "--paper --num-epochs 7",
        "--data-dir MISSING",
        "--data-dir FILE",
        "--output-dir FILE/below",
    ],
)
def test_bad_input_is_one_line_and_status_2_and_writes_nothing(
    arguments, tmp_path, capsys, monkeypatch
):
    def train(*_, **__):
        raise AssertionError("training began")

    monkeypatch.setattr("experiments.bitcoin.run.train_variants", train)
    file = tmp_path / "file"
    file.write_text("kept")
    data = write_prices(tmp_path / "daily.csv")
    arguments = arguments.replace("FILE", str(file)).replace("MISSING", str(data) + "x")
    arguments = arguments.split()
    for option, value in {
        "--output-dir": str(tmp_path / "out"),
        "--data-dir": str(data),
        "--start-date": str(FIRST_DAY),
        "--window-days": "5",
        "--test-days": "8",
        "--valid-days": "7",
        "--num-folds": "0",
    }.items():
        if option not in arguments:
            arguments += [option, value]
    assert main(arguments) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.count("\n") == 1
    assert errors.startswith("experiments.bitcoin: ")
    assert sorted(tmp_path.iterdir()) == [data, file]


def test_help_names_every_setting_and_explains_it(capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["--help"])
    assert exit_.value.code == 0
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for field in dataclasses.fields(Config):
        flag = "--" + field.name.replace("_", "-")
        explanation = text.split(f" {flag} ", 1)[1].split(" --", 1)[0]
        assert len(explanation.split("(default", 1)[0].split()) > 4, flag


def test_paper_is_the_published_setting():
    assert Config().num_epochs == DEFAULT_EPOCHS
    paper = Config(paper=True)
    assert paper.num_epochs == PAPER_EPOCHS == 50
    assert (paper.window_days, paper.batch_size, paper.hidden_features) == (
        *(60, 64),
        (50, 100),
    )
    assert (paper.dropout, paper.learning_rate, paper.scaling) == (0.2, 1e-3, "min_max")
