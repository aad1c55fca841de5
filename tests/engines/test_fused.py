"""The default engine cut into blocks and chunks, transformed, and in other dtypes.

The contract suite runs it on every cell in one block; here the blocks are made small.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gated_rnn import FusedScan, Scan, unroll
from gated_rnn.engines import plan
from tests import cases
from tests.cases import B, F, H

pytestmark = pytest.mark.usefixtures("strict_promotion")

# Cells whose derivatives take different paths: elementwise gates, one with a matmul in
# the gate, one with a matmul after it, one that reads the carry beside the matmul.
CELL_IDS = ("lstm", "gru", "gru_reset_before", "projected_lstm", "peephole_lstm")
# bfloat16 keeps 8 bits: 0.4 % a rounding of the operands, over seven steps, and twice
# as many in a gradient.
BFLOAT16 = 5e-2


# (num_steps, block_size, keep what a derivative reads and costs to compute, reverse)
CUTS = {
    "even-kept-reverse": (8, 2, True, True),
    "even-recomputed-forward": (8, 2, False, False),
    "uneven-kept-forward": (7, 3, True, False),
    "uneven-recomputed-reverse": (7, 3, False, True),
}


def plan_of(cell_id, num_steps):
    problem = cases.make_problem(cell_id, num_steps=num_steps)
    arrays = problem.params, problem.inputs, problem.carry
    return FusedScan().plan(cases.CELLS[cell_id].cell, *arrays)


@pytest.fixture
def cut(request, monkeypatch):
    """Make blocks of a few steps; return T and the direction."""
    num_steps, block_size, keep, reverse = CUTS[request.param]
    monkeypatch.setattr(plan, "BLOCK_BYTES", 1)
    monkeypatch.setattr(plan, "SHORTEST_BLOCK", 3)
    for name in ("KEEP_RECURRENT_FROM", "KEEP_PROJECTED_FROM"):
        monkeypatch.setattr(plan, name, 1 if keep else 1000)
    made = plan_of("lstm", num_steps)
    assert made.block_size == block_size
    assert made.keep_activations == keep
    made = plan_of("projected_lstm", num_steps)
    assert (made.keep_recurrent, made.keep_projected) == (keep, keep)
    return num_steps, reverse


def each_cut(*names):
    return pytest.mark.parametrize("cut", names, indirect=True)


def make_loss(cell_id, problem, engine, reverse):
    """Return a function of the arrays: a weighted sum of all that unroll returns."""
    weights = cases.make_weights(cell_id, problem)

    def loss(arrays):
        params, inputs, carry, reset_carry = arrays
        run = unroll(
            cases.CELLS[cell_id].cell,
            params,
            inputs,
            carry,
            reset_carry=reset_carry,
            reverse=reverse,
            engine=engine,
            **problem.flags,
        )
        return cases.weigh(weights, run).sum()

    return loss


def value_and_gradient(cell_id, problem, engine, reverse=False):
    """Differentiate by every array, in a program compiled for this call."""
    loss = make_loss(cell_id, problem, engine, reverse)
    return cases.quick_jit(jax.value_and_grad(loss))(
        cases.cast(problem.arrays, np.float64)
    )


def assert_gradient_is_that_of_the_scan(cell_id, problem, engine, reverse):
    actual = value_and_gradient(cell_id, problem, engine, reverse)
    expected = value_and_gradient(cell_id, problem, Scan(), reverse)
    cases.assert_close(actual, expected, cases.FLOAT64, "value, gradient")


# Blocks


@pytest.mark.usefixtures("x64")
@each_cut("even-kept-reverse")
@cases.each_cell
def test_gradient_of_several_blocks_is_that_of_the_scan(cell_id, cut):
    num_steps, reverse = cut
    problem = cases.make_problem(cell_id, num_steps=num_steps)
    assert_gradient_is_that_of_the_scan(cell_id, problem, FusedScan(), reverse)


@pytest.mark.usefixtures("x64")
@each_cut("even-recomputed-forward", "uneven-kept-forward")
@pytest.mark.parametrize("cell_id", ["lstm", "gru_reset_before"])
def test_gradient_is_the_same_however_it_is_cut_and_kept(cell_id, cut):
    num_steps, reverse = cut
    problem = cases.make_problem(cell_id, num_steps=num_steps)
    assert_gradient_is_that_of_the_scan(cell_id, problem, FusedScan(), reverse)


def slope_and_hessian(cell_id, problem, engine, reverse, *, twice_reverse):
    """Return the slope along a direction, and the Hessian times it, once or twice."""
    loss = make_loss(cell_id, problem, engine, reverse)
    arrays, direction = cases.cast(
        (problem.arrays, cases.make_tangents(problem)), np.float64
    )

    @cases.quick_jit
    def run(arrays, direction):
        _, slope = jax.jvp(loss, (arrays,), (direction,))
        _, forward_over_reverse = jax.jvp(jax.grad(loss), (arrays,), (direction,))

        def along(arrays):
            products = jax.tree.map(jnp.vdot, jax.grad(loss)(arrays), direction)
            return sum(jax.tree.leaves(products))

        reverse_over_reverse = jax.grad(along)(arrays) if twice_reverse else None
        return slope, forward_over_reverse, reverse_over_reverse

    return run(arrays, direction)


@pytest.mark.usefixtures("x64")
@each_cut("uneven-recomputed-reverse", "even-kept-reverse")
@pytest.mark.parametrize("cell_id", CELL_IDS)
def test_higher_derivatives_of_several_blocks_are_those_of_the_scan(cell_id, cut):
    num_steps, reverse = cut
    problem = cases.make_problem(cell_id, num_steps=num_steps)
    run = functools.partial(slope_and_hessian, cell_id, problem, reverse=reverse)
    slope, hvp, hvp_in_reverse = run(FusedScan(), twice_reverse=True)
    expected_slope, expected, _ = run(Scan(), twice_reverse=False)
    cases.assert_close(slope, expected_slope, cases.FLOAT64, "slope")
    cases.assert_close(hvp, expected, cases.FLOAT64, "jvp of grad")
    cases.assert_close(hvp_in_reverse, expected, cases.FLOAT64, "grad of grad")


# Chunks

LONG = 8
CHUNKED = {
    "chunk_4": FusedScan(4),
    "chunk_3": FusedScan(3),
    "chunk_3_unroll_2": FusedScan(3, unroll=2),
    "unroll_3": FusedScan(unroll=3),
    "budget": FusedScan(memory_budget=16_000),
}


@pytest.mark.usefixtures("x64")
@cases.each_direction
@pytest.mark.parametrize("engine", CHUNKED.values(), ids=CHUNKED)
def test_gradient_in_chunks_is_that_of_the_scan(engine, reverse):
    problem = cases.make_problem("lstm", num_steps=LONG)
    assert_gradient_is_that_of_the_scan("lstm", problem, engine, reverse)


@pytest.mark.usefixtures("x64")
@each_cut("even-kept-reverse")
def test_chunk_of_several_blocks_has_the_gradient_of_the_scan(cut):
    num_steps, reverse = 15, cut[1]
    problem = cases.make_problem("gru_reset_before", num_steps=num_steps)
    made = FusedScan(7).plan(
        cases.CELLS["gru_reset_before"].cell, problem.params, problem.inputs
    )
    assert (made.chunk_size, made.block_size) == (7, 3)
    engine = FusedScan(7)
    assert_gradient_is_that_of_the_scan("gru_reset_before", problem, engine, reverse)


def plan_shapes(num_steps=1000, in_features=F):
    """Shapes of an LSTM's run: cell, parameters, inputs."""
    cell = cases.CELLS["lstm"].cell
    params = jax.eval_shape(lambda key: cell.init(key, in_features), jax.random.key(0))
    inputs = jax.ShapeDtypeStruct((num_steps, B, in_features), jnp.float32)
    return cell, params, inputs


