from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.cells import (
    LABELS,
    CellName,
    count_cell_parameters,
    make_cell,
    match_units,
)
from gated_rnn import LSTM
from gated_rnn.initializers import Constant

NAMES = get_args(CellName)


def test_every_name_has_a_label_and_no_other():
    assert set(LABELS) == set(NAMES)
    assert len(set(LABELS.values())) == len(NAMES) == 10


def perturbed(leaf):
    """No parameter is zero, nor like its neighbour: peepholes and biases included."""
    return leaf + 0.1 * jnp.cos(jnp.arange(leaf.size)).reshape(leaf.shape)


def test_cells_of_different_names_compute_different_things():
    inputs = jax.random.normal(jax.random.key(1), (2, 3))
    outputs = []
    for name in NAMES:
        cell = make_cell(name, 4, bias_init=Constant(0.3))
        params = jax.tree.map(perturbed, cell.init(jax.random.key(2), 3))
        carry = jax.tree.map(perturbed, cell.init_carry((2,)))
        outputs.append(np.asarray(jax.jit(cell.step)(params, carry, inputs)[1]))
    for first, one in enumerate(outputs):
        assert one.shape == (2, 4)
        for other in outputs[:first]:
            assert np.abs(one - other).max() > 1e-3


def test_settings_reach_the_cell():
    cell = make_cell("gru_reset_before", 5, use_bias=False)
    assert cell.hidden_features == 5
    assert cell.use_bias is False


def test_unknown_cell_is_one_line_with_the_names():
    with pytest.raises(ValueError, match=r"cell: expected one of elman, .*'rnn'"):
        make_cell("rnn", 3)


@pytest.mark.parametrize(
    ("name", "count"),
    [("elman", 4 * (3 + 4 + 1)), ("lstm", 16 * (3 + 4 + 1)), ("gru", 12 * 8 + 4)],
)
def test_parameters_are_those_of_the_formula(name, count):
    assert count_cell_parameters(make_cell(name, 4), 3) == count


@pytest.mark.parametrize(
    ("name", "wanted"), [("elman", 150), ("gru", 6777), ("peephole_lstm", 6777)]
)
def test_matched_units_are_nearer_than_one_more_or_one_less(name, wanted):
    units = match_units(name, 7, wanted)
    misses = [
        abs(count_cell_parameters(make_cell(name, near), 7) - wanted)
        for near in (units - 1, units, units + 1)
    ]
    assert misses[1] == min(misses)
    assert misses[1] < misses[0]  # of two that are as near, the smaller


def test_a_unit_is_the_least_there_is():
    assert match_units("lstm", 7, 1) == 1


def test_chung_sizes_have_about_as_many_parameters():
    lstm = count_cell_parameters(LSTM(36), 96)
    assert abs(match_units("elman", 96, lstm) - 100) <= 3
    assert abs(match_units("gru", 96, lstm) - 46) <= 2
