"""The experiment on traffic flow, on a small road whose days are alike.

Its flow is a wave of a day and noise that the next step partly keeps.
"""

import dataclasses
import json

import jax
import numpy as np
import pytest

from experiments.command import UsageError
from experiments.data import traffic
from experiments.data.reports import Report
from experiments.data.traffic import Flow
from experiments.data.windows import sliding_windows
from experiments.traffic_flow import forecasts, report
from experiments.traffic_flow.__main__ import main
from experiments.traffic_flow.config import PUBLISHED, Config
from experiments.traffic_flow.forecasts import (
    arima_forecasts,
    baseline_forecasts,
    daily_profile,
    errors_by_day,
    linear_valid_mse,
    measure_errors,
    same_time_before,
)
from experiments.traffic_flow.problem import (
    VARIANTS,
    Task,
    count_arm_parameters,
    layer_units,
    load_task,
    make_arm,
    optimizer_of_rate,
    read_windows,
)

PER_DAY = 48  # steps of half an hour
WINDOW = 3
SIZES = f"--window-steps {WINDOW} --hidden-features 4 --batch-size 64 --seed-block 2"
SMALL = Config(
    window_steps=WINDOW, hidden_features=4, batch_size=64, num_epochs=2, num_seeds=2
)


def make_flow(num_days, first_day, seed):
    rng = np.random.default_rng(seed)
    steps = np.arange(num_days * PER_DAY)
    times = np.datetime64(first_day, "s") + steps * np.timedelta64(30, "m")
    noise = np.zeros(steps.size)
    for step in range(1, steps.size):
        noise[step] = 0.7 * noise[step - 1] + 6 * rng.standard_normal()
    wave = 60 - 50 * np.cos(2 * np.pi * steps / PER_DAY)
    flows = np.maximum(0.0, np.round(wave + noise))
    return Flow(times, flows, np.zeros(steps.size, int), 30.0, None)


def write_flow(path, flow):
    rows = [
        f"{str(time).replace('T', ' ')},{value:g},1,100"
        for time, value in zip(flow.times, flow.flows, strict=True)
    ]
    header = "5 Minutes,Lane 1 Flow (Veh/5 Minutes),# Lane Points,% Observed"
    path.write_text("\n".join([header, *rows]) + "\n")


TRAIN, TEST = make_flow(8, "2016-01-04", seed=1), make_flow(3, "2016-02-01", seed=2)
TASK = Task(TRAIN, TEST, traffic.make_dataset(TRAIN, TEST, window=3, valid_share=0.15))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    directory = tmp_path_factory.mktemp("road")
    write_flow(directory / "train.csv", TRAIN)
    write_flow(directory / "test.csv", TEST)
    return directory


@pytest.fixture(scope="module", autouse=True)
def few_orders():
    """Fit two orders of ARIMA and not eighteen."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forecasts, "ARIMA_ORDERS", ((1, 0, 0), (1, 1, 1)))
        yield


@pytest.fixture
def quick_compilation():
    """Leave out most of XLA's passes, which only cost time on data this small."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def command(folder, directory, arguments):
    """Run the command in its small form; return the exit status."""
    given = f"{SIZES} --num-seeds 3 --tuning-seeds 1 --learning-rates 1e-4 1e-2"
    where = ["--data-dir", str(folder), "--output-dir", str(directory)]
    return main([*given.split(), *arguments.split(), *where])


@pytest.fixture(scope="module")
def small_run(folder):
    """The record of a small run by the command, and where it wrote."""
    directory = folder / "out"
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        status = command(
            folder, directory, "--num-epochs 6 --arms gru elman --save-models"
        )
    finally:
        jax.config.update("jax_disable_most_optimizations", False)
    assert status == 0
    return json.loads((directory / "results.json").read_text()), directory


