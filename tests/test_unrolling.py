"""Relations between runs of unroll, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gated_rnn import GRU, LSTM, GRUCarry, Scan, lengths_to_mask, unroll
from tests import cases
from tests.cases import B, F, H, T, each_core_cell, each_direction

pytestmark = pytest.mark.usefixtures("strict_promotion")

flags = hnp.arrays(np.bool_, (T, B))


@pytest.mark.parametrize("cell_id", ["lstm", "gru"])
@each_direction
@given(mask=flags, resets=flags)
def test_unroll_equals_oracle_for_any_mask_and_resets(cell_id, reverse, mask, resets):
    problem = cases.make_problem(cell_id)
    inputs = np.where(mask[..., None], np.nan_to_num(problem.inputs, nan=0.5), np.nan)
    problem = problem._replace(inputs=inputs, mask=mask, resets=resets)
    actual = cases.run_package(cell_id, problem, None, reverse, np.float32)
    expected = cases.run_oracle(cell_id, problem, reverse)
    cases.assert_same_run(actual, expected, cases.FLOAT32)


@given(
    cell_id=st.sampled_from(sorted(cases.CELLS)),
    batch=st.sampled_from([(), (1,), (0,), (4,), (2, 3), (6,)]),
    num_steps=st.integers(0, 5),
    in_features=st.integers(1, 4),
    reverse=st.booleans(),
    chunk_size=st.sampled_from([None, 2]),
)
def test_unroll_equals_oracle_for_any_cell_and_shape(
    cell_id, batch, num_steps, in_features, reverse, chunk_size
):
    problem = cases.make_problem(cell_id, batch, num_steps, in_features=in_features)
    engine = Scan(chunk_size)
    actual = cases.run_package(cell_id, problem, engine, reverse, np.float32)
    expected = cases.run_oracle(cell_id, problem, reverse)
    cases.assert_same_run(actual, expected, cases.FLOAT32)


@given(mask=flags, garbage=st.sampled_from([np.nan, np.inf, -np.inf, 1e30, 0.0]))
def test_what_stands_under_the_mask_changes_no_bit(mask, garbage):
    problem = cases.make_problem("lstm")
    inputs = np.nan_to_num(problem.inputs, nan=0.5)

    def run(value):
        x = np.where(mask[..., None], inputs, value)
        moved = problem._replace(inputs=x, mask=mask)
        return cases.run_package("lstm", moved, dtype=np.float32)

    assert jax.tree.all(jax.tree.map(np.array_equal, run(garbage), run(0.0)))


@each_core_cell
def test_reverse_is_forward_on_flipped_inputs_flipped_back(cell_id):
    problem = cases.make_problem(cell_id)
    problem = problem._replace(resets=np.zeros_like(problem.resets))
    flipped = problem._replace(inputs=problem.inputs[::-1], mask=problem.mask[::-1])
    carry, outputs = cases.run_package(cell_id, flipped, None, False, np.float32)
    actual = cases.run_package(cell_id, problem, None, True, np.float32)
    cases.assert_same_run(actual, (carry, outputs[::-1]), cases.FLOAT32)


@each_core_cell
def test_reverse_resets_are_forward_resets_a_step_later(cell_id):
    # Without a mask: in flipped time the segment begins one step after the flag.
    problem = cases.make_problem(cell_id)
    problem = problem._replace(
        inputs=np.nan_to_num(problem.inputs), mask=np.ones_like(problem.mask)
    )
    later = np.roll(problem.resets[::-1], 1, axis=0)
    later[0] = False
    flipped = problem._replace(inputs=problem.inputs[::-1], resets=later)
    carry, outputs = cases.run_package(cell_id, flipped, None, False, np.float32)
    actual = cases.run_package(cell_id, problem, None, True, np.float32)
    cases.assert_same_run(actual, (carry, outputs[::-1]), cases.FLOAT32)


@given(lengths=hnp.arrays(np.int32, (2, 3), elements=st.integers(0, T)))
def test_lengths_to_mask_is_true_at_the_first_steps(lengths):
    mask = lengths_to_mask(jnp.asarray(lengths), T)
    assert mask.dtype == bool
    assert mask.shape == (T, 2, 3)
    for t in range(T):
        assert np.array_equal(mask[t], t < lengths)


def test_lengths_to_mask_takes_a_scalar_no_steps_and_a_traced_array():
    assert lengths_to_mask(jnp.array(2), 3).tolist() == [True, True, False]
    assert lengths_to_mask(jnp.array([1, 2]), 0).shape == (0, 2)
    traced = jax.jit(lambda lengths: lengths_to_mask(lengths, 3))(jnp.array([1]))
    assert traced[:, 0].tolist() == [True, False, False]


def test_final_carry_of_a_padded_row_is_that_of_its_last_real_step():
    cell = GRU(H)
    params = cell.init(jax.random.key(0), F)
    inputs = jax.random.normal(jax.random.key(1), (T, 3, F))
    lengths = np.array([T, 4, 1])
    run = jax.jit(lambda x, mask: unroll(cell, params, x, mask=mask))
    carry, outputs = run(inputs, lengths_to_mask(jnp.asarray(lengths), T))
    last = outputs[lengths - 1, np.arange(3)]
    assert np.array_equal(carry.hidden, last)


def test_unroll_takes_integer_and_numpy_inputs():
    cell = LSTM(H)
    params = cell.init(jax.random.key(0), F)
    tokens = np.arange(T * B * F).reshape(T, B, F) % 3
    _, outputs = unroll(cell, params, tokens)
    _, expected = unroll(cell, params, jnp.asarray(tokens, jnp.float32))
    assert outputs.dtype == jnp.float32
    assert np.array_equal(outputs, expected)


# Errors


def refused(name, *words, cell=None, **changes):
    """Run LSTM(H) on a valid call with some arguments changed; check the error."""
    cell = cell or LSTM(H)
    arguments = {
        "params": cell.init(jax.random.key(0), F),
        "inputs": jnp.zeros((T, B, F)),
        "carry": cell.init_carry((B,)),
        "mask": jnp.ones((T, B), bool),
        "resets": jnp.zeros((T, B), bool),
        "reset_carry": cell.init_carry((B,)),
    }
    unroll(cell, **arguments)
    with pytest.raises(ValueError) as error:
        unroll(cell, **{**arguments, **changes})
    cases.assert_says(error, name, *words)


def test_batch_major_inputs_are_refused_with_a_hint():
    inputs = jnp.zeros((B, T, F))
    only_carry = {"mask": None, "resets": None, "reset_carry": None}
    refused("carry", "time-major", str((B, H)), inputs=inputs, **only_carry)
    refused("mask", "time-major", inputs=inputs, carry=None, reset_carry=None)


def test_inputs_of_wrong_features_are_refused():
    refused("inputs", str(F), str((T, B, F + 2))[1:-1], inputs=jnp.zeros((T, B, F + 2)))


def test_inputs_without_a_time_axis_are_refused():
    refused("inputs", "[T, *batch, F]", inputs=jnp.zeros((F,)))


@pytest.mark.parametrize("name", ["mask", "resets"])
def test_flags_that_are_not_bool_are_refused(name):
    refused(name, "bool", "int32", **{name: jnp.ones((T, B), jnp.int32)})
    refused(name, "bool", "float32", **{name: jnp.ones((T, B), jnp.float32)})


@pytest.mark.parametrize("name", ["mask", "resets"])
@pytest.mark.parametrize("shape", [(B, T), (T,), (T, 1), (T, B, 1), (T + 1, B)])
def test_flags_of_wrong_shape_are_refused(name, shape):
    words = ("[T, *batch]", str((T, B)), str(shape))
    refused(name, *words, **{name: jnp.ones(shape, bool)})


@pytest.mark.parametrize("name", ["carry", "reset_carry"])
def test_carry_of_another_cell_is_refused(name):
    refused(name, "LSTMCarry", "GRUCarry", **{name: GRU(H).init_carry((B,))})
    refused(name, str((B, H)), str((B, H + 1)), **{name: LSTM(H + 1).init_carry((B,))})
    zeros = jnp.zeros((B, H))
    refused(name, "LSTMCarry", "tuple", **{name: (zeros, zeros)})


@pytest.mark.parametrize("name", ["carry", "reset_carry"])
@pytest.mark.parametrize("batch", [(B + 1,), (1,), (T, B)])
def test_carry_of_wrong_batch_is_refused(name, batch):
    words = (str((B, H)), str((*batch, H)))
    refused(name, *words, **{name: LSTM(H).init_carry(batch)})


def test_params_of_another_size_are_refused():
    with pytest.raises(ValueError) as error:
        unroll(LSTM(H), LSTM(H + 1).init(jax.random.key(0), F), jnp.zeros((T, B, F)))
    cases.assert_says(error, "params.kernel", str(4 * H))


def test_lengths_that_are_not_integers_are_refused():
    with pytest.raises(ValueError) as error:
        lengths_to_mask(jnp.array([1.0]), 3)
    cases.assert_says(error, "lengths", "integer", "float32")


@pytest.mark.parametrize("value", [0, -2, 1.5, True], ids=repr)
@pytest.mark.parametrize("name", ["chunk_size", "unroll"])
def test_engine_sizes_that_are_no_positive_integer_are_refused(name, value):
    with pytest.raises(ValueError) as error:
        Scan(**{name: value})
    cases.assert_says(error, name, "a positive integer", repr(value))


def test_engine_that_refuses_a_cell_is_not_run():
    class Refusing:
        def refuses(self, cell):
            return "it runs nothing"

    cell = GRU(H)
    params = cell.init(jax.random.key(0), F)
    carry = GRUCarry(hidden=jnp.zeros((B, H)))
    with pytest.raises(ValueError) as error:
        unroll(cell, params, jnp.zeros((T, B, F)), carry, engine=Refusing())
    cases.assert_says(error, "engine", "it runs nothing")
