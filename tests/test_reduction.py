"""unroll_reduce against unroll and the same loss on all outputs at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gated_rnn import Associative, FusedScan, Scan, unroll, unroll_reduce
from tests import cases
from tests.cases import B, H, R, T

pytestmark = pytest.mark.usefixtures("strict_promotion")

WIDTH = {"lstm": H, "gru_reset_before": H, "projected_lstm": R}
CHUNK_SIZES = [None, 1, 3, T, 100]


def targets_and_weights(cell_id, num_steps=T):
    """What stands beside the outputs: a pytree, as targets and a mask would be."""
    rng = np.random.default_rng(11)
    return {
        "targets": jnp.asarray(rng.normal(size=(num_steps, B, WIDTH[cell_id]))),
        "weights": jnp.asarray(rng.uniform(size=(num_steps, B))),
    }


def add_squares(total, outputs, aligned):
    """Sum of weighted squares, and a running sum of sines, which is not linear."""
    squares, sines = total
    errors = ((outputs - aligned["targets"]) ** 2).sum(axis=-1)
    return squares + (errors * aligned["weights"]).sum(), sines + jnp.sin(outputs).sum()


ZEROS = (0.0, 0.0)


def make_loss(cell_id, problem, reverse, engine, chunk_size, *, in_chunks):
    def loss(arrays, aligned):
        params, inputs, carry, reset_carry = arrays
        arguments = cases.CELLS[cell_id].cell, params, inputs
        rest = {"reset_carry": reset_carry, "reverse": reverse, "engine": engine}
        if in_chunks:
            after, sums = unroll_reduce(
                *arguments,
                add_squares,
                ZEROS,
                carry,
                aligned=aligned,
                chunk_size=chunk_size,
                **rest,
                **problem.flags,
            )
        else:
            after, outputs = unroll(*arguments, carry, **rest, **problem.flags)
            sums = add_squares(ZEROS, outputs, aligned)
        squares, sines = sums
        # Not the sum of both: each must have come through all chunks.
        return squares * sines + (after.hidden**3).sum(), (after, sums)

    return cases.quick_jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))


def assert_equals_unroll(cell_id, reverse, chunk_size, engine=None):
    problem = cases.make_problem(cell_id)
    arrays = cases.cast(problem.arrays, np.float64)
    aligned = targets_and_weights(cell_id)
    make = (cell_id, problem, reverse)
    actual = make_loss(*make, engine, chunk_size, in_chunks=True)(arrays, aligned)
    expected = make_loss(*make, Scan(), None, in_chunks=False)(arrays, aligned)
    cases.assert_close(actual, expected, cases.FLOAT64, "value, gradient")


@pytest.mark.usefixtures("x64")
@cases.each_direction
@pytest.mark.parametrize("chunk_size", CHUNK_SIZES)
def test_value_carry_and_gradient_are_those_of_all_outputs_at_once(chunk_size, reverse):
    assert_equals_unroll("lstm", reverse, chunk_size)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("engine", [FusedScan(2), Scan()], ids=["chunks", "scan"])
@pytest.mark.parametrize("cell_id", ["gru_reset_before", "projected_lstm"])
def test_value_and_gradient_are_the_same_for_other_cells_and_engines(cell_id, engine):
    assert_equals_unroll(cell_id, False, 3, engine)


@pytest.mark.usefixtures("x64")
@cases.each_direction
def test_chunks_come_in_the_order_of_processing_and_run_forward_in_time(reverse):
    problem = cases.make_problem("lstm")
    params, inputs, carry, reset_carry = cases.cast(problem.arrays, np.float64)
    seen = []

    def note(count, outputs, steps):
        # Every step's outputs at the place of the step; the order is that of chunks.
        order, at_step, calls = count
        seen.append(outputs.shape[0])
        order = order.at[steps].set(calls)
        return order, at_step.at[steps].set(outputs), calls + 1

    init = jnp.zeros(T, jnp.int32), jnp.zeros((T, B, H)), jnp.int32(0)
    _, (order, at_step, _) = unroll_reduce(
        cases.CELLS["lstm"].cell,
        params,
        inputs,
        note,
        init,
        carry,
        aligned=jnp.arange(T),
        chunk_size=3,
        reset_carry=reset_carry,
        reverse=reverse,
        **problem.flags,
    )
    # The shorter chunk is the last in time.
    wanted = [2, 2, 2, 1, 1, 1, 0] if reverse else [0, 0, 0, 1, 1, 1, 2]
    assert order.tolist() == wanted
    assert set(seen) == {3, 1}
    _, expected = cases.run_oracle("lstm", problem, reverse)
    cases.assert_close(at_step, expected, cases.FLOAT64, "outputs")


def test_default_chunks_divide_a_long_run_near_the_square_root_of_its_length():
    num_steps, sizes = 900, set()
    cell = cases.CELLS["gru"].cell
    params = jax.eval_shape(lambda key: cell.init(key, 1), jax.random.key(0))

    def note(total, outputs, _):
        sizes.add(outputs.shape[0])
        return total + outputs.sum()

    inputs = jax.ShapeDtypeStruct((num_steps, B, 1), jnp.float32)
    jax.eval_shape(lambda p, x: unroll_reduce(cell, p, x, note, 0.0), params, inputs)
    (size,) = sizes
    assert num_steps % size == 0
    assert num_steps**0.5 <= size <= 2 * num_steps**0.5


def run_of(num_steps, **changes):
    """Reduce a run of the LSTM to the sum of its outputs."""
    problem = cases.make_problem("lstm", num_steps=num_steps)
    params, inputs, carry, _ = cases.cast(problem.arrays, np.float32)
    run = unroll_reduce(
        cases.CELLS["lstm"].cell,
        params,
        jnp.nan_to_num(inputs),
        lambda total, outputs, _: total + outputs.sum(),
        jnp.float32(2.5),
        carry,
        **changes,
    )
    return carry, run


@pytest.mark.parametrize("chunk_size", [None, 3])
def test_no_steps_give_the_carry_and_the_init(chunk_size):
    carry, (after, total) = run_of(0, chunk_size=chunk_size, aligned=jnp.zeros((0, B)))
    cases.assert_close(after, carry, 0.0, "carry")
    assert total == 2.5
    assert jax.typeof(total).dtype == jnp.float32


@pytest.mark.parametrize("steps", [T - 1, T + 1, 1])
def test_aligned_arrays_of_other_steps_are_refused(steps):
    aligned = {"targets": jnp.zeros((T, B)), "mask": jnp.zeros((steps, B), bool)}
    with pytest.raises(ValueError) as error:
        run_of(T, aligned=aligned)
    cases.assert_says(error, "aligned", str(T), str((steps, B)))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("aligned", [jnp.float32(1.0), 1.0], ids=["array", "number"])
def test_aligned_number_is_refused(aligned):
    with pytest.raises(ValueError) as error:
        run_of(T, aligned=aligned)
    cases.assert_says(error, "aligned", str(T))


@pytest.mark.parametrize("value", [0, -2, 1.5, True], ids=repr)
def test_chunk_size_that_is_no_positive_integer_is_refused(value):
    with pytest.raises(ValueError) as error:
        run_of(T, chunk_size=value)
    cases.assert_says(error, "chunk_size", "a positive integer", repr(value))


def test_engine_that_refuses_the_cell_is_refused():
    with pytest.raises(ValueError) as error:
        run_of(T, engine=Associative())
    cases.assert_says(error, "engine", "LSTM", "affine")
