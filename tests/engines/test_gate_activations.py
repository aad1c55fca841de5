"""Which activations of a gate are found, and what is done with their values."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gated_rnn import GRU, LSTM, FusedScan, Scan, unroll
from gated_rnn.engines import plan
from gated_rnn.engines.gate_activations import (
    find_activations,
    keep_activations,
    with_activations,
)
from tests import cases
from tests.cases import B, F, H, T

pytestmark = pytest.mark.usefixtures("x64")

POINTWISE = [cell_id for cell_id, case in cases.CELLS.items() if case.cell.pointwise]
# Where `recur` returns nothing, nothing is an activation of it.
NUM_ACTIVATIONS = {
    "lstm": 4,
    "gru": 3,
    "elman": 1,
    "elman_relu": 0,
    "peephole_lstm": 4,
    "coupled_lstm": 3,
    "open_lstm": 3,
    "janet": 3,
    "min_gru": 0,
    "min_gru_positive": 0,
    "min_lstm": 0,
    "min_lstm_no_bias": 0,
}
RECURRENT = 2


def arguments_of(cell_id, num_steps=T):
    """Return the arguments of a gate at one step."""
    cell = cases.CELLS[cell_id].cell
    problem = cases.make_problem(cell_id, num_steps=num_steps)
    inputs = jax.tree.map(lambda x: x[0], problem.inputs)
    projected = cell.project(problem.params, inputs)
    recurrent = cell.recur(problem.params, problem.carry)
    return cell, (problem.params, projected, recurrent, problem.carry)


def find(cell, arguments):
    return find_activations(cell.gate, arguments, source=RECURRENT, made_of=1)


def values_of(cell, arguments):
    values = []

    def keep(value):
        values.append(value)
        return value

    results = keep_activations(cell.gate, arguments, source=RECURRENT, keep=keep)
    return results, values


@pytest.mark.parametrize("cell_id", NUM_ACTIVATIONS)
def test_activations_of_the_recurrent_matmul_are_found_and_no_others(cell_id):
    cell, arguments = arguments_of(cell_id)
    found = find(cell, arguments)
    assert [shape.shape for shape in found.shapes] == [(B, H)] * NUM_ACTIVATIONS[
        cell_id
    ]


@pytest.mark.parametrize("cell_id", POINTWISE)
def test_gate_gives_the_same_when_its_activations_are_handed_out(cell_id):
    cell, arguments = arguments_of(cell_id)
    results, values = values_of(cell, arguments)
    assert tuple(map(jax.typeof, values)) == find(cell, arguments).shapes
    jax.tree.map(np.testing.assert_array_equal, results, cell.gate(*arguments))


def test_activations_are_in_the_order_of_the_equations():
    cell, arguments = arguments_of("lstm")
    _, values = values_of(cell, arguments)
    _, projected, recurrent, _ = arguments
    i, f, g, o = (
        x + u for x, u in zip(projected, jnp.split(recurrent, 4, axis=-1), strict=True)
    )
    expected = [jax.nn.sigmoid(i), jax.nn.sigmoid(f), jax.nn.sigmoid(o), jnp.tanh(g)]
    for value, activation in zip(values, expected, strict=True):
        np.testing.assert_allclose(value, activation, rtol=1e-12)
    assert find(cell, arguments).makers == (0, 1, 3, 2)


def test_what_the_gate_goes_on_with_is_what_keep_returns():
    cell, arguments = arguments_of("elman")
    _, outputs = keep_activations(
        cell.gate, arguments, source=RECURRENT, keep=jnp.zeros_like
    )
    np.testing.assert_array_equal(outputs, np.zeros((B, H)))


@pytest.mark.parametrize(
    "cell_id", [cell_id for cell_id in POINTWISE if NUM_ACTIVATIONS.get(cell_id, 1)]
)
def test_known_activations_are_derived_without_their_arguments(cell_id):
    """The derivative at other preactivations is that of the values alone."""
    cell, arguments = arguments_of(cell_id)
    _, values = values_of(cell, arguments)
    found = find(cell, arguments)
    _, others = arguments_of(cell_id, num_steps=T + 1)
    mixed = [arguments[0]]
    for k in (1, 2):
        leaves = [
            other if read == 0 else own
            for own, other, read in zip(
                jax.tree.leaves(arguments[k]),
                jax.tree.leaves(others[k]),
                found.features[k],
                strict=True,
            )
        ]
        mixed.append(jax.tree.unflatten(jax.tree.structure(arguments[k]), leaves))
    mixed.append(arguments[3])

    def known(*arguments):
        return with_activations(cell.gate, arguments, source=RECURRENT, values=values)

    dots = jax.tree.map(jnp.ones_like, arguments)
    expected, expected_dots = jax.jvp(cell.gate, arguments, dots)
    results, results_dots = jax.jvp(known, tuple(mixed), dots)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-12)
    jax.tree.map(close, results, expected)
    jax.tree.map(close, results_dots, expected_dots)


@pytest.mark.parametrize(
    ("cell_id", "read"), [("lstm", 0), ("gru", H), ("elman", 0), ("janet", 0)]
)
def test_of_the_recurrent_matmul_only_what_no_activation_stands_for_is_read(
    cell_id, read
):
    cell, arguments = arguments_of(cell_id)
    _, projected, recurrent, _ = find(cell, arguments).features
    assert recurrent == [read]
    assert not any(projected)


def test_array_that_two_activations_are_made_of_is_no_maker():
    cell, arguments = arguments_of("janet")
    makers = find(cell, arguments).makers
    assert sorted(k for k in makers if k is not None) == [1]
    assert makers.count(None) == 2


def test_array_that_is_read_beside_its_activation_is_no_maker():
    def gate(params, projected, recurrent, carry):
        del params
        (x,) = projected
        return carry, jnp.tanh(x + recurrent) + x

    x = jnp.ones((B, H))
    found = find_activations(gate, ((), (x,), x, x), source=RECURRENT, made_of=1)
    assert found.makers == (None,)
    assert found.features[1] == [0]


def test_array_of_another_dtype_is_no_maker():
    def gate(params, projected, recurrent, carry):
        del params
        (x,) = projected
        return carry, jnp.tanh(x.astype(jnp.float32) + recurrent)

    x = jnp.ones((B, H))
    half = x.astype(jnp.bfloat16)
    found = find_activations(gate, ((), (half,), x, x), source=RECURRENT, made_of=1)
    assert found.makers == (None,)


@jax.custom_vjp
def with_a_rule_of_its_own(x):
    return jnp.tanh(x)


with_a_rule_of_its_own.defvjp(
    lambda x: (jnp.tanh(x), x), lambda x, dy: (dy / jnp.cosh(x) ** 2,)
)
# Programs of many kinds, with an activation of which something else is made, or none.
OF_THE_USER = {
    "custom_vjp": with_a_rule_of_its_own,
    "checkpoint": jax.checkpoint(jnp.tanh),
    "silu": jax.nn.silu,
    "softplus": jax.nn.softplus,
    "gelu": jax.nn.gelu,
    "twice": lambda x: jnp.tanh(jnp.tanh(x)),
    "cond": lambda x: jax.lax.cond(True, jnp.tanh, jnp.sin, x),
    "over features": functools.partial(jax.nn.softmax, axis=-1),
}


@pytest.mark.parametrize(
    ("cell_type", "activation"),
    [*((LSTM, each) for each in OF_THE_USER.values()), (GRU, jax.nn.silu)],
    ids=[*OF_THE_USER, "silu in a GRU"],
)
def test_gradient_with_an_activation_of_the_user_is_that_of_the_scan(
    cell_type, activation, monkeypatch
):
    monkeypatch.setattr(plan, "KEEP_RECURRENT_FROM", 1)
    cell = cell_type(H, activation=activation)
    params = cell.init(jax.random.key(0), F, jnp.float64)
    inputs = jax.random.normal(jax.random.key(1), (T, B, F))
    assert FusedScan().plan(cell, params, inputs).keep_activations

    def gradient(engine):
        def loss(params, inputs):
            return (unroll(cell, params, inputs, engine=engine)[1] ** 2).sum()

        return cases.quick_jit(jax.grad(loss, argnums=(0, 1)))(params, inputs)

    actual, expected = gradient(FusedScan()), gradient(Scan())
    cases.assert_close(actual, expected, cases.FLOAT64, "gradient")