def test_record_keeps_every_seed_and_what_it_reached(small_run):
    record, directory = small_run
    assert record["experiment"] == "traffic_flow"
    for arm in ("gru", "elman"):
        series = record["cells"][arm]
        assert series["seeds"] == [0, 1, 2]
        assert series["epochs"] == [1, 2, 3, 4, 5, 6]
        for curve in ("training", "validation"):
            values = np.array(series[curve])
            assert values.shape == (3, 6)
            assert (values[:, -1] < values[:, 0]).all()  # it learns
            assert np.unique(values).size == values.size  # the seeds differ
        for kind in ("mae", "rmse", "mape", "r2"):
            assert np.isfinite(np.array(series[f"test_{kind}"], float)).all()
        best = np.argmin(series["validation"], axis=1) + 1
        np.testing.assert_array_equal(series["best_epoch"], best)
        # The rate is that of the lowest validation, of which the summary has both.
        tuning = record["summary"]["tuning"][arm]
        assert tuning["rate"] == tuning["rates"][np.argmin(tuning["values"])] == 0.01
        assert record["summary"]["arms"][arm]["learning_rate"] == 0.01
    assert set(record["summary"]["baselines"]) == {
        *("persistence", "day before", "daily profile", "linear", "linear, profile"),
        "arima",
    }
    pictures = ("a_day.png", "test_errors.png", "validation.png")
    for name in pictures:
        assert (directory / name).read_bytes().startswith(b"\x89PNG\r\n")
    assert len(list((directory / "models").iterdir())) == 6


def test_test_errors_are_those_of_the_saved_models(small_run):
    from gated_rnn.conversion.files import load_model

    record, directory = small_run
    model = load_model(directory / "models" / "gru_seed_1.safetensors")
    network, params = model[:2]
    inputs = TASK.data.test.inputs.T[..., None].astype(np.float32)
    _, scaled = network.apply(params, inputs)
    told = TASK.data.scaler.inverse(np.asarray(scaled)[:, 0])
    mae = np.abs(told - TEST.flows[WINDOW:]).mean()
    np.testing.assert_allclose(record["cells"]["gru"]["test_mae"][1], mae, rtol=1e-4)


@pytest.mark.usefixtures("quick_compilation")
def test_run_that_goes_on_trains_nothing_again_and_ends_in_the_same_record(
    small_run, folder
):
    record, directory = small_run
    status = command(folder, directory, "--num-epochs 6 --arms elman --resume")
    assert status == 0
    again = json.loads((directory / "results.json").read_text())
    assert again["cells"] == {"elman": record["cells"]["elman"]}
    assert again["summary"]["arms"] == {"elman": record["summary"]["arms"]["elman"]}


@pytest.mark.usefixtures("quick_compilation")
def test_more_epochs_of_a_decaying_rate_are_another_run(small_run, folder, capsys):
    _, directory = small_run
    assert command(folder, directory, "--num-epochs 7 --arms elman --resume") == 2
    assert capsys.readouterr().err.count("\n") == 1
    longer = dataclasses.replace(SMALL, num_epochs=9)
    assert longer.identity != SMALL.identity
    steady = dataclasses.replace(SMALL, decay="none")
    assert steady.identity == dataclasses.replace(steady, num_epochs=9).identity


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("--num-epochs 0", "num_epochs"),
        ("--arms", "arms"),
        ("--arms gru gru", "arms"),
        ("--arms transformer", "transformer"),
        ("--valid-share 0", "valid_share"),
        ("--valid-share 1", "valid_share"),
        ("--dropout 1", "dropout"),
        ("--learning-rate nan", "learning_rate"),
        ("--paper --num-epochs 7", "num_epochs"),
        ("--paper --optimizer adam", "optimizer"),
        ("--window-steps 400", "train"),
        ("--batch-size 400", "training windows"),
        ("--valid-share 0.001", "validation windows"),
        ("--data-dir MISSING", "MISSING"),
        ("--data-dir FILE", "is one file"),
        ("--output-dir FILE", "output directory"),
    ],
)
def test_bad_input_is_one_line_and_status_2_and_writes_nothing(
    arguments, says, folder, tmp_path, capsys
):
    file = tmp_path / "FILE"
    file.write_text("kept")
    given = [
        str(tmp_path / word) if word in ("FILE", "MISSING") else word
        for word in arguments.split()
    ]
    for name, default in (("--data-dir", folder), ("--output-dir", tmp_path / "out")):
        given += [] if name in given else [name, str(default)]
    assert main(given) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.count("\n") == 1
    assert says in errors
    assert list(tmp_path.iterdir()) == [file]


