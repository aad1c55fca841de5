"""Truncated backpropagation: what is cut, what is handed on, and the schedule."""

import json
import math

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import strategies as st

from gated_rnn import GRU, RNN, Dense, GRUCarry, Stack, losses
from gated_rnn.training import (
    PieceSchedule,
    PieceState,
    init_train_state,
    make_train_step,
    make_truncated_step,
    truncated_epoch,
)

FLOAT32_TOLERANCE = 1e-5  # relative: the same sums in another compiled program
FINITE_DIFFERENCES = 1e-7  # relative: central in float64, step^2 and 1e-16 / step
STEP_SIZE = 1e-5

T, B, F, H, OUT = 12, 3, 4, 5, 2
PIECE = 4
NET = Stack(RNN(GRU(H)), Dense(OUT), dropout=0.5)  # without a key no dropout
LEARNED = Stack(RNN(GRU(H), learned_carry=True), Dense(OUT))
KEY = jax.random.key(7)

epoch = jax.jit(truncated_epoch, static_argnames=("train_step", "piece_size"))


def make_loss(net):
    def loss(params, carry, batch, key):
        inputs, targets = batch
        carry, outputs = net.apply(params, inputs, carry, key=key)
        value = losses.mean_squared_error(outputs, targets)
        return value, (carry, {"largest": jnp.max(jnp.abs(outputs))})

    return loss


def draw_like(seed, tree):
    """Random non-zero numbers in place of all floating-point ones."""
    rng = np.random.default_rng(seed)

    def draw(leaf):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return jnp.zeros(leaf.shape, leaf.dtype)
        return jnp.asarray(0.7 * rng.normal(size=leaf.shape), leaf.dtype)

    return jax.tree.map(draw, tree)


def make_arrays(net=NET, num_steps=T, dtype=jnp.float32):
    params = jax.eval_shape(lambda: net.init(jax.random.key(0), F, dtype))
    carry = jax.eval_shape(lambda: net.init_carry((B,), dtype))
    shape = num_steps, B
    batch = (
        jax.ShapeDtypeStruct((*shape, F), dtype),
        jax.ShapeDtypeStruct((*shape, OUT), dtype),
    )
    return draw_like(0, params), draw_like(1, carry), draw_like(2, batch)


def relative_error(actual, expected):
    actual, expected = (np.asarray(x, np.float64) for x in (actual, expected))
    return np.max(np.abs(actual - expected)) / np.max(np.abs(expected))


def assert_trees_close(actual, expected, tolerance=FLOAT32_TOLERANCE):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    pairs = zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True)
    assert max(relative_error(*pair) for pair in pairs) <= tolerance


@pytest.mark.parametrize("piece_size", [T, T + 1], ids=["exactly", "more than"])
def test_one_piece_is_full_backpropagation(piece_size):
    params, start, batch = make_arrays()
    optimizer, loss = optax.sgd(0.3, momentum=0.9), make_loss(NET)

    def whole(params, batch, key):
        value, (carry, metrics) = loss(params, start, batch, key)
        return value, {**metrics, "end": carry.layers[0].hidden}

    state = init_train_state(params, optimizer)
    state = state._replace(opt_state=draw_like(3, state.opt_state))
    train_step = make_truncated_step(loss, optimizer)
    after, carry, metrics = epoch(
        train_step, state, start, batch, None, piece_size=piece_size
    )
    expected, values = jax.jit(make_train_step(whole, optimizer))(state, batch, None)
    end = values.pop("end")
    assert_trees_close(after, expected)
    assert_trees_close(metrics, jax.tree.map(lambda value: value[None], values))
    assert_trees_close(carry.layers[0].hidden, end)
    assert after.step == 1


