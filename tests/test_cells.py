"""The cells as functions: their steps, their properties, what they refuse."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gated_rnn import (
    GRU,
    LSTM,
    GRUCarry,
    GRUParams,
    LSTMCarry,
    LSTMParams,
    gru_step,
    initializers,
    lstm_step,
)
from tests import cases, reference
from tests.cases import F, H, T, each_cell

pytestmark = pytest.mark.usefixtures("strict_promotion")

# float32 rounding of one step.
ONE_STEP = 1e-6

STEP_FUNCTIONS = {
    "lstm": lstm_step,
    "lstm_no_bias": lstm_step,
    "gru": gru_step,
    "gru_reset_before": functools.partial(gru_step, reset_after=False),
}
seeds = st.integers(0, 2**32 - 1)
scales = st.sampled_from([0.1, 1.0, 10.0])


def draw_step(cell_id, rng, batch, scale=1.0):
    """Random params, carry and inputs of one step, in float64."""
    case = cases.CELLS[cell_id]
    carry = jax.eval_shape(lambda: case.cell.init_carry(batch))
    inputs = rng.normal(size=(*batch, F))
    return (
        cases.random_params(case, rng, scale),
        cases.random_like(carry, rng, scale),
        inputs,
    )


def step_of_rows(cell_id, params, carry, inputs):
    """The oracle's step for every row."""
    carry, outputs = reference.unroll(
        cases.CELLS[cell_id].step, params, inputs[None], carry
    )
    return carry, outputs[0]


@pytest.mark.parametrize("batch", [(), (4,), (2, 1, 4)], ids=str)
@each_cell
def test_step_takes_any_leading_axes(cell_id, batch):
    arrays = draw_step(cell_id, np.random.default_rng(0), batch)
    expected = step_of_rows(cell_id, *arrays)
    arrays = cases.cast(arrays, np.float32)
    of_cell = jax.jit(cases.CELLS[cell_id].cell.step)(*arrays)
    of_function = jax.jit(STEP_FUNCTIONS[cell_id])(*arrays)
    cases.assert_same_run(of_cell, expected, cases.FLOAT32)
    cases.assert_same_run(of_function, expected, cases.FLOAT32)


@each_cell
def test_step_composes_project_recur_and_gate(cell_id):
    cell = cases.CELLS[cell_id].cell
    arrays = draw_step(cell_id, np.random.default_rng(0), (4,))
    params, carry, inputs = cases.cast(arrays, np.float32)
    projected = cell.project(params, inputs)
    composed = cell.gate(params, projected, cell.recur(params, carry), carry)
    expected = cell.step(params, carry, inputs)
    cases.assert_close(composed, expected, ONE_STEP)


@each_cell
def test_project_takes_all_steps_at_once(cell_id):
    cell = cases.CELLS[cell_id].cell
    rng = np.random.default_rng(0)
    params = cases.cast(cases.random_params(cases.CELLS[cell_id], rng), np.float32)
    inputs = jnp.asarray(rng.normal(size=(T, 4, F)), jnp.float32)
    together = cell.project(params, inputs)
    for t in range(T):
        one = cell.project(params, inputs[t])
        at_t = jax.tree.map(lambda leaf, t=t: leaf[t], together)
        cases.assert_close(at_t, one, ONE_STEP)


@pytest.mark.parametrize("cell_id", STEP_FUNCTIONS)
def test_step_function_is_a_scan_body(cell_id):
    problem = cases.make_problem(cell_id)
    problem = problem._replace(
        inputs=np.nan_to_num(problem.inputs),
        mask=np.ones_like(problem.mask),
        resets=np.zeros_like(problem.resets),
    )
    params, inputs, carry, _ = cases.cast(problem.arrays, np.float32)
    body = functools.partial(STEP_FUNCTIONS[cell_id], params)
    actual = jax.lax.scan(body, carry, inputs)
    expected = cases.run_oracle(cell_id, problem)
    cases.assert_same_run(actual, expected, cases.FLOAT32)


