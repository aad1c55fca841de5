"""Cell variants: the small command on a small road, what is compared, and how."""

import json
import math

import jax
import numpy as np
import pytest
from scipy import stats

from experiments.cell_variants import report, run
from experiments.cell_variants.__main__ import main
from experiments.cell_variants.config import NUM_GATES, PAPER, Config
from experiments.cell_variants.problem import make_grounds
from experiments.cell_variants.report import Entry
from experiments.cells import count_cell_parameters, make_cell
from experiments.data import traffic
from experiments.tasks import draw_parts, loss_of, make_task, score_of
from tests.cases import assert_says

KEY = jax.random.key(8)
PNG = b"\x89PNG\r\n"
TOLERANCE = 1e-5
WINDOW = 4
SIZES = (
    f"--tasks traffic_flow --cells gru lstm --units-tasks --window-steps {WINDOW} "
    "--hidden-features 5 --batch-size 16 --num-updates 60 --validate-every 5 "
    "--learning-rates 0.0001 0.02 --tuning-seeds 1 --num-seeds 3 --seed-block 2"
)


def make_flow(num_steps, seed):
    rng = np.random.default_rng(seed)
    wave = 50 + 40 * np.sin(np.arange(num_steps) * 0.7)
    return np.round(wave + 3 * rng.standard_normal(num_steps))


def write_flow(path, flows, first_day):
    times = np.datetime64(first_day, "s") + np.arange(len(flows)) * np.timedelta64(
        5, "m"
    )
    rows = [
        f"{str(time).replace('T', ' ')},{flow:g},1,100"
        for time, flow in zip(times, flows, strict=True)
    ]
    header = "5 Minutes,Lane 1 Flow (Veh/5 Minutes),# Lane Points,% Observed"
    path.write_text("\n".join([header, *rows]) + "\n")


TRAIN, TEST = make_flow(400, 1), make_flow(90, 2)


