"""Parameters, carries and settings of the cells, and what they refuse."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gated_rnn import (
    GRU,
    JANET,
    LSTM,
    MGU,
    MUT,
    CoupledLSTM,
    Elman,
    LayerNormGRU,
    LayerNormLSTM,
    MinGRU,
    MinLSTM,
    OpenLSTM,
    PeepholeLSTM,
    ProjectedLSTM,
    initializers,
)
from tests import cases
from tests.cases import F, H, each_cell, each_cell_type

pytestmark = pytest.mark.usefixtures("strict_promotion")


def shapes(fields):
    return {
        name: leaf if leaf is None else leaf.shape
        for name, leaf in fields._asdict().items()
    }


def packed(gates, rows=5, **others):
    """Shapes of the packed parameters for 3 input and 5 hidden features."""
    columns = gates * 5
    return {
        "kernel": (3, columns),
        "recurrent_kernel": (rows, columns),
        "bias": (columns,),
        **others,
    }


HIDDEN, HIDDEN_AND_CELL = {"hidden": (5,)}, {"hidden": (5,), "cell": (5,)}
# The cell, the shapes of its parameters, those of its carry
LAYOUTS = {
    "lstm": (LSTM(5), packed(4), HIDDEN_AND_CELL),
    "gru": (GRU(5), packed(3, recurrent_bias=(5,)), HIDDEN),
    "gru_reset_before": (
        GRU(5, reset_after=False),
        packed(3, recurrent_bias=None),
        HIDDEN,
    ),
    "elman": (Elman(5), packed(1), HIDDEN),
    "peephole_lstm": (PeepholeLSTM(5), packed(4, peephole=(15,)), HIDDEN_AND_CELL),
    "coupled_lstm": (CoupledLSTM(5), packed(3), HIDDEN_AND_CELL),
    "open_lstm": (OpenLSTM(5), packed(3), HIDDEN_AND_CELL),
    "projected_lstm": (
        ProjectedLSTM(5, projected_features=2),
        packed(4, rows=2, projection=(5, 2)),
        {"hidden": (2,), "cell": (5,)},
    ),
    "layer_norm_lstm": (
        LayerNormLSTM(5),
        packed(
            4,
            input_gain=(20,),
            recurrent_gain=(20,),
            cell_gain=(5,),
            cell_bias=(5,),
        ),
        HIDDEN_AND_CELL,
    ),
    "layer_norm_gru": (
        LayerNormGRU(5),
        packed(3, recurrent_bias=(5,), input_gain=(15,), recurrent_gain=(15,)),
        HIDDEN,
    ),
    "mgu": (MGU(5), packed(2), HIDDEN),
    "janet": (JANET(5), packed(2), HIDDEN),
    "mut": (MUT(5), packed(3), HIDDEN),
    "min_gru": (MinGRU(5), {"kernel": (3, 10), "bias": (10,)}, HIDDEN),
    "min_lstm": (MinLSTM(5), {"kernel": (3, 15), "bias": (15,)}, HIDDEN),
}
each_layout = pytest.mark.parametrize(
    ("cell", "params", "carry"), LAYOUTS.values(), ids=LAYOUTS
)


@each_layout
def test_params_and_carries_have_the_documented_fields_and_shapes(cell, params, carry):
    assert shapes(cell.init(jax.random.key(0), 3)) == params
    assert shapes(cell.init_carry()) == carry
    batched = {name: (2, 4, *shape) for name, shape in carry.items()}
    assert shapes(cell.init_carry((2, 4))) == batched
    assert cell.out_features == carry["hidden"][-1]


def test_every_cell_has_its_layout_tested():
    assert {type(cell) for cell, _, _ in LAYOUTS.values()} == set(cases.CELL_TYPES)


@each_layout
def test_cell_without_biases_has_none(cell, params, carry):
    without = dataclasses.replace(cell, use_bias=False).init(jax.random.key(0), 3)
    biases = {"bias": None, "recurrent_bias": None}
    assert shapes(without) == {
        name: biases.get(name, shape) for name, shape in params.items()
    }


def test_additions_to_a_plain_cell_start_as_if_they_were_not_there():
    key = jax.random.key(0)
    assert not PeepholeLSTM(5).init(key, 3).peephole.any()
    lstm, gru = LayerNormLSTM(5).init(key, 3), LayerNormGRU(5).init(key, 3)
    for gain in (lstm.input_gain, lstm.recurrent_gain, lstm.cell_gain):
        assert (gain == 1.0).all()
    assert not lstm.cell_bias.any()
    assert (gru.input_gain == 1.0).all()
    assert (gru.recurrent_gain == 1.0).all()
    assert not gru.recurrent_bias.any()


def test_additions_are_drawn_by_their_own_initialisers():
    key = jax.random.key(0)
    draw = initializers.PerGate(
        initializers.Constant(0.1),
        i=initializers.Constant(0.2),
        f=initializers.Constant(0.3),
        o=initializers.Constant(0.4),
    )
    peephole = PeepholeLSTM(2, peephole_init=draw).init(key, 3).peephole
    assert np.allclose(peephole, [0.2, 0.2, 0.3, 0.3, 0.4, 0.4])
    constant = initializers.Constant(0.5)
    cell = ProjectedLSTM(3, projected_features=2, projection_init=constant)
    assert (cell.init(key, 3).projection == 0.5).all()


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32, jnp.float64])
@each_cell
def test_init_and_init_carry_have_the_dtype_asked_for(cell_id, dtype):
    cell = cases.CELLS[cell_id].cell
    with jax.enable_x64(dtype == jnp.float64):
        params = jax.eval_shape(lambda: cell.init(jax.random.key(0), F, dtype=dtype))
        carry = cell.init_carry((4,), dtype=dtype)
    assert {leaf.dtype for leaf in jax.tree.leaves((params, carry))} == {
        jnp.dtype(dtype)
    }
    assert not any(leaf.any() for leaf in jax.tree.leaves(carry))


@pytest.mark.usefixtures("no_key_reuse")
@each_cell
def test_init_uses_no_key_twice_and_depends_on_the_key(cell_id):
    cell = cases.CELLS[cell_id].cell
    first, second = (cell.init(jax.random.key(seed), F) for seed in (0, 1))
    again = cell.init(jax.random.key(0), F)
    assert jax.tree.all(jax.tree.map(np.array_equal, first, again))
    matrices = [name for name, leaf in first._asdict().items() if np.ndim(leaf) == 2]
    assert "kernel" in matrices
    for name in matrices:
        assert not np.array_equal(getattr(first, name), getattr(second, name))


@each_cell
def test_cell_is_a_hashable_value_without_array_leaves(cell_id):
    cell = cases.CELLS[cell_id].cell
    same = type(cell)(**vars(cell))
    other = type(cell)(**{**vars(cell), "hidden_features": H + 1})
    assert hash(cell) == hash(same)
    assert cell == same
    assert cell != other
    assert jax.tree.leaves(cell) == []


def test_gru_has_three_quarters_of_the_lstm_parameters():
    def count(cell):
        params = jax.eval_shape(lambda: cell.init(jax.random.key(0), 1))
        return sum(leaf.size for leaf in jax.tree.leaves(params))

    no_bias = [count(cell(16, use_bias=False)) for cell in (GRU, LSTM)]
    assert no_bias[0] / no_bias[1] == 3 / 4
    before = GRU(16, reset_after=False)
    assert count(before) / count(LSTM(16)) == 3 / 4
    assert round(count(GRU(16)) / count(LSTM(16)), 3) == 0.764


# Errors


@pytest.mark.parametrize("value", [-1, 0, 2.5, True, "16", None], ids=repr)
@each_cell_type
def test_hidden_features_that_are_no_positive_integer_are_refused(cell_type, value):
    with pytest.raises(ValueError) as error:
        cell_type(value)
    cases.assert_says(error, "hidden_features", "a positive integer", repr(value))


def test_error_has_the_documented_form():
    with pytest.raises(ValueError) as error:
        LSTM(-1)
    assert str(error.value) == (
        "Received an invalid value for hidden_features: "
        "expected a positive integer, got -1."
    )


@each_cell
def test_in_features_that_are_no_positive_integer_are_refused(cell_id):
    with pytest.raises(ValueError) as error:
        cases.CELLS[cell_id].cell.init(jax.random.key(0), 0)
    cases.assert_says(error, "in_features", "a positive integer", "got 0")


@each_cell
def test_inputs_with_the_wrong_number_of_features_are_refused(cell_id):
    cell = cases.CELLS[cell_id].cell
    params, carry = cell.init(jax.random.key(0), F), cell.init_carry((4,))
    with pytest.raises(ValueError) as error:
        cell.step(params, carry, jnp.zeros((4, F + 1)))
    cases.assert_says(error, "inputs", str(F), str(F + 1))


@each_cell
def test_params_of_another_size_are_refused(cell_id):
    cell = cases.CELLS[cell_id].cell
    larger = dataclasses.replace(cell, hidden_features=H + 1)
    params = larger.init(jax.random.key(0), F)
    with pytest.raises(ValueError) as error:
        cell.step(params, cell.init_carry((4,)), jnp.zeros((4, F)))
    columns = params.kernel.shape[1]
    cases.assert_says(error, "params.kernel", f"{columns // (H + 1) * H} columns")


SETTINGS = {
    "projected_features": (ProjectedLSTM, [0, -1, 2.5, True, None]),
    "cell_clip": (ProjectedLSTM, [0.0, -1.0, float("nan")]),
    "variant": (MUT, [0, 4, "1", None]),
    "epsilon": (LayerNormLSTM, [0.0, -1e-5, float("nan")]),
    "epsilon of the GRU": (LayerNormGRU, [0.0, -1e-5, float("nan")]),
}


@pytest.mark.parametrize(
    ("cell_type", "name", "value"),
    [
        pytest.param(cell_type, name.split()[0], value, id=f"{name}-{value}")
        for name, (cell_type, values) in SETTINGS.items()
        for value in values
    ],
)
def test_settings_out_of_range_are_refused(cell_type, name, value):
    with pytest.raises(ValueError) as error:
        cell_type(H, **{name: value})
    cases.assert_says(error, name, str(value))


@each_cell_type
def test_settings_are_keyword_only(cell_type):
    with pytest.raises(TypeError):
        cell_type(5, initializers.Zeros())