def test_paper_is_the_published_protocol():
    config = Config(paper=True)
    for name, value in PUBLISHED.items():
        assert getattr(config, name) == value
    assert (config.num_epochs, config.optimizer, config.batch_size) == (
        *(600, "rmsprop", 256),
    )
    gru = make_arm(dataclasses.replace(config, batch_size=64), TASK, config.arms[1])
    layer = gru.network.layers[0].layers[0].layers[0].cell
    assert not layer.reset_after
    # Keras 2's hard sigmoid ends at 2.5.
    assert float(layer.gate_activation(np.float32(2.5))) == 1.0


def test_parameters_are_those_published():
    # Keras 2.1.3: one bias in the GRU, which resets before its matmul.
    assert count_arm_parameters(Config(), "lstm") == 49_985
    assert count_arm_parameters(Config(), "gru_reset_before") == 37_505


def test_matched_layers_have_the_parameters_of_the_lstm():
    def count(units, inputs):  # of a GRU, reset after, two biases of the candidate
        return 3 * units * (inputs + units + 1) + units

    below, above = layer_units(Config(), VARIANTS["gru_matched"])
    assert abs(count(below, 1) - 4 * 64 * 66) <= count(below, 1) - count(below - 1, 1)
    assert abs(count(above, below) - 4 * 64 * 129) <= 3 * (below + 2 * above)


