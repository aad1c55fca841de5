"""Gates of a run: those of every cell, and that they are the ones that made the run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gated_rnn import GRU, LSTM, Associative, MinGRU, gate_values, unroll
from tests import cases
from tests.cases import B, F, H, T, each_cell

pytestmark = pytest.mark.usefixtures("strict_promotion")

# What a cell names beside the blocks of its columns.
MORE_NAMES = {"janet": {"write"}}


def gates_of(cell_id, problem, reverse=False, **rest):
    params, inputs, carry, reset_carry = cases.cast(problem.arrays, np.float64)
    return gate_values(
        cases.CELLS[cell_id].cell,
        params,
        inputs,
        carry,
        reset_carry=reset_carry,
        reverse=reverse,
        **problem.flags,
        **rest,
    )


@pytest.mark.usefixtures("x64")
@each_cell
def test_every_gate_of_every_cell_is_found(cell_id):
    problem = cases.make_problem(cell_id)
    gates = gates_of(cell_id, problem)
    names = set(cases.CELLS[cell_id].gates) | MORE_NAMES.get(cell_id, set())
    assert gates.keys() == names
    for value in gates.values():
        assert value.shape == (T, B, H)
        assert value.dtype == jnp.float64
        assert not np.asarray(value)[~problem.mask].any()
        assert np.asarray(value)[problem.mask].std() > 0.01


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
def test_gates_are_those_that_made_the_outputs(reverse):
    """c' = f c + i g and h' = o tanh c', from the gates alone, over real steps."""
    problem = cases.make_problem("lstm")
    gates = jax.tree.map(np.asarray, gates_of("lstm", problem, reverse))
    _, outputs = cases.run_package("lstm", problem, cases.ENGINES["scan"], reverse)
    for row in range(B):
        c = problem.carry.cell[row]
        times = np.flatnonzero(problem.mask[:, row])
        previous = None
        for t in times[::-1] if reverse else times:
            starts = previous is not None and problem.resets[previous, row]
            if starts if reverse else problem.resets[t, row]:
                c = problem.reset_carry.cell[row]
            i, f, g, o = (gates[name][t, row] for name in "ifgo")
            c = f * c + i * g
            cases.assert_close(outputs[t, row], o * np.tanh(c), cases.FLOAT64)
            previous = t


def test_gates_do_not_depend_on_the_engine_and_can_be_differentiated():
    cell = MinGRU(H)
    params = cell.init(jax.random.key(0), F)
    inputs = jax.random.normal(jax.random.key(1), (T, B, F))
    gates = gate_values(cell, params, inputs)
    others = gate_values(cell, params, inputs, engine=Associative())
    cases.assert_close(others, gates, cases.FLOAT32)

    def openness(params):
        return gate_values(GRU(H), params, inputs)["z"].mean()

    params = GRU(H).init(jax.random.key(0), F)
    gradient = jax.jit(jax.grad(openness))(params)
    assert np.abs(gradient.bias[H : 2 * H]).min() > 0  # z itself
    assert np.abs(gradient.recurrent_kernel).max() > 0  # and by the past


def test_naming_a_gate_changes_no_bit_and_no_program():
    cell, inputs = LSTM(H), jax.random.normal(jax.random.key(1), (T, B, F))
    params = cell.init(jax.random.key(0), F)
    compiled = jax.jit(unroll).lower(cell, params, inputs).compile().as_text()
    assert "name" in str(
        jax.make_jaxpr(cell.step)(params, cell.init_carry(), inputs[0, 0])
    )
    assert "checkpoint_name" not in compiled


def test_cell_that_names_nothing_is_refused():
    class Silent:
        """A cell whose gate names nothing: the running sum of its inputs."""

        out_features, pointwise = F, True

        def init(self, key, in_features, dtype=jnp.float32):
            return ()

        def init_carry(self, batch_shape=(), dtype=jnp.float32):
            return jnp.zeros((*batch_shape, F), dtype)

        def project(self, params, inputs):
            return inputs

        def recur(self, params, carry):
            return ()

        def gate(self, params, projected, recurrent, carry):
            return carry + projected, carry + projected

        def step(self, params, carry, inputs):
            return self.gate(params, inputs, (), carry)

    _, outputs = unroll(Silent(), (), jnp.ones((T, B, F)))
    np.testing.assert_array_equal(outputs[:, 0, 0], np.arange(1, T + 1))
    with pytest.raises(ValueError, match="invalid value for cell") as error:
        gate_values(Silent(), (), jnp.ones((T, B, F)))
    cases.assert_says(error, "cell", "name_gates", "Silent")
