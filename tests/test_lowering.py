"""What unroll is lowered to: for every platform, for any batch, and how many matmuls.

Nothing here measures time. Programs are lowered for accelerators that need not be
there; what can be run is run where the tests are.
"""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from gated_rnn import FusedScan, Scan, unroll
from tests import cases
from tests.cases import B, F, T

pytestmark = pytest.mark.usefixtures("strict_promotion")

PLATFORMS = ("cpu", "cuda", "tpu")
CELLS = ("lstm", "gru", "gru_reset_before")
NUM_GATES = {"lstm": 4, "gru": 3, "gru_reset_before": 3}

# The same program compiled twice. bfloat16 keeps 8 bits, and what is fused and so not
# rounded may differ.
TOLERANCES = {"float32": cases.FLOAT32, "bfloat16": 3e-2}

each_cell = pytest.mark.parametrize("cell_id", CELLS)
each_engine = pytest.mark.parametrize(
    "engine", [Scan(), FusedScan()], ids=["scan", "fused"]
)
each_dtype = pytest.mark.parametrize("dtype", TOLERANCES)


def make_arguments(cell_id, dtype, in_features=F):
    """The arrays and flags of a random problem as one flat list, and how to read it."""
    problem = cases.make_problem(cell_id, in_features=in_features)
    flags = (problem.mask, problem.resets)
    return jax.tree.flatten((cases.cast(problem.arrays, dtype), flags))


def make_forward(cell_id, structure, engine=Scan()):  # noqa: B008 - frozen
    """Return unroll as a function of one flat list of arrays."""

    def forward(leaves):
        arrays, (mask, resets) = jax.tree.unflatten(structure, leaves)
        params, inputs, carry, reset_carry = arrays
        carry, outputs = unroll(
            cases.CELLS[cell_id].cell,
            params,
            inputs,
            carry,
            reset_carry=reset_carry,
            mask=mask,
            resets=resets,
            engine=engine,
        )
        return [*jax.tree.leaves(carry), outputs]

    return forward


def make_gradient(cell_id, structure, engine=Scan()):  # noqa: B008 - frozen
    """Return the results of unroll and the gradient of their sum by every float."""
    forward = make_forward(cell_id, structure, engine)

    def loss(floats, flags):
        results = forward([*floats, *flags])
        return sum(leaf.astype(jnp.float32).sum() for leaf in results), results

    def run(leaves):
        *floats, mask, resets = leaves
        gradient, results = jax.grad(loss, has_aux=True)(floats, (mask, resets))
        return results, gradient

    return run


@functools.cache
def run_directly(cell_id, dtype, engine=Scan()):  # noqa: B008 - frozen
    leaves, structure = make_arguments(cell_id, dtype)
    return cases.quick_jit(make_gradient(cell_id, structure, engine))(leaves)


# Export


@each_engine
@each_dtype
@each_cell
def test_unroll_and_its_gradient_are_lowered_for_every_platform(cell_id, dtype, engine):
    leaves, structure = make_arguments(cell_id, dtype)
    program = jax.jit(make_gradient(cell_id, structure, engine))
    exported = export.export(program, platforms=PLATFORMS)(leaves)
    assert exported.platforms == PLATFORMS
    assert not exported.ordered_effects
    assert not exported.unordered_effects
    results, gradient = cases.quick_jit(exported.call)(leaves)
    expected = run_directly(cell_id, dtype, engine)
    cases.assert_close((results, gradient), expected, TOLERANCES[dtype])
    assert all(np.any(np.asarray(leaf, np.float32)) for leaf in (*results, *gradient))
    assert {str(leaf.dtype) for leaf in (*results, *gradient)} == {dtype}


@each_engine
@each_cell
def test_exported_program_takes_a_batch_of_any_size(cell_id, engine):
    leaves, structure = make_arguments(cell_id, "float32")
    (size,) = export.symbolic_shape("batch_size")
    shapes = [
        jax.ShapeDtypeStruct([size if n == B else n for n in leaf.shape], leaf.dtype)
        for leaf in leaves
    ]
    program = jax.jit(make_forward(cell_id, structure, engine))
    exported = export.export(program, platforms=PLATFORMS)(shapes)
    rows = 4
    fewer = [
        leaf[tuple(slice(rows) if n == B else slice(None) for n in leaf.shape)]
        for leaf in leaves
    ]
    assert fewer[-1].shape[1] == rows
    *carry, outputs = cases.quick_jit(exported.call)(fewer)
    (*all_carries, all_outputs), _ = run_directly(cell_id, "float32")
    cases.assert_close(outputs, all_outputs[:, :rows], cases.FLOAT32, "outputs")
    expected = [leaf[:rows] for leaf in all_carries]
    cases.assert_close(carry, expected, cases.FLOAT32, "carry")


