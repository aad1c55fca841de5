"""docs/accuracy.md: its oracle, its record, and its bounds on new draws."""

import json
import math
from pathlib import Path

import jax
import numpy as np
import pytest

from tests import cases, reference
from tests.accuracy import __main__ as command
from tests.accuracy import measure
from tests.accuracy.measure import (
    DTYPES,
    ENGINES,
    QUANTITIES,
    compare,
    measure_cell,
    run_oracle,
)
from tests.accuracy.page import make_page
from tests.accuracy.problems import ROW_CLASSES, Draws, draw
from tests.accuracy.promise import find_largest, list_errors, list_rows, promise
from tests.cases import CELLS, each_cell

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "accuracy.md"
RECORD = ROOT / "docs" / "results" / "accuracy" / "results.json"

# Two ways of summing the same float64 numbers, over some dozen steps.
SAME = 1e-11
# Central differences end at about two thirds of the digits; a cell that magnifies
# roundings has fewer. No pull that is wrong comes near.
DIFFERENCES = 1e-5
STEP_SIZE = 1e-6

# New draws, fewer of them; every kind of cell in every dtype, every
# engine.
FRESH_SEED = 1
FRESH_DRAWS = 4
FRESH = [
    ("lstm", ["FusedScan"], DTYPES),
    ("elman_relu", ["FusedScan"], DTYPES),
    ("peephole_lstm", ["FusedScan"], DTYPES),
    ("layer_norm_gru_no_bias", ["FusedScan"], DTYPES),
    ("elman", ["Scan", "Scan, chunks", "FusedScan, chunks"], ["float32"]),
    ("min_gru", ["Associative"], ["float32"]),
]


@pytest.fixture(scope="module")
def record():
    return json.loads(RECORD.read_text())


# The oracle


def run_loop(cell_id, draws, index):
    """Run the plain loop of the oracle over one draw."""
    one = Draws(*(jax.tree.map(lambda leaf: leaf[index], part) for part in draws))
    step = CELLS[cell_id].step
    run = reference.unroll(step, one.params, one.inputs, one.carry)
    return one, run


def weighted_sum(cell_id, draws, index):
    one, (carry, outputs) = run_loop(cell_id, draws, index)
    total = (one.output_weights * outputs).sum()
    for name, weights in one.carry_weights._asdict().items():
        total += (weights * carry[name]).sum()
    return total


@each_cell
def test_values_of_the_oracle_are_those_of_its_plain_loop(cell_id):
    draws = draw(cell_id, "ordinary", 2, seed=3)
    run = run_oracle(cell_id, draws)
    for index in range(2):
        _, (carry, outputs) = run_loop(cell_id, draws, index)
        cases.assert_close(run.outputs[index], outputs, SAME)
        for name, value in carry.items():
            cases.assert_close(run.carry[name][index], value, SAME, name)


@each_cell
def test_gradients_of_the_oracle_are_differences_of_its_plain_loop(cell_id):
    draws = draw(cell_id, "ordinary", 1, seed=4)
    run = run_oracle(cell_id, draws)
    rng = np.random.default_rng(5)
    fields = [
        *((draws.params, name, run.params) for name in run.params),
        *((draws.carry, name, run.initial_carry) for name in run.initial_carry),
        (draws, "inputs", {"inputs": run.inputs}),
    ]
    for owner, name, gradients in fields:
        array, gradient = getattr(owner, name), gradients[name]
        before = array.copy()
        direction = np.sign(gradient) * rng.uniform(0.5, 1.5, size=array.shape)
        sums = []
        for shift in (STEP_SIZE, -STEP_SIZE):
            array[...] = before + shift * direction
            sums.append(weighted_sum(cell_id, draws, 0))
        array[...] = before
        slope = (sums[0] - sums[1]) / (2 * STEP_SIZE)
        cases.assert_close((gradient * direction).sum(), slope, DIFFERENCES, name)


def test_comparison_sees_one_wrong_entry_of_one_draw():
    draws = draw("lstm", "ordinary", 2, seed=6)
    run = run_oracle("lstm", draws)

    def runs(wrong=None):
        for index in range(2):
            one = {
                name: jax.tree.map(
                    lambda leaf, i=index: leaf[i].copy(), getattr(run, name)
                )
                for name in QUANTITIES
            }
            if index == 1 and wrong is not None:
                leaf = jax.tree.leaves(one[wrong])[-1]
                leaf[(0,) * leaf.ndim] += 1e-3 * np.abs(leaf).max()
            yield one

    assert set(compare(run, runs()).values()) == {0.0}
    for name in QUANTITIES:
        errors = compare(run, runs(name))
        assert errors.pop(name) == pytest.approx(1e-3)
        assert set(errors.values()) == {0.0}


