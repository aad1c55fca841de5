import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmarks.cases import Sizes
from experiments.benchmarks.measure import Samples
from experiments.cost import report
from experiments.cost import run as run_module
from experiments.cost.__main__ import main
from experiments.cost.config import PAPER_SIZES, TEXT_SIZES, Config
from experiments.cost.programs import (
    ARMS,
    MODES,
    Program,
    build,
    count,
    make_layer,
    units_of,
)
from gated_rnn.training import Stopped

KEY = jax.random.key(2)
PNG = b"\x89PNG\r\n"
SIZES = Sizes(3, 7, 2, 5)
SMALL = (
    *("--texts", "--centre", "3", "7", "2", "5", "--batch-sizes", "3", "--lengths"),
    *("--units", "6", "--num-rounds", "5", "--min-sample-ms", "0.1"),
    *("--point-seconds", "0.01", "--stream-steps", "4"),
)


@pytest.fixture(scope="module", autouse=True)
def _compile_quickly():
    """Leave out most of XLA's passes: on data this small they only cost time."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def small_run(tmp_path_factory):
    """The record of a small run that was stopped after a size, and its folder."""
    directory = tmp_path_factory.mktemp("small") / "out"
    measure = run_module.measure

    def measure_one(config, point, generator):
        if point.name != "B 3":
            raise Stopped(1)
        return measure(config, point, generator)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(run_module, "measure", measure_one)
        assert main([*SMALL, "--output-dir", str(directory)]) == 130
    assert not (directory / "results.json").exists()
    first = json.loads((directory / "points.json").read_text())["points"]["B 3"]
    assert main([*SMALL, "--output-dir", str(directory), "--resume"]) == 0
    return json.loads((directory / "results.json").read_text()), first, directory


def test_record_has_every_round_of_every_size_arm_and_mode(small_run):
    record, _, directory = small_run
    assert (record["schema"], record["experiment"]) == (1, "cost")
    assert [point["name"] for point in record["summary"]["points"]] == ["B 3", "H 6"]
    names = [f"{point}, {mode}" for point in ("B 3", "H 6") for mode in MODES]
    for arm in ("lstm", "gru"):
        assert list(record["cells"][arm]) == names
        rounds = np.array(list(record["cells"][arm].values()))
        assert rounds.shape == (6, 5)
        assert (rounds > 0).all()
    assert (directory / "gru_over_lstm.png").read_bytes().startswith(PNG)
    markdown = (directory / "summary.md").read_text()
    assert "B 3 (B 3 T 7 F 2 H 5)" in markdown
    assert "3.84 %" in markdown


def test_seconds_are_those_of_one_step_of_a_stream():
    program = Program(lambda: None, 4, 0.5, None)
    described = run_module._describe(program, Samples([8.0, 2.0], 3))
    assert described["seconds"] == [2.0, 0.5]
    assert described["calls"] == 3


def test_run_that_was_stopped_keeps_what_it_measured(small_run):
    record, first, _ = small_run
    for arm, facts in first["arms"].items():
        for mode in MODES:
            kept = record["cells"][arm][f"B 3, {mode}"]
            assert kept == facts[mode]["seconds"]


def test_summary_divides_by_the_lstm_round_by_round(small_run):
    record, _, _ = small_run
    ratios = record["summary"]["ratios"]
    assert len(ratios) == 6
    for one in ratios:
        name = f"{one['point']}, {one['mode']}"
        gru, lstm = (np.array(record["cells"][arm][name]) for arm in ("gru", "lstm"))
        expected = math.exp(np.log(gru / lstm).mean())
        np.testing.assert_allclose(one["ratio"]["estimate"], expected, rtol=1e-9)
        assert one["ratio"]["low"] < expected < one["ratio"]["high"]
        assert one["verdict"].endswith("provisionally (5 rounds of 10)")


@pytest.mark.parametrize("content", ["{", "[]", '{"identity": {}, "points": {}}'])
def test_what_was_measured_with_other_settings_is_refused(content, tmp_path, capsys):
    (tmp_path / "points.json").write_text(content)
    assert main([*SMALL, "--output-dir", str(tmp_path), "--resume"]) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.count("\n") == 1
    assert "without --resume" in errors
    assert [path.name for path in tmp_path.iterdir()] == ["points.json"]


@pytest.mark.parametrize(
    "arguments",
    [
        "--texts novel",
        "--texts long long",
        "--centre 1 2 3",
        "--centre 1 2 0 4",
        "--batch-sizes 0",
        "--lengths 4 4",
        "--units -1",
        "--texts --batch-sizes --lengths --units",
        "--num-rounds 0",
        "--stream-steps 0",
        "--min-sample-ms 0",
        "--point-seconds nan",
        "--output-dir FILE",
    ],
)
def test_bad_input_is_one_line_and_status_2_and_writes_nothing(
    arguments, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(run_module, "measure", None)
    file = tmp_path / "file"
    file.write_text("kept")
    arguments = arguments.replace("FILE", str(file)).split()
    assert main(["--output-dir", str(tmp_path / "out"), *arguments]) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.count("\n") == 1
    assert errors.startswith("experiments.cost: ")
    assert list(tmp_path.iterdir()) == [file]


def test_points_are_the_texts_with_all_arms_and_the_grid_with_two():
    points = {point.name: point for point in Config().points}
    for name, (sizes, _) in TEXT_SIZES.items():
        assert points[name].sizes == sizes
        assert points[name].arms == tuple(ARMS)
    assert points["B 8"].sizes == Sizes(8, 64, 64, 64)
    assert points["T 256"].sizes == Sizes(32, 256, 64, 64)
    assert points["H 16"].sizes == Sizes(32, 64, 64, 16)
    assert points["H 16"].arms == ("lstm", "gru")
    paper = {point.name: point.sizes for point in Config(paper=True).points}
    assert paper["long"] == PAPER_SIZES["long"][0] == Sizes(40, 20_000, 1, 16)
    assert paper["bitcoin"] == TEXT_SIZES["bitcoin"][0]


def test_counts_are_those_of_the_equations():
    f, h = 11, 24
    sizes = Sizes(1, 1, f, h)
    lstm, gru = count("lstm", sizes), count("gru", sizes)
    assert lstm.parameters == 4 * (f * h + h * h + h)
    assert gru.parameters == 3 * (f * h + h * h) + 4 * h
    assert lstm.matmul_operations == 2 * 4 * (f + h) * h
    assert gru.matmul_operations == 2 * 3 * (f + h) * h
    assert count("elman", sizes).matmul_operations == 2 * (f + h) * h
    assert lstm.saved_bytes > 4 * lstm.parameters > gru.saved_bytes


def test_wider_grus_have_the_columns_or_the_parameters_of_the_lstm():
    sizes = Sizes(1, 1, 20, 60)
    assert 3 * units_of("gru_wide", sizes) == 4 * 60
    matched = count("gru_matched", sizes).parameters
    assert abs(matched / count("lstm", sizes).parameters - 1) < 0.03
    assert make_layer("gru_matched", sizes).cell.hidden_features > 60


def test_update_trains_and_is_compiled_apart():
    program = build("gru", SIZES, "update", 4)
    losses = [float(program.run()) for _ in range(30)]
    assert losses[-1] < losses[0]
    assert len(set(losses)) == 30
    assert program.compile_seconds > 0
    assert program.memory.temporary > 0


@pytest.mark.parametrize("arm", ["lstm", "gru"])
def test_step_and_stream_hand_the_carry_on(arm):
    layer = make_layer(arm, SIZES)
    params = layer.init(jax.random.key(0), 2)
    for mode, steps in (("step", 1), ("stream", 4)):
        program = build(arm, SIZES, mode, 4)
        assert program.units_per_call == steps
        outputs = np.concatenate([np.atleast_3d(program.run()) for _ in range(2)])
        shape = (1, 2) if mode == "step" else (4, 1, 2)
        generator = np.random.default_rng([20_200_909, *shape])
        inputs = generator.standard_normal(shape, np.float32).reshape(-1, 1, 2)
        _, expected = layer.apply(params, jnp.tile(inputs, (2, 1, 1)))
        outputs = outputs.reshape(expected.shape)
        np.testing.assert_allclose(outputs, expected, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("factor", "noise", "word"),
    [
        (0.8, 0.01, "faster"),
        (1.25, 0.01, "slower"),
        (1.001, 0.002, "within 3 %"),
        (0.98, 0.2, "inconclusive"),
    ],
)
def test_ratio_is_paired_by_round_and_judged_by_its_margin(factor, noise, word):
    generator = np.random.default_rng(1)
    disturbed = np.exp(generator.normal(size=12))  # both of a round alike
    lstm = disturbed * np.exp(noise * generator.normal(size=12))
    gru = factor * disturbed * np.exp(noise * generator.normal(size=12))
    seconds = {"gru": gru, "lstm": lstm}
    found = report.compare_times("a size", "update", seconds, "gru", "lstm", KEY)
    assert found.verdict == word
    expected = math.exp(np.log(gru / lstm).mean())
    np.testing.assert_allclose(found.ratio.estimate, expected, rtol=1e-9)
    assert found.ratio.low < expected < found.ratio.high