@pytest.mark.usefixtures("x64")
def test_budget_of_these_tests_asks_for_chunks():
    problem = cases.make_problem("lstm", num_steps=LONG)
    arrays = cases.cast((problem.params, problem.inputs, problem.carry), np.float64)
    made = CHUNKED["budget"].plan(cases.CELLS["lstm"].cell, *arrays)
    assert 1 < made.chunk_size < LONG


@pytest.mark.parametrize("share", [1.0, 0.5, 0.1, 0.05])
def test_budget_chooses_a_plan_that_is_predicted_to_fit(share):
    shapes = plan_shapes()
    whole = FusedScan().predict_memory(*shapes)
    engine = FusedScan(memory_budget=int(share * whole))
    made = engine.plan(*shapes)
    assert made.num_bytes == engine.predict_memory(*shapes) <= share * whole
    assert (made.chunk_size is None) == (share == 1.0)


def least_bytes(shapes):
    with pytest.raises(ValueError) as error:
        FusedScan(memory_budget=1).plan(*shapes)
    cases.assert_says(error, "memory_budget", "at least", "bytes", "got 1.")
    assert "\n" not in str(error.value)
    return int(str(error.value).split("at least ")[1].split(" bytes")[0])


def test_budget_that_is_too_small_is_refused_with_the_least_that_is_not():
    shapes = plan_shapes()
    least = least_bytes(shapes)
    assert FusedScan(memory_budget=least).predict_memory(*shapes) == least
    with pytest.raises(ValueError) as error:
        FusedScan(memory_budget=least - 1).plan(*shapes)
    cases.assert_says(error, "memory_budget", str(least), str(least - 1))
    cell, params, inputs = shapes
    with pytest.raises(ValueError) as error:
        jax.eval_shape(
            lambda p, x: unroll(cell, p, x, engine=FusedScan(memory_budget=1)),
            params,
            inputs,
        )
    cases.assert_says(error, "memory_budget", str(least))