# The bounds


@pytest.mark.parametrize(
    ("cell_id", "engines", "dtypes"), FRESH, ids=[cell_id for cell_id, *_ in FRESH]
)
def test_bounds_of_the_page_hold_for_new_draws(record, cell_id, engines, dtypes):
    bounds = read_bounds(record)
    assert record["config"]["seed"] != FRESH_SEED
    errors = measure_cell(
        cell_id, FRESH_DRAWS, FRESH_SEED, engines=engines, dtypes=dtypes, quickly=True
    )
    assert list(errors) == engines
    checked = set()
    for row, found in list_errors({cell_id: errors}):
        if bounds[row] is not None:
            assert found.error <= bounds[row], (row, found)
            checked.add(row)
    kind = measure.kind_of(cell_id)
    assert checked == {
        row
        for row in list_rows()
        if row.kind == kind and row.dtype in dtypes and bounds[row] is not None
    }


def read_bounds(record):
    rows = {tuple(row): row for row in list_rows()}
    names = ("dtype", "row_class", "kind", "group")
    return {
        rows[tuple(each[name] for name in names)]: each["bound"]
        for each in record["summary"]["bounds"]
    }


def test_every_bound_is_held_to_new_draws(record):
    assert set(read_bounds(record)) == set(list_rows())
    drawn = {
        (measure.kind_of(cell_id), dtype)
        for cell_id, _, dtypes in FRESH
        for dtype in dtypes
    }
    assert drawn == {(row.kind, row.dtype) for row in list_rows()}
    assert {engine for _, engines, _ in FRESH for engine in engines} == set(ENGINES)


def test_record_measures_every_cell_engine_and_dtype(record):
    assert list(record["cells"]) == list(CELLS)
    assert record["config"]["num_draws"] >= 20
    for cell_id, engines in record["cells"].items():
        case = CELLS[cell_id]
        assert set(engines) == {e for e in ENGINES if case.affine or e != "Associative"}
        for engine_id, dtypes in engines.items():
            for dtype in DTYPES:
                expected = {
                    name
                    for name, row_class in ROW_CLASSES.items()
                    if measure.engine_for(engine_id, dtype, row_class) is not None
                }
                assert set(dtypes.get(dtype, {})) == expected
                for errors in dtypes.get(dtype, {}).values():
                    assert set(errors) == set(QUANTITIES)


def test_bounds_follow_from_the_record_by_the_rule(record):
    bounds = read_bounds(record)
    for row, found in find_largest(record["cells"]).items():
        assert bounds[row] == promise(found.error)
        if row.dtype != "bfloat16":
            assert bounds[row] is not None
            assert bounds[row] >= record["summary"]["margin"] * found.error


@pytest.mark.parametrize("error", [math.inf, math.nan, 0.2])
def test_nothing_is_promised_for_an_error_without_a_digit(error):
    assert promise(error) is None


def test_page_is_what_the_record_makes(record):
    assert PAGE.read_text() == make_page(record)


# The command


def test_command_writes_record_and_page_and_resumes(tmp_path, monkeypatch, record):
    asked = []

    def pretend(cell_id, num_draws, seed):
        asked.append((cell_id, num_draws, seed))
        return record["cells"][cell_id]

    monkeypatch.setattr(command, "measure_cell", pretend)
    options = ["--num-draws", "3", "--seed", "2", "--output-dir", str(tmp_path)]
    assert command.main(["--cells", "gru", *options]) == 0
    assert command.main(["--cells", "lstm", "--resume", *options]) == 0
    assert asked == [("gru", 3, 2), ("lstm", 3, 2)]
    written = json.loads((tmp_path / "results.json").read_text())
    assert written["experiment"] == "accuracy"
    assert written["config"] == {"num_draws": 3, "seed": 2}
    assert list(written["cells"]) == ["lstm", "gru"]
    assert (tmp_path / "accuracy.md").read_text() == make_page(written)
    assert command.main(["--resume", *options, "--seed", "3"]) == 2


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("--cells abacus", "'abacus'"),
        ("--num-draws 0", "num_draws"),
        ("--seed -1", "seed"),
        ("--colour black", "--colour"),
    ],
)
def test_wrong_command_line_is_one_line(arguments, named, tmp_path, capsys):
    directory = tmp_path / "out"
    assert command.main([*arguments.split(), "--output-dir", str(directory)]) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.count("\n") == 1
    assert named in errors
    assert not directory.exists()
