"""The associative engine over long sequences, against the scan and the papers' form."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gated_rnn import Associative, MinGRU, MinLSTM, Scan, gate_values, unroll
from gated_rnn.activations import positive
from gated_rnn.cells.packed import InputGatedCell
from tests import cases
from tests.cases import B, F, H

pytestmark = pytest.mark.usefixtures("strict_promotion")

NUM_STEPS = 1000
# The carry remembers up to as many steps, so a decay is as near to 1 as 1 - 1 / 1000.
CELL_IDS = ("min_gru", "min_lstm")
# Sums of 1000 terms in another order; their rounding errors are not correlated.
LONG_FLOAT64 = 1e-10
LONG_FLOAT32 = 1e-5


def long_problem(cell_id, num_steps=NUM_STEPS):
    """A problem whose gates keep nearly all of the carry."""
    problem = cases.make_problem(cell_id, num_steps=num_steps, scale=0.5)
    rng = np.random.default_rng(4)
    keep = np.log(rng.uniform(1.0, NUM_STEPS, size=H))
    blocks = {"min_gru": [-keep, 0.0 * keep], "min_lstm": [-keep, 0.0 * keep, 0.0]}
    bias = problem.params.bias + np.concatenate(
        [np.broadcast_to(block, H) for block in blocks[cell_id]]
    )
    resets = problem.resets & (rng.random(problem.resets.shape) < 0.01)
    resets[num_steps // 2 : num_steps // 2 + 1, 1] = True
    return problem._replace(params=problem.params._replace(bias=bias), resets=resets)


@pytest.mark.parametrize("cell_id", CELL_IDS)
def test_decays_of_the_long_problem_are_near_one(cell_id):
    problem = long_problem(cell_id)
    gates = gate_values(
        cases.CELLS[cell_id].cell,
        *cases.cast((problem.params, np.nan_to_num(problem.inputs)), np.float32),
    )
    decays = gates["f"] if "f" in gates else 1 - gates["z"]
    assert np.quantile(decays, 0.9) > 0.99
    assert problem.resets[problem.mask].any()


@pytest.mark.usefixtures("x64")
@cases.each_direction
@pytest.mark.parametrize("cell_id", CELL_IDS)
def test_long_run_equals_the_scan(cell_id, reverse):
    problem = long_problem(cell_id)
    expected = cases.run_package(cell_id, problem, Scan(), reverse)
    actual = cases.run_package(cell_id, problem, Associative(), reverse)
    cases.assert_same_run(actual, expected, LONG_FLOAT64)
    in_float32 = cases.run_package(
        cell_id, problem, Associative(), reverse, dtype=np.float32
    )
    cases.assert_same_run(in_float32, expected, LONG_FLOAT32)


def gradient(cell_id, problem, engine, reverse, dtype):
    """Gradient of a weighted sum of the outputs and the final carry."""
    rng = np.random.default_rng(5)
    weights = rng.normal(size=(*problem.mask.shape, H)), rng.normal(size=(B, H))
    of_outputs, of_carry = cases.cast(weights, dtype)

    @cases.quick_jit
    @jax.grad
    def run(arrays):
        moved = cases.Problem(*arrays, **problem.flags)
        carry, outputs = cases.call(unroll, cell_id, moved, engine, reverse, dtype)
        return jnp.vdot(of_outputs, outputs) + jnp.vdot(of_carry, carry.hidden)

    return run(cases.cast(problem.arrays, dtype))


@pytest.mark.usefixtures("x64")
@cases.each_direction
@pytest.mark.parametrize("cell_id", CELL_IDS)
def test_gradient_of_a_long_run_equals_that_of_the_scan(cell_id, reverse):
    problem = long_problem(cell_id)
    expected = gradient(cell_id, problem, Scan(), reverse, np.float64)
    actual = gradient(cell_id, problem, Associative(), reverse, np.float64)
    cases.assert_close(actual, expected, LONG_FLOAT64, "gradient")
    in_float32 = gradient(cell_id, problem, Associative(), reverse, np.float32)
    cases.assert_close(in_float32, expected, LONG_FLOAT32, "gradient")


@pytest.mark.usefixtures("x64")
@cases.each_direction
@pytest.mark.parametrize("num_steps", [0, 1, 2, NUM_STEPS])
def test_without_collecting_the_carry_is_that_of_the_scan(num_steps, reverse):
    problem = long_problem("min_gru", num_steps)
    expected, _ = cases.run_package("min_gru", problem, Scan(), reverse)
    actual, outputs = cases.run_package(
        "min_gru", problem, Associative(), reverse, collect=False
    )
    assert outputs is None
    cases.assert_close(actual, expected, LONG_FLOAT64, "carry")


def primitives(program):
    """Names of all primitives of a jaxpr, of those inside others too."""
    for equation in program.eqns:
        yield equation.primitive.name
        for inner in jax.tree.leaves(
            tuple(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")
        ):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from primitives(inner)


@pytest.mark.parametrize("collect", [True, False])
def test_run_and_its_gradient_have_no_loop(collect):
    cell = MinGRU(H)
    params = cell.init(jax.random.key(0), F)

    def loss(params, engine):
        inputs, mask = jnp.ones((50, B, F)), jnp.ones((50, B), bool)
        carry, outputs = unroll(
            cell, params, inputs, mask=mask, engine=engine, collect=collect
        )
        return carry.hidden.sum() + (outputs.sum() if collect else 0.0)

    def names(engine):
        program = jax.make_jaxpr(jax.grad(loss), static_argnums=1)(params, engine)
        return set(primitives(program.jaxpr))

    assert "scan" in names(Scan())
    assert not names(Associative()) & {"scan", "while"}


def test_gate_values_are_those_of_the_scan():
    problem = cases.make_problem("min_lstm")
    params, inputs, carry, reset_carry = cases.cast(problem.arrays, np.float32)
    actual, expected = (
        gate_values(
            cases.CELLS["min_lstm"].cell,
            params,
            inputs,
            carry,
            reset_carry=reset_carry,
            engine=engine,
            **problem.flags,
        )
        for engine in (Associative(), Scan())
    )
    assert sorted(actual) == ["f", "g", "i"]
    cases.assert_close(actual, expected, cases.FLOAT32, "gates")


# The form in which the papers run these cells: logarithms, and a cumulative sum of them


def log_space_run(log_keep, log_write, log_candidate, first):
    """Return h_t = keep_t h_{t-1} + write_t candidate_t in logarithms, `[T, *]`."""
    decay = np.cumsum(log_keep, axis=0)
    terms = np.concatenate(
        [np.log(first)[None], log_write + log_candidate - decay], axis=0
    )
    return np.exp(decay + np.logaddexp.accumulate(terms, axis=0)[1:])


def softplus(x):
    return np.logaddexp(0.0, x)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("cell_type", [MinGRU, MinLSTM])
def test_positive_candidate_gives_the_log_space_form_of_the_paper(cell_type):
    rng = np.random.default_rng(6)
    cell = cell_type(H, activation=positive)
    params = cell.init(jax.random.key(0), F, dtype=np.float64)
    params = cases.random_like(params, rng)
    inputs, first = rng.normal(size=(9, B, F)), rng.uniform(0.1, 2.0, size=(B, H))
    columns = np.split(inputs @ params.kernel + params.bias, len(cell.gates), axis=-1)
    candidate = columns[-1]
    log_candidate = np.where(
        candidate >= 0, np.log(np.maximum(candidate, 0) + 0.5), -softplus(-candidate)
    )
    if cell_type is MinGRU:
        log_keep, log_write = -softplus(columns[0]), -softplus(-columns[0])
    else:
        i, f, _ = columns
        difference = softplus(-f) - softplus(-i)
        log_keep, log_write = -softplus(difference), -softplus(-difference)
    expected = log_space_run(log_keep, log_write, log_candidate, first)
    carry = cell.init_carry(dtype=np.float64)._replace(hidden=jnp.asarray(first))
    _, outputs = cases.unroll_quickly(
        cell, cases.cast(params, np.float64), inputs, carry, engine=Associative()
    )
    assert cases.relative_error(outputs, expected) < cases.FLOAT64


# Any cell that is affine, element by element, whatever its carry


class AveragesParams(NamedTuple):
    kernel: jax.Array
    bias: jax.Array | None


class AveragesCarry(NamedTuple):
    quick: jax.Array
    slow: jax.Array


@jax.tree_util.register_static
@dataclass(frozen=True, kw_only=True)
class Averages(InputGatedCell):
    """Two averages of x W of different memories; the output is not affine in them."""

    gates = ("q", "s")
    params_type = AveragesParams
    carry_type = AveragesCarry

    def gate(self, params, projected, recurrent, carry):
        q, s = (x.astype(carry.quick.dtype) for x in projected)
        quick = 0.3 * carry.quick + q
        slow = 0.9 * carry.slow - s
        return AveragesCarry(quick=quick, slow=slow), quick * slow + carry.quick


@pytest.mark.usefixtures("x64")
@cases.each_direction
def test_affine_cell_with_two_fields_equals_the_scan(reverse):
    rng = np.random.default_rng(7)
    cell = Averages(H)
    params = cell.init(jax.random.key(0), F, dtype=np.float64)
    zeros = cell.init_carry((B,), dtype=np.float64)
    carry, reset_carry = (
        cases.cast(cases.random_like(zeros, rng), np.float64) for _ in range(2)
    )
    inputs = jnp.asarray(rng.normal(size=(cases.T, B, F)))
    mask, resets = rng.random((2, cases.T, B)) < 0.5
    actual, expected = (
        cases.unroll_quickly(
            cell,
            params,
            inputs,
            carry,
            reset_carry=reset_carry,
            mask=mask,
            resets=resets,
            reverse=reverse,
            engine=engine,
        )
        for engine in (Associative(), Scan())
    )
    cases.assert_same_run(actual, expected, cases.FLOAT64)