@pytest.mark.parametrize("key", [None, KEY], ids=["quiet", "dropout"])
def test_pieces_see_what_the_whole_run_sees(key):
    params, start, batch = make_arrays()

    def loss(params, carry, batch, key):
        inputs, targets = batch
        carry, outputs = NET.apply(params, inputs, carry, key=key)
        value = losses.mean_squared_error(outputs, targets)
        return value, (carry, {"outputs": outputs})

    optimizer = optax.sgd(0.0)
    state = init_train_state(params, optimizer)
    train_step = make_truncated_step(loss, optimizer)
    _, carry, metrics = epoch(train_step, state, start, batch, key, piece_size=PIECE)
    whole, (end, values) = jax.jit(loss)(params, start, batch, key)
    assert metrics["outputs"].shape == (T // PIECE, PIECE, B, OUT)
    assert_trees_close(metrics["outputs"].reshape(T, B, OUT), values["outputs"])
    assert_trees_close(carry, end)
    assert carry.time.tolist() == [T] * B
    assert relative_error(metrics["loss"].mean(), whole) <= FLOAT32_TOLERANCE
    assert len(set(metrics["loss"].tolist())) == T // PIECE


def test_epoch_equals_a_loop_over_its_pieces_with_a_shorter_last_one():
    num_steps = 2 * PIECE + 3
    params, carry, batch = make_arrays(num_steps=num_steps)
    optimizer = optax.sgd(0.3)
    state = init_train_state(params, optimizer)
    train_step = make_truncated_step(make_loss(NET), optimizer)
    actual = epoch(train_step, state, carry, batch, None, piece_size=PIECE)
    curves = []
    for first, last in [(0, 4), (4, 8), (8, 11)]:
        piece = jax.tree.map(lambda x, f=first, n=last: x[f:n], batch)
        state, carry, metrics = jax.jit(train_step)(state, carry, piece, None)
        curves.append(metrics)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *curves)
    for got, expected in zip(actual, (state, carry, stacked), strict=True):
        assert_trees_close(got, expected)
    assert actual[0].step == 3
    assert relative_error(actual[0].params[1].kernel, params[1].kernel) > 0.01


@pytest.mark.usefixtures("x64")
def test_gradient_of_a_piece_takes_the_carry_that_comes_in_for_a_constant():
    params, start, batch = make_arrays(dtype=jnp.float64)
    loss, optimizer = make_loss(NET), optax.sgd(1.0)
    before, piece = ([x[:PIECE] for x in batch], [x[PIECE:] for x in batch])

    @jax.jit
    def losses_at(shift, tangents):
        moved = jax.tree.map(lambda p, t: p + shift * t, params, tangents)
        constant, uncut = (loss(p, start, before, None)[1][0] for p in (params, moved))
        return [loss(moved, carry, piece, None)[0] for carry in (constant, uncut)]

    tangents = draw_like(3, params)
    above, below = (losses_at(h, tangents) for h in (STEP_SIZE, -STEP_SIZE))
    cut, uncut = ((a - b) / (2 * STEP_SIZE) for a, b in zip(above, below, strict=True))

    carry = jax.jit(loss)(params, start, before, None)[1][0]
    state = init_train_state(params, optimizer)
    after, _, metrics = jax.jit(make_truncated_step(loss, optimizer))(
        state, carry, piece, None
    )
    gradient = jax.tree.map(lambda a, b: np.asarray(a - b), params, after.params)
    products = jax.tree.map(np.vdot, gradient, tangents)
    assert relative_error(sum(jax.tree.leaves(products)), cut) <= FINITE_DIFFERENCES
    assert relative_error(uncut, cut) > 0.01
    norm = np.sqrt(sum(np.sum(leaf**2) for leaf in jax.tree.leaves(gradient)))
    assert relative_error(metrics["grad_norm"], norm) <= FINITE_DIFFERENCES


def test_no_derivative_passes_through_the_carry_that_comes_in():
    params, start, batch = make_arrays()
    loss, optimizer = make_loss(NET), optax.sgd(0.1)
    state = init_train_state(params, optimizer)
    train_step = make_truncated_step(loss, optimizer)

    def replace(hidden):
        return start._replace(layers=(GRUCarry(hidden), *start.layers[1:]))

    @jax.jit
    @jax.grad
    def uncut(hidden):
        return loss(params, replace(hidden), batch, None)[0]

    @jax.jit
    @jax.grad
    def cut(hidden):
        return train_step(state, replace(hidden), batch, None)[2]["loss"]

    hidden = start.layers[0].hidden
    assert jnp.all(uncut(hidden) != 0.0)
    assert not jnp.any(cut(hidden))


def test_a_learned_carry_gets_its_gradient_where_no_carry_comes_in():
    params, start, batch = make_arrays(LEARNED)
    optimizer = optax.sgd(0.1)
    state = init_train_state(params, optimizer)
    train_step = jax.jit(make_truncated_step(make_loss(LEARNED), optimizer))
    first, carry, _ = train_step(state, None, batch, None)
    second, _, _ = train_step(first, carry, batch, None)
    learned = [s.params[0].carry.hidden for s in (state, first, second)]
    assert jnp.all(learned[0] != learned[1])
    assert jnp.all(learned[1] == learned[2])
    assert jax.tree.structure(carry) == jax.tree.structure(start)