@pytest.mark.parametrize("value", [0, -2, 1.5, True], ids=repr)
@pytest.mark.parametrize("name", ["chunk_size", "memory_budget", "unroll"])
def test_sizes_that_are_no_positive_integer_are_refused(name, value):
    with pytest.raises(ValueError) as error:
        FusedScan(**{name: value})
    cases.assert_says(error, name, "a positive integer", repr(value))


def test_chunk_size_beside_a_budget_is_refused():
    with pytest.raises(ValueError) as error:
        FusedScan(chunk_size=3, memory_budget=2**20)
    cases.assert_says(error, "memory_budget", "chunk_size", "both")


# Transformations


@pytest.mark.usefixtures("x64")
@each_cut("uneven-kept-forward")
@pytest.mark.parametrize("cell_id", ["lstm", "gru_reset_before"])
def test_vmap_over_parameters_and_gradients_is_a_loop(cell_id, cut):
    problem = cases.make_problem(cell_id)
    rng = np.random.default_rng(3)
    seeds = [cases.random_params(cases.CELLS[cell_id], rng) for _ in range(3)]
    loss = make_loss(cell_id, problem, FusedScan(), reverse=False)
    run = cases.quick_jit(
        jax.vmap(
            jax.value_and_grad(lambda params, rest: loss((params, *rest))), (0, None)
        )
    )
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *seeds)
    _, *rest = cases.cast(problem.arrays, np.float64)
    runs = run(cases.cast(stacked, np.float64), tuple(rest))
    of_scan = make_loss(cell_id, problem, Scan(), reverse=False)
    expected_of = cases.quick_jit(jax.value_and_grad(of_scan))
    for seed, params in enumerate(seeds):
        actual = jax.tree.map(lambda leaf, seed=seed: leaf[seed], runs)
        value, gradient = expected_of((cases.cast(params, np.float64), *rest))
        expected = value, gradient[0]
        cases.assert_close(actual, expected, cases.FLOAT64, "value, gradient")


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("engine", [FusedScan(), FusedScan(3)], ids=["whole", "chunks"])
def test_gradient_in_shard_map_over_the_batch_is_that_without(engine):
    problem = cases.make_problem("gru_reset_before")
    params, *arrays = cases.cast(problem.arrays, np.float64)
    arrays += [problem.mask, problem.resets]
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("batch",))
    sequence, rows, everywhere = jax.P(None, "batch"), jax.P("batch"), jax.P()
    weights = np.random.default_rng(5).normal(size=H)

    def gradient(engine, total, params, inputs, carry, reset_carry, mask, resets):
        def loss(params):
            carry_after, outputs = unroll(
                cases.CELLS["gru_reset_before"].cell,
                params,
                inputs,
                carry,
                reset_carry=reset_carry,
                mask=mask,
                resets=resets,
                engine=engine,
            )
            rows = (outputs**2).sum(axis=0) + carry_after.hidden
            return total((rows * weights).sum())

        return jax.value_and_grad(loss)(params)

    sharded = jax.shard_map(
        functools.partial(gradient, engine, lambda part: jax.lax.psum(part, "batch")),
        mesh=mesh,
        in_specs=(everywhere, sequence, rows, rows, sequence, sequence),
        out_specs=everywhere,
    )
    actual = cases.quick_jit(sharded)(params, *arrays)
    unsharded = functools.partial(gradient, Scan(), lambda whole: whole)
    expected = cases.quick_jit(unsharded)(params, *arrays)
    cases.assert_close(actual, expected, cases.FLOAT64, "value, gradient")


