"""Every cell in Flax: its modules compute what `unroll` does, and convert exactly.

Parameters and carries are random and not zero; all sizes differ.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

from gated_rnn import Scan, unroll
from gated_rnn.flax import linen as gated_linen
from gated_rnn.flax import nnx as gated_nnx
from tests import cases
from tests.cases import (
    B,
    F,
    T,
    each_cell,
    each_core_cell,
    each_core_cell_and_engine,
    each_direction,
)

pytestmark = pytest.mark.usefixtures("strict_promotion")

each_layout = pytest.mark.parametrize("time_major", [False, True], ids=["BT", "TB"])


def draw(cell_id):
    """Random float32 arguments of a run without a mask: params, inputs, carry."""
    problem = cases.make_problem(cell_id)
    arrays = (problem.params, np.nan_to_num(problem.inputs), problem.carry)
    return cases.cast(arrays, jnp.float32)


def nnx_cell(cell, params, **options):
    """An NNX cell with these parameters."""
    module = gated_nnx.RNNCell(cell, F, rngs=nnx.Rngs(0), **options)
    module.set_params(params)
    return module


def with_gradients(run):
    """Return results of (params, inputs, carry), and gradients of a sum of them."""

    def loss(params, inputs, carry):
        results = run(params, inputs, carry)
        leaves = enumerate(jax.tree.leaves(results), start=1)
        return sum(jnp.sum(jnp.sin(k + leaf)) for k, leaf in leaves), results

    return jax.grad(loss, argnums=(0, 1, 2), has_aux=True)


def swap(sequence):
    return jnp.swapaxes(sequence, 0, 1)


@each_cell
def test_cell_modules_inside_flaxs_own_rnn_equal_unroll_with_gradients(cell_id):
    cell = cases.CELLS[cell_id].cell

    def by_unroll(params, inputs, carry):
        return unroll(cell, params, inputs, carry, engine=Scan())

    def by_linen(params, inputs, carry):  # batch-major, the default
        module = gated_linen.RNNCell(cell)
        variables = {"params": {"cell": module.variables_of(params)["params"]}}
        layer = nn.RNN(module, return_carry=True)
        carry, outputs = layer.apply(variables, swap(inputs), initial_carry=carry)
        return carry, swap(outputs)

    def by_nnx(params, inputs, carry):
        layer = nnx.RNN(nnx_cell(cell, params), time_major=True, return_carry=True)
        return layer(inputs, initial_carry=carry)

    @cases.quick_jit
    def run(*arrays):
        return [with_gradients(by)(*arrays) for by in (by_unroll, by_linen, by_nnx)]

    expected, *actuals = run(*draw(cell_id))
    for actual in actuals:
        cases.assert_close(actual, expected, cases.FLOAT32)


@each_cell
def test_layers_are_the_program_of_unroll(cell_id):
    cell, problem = cases.CELLS[cell_id].cell, cases.make_problem(cell_id)
    flags = {
        "reset_carry": cases.cast(problem.reset_carry, jnp.float32),
        "mask": problem.mask,
        "resets": problem.resets,
        "reverse": True,
    }

    def by_unroll(params, inputs, carry):
        return unroll(cell, params, inputs, carry, **flags)

    def by_linen(params, inputs, carry):
        layer = gated_linen.RNN(cell, time_major=True, return_carry=True)
        variables = layer.variables_of(params)
        return layer.apply(variables, inputs, initial_carry=carry, **flags)

    def by_nnx(params, inputs, carry):
        layer = nnx.merge(*parts, copy=True)
        layer.set_params(params)
        return layer(inputs, initial_carry=carry, **flags)

    arrays = cases.cast(problem.arrays[:3], jnp.float32)
    module = nnx_cell(cell, arrays[0])
    parts = nnx.split(gated_nnx.RNN(module, time_major=True, return_carry=True))
    programs = [
        str(jax.make_jaxpr(with_gradients(by))(*arrays))
        for by in (by_unroll, by_linen, by_nnx)
    ]
    assert programs[1] == programs[0]
    assert programs[2] == programs[0]
    assert programs[0].count("\n") > 100


@each_cell
def test_conversions_are_exact_in_both_directions(cell_id):
    cell, (params, _, _) = cases.CELLS[cell_id].cell, draw(cell_id)
    for module in (gated_linen.RNNCell(cell), gated_linen.RNN(cell)):
        variables = module.variables_of(params)
        shapes = jax.eval_shape(
            module.init, jax.random.key(0), *init_arguments(module, (B, T, F))
        )
        assert jax.tree.structure(variables) == jax.tree.structure(shapes)
        assert_same_bits(module.params_of(variables, F), params)
    module = nnx_cell(cell, params)
    assert_same_bits(module.get_params(), params)
    # Both interfaces name parameters alike.
    names = nnx.to_pure_dict(nnx.state(module))
    assert_same_bits(names, gated_linen.RNNCell(cell).variables_of(params))
    other = gated_nnx.RNNCell(cell, F, rngs=nnx.Rngs(1))
    nnx.update(other, nnx.state(module))
    assert_same_bits(other.get_params(), params)


def init_arguments(module, shape):
    """Arguments of `init`: inputs `[B, T, F]`, or a carry and inputs `[B, F]`."""
    if isinstance(module, gated_linen.RNN):
        return (jnp.zeros(shape),)
    return module.initialize_carry(None, (shape[0], F)), jnp.zeros((shape[0], F))


def assert_same_bits(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for leaf, wanted in zip(
        jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True
    ):
        assert leaf.dtype == wanted.dtype
        np.testing.assert_array_equal(leaf, wanted)


def through_layer(kind, cell, params, inputs, **arguments):
    """Run a layer module of either interface with attributes from the first call."""
    options = {"engine": arguments.pop("engine", None), "return_carry": True}
    if kind == "linen":
        layer = gated_linen.RNN(cell, **options)
        return layer.apply(layer.variables_of(params), inputs, **arguments)
    return gated_nnx.RNN(nnx_cell(cell, params), **options)(inputs, **arguments)


each_kind = pytest.mark.parametrize("kind", ["linen", "nnx"])


# Time-major they are the program of unroll, shown above.
@each_direction
@each_core_cell_and_engine
def test_batch_major_layers_equal_the_oracle_under_masks_and_resets(
    cell_id, engine, reverse
):
    cell, problem = cases.CELLS[cell_id].cell, cases.make_problem(cell_id)
    kind = "nnx" if reverse else "linen"
    arrays = cases.cast(problem.arrays, jnp.float32)

    @cases.quick_jit
    def run(params, inputs, carry, reset_carry):
        carry, outputs = through_layer(
            kind,
            cell,
            params,
            swap(inputs),
            engine=engine,
            initial_carry=carry,
            reset_carry=reset_carry,
            mask=problem.mask.T,
            resets=problem.resets.T,
            reverse=reverse,
        )
        return carry, swap(outputs)

    expected = cases.run_oracle(cell_id, problem, reverse)
    cases.assert_same_run(run(*arrays), expected, cases.FLOAT32)


@each_kind
@each_layout
@each_core_cell
def test_seq_lengths_are_masks_of_padding_and_carries_begin_at_zero(
    cell_id, time_major, kind
):
    cell, (params, inputs, _) = cases.CELLS[cell_id].cell, draw(cell_id)
    lengths = jnp.array([T, 0, 3, 1, 6, 2])
    mask = np.arange(T)[:, None] < np.asarray(lengths)
    padded = jnp.where(mask[..., None], inputs, jnp.nan)
    expected = cases.unroll_quickly(cell, params, padded, mask=mask, reverse=True)

    @cases.quick_jit
    def run(params, inputs, lengths):
        return through_layer(
            kind,
            cell,
            params,
            inputs,
            seq_lengths=lengths,
            time_major=time_major,
            reverse=True,
        )

    carry, outputs = run(params, padded if time_major else swap(padded), lengths)
    outputs = outputs if time_major else swap(outputs)
    cases.assert_same_run((carry, outputs), expected, cases.FLOAT32)
    assert np.all(np.asarray(outputs)[~mask] == 0)


@each_kind
@pytest.mark.parametrize("batch", [(), (2, B)], ids=["no_batch", "two_batch_axes"])
def test_layers_take_any_batch_axes(kind, batch):
    cell, problem = cases.CELLS["gru"].cell, cases.make_problem("gru", batch)
    arrays = cases.cast(problem.arrays[:3], jnp.float32)
    time_last = (*range(1, 1 + len(batch)), 0)

    @cases.quick_jit
    def run(params, inputs, carry):
        return through_layer(
            kind,
            cell,
            params,
            inputs.transpose(*time_last, 1 + len(batch)),
            initial_carry=carry,
            mask=problem.mask.transpose(time_last),
        )

    carry, outputs = run(*arrays)
    problem = problem._replace(resets=np.zeros_like(problem.resets))
    expected = cases.run_oracle("gru", problem)
    outputs = jnp.moveaxis(outputs, -2, 0)
    cases.assert_same_run((carry, outputs), expected, cases.FLOAT32)