def test_seeds_train_side_by_side():
    params, start, batch = make_arrays()
    optimizer = optax.sgd(0.1)
    train_step = make_truncated_step(make_loss(NET), optimizer)
    many = jax.tree.map(lambda leaf: jnp.stack([leaf, -0.5 * leaf]), params)

    def run(params):
        state = init_train_state(params, optimizer)
        return truncated_epoch(train_step, state, start, batch, None, piece_size=6)

    together = jax.jit(jax.vmap(run))(many)
    run = jax.jit(run)
    for seed in range(2):
        alone = run(jax.tree.map(lambda leaf, s=seed: leaf[s], many))
        one = jax.tree.map(lambda leaf, s=seed: leaf[s], together)
        assert_trees_close(one, alone)


def test_a_second_epoch_compiles_nothing():
    traces = []

    def loss(params, carry, batch, key):
        traces.append(1)
        return jnp.mean(params * batch) + carry, (carry + 1.0, {})

    optimizer = optax.sgd(0.1)
    train_step = make_truncated_step(loss, optimizer)
    state = init_train_state(jnp.ones(()), optimizer)
    carry = jnp.zeros(())
    state, carry, _ = epoch(train_step, state, carry, jnp.ones(9), KEY, piece_size=4)
    after_one = len(traces)
    state, carry, metrics = epoch(
        train_step, state, carry, 2.0 * jnp.ones(9), KEY, piece_size=4
    )
    assert len(traces) == after_one
    assert float(carry) == 6.0
    assert metrics["grad_norm"].tolist() == [2.0, 2.0, 2.0]


def shrinking(params, carry, batch, key):
    return jnp.sum(params), (carry, {"errors": batch})


def without_carry(params, carry, batch, key):
    return jnp.sum(params), {}


def with_half_a_carry(params, carry, batch, key):
    return jnp.sum(params), (carry[:1], {})


def with_a_wrong_name(params, carry, batch, key):
    return jnp.sum(params), (carry, {"grad_norm": 1.0})