# dtypes


def matmuls(jaxpr, in_loop=False):
    """Yield (whether in a loop, equation) for each matmul of a jaxpr."""
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        if name == "dot_general":
            yield in_loop, equation
        for inner in jax.tree.leaves(list(equation.params.values())):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from matmuls(inner, in_loop or name in ("scan", "while"))


def run_float32(cell_id, engine):
    """Return a function of float32 arrays that runs the cell, and such arrays."""
    problem = cases.make_problem(cell_id)
    run = functools.partial(cases.call, unroll, cell_id, engine=engine)

    def run_arrays(arrays):
        moved = cases.Problem(*arrays, **problem.flags)
        return run(moved, dtype=np.float32)

    return run_arrays, cases.cast(problem.arrays, np.float32)


each_matmul_cell = pytest.mark.parametrize("cell_id", ["lstm", "gru_reset_before"])


@each_matmul_cell
def test_matmuls_of_the_forward_pass_are_of_the_compute_dtype(cell_id):
    run, arrays = run_float32(cell_id, FusedScan(compute_dtype=jnp.bfloat16))
    dots = list(matmuls(jax.make_jaxpr(run)(arrays).jaxpr))
    assert {in_loop for in_loop, _ in dots} == {True, False}
    for _, equation in dots:
        assert {v.aval.dtype for v in equation.invars} == {jnp.dtype(jnp.bfloat16)}
        assert equation.outvars[0].aval.dtype == jnp.float32


@each_matmul_cell
def test_carry_outputs_and_gradients_keep_their_dtype_beside_a_compute_dtype(cell_id):
    run, arrays = run_float32(cell_id, FusedScan(compute_dtype=jnp.bfloat16))
    problem = cases.make_problem(cell_id)
    loss = make_loss(cell_id, problem, FusedScan(compute_dtype=jnp.bfloat16), False)
    shapes = jax.eval_shape(run, arrays)
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype(jnp.float32)}
    gradient = jax.eval_shape(jax.grad(loss), arrays)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), gradient) == (
        jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), arrays)
    )


@each_matmul_cell
def test_results_in_a_compute_dtype_are_near_those_without(cell_id):
    problem = cases.make_problem(cell_id)

    def results(engine):
        run, arrays = run_float32(cell_id, engine)
        loss = make_loss(cell_id, problem, engine, reverse=False)
        return cases.quick_jit(lambda x: (run(x), jax.grad(loss)(x)))(arrays)

    actual = results(FusedScan(compute_dtype=jnp.bfloat16))
    expected = results(FusedScan())
    cases.assert_close(actual, expected, BFLOAT16, "run, gradient")
    _, outputs = expected[0]
    assert cases.relative_error(actual[0][1], outputs) > cases.FLOAT32


def test_reset_carry_of_each_row_is_not_rounded_to_the_compute_dtype():
    problem = cases.make_problem("lstm", num_steps=2)
    params, inputs, carry, reset_carry = cases.cast(problem.arrays, np.float32)
    inputs, last = jnp.nan_to_num(inputs), np.array([[False], [True]])
    run = functools.partial(
        unroll,
        cases.CELLS["lstm"].cell,
        params,
        engine=FusedScan(compute_dtype=jnp.bfloat16),
    )
    resets = jnp.broadcast_to(last, (2, B))
    _, actual = run(inputs, carry, resets=resets, reset_carry=reset_carry)
    _, expected = run(inputs[1:], reset_carry)
    assert np.array_equal(actual[1:], expected)


@pytest.mark.parametrize("precision", [None, "highest"])
@each_matmul_cell
def test_precision_is_that_of_every_matmul_in_both_directions(cell_id, precision):
    engine = FusedScan(precision=precision)
    run, arrays = run_float32(cell_id, engine)
    loss = make_loss(cell_id, cases.make_problem(cell_id), engine, reverse=False)
    highest = (jax.lax.Precision.HIGHEST, jax.lax.Precision.HIGHEST)
    for function in (run, jax.grad(loss)):
        dots = list(matmuls(jax.make_jaxpr(function)(arrays).jaxpr))
        found = {equation.params["precision"] for _, equation in dots}
        assert found == {highest if precision else None}
        assert {in_loop for in_loop, _ in dots} == {True, False}