@given(seed=seeds, scale=scales)
def test_gru_of_the_other_convention_has_z_negated(seed, scale):
    rng = np.random.default_rng(seed)
    params, carry, inputs = draw_step("gru", rng, (4,), scale)

    def negate_z(leaf):
        r, z, n = np.split(leaf, 3, axis=-1)
        return np.concatenate([r, -z, n], axis=-1)

    # h' = z n + (1 - z) h, the convention of Chung et al. (2014).
    h = carry.hidden
    x_r, x_z, x_n = np.split(inputs @ params.kernel + params.bias, 3, axis=-1)
    h_r, h_z, h_n = np.split(h @ params.recurrent_kernel, 3, axis=-1)
    r, z = reference.sigmoid(x_r + h_r), reference.sigmoid(x_z + h_z)
    n = np.tanh(x_n + r * (h_n + params.recurrent_bias))
    expected = z * n + (1.0 - z) * h

    ours = params._replace(
        kernel=negate_z(params.kernel),
        recurrent_kernel=negate_z(params.recurrent_kernel),
        bias=negate_z(params.bias),
    )
    _, outputs = jitted_gru_step(*cases.cast((ours, carry, inputs), np.float32))
    assert cases.relative_error(outputs, expected) < cases.FLOAT32


@given(seed=seeds, scale=scales)
def test_gru_writes_only_the_share_it_erased(seed, scale):
    rng = np.random.default_rng(seed)
    params, carry, inputs = draw_step("gru", rng, (4,), scale)
    arrays = cases.cast((params, carry, inputs), np.float32)
    h = np.asarray(carry.hidden)
    kept, _ = jitted_gru_step(*arrays)

    # The same gates, another candidate: what changes is 1 - z times what n changes.
    r_z_n = np.repeat([0.0, 0.0, 1.0], H)
    saturated = [
        arrays[0]._replace(
            bias=jnp.asarray(params.bias * (1 - r_z_n) + 1e3 * s * r_z_n, np.float32)
        )
        for s in (1.0, -1.0)
    ]
    ones, _ = jitted_gru_step(saturated[0], *arrays[1:])  # n = 1
    minus_ones, _ = jitted_gru_step(saturated[1], *arrays[1:])  # n = -1
    written = (ones.hidden - minus_ones.hidden) / 2  # 1 - z
    erased = 1.0 - (ones.hidden + minus_ones.hidden) / 2 / jnp.asarray(h, jnp.float32)
    shares = written * jnp.asarray(h, jnp.float32)
    assert np.all((written >= 0.0) & (written <= 1.0 + ONE_STEP))
    error = np.abs(erased * h - shares) / np.max(np.abs(h) + 1.0)
    assert np.max(error) < cases.FLOAT32
    # The new value lies between the old one and the candidate, which tanh bounds.
    bound = np.maximum(np.abs(h), 1.0)
    assert np.all(np.abs(kept.hidden) <= bound * (1.0 + ONE_STEP))


jitted_gru_step = jax.jit(gru_step)
jitted_lstm_step = jax.jit(lstm_step)


@given(seed=seeds, scale=scales)
def test_lstm_adds_at_most_one_to_its_memory(seed, scale):
    arrays = draw_step("lstm", np.random.default_rng(seed), (4,), scale)
    carry, outputs = jitted_lstm_step(*cases.cast(arrays, np.float32))
    old = np.abs(arrays[1].cell)
    assert np.all(np.abs(carry.cell) <= (old + 1.0) * (1.0 + ONE_STEP))
    assert np.all(np.abs(outputs) <= 1.0)
    assert np.array_equal(outputs, carry.hidden)


