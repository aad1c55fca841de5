"""Memories are counted right and the published table is judged fairly.

The oracle is the float64 loop of `tests/reference.py`.
"""

import json
import operator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.data import published_memory
from experiments.data.published_memory import published_mean
from experiments.memory_of_untrained_cells import agreement, measure, report, run
from experiments.memory_of_untrained_cells.__main__ import main
from experiments.memory_of_untrained_cells.agreement import compare_table, z_scores
from experiments.memory_of_untrained_cells.measure import Size
from experiments.memory_of_untrained_cells.setups import SETUPS, initial_cell
from tests import reference, reference_cells

NUM_RUNS, NUM_BEFORE = 12, 30
#: A float32 loop may cross the tolerance a step before or after a float64 one.
STEPS_OF_ROUNDING = 1


# The measures, by hand


def test_cosine_distance_asks_for_a_direction_alone():
    a = np.array([[3.0, 4.0], [1.0, 0.0], [1.0, 0.0]], np.float32)
    b = np.array([[1.5, 2.0], [0.0, 2.0], [1.0, 2e-4]], np.float32)
    assert measure.cosine_distance(a, b).tolist() == [0.0, 1.0, 0.0]
    assert measure.cosine_distance(a, b).dtype == np.float32
    # 2e-4 apart: within rounding of float32, and not of float64.
    assert measure.cosine_distance(*(x.astype(float) for x in (a, b)))[2] > 1e-8


def test_cosine_distance_of_single_numbers_is_that_of_their_signs():
    a = np.array([[0.5], [-0.25], [0.5]], np.float32)
    b = np.array([[0.125], [-2.0], [-0.5]], np.float32)
    assert measure.cosine_distance(a, b).tolist() == [0.0, 0.0, 2.0]


def test_memory_ends_by_each_measure_on_its_own():
    first = np.array([[1.0, 1.0], [1.0, 1.0], [1.0, 1.0], [1.0, 1.0]], np.float32)
    second = np.array(
        [[1.0, 2.0], [0.5, 0.5], [1.0, 1.0000001], [1.0, 1.0]], np.float32
    )
    flags = measure.ended(first[None], second[None], np.array([0.2]))
    assert flags["equal"].tolist() == [[False, False, False, True]]
    assert flags["cosine"].tolist() == [[False, True, True, True]]
    assert flags["distance"].tolist() == [[False, False, True, True]]


# The counts, against a float64 loop


@pytest.mark.parametrize("name", ["lstm", "gru_reset_before"])
def test_steps_are_those_of_a_float64_loop(name, monkeypatch):
    monkeypatch.setattr(measure, "PIECE_STEPS", 16)  # memories end in later pieces
    size, key = Size(3, 5), jax.random.key(4)
    counts = measure.measure_size(
        [name], size, key, num_runs=4, num_before=NUM_BEFORE, max_after=400
    )[name]
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(4))
    params = measure.draw_params(keys, (name,), size)[name]
    inputs = [
        measure.draw_inputs(keys, start, length, size.in_features, drawn)
        for first, last, drawn in (
            (0, NUM_BEFORE, 2),
            (NUM_BEFORE, NUM_BEFORE + 400, 1),
        )
        for start, length in measure.pieces(first, last)
    ]
    inputs = np.concatenate([np.asarray(piece) for piece in inputs], axis=1)
    step = {
        "lstm": reference_cells.lstm_step,
        "gru_reset_before": reference_cells.gru_reset_before_step,
    }[name]
    for row in range(4):
        own = jax.tree.map(operator.itemgetter(row), params)
        carry = initial_cell(name, size.hidden_features).init_carry()
        _, outputs = reference.unroll(step, own, inputs[row], carry)
        apart = np.linalg.norm(outputs[:, 0] - outputs[:, 1], axis=-1)
        after = apart[NUM_BEFORE:] < measure.TOLERANCE * apart[NUM_BEFORE - 1]
        assert after.any()
        assert abs(counts["distance"][row] - after.argmax()) <= STEPS_OF_ROUNDING
        # The same to the last digit, from then on.
        assert counts["distance"][row] <= counts["equal"][row] < 400
        assert counts["cosine"][row] < counts["distance"][row]


