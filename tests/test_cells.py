"""The cells as functions: their steps, and what they promise of them."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

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
    gru_step,
    lstm_step,
)
from tests import cases, reference, reference_cells
from tests.cases import F, H, T, each_cell, each_cell_type

pytestmark = pytest.mark.usefixtures("strict_promotion")

# float32 rounding of one step.
ONE_STEP = 1e-6

STEP_FUNCTIONS = {
    "lstm": lstm_step,
    "lstm_no_bias": lstm_step,
    "gru": gru_step,
    "gru_no_bias": gru_step,
    "gru_reset_before": functools.partial(gru_step, reset_after=False),
}
each_step_function = pytest.mark.parametrize("cell_id", STEP_FUNCTIONS)
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


def step_of_rows(step, params, carry, inputs):
    """The oracle's step for every row."""
    carry, outputs = reference.unroll(step, params, inputs[None], carry)
    return carry, outputs[0]


@pytest.mark.parametrize("batch", [(), (2, 1, 4)], ids=str)
@each_cell
def test_step_takes_any_leading_axes(cell_id, batch):
    arrays = draw_step(cell_id, np.random.default_rng(0), batch)
    expected = step_of_rows(cases.CELLS[cell_id].step, *arrays)
    step = cases.quick_jit(cases.CELLS[cell_id].cell.step)
    actual = step(*cases.cast(arrays, np.float32))
    cases.assert_same_run(actual, expected, cases.FLOAT32)


@each_step_function
def test_step_function_is_the_step_of_the_cell(cell_id):
    arrays = draw_step(cell_id, np.random.default_rng(0), (2, 1, 4))
    expected = step_of_rows(cases.CELLS[cell_id].step, *arrays)
    step = cases.quick_jit(STEP_FUNCTIONS[cell_id])
    actual = step(*cases.cast(arrays, np.float32))
    cases.assert_same_run(actual, expected, cases.FLOAT32)


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


@each_step_function
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


@each_step_function
def test_step_function_refuses_inputs_with_the_wrong_number_of_features(cell_id):
    cell = cases.CELLS[cell_id].cell
    params, carry = cell.init(jax.random.key(0), F), cell.init_carry((4,))
    with pytest.raises(ValueError) as error:
        STEP_FUNCTIONS[cell_id](params, carry, jnp.zeros((4, F + 1)))
    cases.assert_says(error, "inputs", str(F), str(F + 1))


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


@each_cell
def test_activations_stand_where_the_equations_say(cell_id):
    # With two that no other function of the step could stand in for.
    case = cases.CELLS[cell_id]
    fields = {field.name for field in dataclasses.fields(case.cell)}
    names = [name for name in ("activation", "gate_activation") if name in fields]
    of_cell = {"activation": jnp.sin, "gate_activation": jnp.cos}
    of_step = {"activation": np.sin, "gate_activation": np.cos}
    cell = dataclasses.replace(case.cell, **{name: of_cell[name] for name in names})
    step = functools.partial(case.step, **{name: of_step[name] for name in names})
    arrays = draw_step(cell_id, np.random.default_rng(0), (4,))
    actual = cases.quick_jit(cell.step)(*cases.cast(arrays, np.float32))
    cases.assert_same_run(actual, step_of_rows(step, *arrays), cases.FLOAT32)