def test_an_epoch_goes_once_through_the_training_windows_and_no_others():
    arm = make_arm(SMALL, TASK, "gru")
    orders = arm.problem.dataset(jax.random.key(3), None)
    num_windows = len(TASK.data.train.targets)
    assert orders.shape == (2, num_windows // 64, 64)
    rows = np.asarray(orders).reshape(2, -1)
    assert all(np.unique(epoch).size == epoch.size for epoch in rows)
    assert rows.min() >= 0
    assert rows.max() < num_windows
    assert (rows[0] != rows[1]).any()
    step = orders.shape[1] + 1  # the second batch of the second epoch
    inputs, targets = arm.problem.batch(jax.random.key(9), step, orders)
    picked = np.asarray(orders)[1, 1]
    expected = TASK.data.train.inputs[picked].T[..., None]
    np.testing.assert_allclose(inputs, expected, rtol=1e-6)
    np.testing.assert_allclose(targets, TASK.data.train.targets[picked], rtol=1e-6)


def test_dropout_drops_the_last_hidden_alone_and_not_in_validation():
    arm = make_arm(dataclasses.replace(SMALL, dropout=0.5), TASK, "lstm")
    params = arm.problem.init(jax.random.key(0), None)
    inputs = TASK.data.valid.inputs.T[..., None].astype(np.float32)
    _, scaled = arm.network.apply(params, inputs)
    assert scaled.shape == (inputs.shape[1], 1)
    loss = np.square(np.asarray(scaled)[:, 0] - TASK.data.valid.targets).mean()
    np.testing.assert_allclose(arm.problem.validate(params, None), loss, rtol=1e-5)
    # Without the readout's kernel, dropout has nothing to act on.
    (layers, dense), none = params
    blind = ((layers, dense._replace(kernel=0 * dense.kernel)), none)
    outputs = [
        arm.network.apply(given, inputs, key=jax.random.key(key))[1]
        for given in (blind, params)
        for key in (1, 2)
    ]
    np.testing.assert_array_equal(outputs[0], outputs[1])
    assert (outputs[2] != outputs[3]).any()


def test_time_of_day_is_that_of_each_step_in_the_window():
    inputs = read_windows(TEST, TASK.data.test, VARIANTS["gru_time_of_day"])
    assert inputs.shape == (WINDOW, TEST.flows.size - WINDOW, 3)
    # The first target stands at step 3, an hour and a half after midnight.
    for step in range(WINDOW):
        angle = 2 * np.pi * step / PER_DAY
        np.testing.assert_allclose(
            inputs[step, 0, 1:], [np.sin(angle), np.cos(angle)], atol=1e-6
        )
    np.testing.assert_allclose(inputs[..., 0].T, TASK.data.test.inputs, rtol=1e-6)


@pytest.mark.parametrize("decay", ["none", "cosine"])
def test_rmsprop_is_that_of_keras(decay):
    config = dataclasses.replace(SMALL, optimizer="rmsprop", decay=decay)
    optimizer = optimizer_of_rate(config, 20)(0.02)
    params, square = np.array([0.5, -1.0]), np.zeros(2)
    state = optimizer.init(params)
    # Two updates of twenty to rise, eighteen to fall.
    falling = 0.5 * (1 + np.cos(np.pi * np.arange(2) / 18))
    shares = [0.0, 0.5, *falling] if decay == "cosine" else np.ones(4)
    every = np.array([[1e-3, 2.0], [0.0, -1.0], [4.0, 1e-8], [1.0, 3.0]])
    for share, grads in zip(shares, every, strict=True):
        square = 0.9 * square + 0.1 * grads**2
        expected = -0.02 * share * grads / (np.sqrt(square) + 1e-7)
        updates, state = optimizer.update(np.float32(grads), state, params)
        np.testing.assert_allclose(updates, expected, rtol=1e-4)


def test_errors_are_those_of_the_formulas():
    truth = np.array([10.0, 0.0, 20.0, 30.0])
    told = np.array([[12.0, 3.0, 20.0, 27.0], [10.0, 0.0, 20.0, np.nan]])
    errors = measure_errors(told, truth)
    assert errors.mae[0] == 2.0
    assert errors.rmse[0] == np.sqrt(22 / 4)
    np.testing.assert_allclose(errors.mape[0], 100 * (0.2 + 0.1) / 3)
    np.testing.assert_allclose(errors.r2[0], 1 - 22 / 500)
    assert np.isnan(errors.mae[1])


def test_errors_by_day_are_means_of_their_own_steps():
    times = np.array(["2016-03-04T23:50", "2016-03-04T23:55", "2016-03-07T00:00"])
    told = np.array([[1.0, 2.0, 5.0], [0.0, 0.0, 0.0]])
    by_day = errors_by_day(told, np.zeros(3), times.astype("datetime64[s]"))
    np.testing.assert_array_equal(by_day, [[1.5, 5.0], [0.0, 0.0]])


def test_baselines_are_what_they_say():
    told = baseline_forecasts(TASK)
    truth = TEST.flows[WINDOW:]
    assert {name: values.shape for name, values in told.items()} == dict.fromkeys(
        told, truth.shape
    )
    np.testing.assert_array_equal(told["persistence"], TEST.flows[WINDOW - 1 : -1])
    # The first day's is the last of the training, weeks before.
    day = TRAIN.flows[-PER_DAY + WINDOW :], TEST.flows[:-PER_DAY]
    np.testing.assert_array_equal(told["day before"], np.concatenate(day))
    profile = TRAIN.flows.reshape(-1, PER_DAY).mean(axis=0)
    expected = np.tile(profile, 3)[WINDOW:]
    np.testing.assert_allclose(told["daily profile"], expected)
    for name, shift in (("linear", 0 * profile), ("linear, profile", profile)):
        # By the normal equations, of the training flow, in deviations from their means.
        series, later = (
            flow.flows - np.tile(shift, flow.flows.size // PER_DAY)
            for flow in (TRAIN, TEST)
        )
        x, y = sliding_windows(series, WINDOW)[:2]
        x_mean, y_mean = x.mean(axis=0), y.mean()
        weights = np.linalg.solve(
            (x - x_mean).T @ (x - x_mean), (x - x_mean).T @ (y - y_mean)
        )
        asked = sliding_windows(later, WINDOW).inputs
        wanted = y_mean + (asked - x_mean) @ weights
        np.testing.assert_allclose(
            told[name], wanted + np.tile(shift, 3)[WINDOW:], rtol=1e-8
        )
    errors = {name: measure_errors(one, truth).mae for name, one in told.items()}
    assert errors["linear, profile"] < errors["linear"] < errors["persistence"]


def test_profile_fills_times_of_day_that_are_not_there():
    times = np.array(["2016-01-04T00:00", "2016-01-04T12:00", "2016-01-05T12:00"])
    flow = Flow(times.astype("datetime64[s]"), np.array([4.0, 10, 14]), None, 30, None)
    asked = np.array(["2016-02-01T12:00", "2016-02-01T18:00"], "datetime64[s]")
    np.testing.assert_allclose(daily_profile(flow, asked), [12.0, 8.0])
    later = Flow(asked, np.array([1.0, 2.0]), None, 30, None)
    np.testing.assert_allclose(same_time_before(flow, later), [14.0, 8.0])


def test_linear_target_is_fitted_on_the_training_part_alone():
    train, valid = TASK.data.train, TASK.data.valid
    x = np.column_stack([train.inputs, np.ones(len(train.targets))])
    weights = np.linalg.solve(x.T @ x, x.T @ train.targets)
    told = valid.inputs @ weights[:-1] + weights[-1]
    mse = np.square(told - valid.targets).mean()
    np.testing.assert_allclose(linear_valid_mse(TASK), mse, rtol=1e-8)


def test_arima_forecasts_one_step_ahead_with_parameters_of_the_training():
    arima = arima_forecasts(TASK, [(1, 0, 0)])
    assert arima.order == (1, 0, 0)
    # Of a first-order autoregression: mean + slope (latest - mean), to any step.
    latest = TEST.flows[WINDOW - 1 : -1]
    slope, offset = np.polyfit(latest, arima.forecasts, 1)
    np.testing.assert_allclose(arima.forecasts, offset + slope * latest, rtol=1e-6)
    fitted = np.polyfit(TRAIN.flows[:-1], TRAIN.flows[1:], 1)
    np.testing.assert_allclose(slope, fitted[0], rtol=0.02)
    middle = TRAIN.flows.mean()
    told = offset + slope * middle
    np.testing.assert_allclose(told, np.polyval(fitted, middle), rtol=0.01)
    # What comes later in the test cannot be seen.
    changed = TEST.flows.copy()
    changed[100:] += 30
    later = TASK._replace(test=TEST._replace(flows=changed))
    again = arima_forecasts(later, [(1, 0, 0)]).forecasts
    np.testing.assert_allclose(again[: 101 - WINDOW], arima.forecasts[: 101 - WINDOW])
    assert (again[101 - WINDOW :] != arima.forecasts[101 - WINDOW :]).all()


def test_arima_takes_the_order_that_validates_best_and_the_test_has_no_say():
    orders = [(1, 0, 0), (2, 0, 1), (1, 1, 0)]
    arima = arima_forecasts(TASK, orders)
    assert str(arima.order) == min(arima.valid_mse, key=arima.valid_mse.get)
    shuffled = TEST._replace(flows=TEST.flows[::-1].copy())
    assert arima_forecasts(TASK._replace(test=shuffled), orders).order == arima.order


def test_test_values_reach_neither_arms_nor_target():
    changed = TEST._replace(flows=TEST.flows + 40)
    other = Task(
        TRAIN, changed, traffic.make_dataset(TRAIN, changed, window=3, valid_share=0.15)
    )
    assert linear_valid_mse(other) == linear_valid_mse(TASK)
    given = [make_arm(SMALL, task, "gru").problem for task in (TASK, other)]
    for part in ("batch", "validate"):
        jax.tree.map(
            np.testing.assert_array_equal, *(getattr(one, part).args for one in given)
        )


def test_epochs_to_the_target_count_from_one():
    curves = np.array([[5.0, 3.0, 1.0], [2.0, 9.0, 9.0], [5.0, 5.0, np.nan]])
    np.testing.assert_array_equal(report.epochs_to(curves, 3.0), [2, 1, np.inf])


def measured(maes, validation):
    errors = {
        name: forecasts.Errors(mae, mae + 1, 2 * mae, 1 / mae)
        for name, mae in maes.items()
    }
    single = forecasts.Errors(*np.array([7.5, 10.0, 20.0, 0.9]))
    shares = np.linspace(0.9, 1.1, 12)
    days = {name: np.outer(mae, shares) for name, mae in maes.items()}
    return report.Measured(
        errors=errors,
        daily=days,
        validation=validation,
        rates=dict.fromkeys(maes, 0.01),
        parameters=dict.fromkeys(maes, 9),
        tunings={},
        baselines={"linear": single, "arima": single._replace(mae=np.float64(7.3))},
        daily_baselines={"linear": 7.5 * shares},
        linear_valid=2.0,
        arima_valid={},
        labels={name: name.upper() for name in (*maes, "linear", "arima")},
        reports=(),
    )


def test_report_draws_verdicts_from_seeds_days_and_epochs():
    noise = 0.01 * np.random.default_rng(5).standard_normal((2, 12))
    maes = {"lstm": 7.25 + noise[0], "gru": 7.23 + noise[1]}
    maes["gru"][4] = np.nan
    curves = {
        "lstm": np.tile([9.0, 8, 7, 6, 5, 2], (12, 1)),
        "gru": np.tile([9.0, 1, 1, 1, 1, 1], (12, 1)),
    }
    curves["gru"][7] = 3.0  # never there
    values = measured(maes, curves)
    summary = report.summarise(values, jax.random.key(0))
    (between,) = summary["comparisons"]
    assert (between.first, between.second) == ("gru", "lstm")
    assert (between.verdict, between.left_out) == ("equivalent", 1)
    verdicts = {
        (one.first, one.second): one.verdict for one in summary["against_baselines"]
    }
    assert verdicts == {
        **{("lstm", "linear"): "lower", ("lstm", "arima"): "equivalent"},
        **{("gru", "linear"): "lower", ("gru", "arima"): "inconclusive"},
    }
    assert [one.verdict for one in summary["over_days"]] == [
        *("equivalent", "lower", "lower"),
    ]
    (epochs,) = summary["epochs_to_linear"]
    assert (epochs.verdict, epochs.left_out) == ("lower", 1)
    assert epochs.difference.mean.estimate == -4
    assert summary["arms"]["gru"]["diverged_seeds"].tolist() == [4]
    notes = " ".join(report.report_notes(summary, values))
    assert "GRU diverged on seeds 4" in notes
    assert "GRU: of the seeds 1 never reached" in notes
    tables = report.report_tables(summary, values)
    assert tables[0].rows[0][0] == "LSTM"
    assert "days" in tables[2].columns
    assert summary["arms"]["lstm"]["published"] is None  # another road


def test_published_errors_stand_beside_those_on_the_published_files():
    files = (traffic.PUBLISHED_TRAIN, traffic.PUBLISHED_TEST)
    reports = tuple(
        Report(file.name, file.sha256, "rows", 9, 9, (), ()) for file in files
    )
    maes = {"lstm": np.array([7.1, 7.3])}
    values = measured(maes, {"lstm": np.ones((2, 3))})._replace(reports=reports)
    summary = report.summarise(values, jax.random.key(0))
    assert summary["arms"]["lstm"]["published"].mae == 7.21
    assert report.report_tables(summary, values)[0].rows[0][5] == "7.21"


def test_too_little_data_is_refused_by_name(folder):
    config = dataclasses.replace(SMALL, data_dir=folder, batch_size=5000)
    with pytest.raises(UsageError, match="training windows: expected at least 5000"):
        load_task(config)