@pytest.fixture(scope="module", autouse=True)
def few_passes():
    """Leave out most of XLA's passes, which only cost time on data this small."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    directory = tmp_path_factory.mktemp("road")
    write_flow(directory / "train.csv", TRAIN, "2016-01-04")
    write_flow(directory / "test.csv", TEST, "2016-02-01")
    return directory


@pytest.fixture(scope="module")
def finished(folder, tmp_path_factory):
    directory = tmp_path_factory.mktemp("variants") / "out"
    folders = ["--data-dir", str(folder), "--output-dir", str(directory)]
    assert main([*SIZES.split(), *folders]) == 0
    return directory


def test_command_tunes_trains_tests_and_reports(finished):
    record = json.loads((finished / "results.json").read_text())
    assert record["experiment"] == "cell_variants"
    assert list(record["cells"]) == ["traffic_flow_gru", "traffic_flow_lstm"]
    low, high = TRAIN[:380].min(), TRAIN[:380].max()
    persistence = np.square(np.diff(TEST[WINDOW - 1 :]) / (high - low)).mean()
    baselines = record["summary"]["baselines"]["traffic_flow"]
    np.testing.assert_allclose(baselines["persistence"], persistence, rtol=TOLERANCE)
    for one in record["summary"]["entries"]:
        series = record["cells"][f"traffic_flow_{one['cell']}"]
        assert series["seeds"] == [0, 1, 2]
        assert np.shape(series["loss"]) == np.shape(series["validation"]) == (3, 20)
        losses = np.array(series["loss"])
        assert (losses[:, -1] < 0.5 * losses[:, 0]).all()  # the wave is learnt
        expected = np.mean(series["test_loss"]) / persistence
        np.testing.assert_allclose(one["test"]["estimate"], expected, rtol=TOLERANCE)
        assert one["test"]["estimate"] < 1.0
        # Of 60 updates the last 6; a point of the record is the mean of three.
        fit = losses[:, -2:].mean() / persistence
        np.testing.assert_allclose(one["fit"]["estimate"], fit, rtol=1e-3)
        # One curve of 12 validations, each in a stretch of its own.
        curves = [
            [value for value in row if value is not None]
            for row in series["validation"]
        ]
        assert np.shape(curves) == (3, 12)
        second = np.diff(np.log(curves), n=2, axis=1)
        rough = np.abs(second).mean()
        np.testing.assert_allclose(one["roughness"]["estimate"], rough, rtol=1e-2)
        assert one["learning_rate"] == 0.02
    tuning = record["summary"]["tuning"]["traffic_flow_gru"]
    assert tuning["rates"] == [0.0001, 0.02]
    (pair,) = record["summary"]["tests"]
    assert (pair["first"], pair["second"]) == ("gru", "lstm")
    assert "provisionally (3 seeds of 10)" in pair["verdict"]
    assert (finished / "test_loss.png").read_bytes().startswith(PNG)
    text = (finished / "summary.md").read_text()
    assert "the GRU beside the LSTM" in text
    assert "for each gate more" in text


def test_training_sees_no_value_of_validation_or_test(folder):
    config = Config(
        tasks=("traffic_flow",), window_steps=WINDOW, batch_size=50, data_dir=folder
    )
    (ground,) = make_grounds(config, KEY)
    arm = ground.make_arm("gru", "parameters")
    low, high = TRAIN[:380].min(), TRAIN[:380].max()
    scaled = (TRAIN - low) / (high - low)
    rows = {
        tuple(np.float32(scaled[at - WINDOW : at + 1])) for at in range(WINDOW, 380)
    }
    seen, draw = set(), jax.jit(arm.problem.batch)
    for step in range(40):
        inputs, targets = draw(KEY, step)
        assert inputs.shape == (WINDOW, 50, 1)
        whole = np.concatenate([np.asarray(inputs)[..., 0], np.asarray(targets)[None]])
        seen |= {tuple(column) for column in whole.T}
    assert seen <= rows
    assert len(seen) > 0.9 * len(rows)
    params = jax.jit(arm.problem.init)(KEY, {})
    valid = traffic_windows(scaled, 380, 400)
    expected = mean_error(arm.network, params, *valid)
    np.testing.assert_allclose(arm.problem.validate(params), expected, rtol=TOLERANCE)
    test = traffic_windows((TEST - low) / (high - low), WINDOW, 90)
    expected = mean_error(arm.network, params, *test)
    np.testing.assert_allclose(ground.test(arm)(params), expected, rtol=TOLERANCE)


def traffic_windows(series, start, stop):
    inputs = np.stack([series[at - WINDOW : at] for at in range(start, stop)], axis=1)
    return inputs[..., None].astype(np.float32), series[start:stop]


def mean_error(network, params, inputs, targets):
    _, forecasts = jax.jit(network.apply)(params, inputs)
    return np.square(np.asarray(forecasts, np.float64)[:, 0] - targets).mean()


def test_synthetic_task_is_validated_by_its_loss_and_tested_on_other_draws():
    config = Config(tasks=("adding",), num_steps=9, num_validation=20, num_test=30)
    (ground,) = make_grounds(config, KEY)
    assert ground.baseline == pytest.approx((2 - 1 / 5) / 12)
    arm = ground.make_arm("mgu", "units")
    params = jax.jit(arm.problem.init)(KEY, {})
    task = make_task("adding")
    valid_key, test_key = jax.random.split(jax.random.fold_in(KEY, 0))
    found = []
    for key, count in ((valid_key, 20), (test_key, 30)):
        (part,) = draw_parts(task, key, [9], count)
        _, logits = jax.jit(arm.network.apply)(params, part.inputs)
        found.append(loss_of(task, logits, part))
        assert score_of(task, logits, part).wrong != found[-1]
    own = arm.problem.dataset(KEY, {"learning_rate": 0.1})
    validation = jax.jit(arm.problem.validate)(params, own)
    np.testing.assert_allclose(validation, found[0], rtol=TOLERANCE)
    test = jax.jit(ground.test(arm))(params)
    np.testing.assert_allclose(test, found[1], rtol=TOLERANCE)
    assert abs(found[0] - found[1]) > 1e-4


def test_arms_of_a_task_have_equal_parameters_or_equal_units(monkeypatch):
    monkeypatch.setattr("experiments.tasks.draw_parts", lambda *_: [None])
    config = Config(tasks=("adding", "selective_recall"))
    adding, recall = make_grounds(config, KEY)
    names = {arm.name: matchings for arm, _, matchings in run._arms_of(config, adding)}
    assert len(names) == 8
    assert set(map(tuple, names.values())) == {("parameters",)}
    found = run._arms_of(config, recall)
    assert len(found) == 15
    assert [matchings for _, cell, matchings in found if cell == "lstm"] == [
        ["parameters", "units"]
    ]
    wanted = count_cell_parameters(make_cell("lstm", 32), 6)
    for _, cell, matchings in found:
        for matching in matchings:
            units = config.units(cell, matching, 6)
            counted = count_cell_parameters(make_cell(cell, units), 6)
            if matching == "units":
                assert units == 32
            else:
                assert abs(counted / wanted - 1) < 0.03


def test_gates_are_those_of_the_cells():
    for cell, count in NUM_GATES.items():
        params = jax.eval_shape(
            lambda key, name=cell: make_cell(name, 5).init(key, 3), KEY
        )
        # One block of the kernel is the candidate's.
        assert params.kernel.shape == (3, (count + 1) * 5), cell


@pytest.mark.parametrize(
    "arguments",
    [
        "--tasks juggling",
        "--cells gru mgu",
        "--cells lstm lstm",
        "--num-updates 20",
        "--num-steps 1",
        "--valid-share 0",
        "--valid-share 0.0001 --data-dir FOLDER",
        "--batch-size 500 --data-dir FOLDER",
        "--window-steps 380 --data-dir FOLDER",
        "--data-dir FOLDER/none",
        "--paper --num-steps 50",
    ],
)
def test_bad_input_is_one_line_and_status_2_and_writes_nothing(
    arguments, folder, tmp_path, capsys
):
    arguments = arguments.replace("FOLDER", str(folder)).split()
    assert main([*arguments, "--output-dir", str(tmp_path / "out")]) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.count("\n") == 1
    assert errors.startswith("experiments.cell_variants: ")
    assert list(tmp_path.iterdir()) == []


def test_paper_sets_its_sizes():
    config = Config(paper=True)
    assert {name: getattr(config, name) for name in PAPER} == PAPER
    assert config.matchings("adding") == ("parameters", "units")
    with pytest.raises(ValueError) as error:
        Config(cells=("gru",))
    assert_says(error, "cells", "lstm among them")


def test_ranks_are_those_of_scipy_with_lost_seeds_last():
    values = np.array([[0.3, 1.0], [0.1, np.nan], [0.3, 0.5], [0.2, 0.7]])
    expected = stats.rankdata(np.nan_to_num(values, nan=9.0), axis=0)
    np.testing.assert_array_equal(report.ranks(values), expected)


def test_roughness_is_that_of_the_validations_alone():
    curve = np.full((2, 9), np.nan)
    curve[:, 2::3] = [[1.0, math.e, 1.0], [4.0, 2.0, 1.0]]
    np.testing.assert_allclose(report.curve_roughness(curve), [2.0, 0.0], atol=1e-12)
    curve[0, 8] = np.nan
    assert np.isnan(report.curve_roughness(curve)[0])


def make_entry(task, cell, test, rough, *, matching="parameters", fit=0.5, lost=()):
    test = np.asarray(test, float)
    diverged = np.isin(np.arange(test.size), lost)
    return Entry(
        *(task, cell, matching, 4, 50, 0.01),
        *(np.where(diverged, np.nan, test), np.full(test.size, fit)),
        *(np.where(diverged, np.nan, rough), diverged),
    )


def test_summary_compares_pairs_and_the_roughness_of_each_gate():
    config = Config(cells=("elman", "mgu", "gru", "lstm"), units_tasks=())
    noise = 0.01 * np.random.default_rng(0).standard_normal(10)
    rough = {"elman": 9.0, "mgu": 0.1, "gru": 0.2, "lstm": 0.4}  # doubles a gate
    tests = {"elman": 1.0, "mgu": 0.6, "gru": 0.3, "lstm": 0.4}
    entries = [
        make_entry(task, cell, tests[cell] + scale * noise, rough[cell] * (1 + noise))
        for scale, task in enumerate(config.tasks)
        for cell in config.cells
    ]
    entries[-1] = make_entry(
        "traffic_flow", "lstm", tests["lstm"] + 2 * noise, 0.4 * (1 + noise), lost=[3]
    )
    summary = report.summarise(config, entries, KEY)
    slope = summary["roughness_per_gate"]
    np.testing.assert_allclose(slope["slope"].estimate, math.log(2), rtol=1e-3)
    assert slope["slope"].num_seeds == 9
    assert slope["verdict"] == "higher"
    found = {(one.measure, one.first): one for one in summary["tests"]}
    traffic_pair = found["traffic flow, same parameters", "gru"]
    assert (traffic_pair.second, traffic_pair.left_out) == ("lstm", 1)
    assert traffic_pair.verdict.startswith("lower, provisionally (9 seeds")
    np.testing.assert_allclose(traffic_pair.difference.mean.estimate, -0.1)
    assert found["adding, same parameters", "mgu"].second == "gru"
    together = {(one.measure, one.first): one for one in summary["together"]}
    assert together["log roughness", "gru"].verdict.startswith("lower")
    assert together["training loss at the end", "gru"].verdict == "equivalent"
    ranks = summary["ranks"]["parameters"]
    np.testing.assert_allclose(ranks["gru"].estimate, 1.0)
    # Third of four where it diverged as well: the last, and 2 elsewhere.
    np.testing.assert_allclose(ranks["lstm"].estimate, 2 + 2 / 30)
    described = summary["entries"][-1]
    assert (described["diverged_seeds"], described["test"].num_seeds) == (1, 9)


def test_published_window_is_an_hour():
    assert Config().window_steps == traffic.WINDOW_STEPS
