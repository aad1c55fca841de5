"""What a gradient takes, by what XLA allots: predicted well, and held to a budget.

Nothing here runs. Programs are compiled from shapes, so their length costs nothing.
"""

import jax
import jax.numpy as jnp
import pytest

from gated_rnn import GRU, LSTM, CoupledLSTM, FusedScan, unroll, unroll_reduce

# What the docstring of predict_memory promises.
TWENTY_PERCENT = 0.2
GIBIBYTE = 2**30


def array(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def params_of(cell, in_features):
    return jax.eval_shape(lambda key: cell.init(key, in_features), jax.random.key(0))


def memory_of(function, *shapes):
    """Return what a program takes, in bytes, by kind."""
    return jax.jit(function).lower(*shapes).compile().memory_analysis()


def temporary_bytes(cell, inputs, engine):
    """Return the bytes of a gradient beyond inputs, outputs and their cotangents."""

    def outputs_and_gradient(params, inputs, cotangent):
        outputs, pull_back = jax.vjp(
            lambda params: unroll(cell, params, inputs, engine=engine)[1], params
        )
        return outputs, pull_back(cotangent)

    params = params_of(cell, inputs.shape[-1])
    cotangent = array(*inputs.shape[:-1], cell.out_features)
    memory = memory_of(outputs_and_gradient, params, inputs, cotangent)
    return memory.temp_size_in_bytes


# (T, B, F, H, chunk_size): short and long, with and without blocks, one input feature
# and many, cells so narrow that h U is computed again and so wide that it is kept.
SIZES = [
    (2_000, 40, 1, 16, None),
    (2_000, 40, 1, 16, 200),
    (20_000, 40, 1, 16, None),
    (20_000, 40, 1, 16, 200),
    (60, 64, 1, 50, None),
    (80, 32, 128, 128, None),
    (800, 32, 128, 128, None),
    (800, 32, 128, 128, 200),
    (20_000, 40, 1, 256, 20),
    (20_000, 40, 1, 256, 100),
]
ROWS = [
    *((cell_type, *sizes) for cell_type in (LSTM, GRU) for sizes in SIZES),
    (CoupledLSTM, 2_000, 40, 1, 16, None),
]


@pytest.mark.parametrize(
    ("cell_type", "num_steps", "batch", "in_features", "features", "chunk_size"),
    ROWS,
    ids=["-".join([row[0].__name__, *map(str, row[1:])]) for row in ROWS],
)
def test_prediction_is_within_twenty_percent_of_what_xla_allots(
    cell_type, num_steps, batch, in_features, features, chunk_size
):
    cell, engine = cell_type(features), FusedScan(chunk_size)
    inputs = array(num_steps, batch, in_features)
    allotted = temporary_bytes(cell, inputs, engine)
    predicted = engine.predict_memory(cell, params_of(cell, in_features), inputs)
    assert predicted / allotted == pytest.approx(1.0, abs=TWENTY_PERCENT)


each_cell_type = pytest.mark.parametrize("cell_type", [LSTM, GRU])
BOUNDED = FusedScan(memory_budget=GIBIBYTE)


@each_cell_type
def test_gradient_of_a_wide_run_of_20_000_steps_holds_a_budget_of_a_gibibyte(cell_type):
    cell, inputs = cell_type(256), array(20_000, 40, 1)
    # All of it would take several times as much.
    whole = FusedScan().predict_memory(cell, params_of(cell, 1), inputs)
    assert whole > 2 * GIBIBYTE
    assert temporary_bytes(cell, inputs, BOUNDED) <= GIBIBYTE


def whole_bytes(function, *shapes):
    """Return all that a program takes, its arguments and results included."""
    memory = memory_of(function, *shapes)
    return (
        memory.temp_size_in_bytes
        + memory.output_size_in_bytes
        + memory.argument_size_in_bytes
    )


@each_cell_type
def test_gradient_of_the_final_carry_after_a_million_steps_takes_a_gibibyte(cell_type):
    cell, inputs = cell_type(64), array(1_000_000, 8, 1)
    # A budget is for what comes beside the inputs, which count here too.
    engine = FusedScan(memory_budget=GIBIBYTE - 2**27)

    def loss(params, inputs):
        carry, _ = unroll(cell, params, inputs, engine=engine, collect=False)
        return (carry.hidden**2).sum()

    taken = whole_bytes(jax.value_and_grad(loss), params_of(cell, 1), inputs)
    assert taken <= GIBIBYTE


@each_cell_type
def test_gradient_of_a_loss_on_a_million_outputs_takes_a_gibibyte(cell_type):
    cell, inputs, targets = cell_type(64), array(1_000_000, 8, 1), array(1_000_000, 8)

    def add_squares(total, outputs, targets):
        return total + ((outputs.mean(axis=-1) - targets) ** 2).sum()

    def loss(params, inputs, targets):
        return unroll_reduce(
            cell, params, inputs, add_squares, 0.0, aligned=targets, engine=BOUNDED
        )[1]

    gradient = jax.value_and_grad(loss)
    assert whole_bytes(gradient, params_of(cell, 1), inputs, targets) <= GIBIBYTE
