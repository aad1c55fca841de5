"""The contract of unroll, checked on every (cell, engine, direction) that runs.

The cells and engines are those of `tests/cases.py`. Compiling takes the time, so most
tests share the programs of the first two, what the oracle has shown equal in both
directions is examined further in one, and a claim about engines or about what stands
around a cell is checked on a few cells.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gated_rnn import LSTM, Scan, unroll
from tests import cases, reference
from tests.cases import (
    B,
    F,
    H,
    T,
    each_cell,
    each_core_cell,
    each_core_cell_and_engine,
    each_direction,
    each_engine_once,
    each_engine_option,
    each_examined_pair,
    each_running_pair,
)

pytestmark = pytest.mark.usefixtures("strict_promotion")

# A central difference of step 1e-5 in float64 errs by about 1e-10 (its third
# derivative) plus 1e-11 (rounding), relative to the largest entry.
FINITE_DIFFERENCES = 1e-8
# The same along a direction of length about 20, which moves 20 times further: 20^2.
LONG_FINITE_DIFFERENCES = 1e-6
# The same derivative computed twice in float64.
DERIVATIVES = 1e-10
# float32 through saturated gates: weights of size 10 amplify a rounding error as
# they amplify a difference in the carry.
SATURATED_FLOAT32 = 1e-4
# bfloat16 keeps 8 bits: 0.4 % a rounding, several roundings a step, 7 steps.
BFLOAT16 = 5e-2


@pytest.mark.usefixtures("x64")
@each_direction
@each_running_pair
def test_unroll_equals_oracle_in_float64(cell_id, engine, reverse):
    problem = cases.make_problem(cell_id)
    actual = cases.run_package(cell_id, problem, engine, reverse)
    expected = cases.run_oracle(cell_id, problem, reverse)
    cases.assert_same_run(actual, expected, cases.FLOAT64)


@each_direction
@each_examined_pair
def test_unroll_equals_oracle_in_float32(cell_id, engine, reverse):
    problem = cases.make_problem(cell_id)
    actual = cases.run_package(cell_id, problem, engine, reverse, np.float32)
    expected = cases.run_oracle(cell_id, problem, reverse)
    cases.assert_same_run(actual, expected, cases.FLOAT32)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("batch", [(), (2, B)], ids=["no_batch", "two_batch_axes"])
@each_direction
@each_engine_once
def test_unroll_equals_oracle_for_any_batch_axes(cell_id, engine, reverse, batch):
    problem = cases.make_problem(cell_id, batch)
    actual = cases.run_package(cell_id, problem, engine, reverse)
    expected = cases.run_oracle(cell_id, problem, reverse)
    cases.assert_same_run(actual, expected, cases.FLOAT64)


@pytest.mark.usefixtures("x64")
@each_cell
def test_unroll_equals_oracle_for_one_input_feature(cell_id):
    problem = cases.make_problem(cell_id, in_features=1)
    actual = cases.run_package(cell_id, problem)
    expected = cases.run_oracle(cell_id, problem)
    cases.assert_same_run(actual, expected, cases.FLOAT64)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("scale", [10.0, 1e3])
@each_direction
@each_examined_pair
def test_unroll_equals_oracle_with_saturated_gates(cell_id, engine, reverse, scale):
    problem = cases.make_problem(cell_id, scale=scale)
    expected = cases.run_oracle(cell_id, problem, reverse)
    actual = cases.run_package(cell_id, problem, engine, reverse)
    cases.assert_same_run(actual, expected, cases.FLOAT64)


@each_direction
@each_examined_pair
def test_unroll_equals_oracle_with_saturated_gates_in_float32(cell_id, engine, reverse):
    problem = cases.make_problem(cell_id, scale=10.0)
    expected = cases.run_oracle(cell_id, problem, reverse)
    actual = cases.run_package(cell_id, problem, engine, reverse, np.float32)
    cases.assert_same_run(actual, expected, SATURATED_FLOAT32)


@pytest.mark.usefixtures("x64")
@each_direction
@each_core_cell
def test_carry_and_reset_carry_are_broadcast_over_the_batch(cell_id, reverse):
    problem = cases.make_problem(cell_id)
    carry, reset_carry = jax.tree.map(
        lambda leaf: leaf[0], (problem.carry, problem.reset_carry)
    )
    problem = problem._replace(carry=carry, reset_carry=reset_carry)
    actual = cases.run_package(cell_id, problem, None, reverse)
    expected = cases.run_oracle(cell_id, problem, reverse)
    cases.assert_same_run(actual, expected, cases.FLOAT64)


@pytest.mark.usefixtures("x64")
@each_direction
@each_core_cell
def test_missing_arguments_mean_zero_carries_no_mask_and_no_resets(cell_id, reverse):
    case, problem = cases.CELLS[cell_id], cases.make_problem(cell_id)
    inputs = np.nan_to_num(problem.inputs)
    zeros = jax.tree.map(np.zeros_like, problem.carry)
    params, x = cases.cast((problem.params, inputs), np.float64)
    actual = cases.unroll_quickly(case.cell, params, x, reverse=reverse)
    expected = reference.unroll(
        case.step, problem.params, inputs, zeros, reverse=reverse
    )
    cases.assert_same_run(actual, expected, cases.FLOAT64)


@pytest.mark.usefixtures("x64")
@each_direction
@each_core_cell
def test_missing_reset_carry_means_zeros_not_the_carry(cell_id, reverse):
    case, problem = cases.CELLS[cell_id], cases.make_problem(cell_id)
    params, inputs, carry, _ = cases.cast(problem.arrays, np.float64)
    run = functools.partial(cases.unroll_quickly, case.cell, reverse=reverse)
    actual = run(params, inputs, carry, **problem.flags)
    zeros = jax.tree.map(np.zeros_like, problem.carry)
    expected = cases.run_oracle(cell_id, problem._replace(reset_carry=zeros), reverse)
    cases.assert_same_run(actual, expected, cases.FLOAT64)


@pytest.mark.usefixtures("x64")
@each_direction
@each_engine_option
def test_engine_options_change_no_result(engine, reverse):
    problem = cases.make_problem("lstm")
    actual = cases.run_package("lstm", problem, engine, reverse)
    expected = cases.run_oracle("lstm", problem, reverse)
    cases.assert_same_run(actual, expected, cases.FLOAT64)


@each_running_pair
def test_engine_that_runs_a_cell_gives_no_reason_against_it(cell_id, engine):
    assert engine.refuses(cases.CELLS[cell_id].cell) is None


@cases.each_refused_pair
def test_engine_that_refuses_a_cell_gives_its_reason_in_one_line(cell_id, engine):
    problem = cases.make_problem(cell_id)
    reason = engine.refuses(cases.CELLS[cell_id].cell)
    assert len(reason.split()) > 3  # it says why, not only that
    assert reason.splitlines() == [reason]
    # With mask and resets and without, and before anything is run.
    with pytest.raises(ValueError) as error:
        cases.call(unroll, cell_id, problem, engine, dtype=np.float32)
    cases.assert_says(error, "engine", type(engine).__name__, reason)
    params, inputs = cases.cast((problem.params, problem.inputs), np.float32)
    with pytest.raises(ValueError) as error:
        unroll(cases.CELLS[cell_id].cell, params, inputs, engine=engine)
    cases.assert_says(error, "engine", type(engine).__name__, reason)


# Derivatives. Second order forward only: one program less to compile for each pair.


def differentiate(cell_id, engine, reverse, problem=None):
    problem = cases.make_problem(cell_id) if problem is None else problem
    order = 1 if reverse else 2
    return cases.run_derivatives(cell_id, problem, engine, reverse, order=order)


@pytest.mark.usefixtures("x64")
@each_direction
@each_examined_pair
def test_gradients_equal_finite_differences(cell_id, engine, reverse):
    actual = differentiate(cell_id, engine, reverse).gradient
    expected = cases.finite_differences(cell_id, reverse)
    assert all(np.any(leaf != 0.0) for leaf in jax.tree.leaves(expected))
    cases.assert_close(actual, expected, FINITE_DIFFERENCES, "gradient")


@pytest.mark.usefixtures("x64")
@each_direction
@each_examined_pair
def test_forward_mode_equals_reverse_mode(cell_id, engine, reverse):
    result = differentiate(cell_id, engine, reverse)
    tangents = cases.make_tangents(cases.make_problem(cell_id))
    products = jax.tree.map(np.vdot, result.gradient, tangents)
    expected = np.sum(jax.tree.leaves(products))
    assert cases.relative_error(result.slope, expected) < DERIVATIVES


@pytest.mark.usefixtures("x64")
@each_examined_pair
def test_hessian_vector_product_equals_differences_of_gradients(cell_id, engine):
    problem = cases.make_problem(cell_id)
    tangents = cases.make_tangents(problem)
    step_size = 1e-5

    def gradient_at(shift):
        arrays = jax.tree.map(lambda a, b: a + shift * b, problem.arrays, tangents)
        moved = cases.Problem(*arrays, **problem.flags)
        return differentiate(cell_id, engine, reverse=False, problem=moved).gradient

    above, below = gradient_at(step_size), gradient_at(-step_size)
    expected = jax.tree.map(lambda a, b: (a - b) / (2 * step_size), above, below)
    actual = differentiate(cell_id, engine, reverse=False).hessian_times_tangents
    cases.assert_close(actual, expected, LONG_FINITE_DIFFERENCES, "product")


@pytest.mark.usefixtures("x64")
@each_direction
@each_examined_pair
def test_gradients_of_padded_inputs_are_zero_and_none_is_nan(cell_id, engine, reverse):
    mask = cases.make_problem(cell_id).mask
    result = differentiate(cell_id, engine, reverse)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(result))
    _, of_inputs, _, _ = result.gradient
    assert not of_inputs[~mask].any()
    assert of_inputs[mask].any(axis=-1).all()


@pytest.mark.usefixtures("x64")
@each_direction
@each_examined_pair
def test_gradients_of_saturated_gates_are_finite(cell_id, engine, reverse):
    problem = cases.make_problem(cell_id, scale=1e3)
    result = differentiate(cell_id, engine, reverse, problem)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(result))


@pytest.mark.usefixtures("x64")
@each_engine_option
def test_engine_options_change_no_gradient(engine):
    problem = cases.make_problem("gru")
    reverse = False
    actual = cases.run_derivatives("gru", problem, engine, reverse, order=1).gradient
    expected = cases.finite_differences("gru", reverse)
    cases.assert_close(actual, expected, FINITE_DIFFERENCES, "gradient")


@each_cell
def test_gradients_in_float32_equal_finite_differences(cell_id):
    problem = cases.make_problem(cell_id)
    reverse = False
    actual = cases.run_derivatives(
        cell_id, problem, None, reverse, order=1, dtype=np.float32
    )
    expected = cases.finite_differences(cell_id, reverse)
    cases.assert_close(actual.gradient, expected, cases.FLOAT32, "gradient")


def test_chunks_bound_the_memory_of_a_gradient():
    cell = LSTM(H)
    num_steps = 4096
    params = cell.init(jax.random.key(0), F)
    inputs = jnp.zeros((num_steps, B, F))

    def temporary_bytes(engine):
        def loss(params):
            carry, _ = unroll(cell, params, inputs, engine=engine, collect=False)
            return carry.hidden.sum()

        compiled = jax.jit(jax.grad(loss)).lower(params).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    # Kept of each step: at least the carry, two arrays of [B, H] float32. In chunks
    # of 64 = sqrt(4096) only 1 / 32 of that; half allows for the projected inputs.
    whole = temporary_bytes(Scan())
    assert whole >= num_steps * 2 * B * H * 4
    assert temporary_bytes(Scan(chunk_size=64)) < whole / 2


# Transformations


@pytest.mark.usefixtures("x64")
@each_core_cell_and_engine
def test_jit_equals_eager(cell_id, engine):
    problem = cases.make_problem(cell_id)
    eager = cases.call(unroll, cell_id, problem, engine)
    jitted = cases.run_package(cell_id, problem, engine)
    cases.assert_same_run(jitted, eager, cases.FLOAT64)


@each_core_cell_and_engine
def test_unroll_is_compiled_once_and_needs_no_static_arguments(cell_id, engine):
    traces = []

    @jax.jit
    def run(cell, params, inputs, engine):
        traces.append(cell)
        return jax.jit(unroll)(cell, params, inputs, engine=engine)

    cell = cases.CELLS[cell_id].cell
    for repeat in range(3):
        # Equal configurations and shapes; neither the same objects nor values.
        same_cell, same_engine = (type(old)(**vars(old)) for old in (cell, engine))
        params = same_cell.init(jax.random.key(repeat), F)
        carry, outputs = run(
            same_cell, params, jnp.full((T, B, F), float(repeat)), same_engine
        )
    assert len(traces) == 1
    assert outputs.shape == (T, B, cell.out_features)
    assert type(carry) is type(cell.init_carry())


@pytest.mark.usefixtures("x64")
@each_examined_pair
def test_vmap_over_params_equals_loop(cell_id, engine):
    case, problem = cases.CELLS[cell_id], cases.make_problem(cell_id)
    rng = np.random.default_rng(3)
    seeds = [cases.random_params(case, rng) for _ in range(4)]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *seeds)

    @cases.quick_jit
    @jax.vmap
    def run(params):
        moved = problem._replace(params=params)
        return cases.call(unroll, cell_id, moved, engine)

    runs = run(stacked)
    for seed, params in enumerate(seeds):
        actual = jax.tree.map(lambda leaf, seed=seed: leaf[seed], runs)
        expected = cases.run_oracle(cell_id, problem._replace(params=params))
        cases.assert_same_run(actual, expected, cases.FLOAT64)


def run_sharded(cell_id, problem, engine, *carries):
    """Run in shard_map over the batch, on a mesh of one device, with a gradient."""
    params, inputs, *carries = cases.cast(
        (problem.params, problem.inputs, *carries), np.float32
    )
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("batch",))
    sequence, rows, everywhere = jax.P(None, "batch"), jax.P("batch"), jax.P()

    @cases.quick_jit
    @functools.partial(
        jax.shard_map,
        mesh=mesh,
        in_specs=(everywhere, sequence, rows, everywhere, sequence, sequence),
        out_specs=(everywhere, (rows, sequence)),
    )
    def run(params, inputs, carry, reset_carry, mask, resets):
        def loss(params):
            result = unroll(
                cases.CELLS[cell_id].cell,
                params,
                inputs,
                carry,
                reset_carry=reset_carry,
                mask=mask,
                resets=resets,
                engine=engine,
            )
            return jax.lax.psum(result[1].sum(), "batch"), result

        return jax.grad(loss, has_aux=True)(params)

    return run(params, inputs, *carries, problem.mask, problem.resets)


@each_core_cell_and_engine
def test_shard_map_over_the_batch_equals_unsharded(cell_id, engine):
    problem = cases.make_problem(cell_id)
    gradient, actual = run_sharded(cell_id, problem, engine, None, None)
    zeros = jax.tree.map(np.zeros_like, problem.carry)
    problem = problem._replace(carry=zeros, reset_carry=zeros)
    expected = cases.run_oracle(cell_id, problem)
    cases.assert_same_run(actual, expected, cases.FLOAT32)
    assert all(leaf.any() for leaf in jax.tree.leaves(gradient))


@each_engine_once
def test_shard_map_takes_neither_mask_nor_resets(cell_id, engine):
    problem = cases.make_problem(cell_id)
    problem = problem._replace(
        inputs=np.nan_to_num(problem.inputs, nan=0.5), mask=None, resets=None
    )
    gradient, actual = run_sharded(cell_id, problem, engine, None, None)
    zeros = jax.tree.map(np.zeros_like, problem.carry)
    problem = problem._replace(carry=zeros, reset_carry=zeros)
    expected = cases.run_oracle(cell_id, problem)
    cases.assert_same_run(actual, expected, cases.FLOAT32)
    assert all(leaf.any() for leaf in jax.tree.leaves(gradient))


@each_engine_once
def test_shard_map_takes_a_carry_of_each_row_and_a_shared_reset_carry(cell_id, engine):
    problem = cases.make_problem(cell_id)
    shared = jax.tree.map(lambda leaf: leaf[0], problem.reset_carry)
    problem = problem._replace(reset_carry=shared)
    _, actual = run_sharded(cell_id, problem, engine, problem.carry, shared)
    expected = cases.run_oracle(cell_id, problem)
    cases.assert_same_run(actual, expected, cases.FLOAT32)


# dtypes


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32, jnp.bfloat16])
@each_examined_pair
def test_dtype_is_kept(cell_id, engine, dtype):
    problem = cases.make_problem(cell_id)
    with jax.enable_x64(dtype == jnp.float64):
        actual = cases.run_package(cell_id, problem, engine, dtype=dtype)
        assert {leaf.dtype for leaf in jax.tree.leaves(actual)} == {jnp.dtype(dtype)}
        if dtype == jnp.bfloat16:
            expected = cases.run_oracle(cell_id, problem)
            cases.assert_same_run(actual, expected, BFLOAT16)


# (params, inputs, carry): outputs and final carry have the dtype of the carry; without
# a carry, that of the parameters.
DTYPES = {
    "bfloat16 inputs": ("float32", "bfloat16", "float32"),
    "bfloat16 inputs, no carry": ("float32", "bfloat16", None),
    "float32 inputs, no carry": ("bfloat16", "float32", None),
    "float32 carry": ("bfloat16", "bfloat16", "float32"),
    "bfloat16 carry": ("float32", "float32", "bfloat16"),
    "float64 params": ("float64", "float32", "float32"),
    "float64 carry": ("float32", "float32", "float64"),
    "float64 inputs": ("float32", "float64", "float32"),
}


@pytest.mark.parametrize("dtypes", DTYPES.values(), ids=DTYPES)
@each_examined_pair
def test_outputs_have_the_dtype_of_the_carry(cell_id, engine, dtypes):
    case, problem = cases.CELLS[cell_id], cases.make_problem(cell_id)
    params_dtype, inputs_dtype, carry_dtype = dtypes
    with jax.enable_x64("float64" in dtypes):
        params = cases.cast(problem.params, params_dtype)
        inputs = cases.cast(problem.inputs, inputs_dtype)
        carry = carry_dtype and cases.cast(problem.carry, carry_dtype)
        actual = jax.eval_shape(
            functools.partial(unroll, case.cell, engine=engine, **problem.flags),
            params,
            inputs,
            carry,
        )
        expected = jnp.dtype(carry_dtype or params_dtype)
        assert {leaf.dtype for leaf in jax.tree.leaves(actual)} == {expected}


@each_cell
def test_gates_compute_in_the_dtype_of_the_carry(cell_id):
    # With bfloat16 parameters and a float32 carry only the operands of the matmuls are
    # rounded: outputs that were bfloat16 numbers would show gates computed in it.
    problem = cases.make_problem(cell_id)
    params = cases.cast(problem.params, jnp.bfloat16)
    inputs, carry, reset_carry = cases.cast(problem.arrays[1:], np.float32)
    _, outputs = cases.unroll_float32(
        cases.CELLS[cell_id].cell,
        params,
        inputs,
        carry,
        reset_carry=reset_carry,
        **problem.flags,
    )
    _, expected = cases.run_oracle(cell_id, problem)
    assert cases.relative_error(outputs, expected) < BFLOAT16
    real = outputs[problem.mask]
    real = real[real != 0.0]  # zero is a bfloat16 number, and a relu's usual value
    assert np.mean(real == real.astype(jnp.bfloat16).astype(jnp.float32)) < 0.1


# Sizes


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("batch", [(0,), (2, 0)], ids=["no_rows", "two_axes_no_rows"])
@each_examined_pair
def test_zero_size_batch_gives_empty_outputs_and_zero_gradients(cell_id, engine, batch):
    problem = cases.make_problem(cell_id, batch)

    @cases.quick_jit
    def run(params):
        def loss(params):
            moved = problem._replace(params=params)
            result = cases.call(unroll, cell_id, moved, engine)
            return result[1].sum(), result

        return jax.grad(loss, has_aux=True)(params)

    gradient, (carry, outputs) = run(cases.cast(problem.params, np.float64))
    cell = cases.CELLS[cell_id].cell
    assert outputs.shape == (T, *batch, cell.out_features)
    assert jax.tree.map(jnp.shape, carry) == jax.tree.map(
        lambda leaf: (*batch, *leaf.shape), cell.init_carry()
    )
    assert not any(leaf.any() for leaf in jax.tree.leaves(gradient))


@pytest.mark.usefixtures("x64")
@each_direction
@each_examined_pair
def test_one_step_equals_oracle(cell_id, engine, reverse):
    problem = cases.make_problem(cell_id, num_steps=1)
    actual = cases.run_package(cell_id, problem, engine, reverse)
    expected = cases.run_oracle(cell_id, problem, reverse)
    cases.assert_same_run(actual, expected, cases.FLOAT64)


@pytest.mark.usefixtures("x64")
@each_direction
@each_examined_pair
def test_zero_steps_return_the_carry_and_its_gradient(cell_id, engine, reverse):
    problem = cases.make_problem(cell_id, num_steps=0)

    @cases.quick_jit
    def run(arrays):
        def loss(arrays):
            moved = cases.Problem(*arrays, **problem.flags)
            result = cases.call(unroll, cell_id, moved, engine, reverse)
            return sum(leaf.sum() for leaf in jax.tree.leaves(result[0])), result

        return jax.grad(loss, has_aux=True)(arrays)

    arrays = cases.cast(problem.arrays, np.float64)
    gradient, (carry, outputs) = run(arrays)
    assert outputs.shape == (0, B, cases.CELLS[cell_id].cell.out_features)
    assert jax.tree.all(jax.tree.map(np.array_equal, carry, arrays[2]))
    params, inputs, carry, reset_carry = gradient
    assert not any(leaf.any() for leaf in jax.tree.leaves((params, reset_carry)))
    assert inputs.shape == (0, B, F)
    assert all((leaf == 1.0).all() for leaf in jax.tree.leaves(carry))


# Semantics as relations between runs of the package


@pytest.mark.usefixtures("x64")
@each_direction
@each_engine_once
def test_masked_equals_unpadded(cell_id, engine, reverse):
    problem = cases.make_problem(cell_id, batch=())
    mask = np.array([False, True, True, False, True, True, False])
    inputs = np.where(mask[:, None], np.nan_to_num(problem.inputs, nan=0.5), np.nan)
    padded = problem._replace(inputs=inputs, mask=mask)
    deleted = padded._replace(
        inputs=inputs[mask], mask=np.ones(mask.sum(), bool), resets=padded.resets[mask]
    )
    run = functools.partial(cases.run_package, cell_id, engine=engine, reverse=reverse)
    carry, outputs = run(problem=padded)
    cases.assert_same_run((carry, outputs[mask]), run(problem=deleted), cases.FLOAT64)
    assert not outputs[~mask].any()


@each_direction
@each_examined_pair
def test_rows_all_masked_end_in_their_initial_carry(cell_id, engine, reverse):
    problem = cases.make_problem(cell_id)
    row = 4
    assert not problem.mask[:, row].any()
    assert problem.resets[:, row].any()
    carry, outputs = cases.run_package(cell_id, problem, engine, reverse, np.float32)
    initial = cases.cast(problem.carry, np.float32)
    for after, before in zip(
        jax.tree.leaves(carry), jax.tree.leaves(initial), strict=True
    ):
        assert np.array_equal(after[row], before[row])
    assert not outputs[:, row].any()


@each_direction
@each_examined_pair
def test_resets_equal_separate_sequences(cell_id, engine, reverse):
    # A sequence by itself is the same program with all other steps masked.
    problem = cases.make_problem(cell_id)
    inputs = np.nan_to_num(problem.inputs, nan=0.5)
    problem = problem._replace(inputs=inputs, mask=np.ones((T, B), bool))
    segments = np.repeat([0, 1, 2], [2, 3, 2])
    resets = np.zeros((T, B), bool)
    resets[[2, 5]] = True
    run = functools.partial(
        cases.run_package, cell_id, engine=engine, reverse=reverse, dtype=np.float32
    )

    outputs, carry = 0.0, problem.carry
    for segment in (2, 1, 0) if reverse else (0, 1, 2):
        alone = np.broadcast_to((segments == segment)[:, None], (T, B))
        final, piece = run(
            problem=problem._replace(
                carry=carry, mask=alone, resets=np.zeros_like(resets)
            )
        )
        outputs, carry = outputs + piece, problem.reset_carry
    together = run(problem=problem._replace(resets=resets))
    cases.assert_same_run(together, (final, outputs), cases.FLOAT32)


@pytest.mark.usefixtures("x64")
@each_core_cell_and_engine
def test_pieces_with_the_carry_handed_on_equal_the_whole(cell_id, engine):
    problem = cases.make_problem(cell_id)
    whole = cases.run_package(cell_id, problem, engine)
    carry, outputs = problem.carry, []
    for piece in (slice(0, 3), slice(3, T)):
        part = problem._replace(
            carry=carry,
            inputs=problem.inputs[piece],
            mask=problem.mask[piece],
            resets=problem.resets[piece],
        )
        carry, part_outputs = cases.run_package(cell_id, part, engine)
        outputs.append(part_outputs)
    cases.assert_same_run((carry, np.concatenate(outputs)), whole, cases.FLOAT64)


@pytest.mark.usefixtures("x64")
@each_core_cell_and_engine
def test_without_collecting_the_carry_is_the_same(cell_id, engine):
    problem = cases.make_problem(cell_id)
    final, outputs = cases.run_package(cell_id, problem, engine, collect=False)
    expected, _ = cases.run_package(cell_id, problem, engine)
    assert outputs is None
    cases.assert_close(final, expected, cases.FLOAT64, "carry")
