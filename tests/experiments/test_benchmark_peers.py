import functools

import jax
import numpy as np
import pytest

from experiments.benchmarks import ours, parity
from experiments.benchmarks.cases import NUM_CHECKED_STEPS, Case, Sizes
from experiments.benchmarks.data import (
    FORMS,
    NO_RECURRENT_BIAS,
    RESET_BEFORE,
    make_data,
)
from experiments.benchmarks.implementations import IMPLEMENTATIONS, load
from experiments.benchmarks.measure import Limits
from experiments.benchmarks.one_case import measure_case, prepare
from experiments.benchmarks.parity import References, check_derivatives
from experiments.benchmarks.roofline import Machine
from experiments.benchmarks.rows import make_row

SIZES = Sizes(3, 5, 2, 4)  # pairwise different
STEP_SIZES = Sizes(1, NUM_CHECKED_STEPS, 2, 4)
ERROR = 2e-6  # float32 over a few steps; a wrong gate or bias gives 1e-1
CELLS = ("lstm", "gru")
MACHINE = Machine({"float32": 1e9}, 1e9)
ALWAYS_INSTALLED = {"scan", "linen", "nnx"}

# The reference agrees with itself.
each_implementation = pytest.mark.parametrize(
    "name", [name for name in IMPLEMENTATIONS if name != "scan"]
)
each_cell = pytest.mark.parametrize("cell", CELLS)


@pytest.fixture(autouse=True)
def _compile_fast():
    """Skip most of XLA's passes, which only cost time on data this small."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def loaded(name, case):
    implementation = load(name)
    if isinstance(implementation, str):
        assert name not in ALWAYS_INSTALLED, implementation
        pytest.skip(f"{name}: {implementation}")
    refusal = implementation.refuses(case)
    if refusal:
        pytest.skip(f"{name}: {refusal}")
    return implementation


@functools.cache
def references(case):
    return References(case, make_data(case))


@each_implementation
@each_cell
@pytest.mark.parametrize("variant", ["plain", "lengths", "resets"])
def test_outputs_and_all_gradients_are_ours(name, cell, variant):
    case = Case(cell, "gradient", SIZES, variant)
    error, array = check_derivatives(name, loaded(name, case), case)
    assert error < ERROR, array


@each_implementation
@pytest.mark.parametrize(
    "case",
    [
        Case("gru", "forward", SIZES),
        Case("lstm", "gradient", SIZES, num_seeds=2),
        Case("gru", "train", SIZES, num_seeds=2),
        Case("lstm", "step", STEP_SIZES),
        Case("gru", "step", STEP_SIZES),
    ],
    ids=lambda case: case.label,
)
def test_what_is_timed_is_ours_and_goes_on(name, case):
    implementation = loaded(name, case)
    program = implementation.build(case, make_data(case))
    error, array = references(case).compare(implementation, program)
    assert error < ERROR, array
    program.run()
    program.run()


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_the_gru_are_different_functions(form):
    case = Case("gru", "forward", SIZES)
    data = make_data(case)
    outputs = {
        each: ours.implement("scan", each).build(case, data).results()["outputs"]
        for each in FORMS
    }
    for other in set(FORMS) - {form}:
        assert parity.relative_error(outputs[form], outputs[other]) > 100 * ERROR


def test_forms_are_those_of_the_peers():
    case = Case("gru", "gradient", SIZES)
    assert loaded("nnx", case).facts(case).form == NO_RECURRENT_BIAS
    assert loaded("haiku", case).facts(case).form == RESET_BEFORE


def test_implementation_that_disagrees_is_reported_and_not_timed(monkeypatch):
    case = Case("lstm", "gradient", SIZES)
    implementation = loaded("linen", case)
    data = make_data(case)

    class Wrong:
        facts = implementation.facts
        derive = implementation.derive

        def build(self, case, data):
            program = implementation.build(case, data)

            def results():
                found = program.results()
                return {**found, "gradient of bias": 1.5 * found["gradient of bias"]}

            return program._replace(results=results)

    row = make_row("shapes", case, "linen")
    row, program = prepare(row, Wrong(), data, references(case))
    assert program is None
    assert row.status == "disagrees"
    assert row.worst_array == "gradient of bias"
    np.testing.assert_allclose(row.max_relative_error, 0.5, rtol=1e-3)
    assert row.samples == []


def test_implementation_that_breaks_off_is_reported():
    case = Case("lstm", "gradient", SIZES)
    implementation = loaded("linen", case)

    class Broken:
        facts = implementation.facts
        derive = implementation.derive

        def build(self, case, data):
            raise RuntimeError("RESOURCE_EXHAUSTED: out of memory\nmore")

    row = make_row("shapes", case, "linen")
    row, program = prepare(row, Broken(), make_data(case), references(case))
    assert program is None
    assert (row.status, row.reason) == ("failed", "RESOURCE_EXHAUSTED: out of memory")


def test_case_has_a_row_for_each_that_was_asked():
    case = Case("gru", "forward", SIZES, "resets")
    asked = {"scan": load("scan"), "nnx": load("nnx"), "keras": "not installed: keras"}
    limits = Limits(num_rounds=2, min_seconds=1e-4, max_seconds=1)
    rows = measure_case("resets", case, asked, limits, MACHINE)
    assert [(row.implementation, row.status, row.reason) for row in rows] == [
        ("scan", "timed", None),
        ("nnx", "skipped", "no resets"),
        ("keras", "skipped", "not installed: keras"),
    ]
    assert len(rows[0].samples) == 2
    assert rows[0].compile_seconds > 0
    assert rows[0].argument_bytes > 0
    assert rows[0].max_relative_error == 0


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="cuDNN is tested by itself")
def test_weights_for_cudnn_are_in_its_order():
    from jax.experimental import rnn

    from experiments.benchmarks.peers.cudnn import convert

    case = Case("lstm", "forward", SIZES)
    data = make_data(case)
    batch_size, num_steps, in_features, hidden_features = SIZES
    zeros = np.zeros((1, batch_size, hidden_features), np.float32)
    weights = convert(data.params[0])
    unpacked = rnn.unpack_lstm_weights(weights, in_features, hidden_features, 1, False)
    outputs, _, _ = rnn.lstm_ref(
        np.swapaxes(data.batch.inputs, 0, 1),
        zeros,
        zeros,
        *unpacked,
        np.full(batch_size, num_steps, np.int32),
        in_features,
        hidden_features,
        1,
        0.0,
        False,
    )
    expected = references(case).results("standard")["outputs"][0]
    found = np.swapaxes(np.asarray(outputs), 0, 1)
    assert parity.relative_error(found, expected) < ERROR
