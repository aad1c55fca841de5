"""explain says what runs, what is refused and why, and what the plan is."""

import jax
import jax.numpy as jnp
import pytest

from gated_rnn import GRU, LSTM, Associative, FusedScan, Scan, explain, unroll
from gated_rnn.unrolling import DEFAULT_ENGINE
from tests import cases
from tests.cases import B, F, H


def shapes_of(cell, num_steps, in_features=F):
    params = jax.eval_shape(lambda key: cell.init(key, in_features), jax.random.key(0))
    inputs = jax.ShapeDtypeStruct((num_steps, B, in_features), jnp.float32)
    return cell, params, inputs


@cases.each_running_pair
def test_pair_that_runs_is_named(cell_id, engine):
    cell = cases.CELLS[cell_id].cell
    name = f"{type(engine).__name__} runs {type(cell).__name__}"
    assert explain(engine, cell) == name
    assert explain(engine, *shapes_of(cell, 9)).splitlines()[0] == name


@cases.each_refused_pair
def test_pair_that_is_refused_has_the_reason_of_the_engine(cell_id, engine):
    cell = cases.CELLS[cell_id].cell
    text = explain(engine, *shapes_of(cell, 9))
    assert text == f"{engine} refuses {type(cell).__name__}: {engine.refuses(cell)}"
    assert "\n" not in text


def test_no_engine_means_the_one_that_unroll_takes():
    shapes = shapes_of(LSTM(H), 9)
    assert explain(None, *shapes) == explain(DEFAULT_ENGINE, *shapes)
    assert explain(None, *shapes) != explain(Scan(), *shapes)
    cell, params, inputs = shapes

    def program(engine):
        run = jax.make_jaxpr(lambda p, x: unroll(cell, p, x, engine=engine))
        return str(run(params, inputs))

    assert program(None) == program(DEFAULT_ENGINE) != program(Scan())


def test_chunks_and_blocks_are_told_with_their_sizes():
    shapes = shapes_of(LSTM(H), 12_000)
    text = explain(FusedScan(chunk_size=300), *shapes)
    assert "12000 steps" in text
    assert "one carry per chunk of 300 steps" in text
    assert "for 300 steps at once" in text
    whole = explain(FusedScan(), *shapes)
    plan = FusedScan().plan(*shapes)
    assert "chunk" not in whole
    assert 1 < plan.block_size < 12_000
    assert f"for {plan.block_size} steps at once" in whole


def test_chunk_size_of_a_budget_is_told_and_its_bytes():
    shapes = shapes_of(GRU(H), 12_000)
    engine = FusedScan(memory_budget=FusedScan().predict_memory(*shapes) // 3)
    plan = engine.plan(*shapes)
    text = explain(engine, *shapes)
    assert 1 < plan.chunk_size < 12_000
    assert f"one carry per chunk of {plan.chunk_size} steps" in text
    assert f"about {plan.num_bytes / 2**20:.1f} MiB" in text


@cases.each_cell
def test_whether_the_gate_is_elementwise_is_told(cell_id):
    cell = cases.CELLS[cell_id].cell
    text = explain(FusedScan(), *shapes_of(cell, 9))
    assert ("the gate is not elementwise" in text) == (not cell.pointwise)
    assert ("the gate is elementwise" in text) == cell.pointwise


@pytest.mark.parametrize(
    ("features", "in_features", "kept"),
    [
        (40, F, "the carry"),
        (64, F, "the carry, the activations of the gate"),
        (40, 64, "the carry, the projected inputs"),
    ],
)
def test_what_is_kept_is_told(features, in_features, kept):
    text = explain(FusedScan(), *shapes_of(LSTM(features), 12_000, in_features))
    assert f"kept for the gradient: {kept} of every step" in text


def test_engine_without_a_plan_is_named_alone():
    assert "\n" not in explain(Scan(3), *shapes_of(LSTM(H), 9))
    assert explain(Associative(), cases.CELLS["min_gru"].cell).startswith("Associative")
