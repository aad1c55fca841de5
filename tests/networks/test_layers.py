"""Bidirectional, learned carries, embedding, reductions: against the same by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gated_rnn import (
    GRU,
    LSTM,
    RNN,
    Associative,
    Bidirectional,
    BidirectionalCarry,
    Dense,
    Embedding,
    LastStep,
    MaskedMean,
    RNNCarry,
    Scan,
    Stack,
    gate_values,
    lengths_to_mask,
    summarize,
    unroll,
)
from tests import cases

pytestmark = pytest.mark.usefixtures("strict_promotion")

T, B, F, H = 7, 4, 3, 5
LENGTHS = (7, 4, 1, 0)
# float32: the same run in another program.
FLOAT32 = 1e-6
MERGES = {
    "concat": lambda a, b: np.concatenate([a, b], axis=-1),
    "sum": np.add,
    "mean": lambda a, b: (a + b) / 2,
    "product": np.multiply,
}


def perturbed(params, seed=1):
    """Add random numbers to every parameter, those that start at zero included."""
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    moved = [
        leaf + 0.5 * jax.random.normal(k, leaf.shape, leaf.dtype)
        for leaf, k in zip(leaves, keys, strict=True)
    ]
    return jax.tree.unflatten(structure, moved)


def draw(seed=2):
    inputs_key, mask_key, resets_key = jax.random.split(jax.random.key(seed), 3)
    inputs = jax.random.normal(inputs_key, (T, B, F))
    mask = jax.random.bernoulli(mask_key, 0.7, (T, B)).at[:, 3].set(False)
    resets = jax.random.bernoulli(resets_key, 0.3, (T, B))
    return jnp.where(mask[..., None], inputs, jnp.nan), mask, resets


def assert_close(actual, expected, tolerance=FLOAT32):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=tolerance),
        actual,
        expected,
    )


def assert_refused(name, call):
    with pytest.raises(ValueError, match="invalid value for") as error:
        call()
    cases.assert_says(error, name)


# Bidirectional


@pytest.mark.parametrize("merge", MERGES)
def test_bidirectional_merges_both_directions(merge):
    layer = Bidirectional(LSTM(H), GRU(H), merge)
    params = perturbed(layer.init(jax.random.key(0), F))
    inputs, mask, resets = draw()
    flags = {"mask": mask, "resets": resets}
    carry, outputs = layer.apply(params, inputs, **flags)
    ahead, forward = unroll(LSTM(H), params.forward, inputs, **flags)
    back, backward = unroll(GRU(H), params.backward, inputs, reverse=True, **flags)
    assert_close(outputs, MERGES[merge](np.asarray(forward), np.asarray(backward)))
    assert_close(carry, BidirectionalCarry(ahead, back))
    assert outputs.shape[-1] == layer.out_features


def test_bidirectional_carries_end_where_each_row_ends():
    layer = Bidirectional(LSTM(H), GRU(H + 1))
    params = perturbed(layer.init(jax.random.key(0), F))
    inputs = jax.random.normal(jax.random.key(2), (T, B, F))
    mask = lengths_to_mask(jnp.array(LENGTHS), T)
    carry, outputs = layer.apply(params, inputs, mask=mask)
    for row, length in enumerate(LENGTHS):
        alone, expected = layer.apply(params, inputs[:length, row])
        assert_close(jax.tree.map(lambda leaf, r=row: leaf[r], carry), alone)
        assert_close(outputs[:length, row], expected)
        assert not outputs[length:, row].any()


def test_bidirectional_starts_from_the_carries_given():
    layer = Bidirectional(LSTM(H), GRU(H))
    params = perturbed(layer.init(jax.random.key(0), F))
    inputs = jax.random.normal(jax.random.key(2), (T, B, F))
    start = perturbed(layer.init_carry((B,)))
    _, outputs = layer.apply(params, inputs, start)
    _, forward = unroll(LSTM(H), params.forward, inputs, start.forward)
    _, backward = unroll(GRU(H), params.backward, inputs, start.backward, reverse=True)
    assert_close(outputs, jnp.concatenate([forward, backward], axis=-1))


def test_bidirectional_reverses_its_backward_layer_and_stacks():
    as_layers = Bidirectional(RNN(LSTM(H)), RNN(GRU(H)))
    assert as_layers == Bidirectional(LSTM(H), RNN(GRU(H), reverse=True))
    net = Stack(as_layers, Bidirectional(GRU(2), GRU(2), "sum"), Dense(1))
    params = net.init(jax.random.key(0), F)
    assert params[1].forward.kernel.shape[0] == 2 * H
    _, outputs = net.apply(params, jnp.ones((T, B, F)))
    assert outputs.shape == (T, B, 1)


def test_bidirectional_refuses_what_does_not_fit():
    assert_refused("merge", lambda: Bidirectional(GRU(H), GRU(H), "average"))
    assert_refused("backward", lambda: Bidirectional(GRU(H), GRU(H + 1), "sum"))
    assert_refused("forward", lambda: Bidirectional(RNN(GRU(H), True), GRU(H)))
    layer = Bidirectional(GRU(H), GRU(H))
    params = layer.init(jax.random.key(0), F)
    inputs = jnp.ones((T, B, F))
    carry = layer.init_carry((B,))
    assert_refused("carry", lambda: layer.apply(params, inputs, carry.forward))
    assert_refused("layer", lambda: layer.step(params, carry, inputs[0]))


# Learned carry


def learned():
    layer = RNN(LSTM(H), learned_carry=True)
    return layer, perturbed(layer.init(jax.random.key(0), F))


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
def test_learned_carry_starts_rows_and_is_where_resets_go(reverse):
    layer = RNN(LSTM(H), reverse=reverse, learned_carry=True)
    params = perturbed(layer.init(jax.random.key(0), F))
    inputs, mask, resets = draw()
    carry, outputs = layer.apply(params, inputs, mask=mask, resets=resets)
    expected = unroll(
        LSTM(H),
        params.cell,
        inputs,
        params.carry,
        reset_carry=params.carry,
        mask=mask,
        resets=resets,
        reverse=reverse,
    )
    assert_close((carry.cell, outputs), expected)
    np.testing.assert_array_equal(carry.time, mask.sum(axis=0))


def test_learned_carries_of_both_directions_are_their_own():
    layer = Bidirectional(
        RNN(LSTM(H), learned_carry=True), RNN(GRU(H), learned_carry=True)
    )
    params = perturbed(layer.init(jax.random.key(0), F))
    inputs, mask, resets = draw()
    flags = {"mask": mask, "resets": resets}
    _, outputs = layer.apply(params, inputs, **flags)
    halves = [
        unroll(
            cell,
            half.cell,
            inputs,
            half.carry,
            reset_carry=half.carry,
            reverse=reverse,
            **flags,
        )[1]
        for cell, half, reverse in (
            (LSTM(H), params.forward, False),
            (GRU(H), params.backward, True),
        )
    ]
    assert_close(outputs, jnp.concatenate(halves, axis=-1))


def test_learned_carry_is_used_once_in_pieces_and_in_steps():
    layer, params = learned()
    inputs = jax.random.normal(jax.random.key(2), (T, B, F))
    resets = jax.random.bernoulli(jax.random.key(3), 0.3, (T, B))
    whole, outputs = layer.apply(params, inputs, resets=resets)
    carry = layer.init_carry((B,))
    for t in range(T):
        carry, now = layer.step(params, carry, inputs[t], reset=resets[t])
        assert_close(now, outputs[t])
    assert_close(carry, whole)


def test_carry_that_is_handed_in_comes_before_the_learned_one():
    layer, params = learned()
    inputs = jax.random.normal(jax.random.key(2), (T, B, F))
    start = perturbed(layer.cell.init_carry((B,)))
    expected = unroll(LSTM(H), params.cell, inputs, start)
    of_cell, outputs = layer.apply(params, inputs, start)
    assert_close((of_cell.cell, outputs), expected)
    later = RNNCarry(jnp.full((B,), 3), start)
    assert_close(layer.apply(params, inputs, later)[1], expected[1])


def test_gradient_reaches_the_learned_carry():
    layer, params = learned()
    inputs, mask, resets = draw()

    def loss(params):
        _, outputs = layer.apply(params, inputs, mask=mask, resets=resets)
        return jnp.sum(outputs**2)

    gradient = jax.grad(loss)(params)
    assert all(np.abs(leaf).min() > 0 for leaf in gradient.carry)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_learned_carry_refuses_the_parameters_of_the_cell():
    layer, params = learned()
    assert_refused("params", lambda: layer.apply(params.cell, jnp.ones((T, B, F))))


# Embedding


def test_embedding_looks_up_rows_and_scatters_their_gradients():
    layer = Embedding(11, F)
    params = layer.init(jax.random.key(0))
    tokens = jax.random.randint(jax.random.key(1), (T, B), 0, 11)
    _, outputs = layer.apply(params, tokens)
    np.testing.assert_array_equal(outputs, np.asarray(params.table)[tokens])
    gradient = jax.grad(lambda p: layer.apply(p, tokens)[1].sum())(params)
    counts = np.bincount(np.asarray(tokens).ravel(), minlength=11)
    np.testing.assert_array_equal(gradient.table, np.repeat(counts[:, None], F, axis=1))


def test_embedding_reads_nothing_under_the_mask_and_nan_outside_the_vocabulary():
    layer = Embedding(11, F)
    params = layer.init(jax.random.key(0))
    tokens = jnp.array([[3, -1], [11, 10]])
    _, outputs = layer.apply(params, tokens)
    outside = np.array([[False, True], [True, False]])
    np.testing.assert_array_equal(np.isnan(outputs).all(axis=-1), outside)
    np.testing.assert_array_equal(np.isnan(outputs).any(axis=-1), outside)
    mask = jnp.array(~outside)

    def loss(params):
        return layer.apply(params, tokens, mask=mask)[1].sum()

    assert not np.asarray(layer.apply(params, tokens, mask=mask)[1])[outside].any()
    gradient = jax.grad(loss)(params).table
    assert np.flatnonzero(gradient.any(axis=1)).tolist() == [3, 10]


def test_embedding_starts_a_stack_without_a_feature_axis():
    net = Stack(Embedding(11, F), RNN(GRU(H)), Dense(2))
    params = perturbed(net.init(jax.random.key(0)))
    tokens = jax.random.randint(jax.random.key(1), (T, B), 0, 11)
    _, outputs = net.apply(params, tokens)
    _, hidden = unroll(GRU(H), params[1], params[0].table[tokens])
    assert_close(outputs, hidden @ params[2].kernel + params[2].bias, 1e-5)
    carry = net.init_carry((B,))
    for t in range(T):
        carry, now = net.step(params, carry, tokens[t])
        assert_close(now, outputs[t], 1e-5)


def test_embedding_refuses_what_is_no_token():
    layer = Embedding(11, F)
    params = layer.init(jax.random.key(0))
    assert_refused("inputs", lambda: layer.apply(params, jnp.ones((T, B))))
    net = Stack(layer, Dense(2))
    stack_params = net.init(jax.random.key(0))
    assert_refused("inputs", lambda: net.apply(stack_params, jnp.ones((T, B))))
    assert_refused("vocabulary", lambda: Embedding(0, F))


# Reductions


def reduce_by_hand(name, inputs, mask):
    expected = np.zeros((inputs.shape[1], inputs.shape[2]))
    for row in range(inputs.shape[1]):
        real = np.asarray(inputs, np.float64)[np.asarray(mask)[:, row], row]
        if len(real):
            expected[row] = real[-1] if name == "last" else real.mean(axis=0)
    return expected


@pytest.mark.parametrize(
    ("name", "layer"), [("last", LastStep()), ("mean", MaskedMean())]
)
def test_reduction_sees_the_real_steps_of_each_row(name, layer):
    inputs, mask, _ = draw()
    _, outputs = layer.apply((), inputs, mask=mask)
    assert_close(outputs, reduce_by_hand(name, inputs, mask))
    gradient = jax.grad(lambda x: layer.apply((), x, mask=mask)[1].sum())(inputs)
    assert np.isfinite(gradient).all()
    assert not gradient[~mask].any()
    count = mask.sum(axis=0)
    of_row = np.asarray(gradient).sum(axis=(0, 2))
    np.testing.assert_allclose(of_row, np.where(count > 0, F, 0), rtol=1e-6)
    everything = jnp.ones((T, B), jnp.bool_)
    whole = jnp.nan_to_num(inputs)
    assert_close(layer.apply((), whole)[1], reduce_by_hand(name, whole, everything))
    empty = layer.apply((), inputs[:0], mask=mask[:0])[1]
    np.testing.assert_array_equal(empty, np.zeros((B, F)))


def test_mean_of_bfloat16_is_summed_in_float32():
    values = jnp.ones((1000, 1, 1), jnp.bfloat16)
    _, outputs = MaskedMean().apply((), values)
    assert outputs.dtype == jnp.bfloat16
    assert float(outputs[0, 0]) == 1.0  # a bfloat16 sum stops at 256


@pytest.mark.parametrize("layer", [LastStep(), MaskedMean()], ids=["last", "mean"])
def test_stack_goes_on_with_one_vector_a_row(layer):
    net = Stack(RNN(GRU(H)), layer, Dense(4), Dense(2), dropout=0.4)
    params = perturbed(net.init(jax.random.key(0), F))
    assert params[2].kernel.shape == (H, 4)
    assert net.out_features == 2
    inputs, mask, _ = draw()
    carry, outputs = net.apply(params, inputs, mask=mask)
    _, hidden = unroll(GRU(H), params[0], inputs, mask=mask)
    _, vector = layer.apply((), hidden, mask=mask)
    for dense in params[2:]:
        vector = vector @ dense.kernel + dense.bias
    assert_close(outputs, vector, 1e-5)
    np.testing.assert_array_equal(carry.time, mask.sum(axis=0))
    _, noisy = net.apply(params, inputs, mask=mask, key=jax.random.key(5))
    assert noisy.shape == (B, 2)
    assert np.max(np.abs(noisy - outputs)) > 0.01


def test_mean_cannot_run_step_by_step():
    net = Stack(RNN(GRU(H)), MaskedMean())
    params = net.init(jax.random.key(0), F)
    carry = net.init_carry((B,))
    assert_refused("layer", lambda: net.step(params, carry, jnp.ones((B, F))))


# What is no layer, no cell and no engine


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("layers", lambda: Stack(LSTM(H), Dense(1))),
        ("layers", lambda: Stack([RNN(LSTM(H)), Dense(1)])),
        ("layers", lambda: Stack(Dense)),
        ("cell", lambda: RNN(H)),
        ("cell", lambda: RNN(LSTM)),
        ("cell", lambda: RNN(RNN(LSTM(H)))),
        ("engine", lambda: RNN(LSTM(H), engine="scan")),
        ("engine", lambda: RNN(LSTM(H), engine=Scan)),
        ("engine", lambda: RNN(LSTM(H), engine=Associative())),
        ("cell", lambda: gate_values(RNN(LSTM(H)), (), jnp.ones((T, B, F)))),
        ("net", lambda: summarize(LSTM(H), F)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_part_of_a_network_is_refused_when_it_is_made(name, make):
    assert_refused(name, make)


def test_stack_refuses_the_carry_of_a_stack_of_other_length():
    short, long = Stack(RNN(LSTM(H))), Stack(RNN(LSTM(H)), Dense(1))
    inputs = jnp.ones((T, B, F))
    for net, other in ((short, long), (long, short)):
        params = net.init(jax.random.key(0), F)
        carry = other.init_carry((B,))
        assert_refused(
            "carry.layers", lambda n=net, p=params, c=carry: n.apply(p, inputs, c)
        )


def test_lists_are_refused_where_arrays_are_meant():
    layer = Embedding(11, F)
    params = layer.init(jax.random.key(0))
    assert_refused("inputs", lambda: layer.apply(params, [[1, 2]]))
    tokens = jnp.zeros((2, 1), jnp.int32)
    assert_refused("mask", lambda: layer.apply(params, tokens, mask=[[True], [False]]))


def test_sizes_may_be_integers_of_numpy():
    params = LSTM(np.int64(H)).init(jax.random.key(0), np.int32(F))
    assert params.kernel.shape == (F, 4 * H)
