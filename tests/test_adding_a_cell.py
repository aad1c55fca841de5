"""The recipe of docs/adding_a_cell.md: its code, as it stands, meets the contract."""

import pathlib
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gated_rnn import gate_values
from tests import cases, test_contract

pytestmark = pytest.mark.usefixtures("strict_promotion")

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "adding_a_cell.md"
CELL_IDS = ("extra_input_lstm", "extra_input_gru")


@pytest.fixture(scope="module")
def page():
    """Run the code of the page as one module."""
    module = types.ModuleType("adding_a_cell")
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
        exec(compile(block, str(PAGE), "exec"), module.__dict__)
    return module


@pytest.fixture
def rows(page, monkeypatch):
    """Put the rows of the page into the table."""
    for cell_id, case in page.ROWS.items():
        monkeypatch.setitem(cases.CELLS, cell_id, case)


@pytest.mark.usefixtures("x64", "rows")
@cases.each_direction
@pytest.mark.parametrize(
    "engine", [cases.ENGINES["scan"], cases.ENGINES["scan_chunk_3"]]
)
@pytest.mark.parametrize("cell_id", CELL_IDS)
def test_cell_of_the_page_equals_its_oracle(cell_id, engine, reverse):
    test_contract.test_unroll_equals_oracle_in_float64(cell_id, engine, reverse)


@pytest.mark.usefixtures("x64", "rows")
@pytest.mark.parametrize("cell_id", CELL_IDS)
def test_gradients_of_the_page_equal_finite_differences(cell_id):
    problem = cases.make_problem(cell_id)
    derivatives = cases.run_derivatives(
        cell_id, problem, cases.ENGINES["scan"], False, order=1
    )
    expected = cases.finite_differences(cell_id, False)
    for actual, wanted in zip(derivatives.gradient, expected, strict=True):
        cases.assert_close(actual, wanted, test_contract.FINITE_DIFFERENCES, "gradient")


@pytest.mark.usefixtures("rows")
@pytest.mark.parametrize("cell_id", CELL_IDS)
def test_closed_gate_hides_the_additional_input(cell_id):
    cell = cases.CELLS[cell_id].cell
    params = cell.init(jax.random.key(0), cases.F)
    # The bias of a, the last block, closes it; its kernels cannot open it again.
    params = params._replace(bias=params.bias.at[-cases.H :].set(-100.0))
    inputs = jax.random.normal(jax.random.key(1), (cases.T, cases.B, cases.F))
    gates = gate_values(cell, params, inputs)
    others = gate_values(cell, params, inputs.at[..., -1].add(0.5))
    assert np.max(gates["a"]) < 1e-6
    assert jax.tree.all(jax.tree.map(jnp.allclose, gates, others))
    opened = params._replace(bias=params.bias.at[-cases.H :].set(100.0))
    gates = gate_values(cell, opened, inputs)
    others = gate_values(cell, opened, inputs.at[..., -1].add(0.5))
    candidate = "g" if "g" in gates else "n"
    assert np.max(np.abs(gates[candidate] - others[candidate])) > 0.01