DEFAULTS = {
    LSTM: reference_cells.lstm_step,
    GRU: reference_cells.gru_step,
    Elman: reference_cells.elman_step,
    PeepholeLSTM: reference_cells.peephole_lstm_step,
    CoupledLSTM: reference_cells.coupled_lstm_step,
    OpenLSTM: reference_cells.open_lstm_step,
    ProjectedLSTM: reference_cells.projected_lstm_step,
    LayerNormLSTM: reference_cells.layer_norm_lstm_step,
    LayerNormGRU: reference_cells.layer_norm_gru_step,
    MGU: reference_cells.mgu_step,
    JANET: reference_cells.janet_step,
    MUT: reference_cells.mut1_step,
    MinGRU: reference_cells.min_gru_step,
    MinLSTM: reference_cells.min_lstm_step,
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("use_bias", [True, False], ids=["bias", "no_bias"])
@each_cell_type
def test_settings_default_to_those_of_the_papers(cell_type, use_bias):
    rng = np.random.default_rng(0)
    cell, step = cell_type(H, use_bias=use_bias), DEFAULTS[cell_type]
    shapes = jax.eval_shape(lambda: cell.init(jax.random.key(0), F))
    params = cases.random_like(shapes, rng)
    carry = cases.random_like(cell.init_carry((4,)), rng)
    inputs = rng.normal(size=(4, F))
    arrays = cases.cast((params, carry, inputs), np.float64)
    actual = cases.quick_jit(cell.step)(*arrays)
    expected = step_of_rows(step, params, carry, inputs)
    cases.assert_same_run(actual, expected, cases.FLOAT64)


# What a cell says of itself, which engines and layers rely on


def gate_arguments(cell_id):
    """Random params, projected, recurrent and carry of one row."""
    cell = cases.CELLS[cell_id].cell
    arrays = draw_step(cell_id, np.random.default_rng(0), ())
    params, carry, inputs = cases.cast(arrays, np.float64)
    return params, cell.project(params, inputs), cell.recur(params, carry), carry


def mixes_features(block):
    """Whether a Jacobian [m, n] has an entry between two different features."""
    m, n = block.shape
    if n % m:
        return block.any()
    return (np.reshape(block, (m, n // m, m)) * (1 - np.eye(m))[:, None]).any()


@pytest.mark.usefixtures("x64")
@each_cell
def test_gate_is_pointwise_if_the_cell_says_so(cell_id):
    cell = cases.CELLS[cell_id].cell
    params, *arguments = gate_arguments(cell_id)
    gate = functools.partial(cell.gate, params)
    jacobian = cases.quick_jit(jax.jacobian(gate, argnums=(0, 1, 2)))(*arguments)
    mixes = any(map(mixes_features, jax.tree.leaves(jacobian)))
    # The norms of LayerNormGRU stand in project and recur; it promises nothing.
    assert cell.pointwise == (not mixes and not isinstance(cell, LayerNormGRU))


@pytest.mark.usefixtures("x64")
@each_cell
def test_gate_multiplies_by_the_recurrent_kernel_if_the_cell_says_so(cell_id):
    cell = cases.CELLS[cell_id].cell
    params, *arguments = gate_arguments(cell_id)
    names = [name for name in params._fields if name == "recurrent_kernel"]

    def total(kernels):
        _, outputs = cell.gate(params._replace(**kernels), *arguments)
        return outputs.sum()

    slopes = cases.quick_jit(jax.grad(total))({n: getattr(params, n) for n in names})
    says = getattr(cell, "recurs_in_gate", False)
    assert says == any(leaf.any() for leaf in slopes.values())


@pytest.mark.usefixtures("x64")
@each_cell
def test_next_carry_is_affine_in_the_carry_if_the_cell_says_so(cell_id):
    case = cases.CELLS[cell_id]
    arrays = draw_step(cell_id, np.random.default_rng(0), (4,), scale=2.0)
    params, carry, inputs = cases.cast(arrays, np.float64)

    @cases.quick_jit
    def next_carry(carry):
        return case.cell.step(params, carry, inputs)[0]

    at_zero = next_carry(jax.tree.map(jnp.zeros_like, carry))
    at_one = next_carry(jax.tree.map(jnp.ones_like, carry))
    errors = jax.tree.map(
        lambda zero, one, c, actual: cases.relative_error(
            zero + (one - zero) * c, actual
        ),
        at_zero,
        at_one,
        carry,
        next_carry(carry),
    )
    says = getattr(case.cell, "affine", False)
    assert says == case.affine
    assert says == (max(errors) < cases.FLOAT64)