@pytest.mark.parametrize(
    ("loss", "batch", "piece_size", "message"),
    [
        (shrinking, jnp.ones(5), 0, "piece_size: expected a positive integer, got 0"),
        (shrinking, jnp.ones(5), 2.0, "piece_size: expected a positive integer"),
        (shrinking, (), 2, r"batch: expected arrays \[T, ...\]"),
        (shrinking, jnp.ones((0, 3)), 2, "batch: expected arrays"),
        (shrinking, jnp.array(1.0), 2, "batch: expected arrays"),
        (shrinking, (jnp.ones(4), jnp.ones((5, 2))), 2, r"shapes \(4,\), \(5, 2\)"),
        (shrinking, jnp.ones(5), 2, r"metrics\['errors'\]: expected the shape \(2,\)"),
        (without_carry, jnp.ones(5), 2, "loss: expected a function that returns"),
        (with_half_a_carry, jnp.ones(5), 2, "carry: expected a carry like the one"),
        (with_a_wrong_name, jnp.ones(5), 2, "metrics: expected a dict with names"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_arguments_are_named(loss, batch, piece_size, message):
    optimizer = optax.sgd(0.1)
    state = init_train_state(jnp.ones(2), optimizer)
    train_step = make_truncated_step(loss, optimizer)
    with pytest.raises(ValueError, match=message):
        truncated_epoch(
            train_step, state, jnp.ones(3), batch, KEY, piece_size=piece_size
        )


def test_carry_of_another_structure_is_refused():
    optimizer = optax.sgd(0.1)
    state = init_train_state(jnp.ones(2), optimizer)

    def loss(params, carry, batch, key):
        return jnp.sum(params), (tuple(carry), {})

    train_step = make_truncated_step(loss, optimizer)
    with pytest.raises(ValueError, match="carry: expected a carry like the one"):
        truncated_epoch(
            train_step, state, GRUCarry(jnp.ones(3)), jnp.ones(5), KEY, piece_size=2
        )


# The schedule


def follow(schedule, curve):
    states = [schedule.init()]
    for value in curve:
        states.append(schedule.update(states[-1], value))
    return states


def counts_along(schedule, curve):
    return [schedule.count(state) for state in follow(schedule, curve)]


def test_schedule_of_the_reference():
    schedule = PieceSchedule()
    flat = [1.0] * 100
    counts = counts_along(schedule, flat)
    # In each phase one loss is the lowest, and 20 are not lower.
    expected = np.repeat([100, 50, 10, 2], 21).tolist()
    assert counts == expected + [1] * (len(counts) - len(expected))
    sizes = [schedule.piece_size(PieceState(phase), 20_000) for phase in range(5)]
    assert sizes == [200, 400, 2000, 10_000, 20_000]


def test_schedule_stays_while_the_loss_falls():
    assert set(counts_along(PieceSchedule(), np.linspace(5.0, 1.0, 200))) == {100}


def test_schedule_counts_losses_in_a_row_and_starts_again_at_each_lowest():
    schedule = PieceSchedule(counts=(5, 3), patience=3)
    curve = [4.0, 5.0, 4.0, 3.9, 3.9, 4.5, 3.95]
    assert [s.stale for s in follow(schedule, curve)] == [0, 0, 1, 2, 0, 1, 2, 0]
    assert counts_along(schedule, curve) == [5] * 7 + [3]


def test_schedule_compares_a_phase_with_itself():
    schedule = PieceSchedule(counts=(5, 3, 1), patience=2)
    # The second phase starts far above the best of the first, and falls.
    curve = [1.0, 1.5, 1.5, 9.0, 8.0, 7.0, 6.0]
    assert follow(schedule, curve)[-1] == PieceState(1, best=6.0, stale=0)


def test_schedule_asks_for_an_improvement_over_the_lowest_not_the_last():
    schedule = PieceSchedule(counts=(5, 3), patience=3, min_improvement=0.25)
    # Each fall is too small; three together are large enough.
    assert counts_along(schedule, [2.0, 1.9, 1.8, 1.7, 1.6]) == [5] * 6
    assert counts_along(schedule, [2.0, 1.75, 2.0, 1.8])[-1] == 3  # exactly 0.25


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf], ids=str)
def test_a_loss_that_is_not_finite_is_no_improvement(value):
    schedule = PieceSchedule(counts=(5, 3), patience=2)
    state = schedule.update(schedule.init(), value)
    assert state == PieceState(0, best=None, stale=1)
    assert schedule.update(state, 2.0) == PieceState(0, best=2.0, stale=0)
    assert counts_along(schedule, [1.0, value, value])[-1] == 3


def test_the_last_phase_stays_and_counts_on():
    schedule = PieceSchedule(counts=(5, 3), patience=2)
    states = follow(schedule, [1.0] * 9)
    assert states[-1] == PieceState(1, best=1.0, stale=5)


def test_a_saved_schedule_goes_on_where_it_stood():
    schedule = PieceSchedule(counts=(5, 3, 1), patience=2)
    curve = jnp.array([2.0, 3.0, 2.5, 1.0, 1.0, 1.0, 1.0])
    for state, rest in zip(follow(schedule, curve), range(8), strict=True):
        text = json.dumps(state, allow_nan=False)
        restored = PieceState(*json.loads(text))
        assert restored == state
        for value in curve[rest:]:
            restored = schedule.update(restored, value)
        assert restored == follow(schedule, curve)[-1]


@hypothesis.given(st.integers(1, 500), st.integers(1, 60))
def test_piece_size_covers_the_sequence_with_no_more_pieces_than_asked(steps, count):
    schedule = PieceSchedule(counts=(count,))
    size = schedule.piece_size(schedule.init(), steps)
    assert math.ceil(steps / size) <= count
    assert size == 1 or math.ceil(steps / (size - 1)) > count


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"counts": ()}, "counts: expected a tuple"),
        ({"counts": [3, 1]}, "counts: expected a tuple"),
        ({"counts": (3, 0)}, "counts: expected a positive integer, got 0"),
        ({"counts": (3, 1.5)}, "counts: expected a positive integer, got 1.5"),
        ({"patience": 0}, "patience: expected a positive integer"),
        ({"min_improvement": -0.1}, "min_improvement: expected a finite number"),
        ({"min_improvement": math.nan}, "min_improvement: expected a finite number"),
        ({"min_improvement": math.inf}, "min_improvement: expected a finite number"),
    ],
    ids=str,
)
def test_options_of_the_schedule_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        PieceSchedule(**options)


def test_number_of_steps_is_checked():
    schedule = PieceSchedule()
    with pytest.raises(ValueError, match="num_steps: expected a positive integer"):
        schedule.piece_size(schedule.init(), 0)