def test_activations_stand_where_the_equations_say():
    rng = np.random.default_rng(0)
    params, carry, inputs = draw_step("lstm", rng, (4,))
    cell = LSTM(H, activation=jnp.sin, gate_activation=jnp.cos)
    actual = cell.step(*cases.cast((params, carry, inputs), np.float32))
    projected = inputs @ params.kernel + params.bias
    gates = np.split(projected + carry.hidden @ params.recurrent_kernel, 4, axis=-1)
    i, f, o = (np.cos(gates[index]) for index in (0, 1, 3))
    c = f * carry.cell + i * np.sin(gates[2])
    h = o * np.sin(c)
    cases.assert_same_run(actual, ({"hidden": h, "cell": c}, h), cases.FLOAT32)

    params, carry, inputs = draw_step("gru", rng, (4,))
    cell = GRU(H, activation=jnp.sin, gate_activation=jnp.cos)
    actual = cell.step(*cases.cast((params, carry, inputs), np.float32))
    x_r, x_z, x_n = np.split(inputs @ params.kernel + params.bias, 3, axis=-1)
    h_r, h_z, h_n = np.split(carry.hidden @ params.recurrent_kernel, 3, axis=-1)
    z = np.cos(x_z + h_z)
    n = np.sin(x_n + np.cos(x_r + h_r) * (h_n + params.recurrent_bias))
    h = (1.0 - z) * n + z * carry.hidden
    cases.assert_same_run(actual, ({"hidden": h}, h), cases.FLOAT32)


# Configuration, parameters and carries


def shapes(tree):
    return jax.tree.map(jnp.shape, tree)


def test_params_and_carries_have_the_documented_fields_and_shapes():
    key = jax.random.key(0)
    lstm, gru = LSTM(5), GRU(5)
    before = GRU(5, reset_after=False)
    assert shapes(lstm.init(key, 3)) == LSTMParams(
        kernel=(3, 20), recurrent_kernel=(5, 20), bias=(20,)
    )
    assert shapes(gru.init(key, 3)) == GRUParams(
        kernel=(3, 15), recurrent_kernel=(5, 15), bias=(15,), recurrent_bias=(5,)
    )
    assert before.init(key, 3).recurrent_bias is None
    assert LSTM(5, use_bias=False).init(key, 3).bias is None
    assert GRU(5, use_bias=False).init(key, 3)[2:] == (None, None)
    assert shapes(lstm.init_carry((2, 4))) == LSTMCarry(
        hidden=(2, 4, 5), cell=(2, 4, 5)
    )
    assert shapes(gru.init_carry()) == GRUCarry(hidden=(5,))


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
    assert not np.array_equal(first.kernel, second.kernel)
    assert not np.array_equal(first.recurrent_kernel, second.recurrent_kernel)


@each_cell
def test_cell_is_a_hashable_value_without_array_leaves(cell_id):
    cell = cases.CELLS[cell_id].cell
    same = type(cell)(**vars(cell))
    other = type(cell)(**{**vars(cell), "hidden_features": H + 1})
    assert hash(cell) == hash(same)
    assert cell == same
    assert cell != other
    assert jax.tree.leaves(cell) == []
    assert cell.out_features == H


def test_cells_say_whether_their_gate_is_pointwise():
    assert LSTM(5).pointwise
    assert GRU(5).pointwise
    assert not GRU(5, reset_after=False).pointwise


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
@pytest.mark.parametrize("cell", [LSTM, GRU])
def test_hidden_features_that_are_no_positive_integer_are_refused(cell, value):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        cell(value)
    cases.assert_says(error, "hidden_features", "a positive integer", repr(value))


def test_error_has_the_documented_form():
    with pytest.raises(ValueError) as error:  # noqa: PT011
        LSTM(-1)
    assert str(error.value) == (
        "Received an invalid value for hidden_features: "
        "expected a positive integer, got -1."
    )


@each_cell
def test_in_features_that_are_no_positive_integer_are_refused(cell_id):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        cases.CELLS[cell_id].cell.init(jax.random.key(0), 0)
    cases.assert_says(error, "in_features", "a positive integer", "got 0")


@pytest.mark.parametrize("cell_id", STEP_FUNCTIONS)
def test_inputs_with_the_wrong_number_of_features_are_refused(cell_id):
    cell = cases.CELLS[cell_id].cell
    params, carry = cell.init(jax.random.key(0), F), cell.init_carry((4,))
    for step in (cell.step, STEP_FUNCTIONS[cell_id]):
        with pytest.raises(ValueError) as error:  # noqa: PT011
            step(params, carry, jnp.zeros((4, F + 1)))
        cases.assert_says(error, "inputs", str(F), str(F + 1))


@pytest.mark.parametrize("cell", [LSTM, GRU])
def test_settings_are_keyword_only(cell):
    with pytest.raises(TypeError):
        cell(5, initializers.Zeros())