@each_engine
@each_cell
def test_exported_gradient_takes_any_number_of_steps(cell_id, engine):
    leaves, structure = make_arguments(cell_id, "float32")
    (size,) = export.symbolic_shape("num_steps")
    shapes = [
        jax.ShapeDtypeStruct([size if n == T else n for n in leaf.shape], leaf.dtype)
        for leaf in leaves
    ]
    program = jax.jit(make_gradient(cell_id, structure, engine))
    exported = export.export(program, platforms=("cpu",))(shapes)
    results, gradient = cases.quick_jit(exported.call)(leaves)
    expected = run_directly(cell_id, "float32", engine)
    cases.assert_close((results, gradient), expected, cases.FLOAT32)


# Structure


def count_matmuls(jaxpr, in_loop=False):
    """Count the matmuls of a jaxpr inside and outside of loops."""
    inside = outside = 0
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        inside += name == "dot_general" and in_loop
        outside += name == "dot_general" and not in_loop
        for inner in jax.tree.leaves(list(equation.params.values())):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                more = count_matmuls(inner, in_loop or name in ("scan", "while"))
                inside, outside = inside + more[0], outside + more[1]
    return inside, outside


def lower_forward(cell_id, dtype, in_features=F):
    """Return the jaxpr and the StableHLO of unroll for the CPU."""
    leaves, structure = make_arguments(cell_id, dtype, in_features)
    forward = make_forward(cell_id, structure)
    exported = export.export(jax.jit(forward), platforms=("cpu",))(leaves)
    return jax.make_jaxpr(forward)(leaves).jaxpr, exported.mlir_module()


# One of the inputs, one of the hidden, and for reset before one more after the gate.
# The reference engine scans over the whole step: it hoists nothing out of the loop.
MATMULS = {"lstm": 2, "gru": 2, "gru_reset_before": 3}


@each_cell
def test_step_of_the_reference_engine_has_one_matmul_of_each_operand(cell_id):
    jaxpr, text = lower_forward(cell_id, "float32")
    assert count_matmuls(jaxpr) == (MATMULS[cell_id], 0)
    assert text.count("stablehlo.dot_general") == MATMULS[cell_id]
    assert text.count("stablehlo.while") == 1


@each_cell
def test_one_input_feature_is_multiplied_gate_by_gate(cell_id):
    jaxpr, _ = lower_forward(cell_id, "float32", in_features=1)
    of_inputs = NUM_GATES[cell_id]
    assert count_matmuls(jaxpr) == (MATMULS[cell_id] - 1 + of_inputs, 0)


@each_cell
def test_gradient_has_two_matmuls_more_for_each_of_the_forward_pass(cell_id):
    # One by each factor. The derivative of a scan does it all in loops.
    leaves, structure = make_arguments(cell_id, "float32")
    jaxpr = jax.make_jaxpr(make_gradient(cell_id, structure))(leaves).jaxpr
    assert count_matmuls(jaxpr) == (3 * MATMULS[cell_id], 0)


@each_cell
def test_matmuls_of_bfloat16_accumulate_in_float32(cell_id):
    _, text = lower_forward(cell_id, "bfloat16")
    operand, result = r"tensor<[\dx]*bf16>", r"tensor<[\dx]*f32>"
    wide = rf"stablehlo\.dot_general.*\({operand}, {operand}\) -> {result}"
    assert len(re.findall(wide, text)) == MATMULS[cell_id]


@pytest.mark.usefixtures("x64")
@each_cell
def test_float32_is_nowhere_widened_where_float64_is_enabled(cell_id):
    _, text = lower_forward(cell_id, "float32")
    assert re.search(r"tensor<[\dx]*f32>", text)
    assert not re.search(r"tensor<[\dx]*f64>", text)