def test_sequences_differ_before_and_agree_after():
    keys = jax.random.split(jax.random.key(0), 2)
    before, other, after = (
        np.asarray(measure.draw_inputs(keys, start, 50, 3, drawn))
        for start, drawn in ((0, 2), (50, 2), (100, 1))
    )
    assert before.shape == after.shape == (2, 50, 2, 3)
    assert np.abs(before[:, :, 0] - before[:, :, 1]).min() > 0
    np.testing.assert_array_equal(after[:, :, 0], after[:, :, 1])
    assert np.abs(before - other).min() > 0  # each piece is a new draw
    assert np.abs(after[0] - after[1]).min() > 0  # and each run
    assert abs(after.std() - 1) < 0.15


def test_setups_start_as_they_say():
    keys = jax.random.split(jax.random.key(1), 3)
    params = measure.draw_params(keys, tuple(SETUPS), Size(2, 4))
    rows = np.asarray(params["lstm"].recurrent_kernel[0])
    np.testing.assert_allclose(rows @ rows.T, np.eye(4), atol=1e-6)
    assert params["lstm"].bias[0].tolist() == [0] * 4 + [1] * 4 + [0] * 8
    assert not np.asarray(params["lstm_forget_0"].bias).any()
    assert params["gru_update_1"].bias[0].tolist() == [0] * 4 + [1] * 4 + [0] * 4
    bound = (6 / (4 + 16)) ** 0.5  # of the packed matrix [4, 16]
    drawn = np.abs(params["lstm_glorot"].recurrent_kernel)
    assert 0.9 * bound < drawn.max() <= bound
    same = (params[name].kernel for name in ("lstm", "lstm_glorot", "lstm_hard"))
    first, *others = (np.asarray(kernel) for kernel in same)
    assert all((first == other).all() for other in others)  # set-ups are paired


# The judgement


def test_z_scores_weigh_the_noise_of_both():
    steps = np.array([[10.0, 7.0], [14.0, 7.0], [10.0, 7.0], [14.0, 7.0]])
    z = z_scores(np.array([13.0, 7.5]), 2, steps)
    sd = np.array([np.sqrt(16 / 3), np.sqrt(1 / 12)])
    np.testing.assert_allclose(z, np.array([1.0, 0.5]) / (sd * np.sqrt(0.5 + 0.25)))


def test_a_draw_of_our_own_is_within_noise_and_a_shifted_one_is_not():
    generator = np.random.default_rng(0)
    scale = np.array([1.0, 5.0, 20.0, 80.0])
    steps = generator.geometric(0.2, size=(40, 4)) * scale
    theirs = (generator.geometric(0.2, size=(5, 4)) * scale).mean(axis=0)
    kept = compare_table(theirs, 5, steps, 1)
    assert kept.agrees
    assert kept.share_within == 0.75  # 2.42 is the largest
    shifted = compare_table(theirs + 20 * scale, 5, steps, 1)
    assert not shifted.agrees
    assert shifted.p_value < 0.01
    assert shifted.root_mean_square > 3
    assert (shifted.z > 0).all()


def test_p_values_of_own_draws_are_as_often_small_as_they_should_be(monkeypatch):
    monkeypatch.setattr(agreement, "NUM_RESAMPLES", 100)
    generator = np.random.default_rng(3)
    p_values = [
        compare_table(
            generator.geometric(0.3, size=(5, 6)).mean(axis=0),
            5,
            generator.geometric(0.3, size=(20, 6)).astype(float),
            trial,
        ).p_value
        for trial in range(100)
    ]
    assert 0.02 <= np.mean(np.array(p_values) < 0.2) <= 0.38
    assert min(p_values) < 0.1 < 0.8 < max(p_values)


def test_a_memory_that_does_not_end_is_infinitely_far():
    steps = np.array([[3.0, np.inf], [4.0, 5.0], [5.0, 6.0]])
    found = compare_table(np.array([4.0, 5.0]), 1, steps, 0)
    assert found.z.tolist() == [0.0, -np.inf]
    assert not found.agrees
    assert found.share_within == 0.5


def test_published_means_are_those_of_five_runs():
    means = np.array([list(cell.values()) for cell in published_memory.MEANS.values()])
    assert means.shape == (2, 3, 8)
    fifths = means * published_memory.RUNS_IMPLIED
    np.testing.assert_allclose(fifths, fifths.round(), atol=1e-9)
    assert published_mean("lstm", 16, 64) == 40.8
    assert published_mean("gru", 16, 3) is None
    assert published_mean("gru", 2, 4) is None


