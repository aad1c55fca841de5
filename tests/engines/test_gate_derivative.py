"""What an elementwise gate's derivative is folded to, and what is no such gate."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gated_rnn import Elman, FusedScan, Scan, unroll
from gated_rnn.engines.gate_derivative import NotElementwise, derive_gate
from gated_rnn.unrolling import prepare_run
from tests import cases
from tests.cases import B, H, T

pytestmark = pytest.mark.usefixtures("strict_promotion")


class Coefficients(NamedTuple):
    """Number of products a step: of the gate, and of what a run makes of it."""

    plain: int
    masked: int
    with_resets: int
    with_both: int


# What a step of the backward loop reads and multiplies: every number is time. Under a
# mask the held carry and the zeroed output come to it, with resets the carry left.
LSTM = Coefficients(6, 11, 8, 11)
GRU = Coefficients(5, 8, 6, 8)
OF_THE_INPUTS = Coefficients(1, 4, 2, 4)
COEFFICIENTS = {
    "lstm": LSTM,
    "lstm_no_bias": LSTM,
    "lstm_no_output_activation": LSTM,
    "gru": GRU,
    "gru_no_bias": GRU,
    "elman": Coefficients(1, 3, 2, 3),
    "elman_relu": Coefficients(1, 4, 2, 4),
    "peephole_lstm": Coefficients(12, 17, 14, 17),
    "coupled_lstm": Coefficients(5, 10, 7, 10),
    "open_lstm": Coefficients(5, 9, 7, 9),
    "janet": Coefficients(3, 6, 4, 6),
    "min_gru": OF_THE_INPUTS,
    "min_gru_positive": OF_THE_INPUTS,
    "min_lstm": OF_THE_INPUTS,
    "min_lstm_no_bias": OF_THE_INPUTS,
}
POINTWISE = [cell_id for cell_id, case in cases.CELLS.items() if case.cell.pointwise]
OTHERS = [cell_id for cell_id in cases.CELLS if cell_id not in POINTWISE]
# What a layer norm in `recur` mixes, the gate does not; only `recur` is not linear.
MIXING = [cell_id for cell_id in OTHERS if not cell_id.startswith("layer_norm_gru")]

WRAPPINGS = {
    "plain": (),
    "masked": ("mask",),
    "with_resets": ("resets",),
    "with_both": ("mask", "resets"),
}


FLAGS = ("mask", "resets")


class Gate(NamedTuple):
    """A gate over all of time, and a point at which to derive it."""

    function: object
    known: tuple
    looped: tuple


def make_gate(cell_id, flags=(), dtype=np.float32):
    """Return the gate that an engine sees, at a random point."""
    problem = cases.make_problem(cell_id)
    params, inputs, carry, reset_carry = cases.cast(problem.arrays, dtype)
    flags = {name: problem.flags[name] if name in flags else None for name in FLAGS}
    run = prepare_run(
        cases.CELLS[cell_id].cell,
        params,
        jnp.nan_to_num(inputs),
        carry,
        reset_carry=reset_carry,
        reverse=False,
        engine=Scan(),
        **flags,
    )
    rng = np.random.default_rng(6)
    recurrent, carries = (
        jax.tree.map(lambda x: jnp.asarray(rng.normal(size=(T, *x.shape)), dtype), tree)
        for tree in (run.cell.recur(run.params, run.carry), run.carry)
    )
    known = run.params, run.cell.project(run.params, run.inputs)
    over_time = jax.vmap(run.cell.gate, in_axes=(None, 0, 0, 0))
    return Gate(over_time, known, (recurrent, carries))


def random_dots(tree, rng):
    """Return a random tangent for each leaf, None for a flag."""
    return [
        jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype)
        if jnp.issubdtype(leaf.dtype, jnp.inexact)
        else None
        for leaf in jax.tree.leaves(tree)
    ]


def derive(gate, known_dots):
    return derive_gate(gate.function, gate.known, known_dots, gate.looped)


def test_table_has_every_cell_with_an_elementwise_gate():
    assert sorted(COEFFICIENTS) == sorted(POINTWISE)


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("cell_id", POINTWISE)
def test_loop_multiplies_by_few_coefficients(cell_id, wrapping):
    gate = make_gate(cell_id, WRAPPINGS[wrapping])
    known_dots = random_dots(gate.known, np.random.default_rng(7))
    expected = getattr(COEFFICIENTS[cell_id], wrapping)
    assert derive(gate, known_dots).num_coefficients == expected


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("cell_id", MIXING)
def test_gate_that_mixes_features_is_told(cell_id, wrapping):
    gate = make_gate(cell_id, WRAPPINGS[wrapping])
    known_dots = random_dots(gate.known, np.random.default_rng(7))
    with pytest.raises(NotElementwise, match=r"dot_general|reduce_sum"):
        derive(gate, known_dots)


def assert_tangent_is_that_of_jvp(gate, known_dots, looped_dots, tolerance):
    derivative = derive(gate, known_dots)
    arrays = [
        dot if source is None else dot + source
        for dot, source in zip(looped_dots, derivative.leaf_sources, strict=True)
    ]
    actual = derivative.apply(derivative.coefficients, derivative.sources, arrays)
    leaves, structure = jax.tree.flatten((*gate.known, *gate.looped))
    dots = [
        np.zeros(leaf.shape, jax.dtypes.float0 if leaf.dtype == bool else leaf.dtype)
        if dot is None
        else dot
        for leaf, dot in zip(leaves, (*known_dots, *looped_dots), strict=True)
    ]
    primals, tangents = (jax.tree.unflatten(structure, x) for x in (leaves, dots))
    _, expected = jax.jvp(gate.function, primals, tangents)
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    cases.assert_close(actual, expected, tolerance, "tangent")


# The loop's own tangents alone, and with all that can come to them from outside.
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("wrapping", ["plain", "with_both"])
@pytest.mark.parametrize("cell_id", POINTWISE)
def test_tangent_is_that_of_jvp(cell_id, wrapping):
    gate = make_gate(cell_id, WRAPPINGS[wrapping], np.float64)
    rng = np.random.default_rng(8)
    known_dots = random_dots(gate.known, rng)
    if wrapping == "plain":
        known_dots = [None] * len(known_dots)
    looped_dots = random_dots(gate.looped, rng)
    assert_tangent_is_that_of_jvp(gate, known_dots, looped_dots, cases.FLOAT64)


# Any function of x, which is known before the loop, and h, whose tangent is the loop's

HALF = H // 2
plus = jax.jit(lambda a, b: a + b)
copied = jax.jit(lambda a: (jnp.copy(a), 2 * a))
passed_on_twice = jax.jit(lambda a: (a, a, 2 * a))
in_two = jax.jit(lambda a: (a, jnp.copy(a), 2 * a))
passed_on = jax.jit(lambda a: (a, 2 * a))
split = jax.jit(lambda a: jnp.split(a, [HALF], axis=-1))


def twice(x, u, v, _):
    return (u + x) * v


def named(value):
    return jax.ad_checkpoint.checkpoint_name(value, "h")


ELEMENTWISE = {
    "sum": lambda x, h: x + h,
    "difference": lambda x, h: x - h,
    "other difference": lambda x, h: h - x,
    "negative": lambda x, h: -h * x,
    "quotients": lambda x, h: h / (2 + x * x) + x / (2 + h * h),
    "kinks": lambda x, h: jax.nn.relu(h) + jnp.clip(h + x, -0.5, 0.5) - jnp.abs(h),
    "choice of what is known": lambda x, h: jnp.where(h > 0, x, h * x),
    "choice of a number": lambda x, h: jnp.where(x > 0, h, 0.0) + h,
    "choice of three": lambda x, h: jax.lax.select_n(
        (x > 0).astype(jnp.int32) + (h > 0).astype(jnp.int32), h, x * h, x
    ),
    "constant": lambda x, h: jnp.ones_like(h),
    "what is known": lambda x, h: x * x,
    "itself": lambda x, h: h,
    "parallel links": lambda x, h: h + h * x - 3 * h,
    "pieces": lambda x, h: jnp.split(h + x, [HALF], axis=-1),
    "sum used in full": lambda x, h: (h + x) * x,
    "sum beside its term": lambda x, h: (h + x) * h,
    "two sums": lambda x, h: (h + x) * (h + 2 * x),
}
# The same links where two names stand for one tangent: to give up would be right too.
ALIASED = {
    "compiled sum": lambda x, h: plus(h, x) * x,
    "compiled sum beside its term": lambda x, h: plus(h, x) * h,
    "two compiled sums": lambda x, h: plus(h, x) * plus(h, 2 * x),
    "sum of a named value beside it": lambda x, h: (named(h) + x) * h,
    "sum of a copy beside it": lambda x, h: (jnp.copy(h) + x) * h,
    "sum of a compiled copy beside it": lambda x, h: (copied(h)[0] + x) * h,
    "sum of what is passed on beside it": lambda x, h: (passed_on(h)[0] + x) * h,
    "sum of what is passed on twice": lambda x, h: (
        (passed_on_twice(h)[0] + x) * passed_on_twice(h)[1]
    ),
    "sum of what came from one program twice": lambda x, h: twice(x, *in_two(h)),
    "sum of a compiled sum": lambda x, h: (plus(h, h) + x) * h,
    "pieces of a copy beside the whole": lambda x, h: (
        *jnp.split(jnp.copy(h) + x, [HALF], -1),
        h * x,
    ),
    "pieces beside the whole": lambda x, h: (*jnp.split(h, [HALF], -1), h * x),
    "compiled pieces beside the whole": lambda x, h: (*split(h), h * x),
    "pieces of two sums": lambda x, h: (split(h + x), split(h + 2 * x)),
}
MIXED = {
    "matmul": lambda x, h: h @ jnp.ones((H, H), h.dtype) + x,
    "sum over features": lambda x, h: x * h.sum(axis=-1, keepdims=True),
    "cumulative sum": lambda x, h: jnp.cumsum(h, axis=-1) + x,
    "roll": lambda x, h: jnp.roll(h, 1, axis=-1) * x,
    "reversal": lambda x, h: h[..., ::-1] * x,
    "softmax": lambda x, h: jax.nn.softmax(h + x),
    "sort": lambda x, h: jnp.sort(h + x, axis=-1),
    "split of the rows": lambda x, h: jnp.split(h, [1], axis=1),
}


def gate_of_two(function):
    rng = np.random.default_rng(9)
    x, h = jnp.asarray(rng.normal(size=(2, T, B, H)))
    return Gate(function, (x,), (h,))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("known", [True, False], ids=["source", "no_source"])
@pytest.mark.parametrize("name", [*ELEMENTWISE, *ALIASED])
def test_tangent_of_any_elementwise_function_is_that_of_jvp(name, known):
    gate = gate_of_two({**ELEMENTWISE, **ALIASED}[name])
    x_dot, h_dot = jnp.asarray(np.random.default_rng(10).normal(size=(2, T, B, H)))
    known_dots = [x_dot if known else None]
    try:
        assert_tangent_is_that_of_jvp(gate, known_dots, [h_dot], cases.FLOAT64)
    except NotElementwise:
        assert name in ALIASED


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", MIXED)
def test_function_that_mixes_features_or_rows_is_told(name):
    gate = gate_of_two(MIXED[name])
    with pytest.raises(NotElementwise, match="the gate"):
        derive(gate, [jnp.ones_like(gate.known[0])])


# Cells whose promise says little: the engine must not take them for more


@jax.tree_util.register_static
@dataclass(frozen=True)
class ActivatedRecurrence(Elman):
    """An elementwise gate after a `recur` that is not linear in the carry."""

    def recur(self, params, carry):
        return jnp.tanh(super().recur(params, carry))


@jax.tree_util.register_static
@dataclass(frozen=True)
class CompiledGate(Elman):
    """A gate that adds to the carry in a function of its own, and uses it again."""

    def gate(self, params, projected, recurrent, carry):
        (x,) = projected
        h = jnp.tanh(plus(carry.hidden, x) * carry.hidden + recurrent)
        return carry._replace(hidden=h), h


@jax.tree_util.register_static
@dataclass(frozen=True)
class MixingGate(Elman):
    """A gate that mixes features though it says that it does not."""

    def gate(self, params, projected, recurrent, carry):
        (x,) = projected
        h = jnp.tanh(x + jnp.roll(recurrent, 1, axis=-1))
        return carry._replace(hidden=h), h


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("cell_type", [ActivatedRecurrence, CompiledGate, MixingGate])
def test_gradient_of_any_cell_that_says_it_is_pointwise_is_that_of_the_scan(cell_type):
    cell, problem = cell_type(H), cases.make_problem("elman")
    assert cell.pointwise
    params, inputs, carry, _ = cases.cast(problem.arrays, np.float64)
    inputs = jnp.nan_to_num(inputs)

    def gradient(engine):
        def loss(params, inputs, carry):
            return (unroll(cell, params, inputs, carry, engine=engine)[1] ** 2).sum()

        return cases.quick_jit(jax.grad(loss, argnums=(0, 1, 2)))(params, inputs, carry)

    cases.assert_close(gradient(FusedScan()), gradient(Scan()), cases.FLOAT64)