def test_parameters_are_matched_at_the_reference():
    assert run.match_parameters(Size(16, 64)).in_features == 16
    lstm, units = 4 * 64 * (16 + 64 + 1), run.match_parameters(Size(16, 64))[1]
    gru = [3 * h * (16 + h + 1) + h for h in (units - 1, units, units + 1)]
    assert np.abs(np.array(gru) - lstm).argmin() == 1


# The command


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    folder = tmp_path_factory.mktemp("memory")
    arguments = (
        "--in-features 16 --hidden-features 4 --max-after 125 --num-before 20 "
        f"--num-runs {NUM_RUNS} --picture-format svg --output-dir {folder}"
    )
    assert main(arguments.split()) == 0
    assert (folder / "memory.svg").stat().st_size > 1000
    assert "is 0" in (folder / "summary.md").read_text()
    return json.loads((folder / "results.json").read_text())


def test_record_holds_every_run(record):
    for name in SETUPS:
        for of_measure in record["cells"][name].values():
            assert np.shape(of_measure) == (NUM_RUNS, 1, 1)
    steps = record["cells"]["lstm"]
    cosine, distance = (np.array(steps[name], float) for name in ("cosine", "distance"))
    assert (cosine < distance).all()
    assert len(record["cells"][report.MATCHED]["distance"]) == NUM_RUNS
    assert record["summary"]["seeds_vary"] == "parameters and sequences"
    assert record["summary"]["reference"] == {"in_features": 16, "hidden_features": 4}


def test_record_compares_with_the_published_table(record):
    fits = record["summary"]["fits"]
    steps = np.array(record["cells"]["lstm"]["cosine"], float).reshape(NUM_RUNS, 1)
    expected = z_scores(np.array([24.6]), published_memory.RUNS_IMPLIED, steps)
    np.testing.assert_allclose(fits["lstm"]["cosine"]["implied"]["z"], expected)
    assert "elman" not in fits
    names = {(one["first"], one["second"]) for one in record["summary"]["comparisons"]}
    assert {("lstm", "gru"), ("lstm", report.MATCHED)} <= names


def test_cells_and_sizes_are_compared_run_by_run():
    sizes = [Size(f, h) for f in (16, 2) for h in (8, 4)]
    generator = np.random.default_rng(0)
    noise = generator.normal(size=(NUM_RUNS, 1))  # of a run, alike for all
    middles = {"lstm": [50, 40, 80, 70], "gru": [20, 20, 30, 21]}
    steps = {
        name: {"distance": noise + np.array(middles.get(name, middles["gru"]))}
        for name in SETUPS
    }
    comparisons = report.compare_cells(
        sizes, steps, noise[:, 0] + 60, Size(16, 8), jax.random.key(0)
    )
    found = {
        (one.measure, one.first, one.second): (
            one.difference.mean.estimate,
            one.verdict,
        )
        for one in comparisons
    }
    assert found["steps, all sizes", "lstm", "gru"] == (60 - 22.75, "higher")
    assert found["steps, all sizes", "lstm_forget_0", "gru"] == (0, "equivalent")
    matched = found["steps, parameters matched (16 features)", "lstm", report.MATCHED]
    assert matched == (-10, "lower")
    assert found["steps, LSTM, 8 units or 4", "many", "few"] == (10, "higher")
    assert found["steps, LSTM, 16 features or 2", "many", "few"] == (-30, "lower")
    assert found["steps, GRU, 8 units or 4", "many", "few"] == (0, "equivalent")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("--num-runs 3", "num_runs: expected an integer of at least 12, got 3"),
        ("--in-features 4 4", "in_features: expected each size once"),
        ("--hidden-features 0", "hidden_features: expected a positive integer"),
    ],
)
def test_bad_settings_are_one_line(arguments, says, capsys, tmp_path):
    folder = tmp_path / "out"
    assert main([*arguments.split(), "--output-dir", str(folder)]) == 2
    errors = capsys.readouterr().err
    assert says in errors
    assert errors.count("\n") == 1
    assert not folder.exists()
