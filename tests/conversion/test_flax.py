"""Flax linen's and nnx' cells and layers next to ours, both ways; spoilt trees."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gated_rnn import (
    GRU,
    LSTM,
    MGU,
    RNN,
    Bidirectional,
    Dense,
    Elman,
    ProjectedLSTM,
    Stack,
)
from gated_rnn.conversion import from_linen, from_nnx, to_linen, to_nnx
from tests.conversion import comparing
from tests.conversion.comparing import B, F, H, T

linen = pytest.importorskip("flax.linen")
nnx = pytest.importorskip("flax.nnx")


def lstm_pair(carry):
    """Return Flax' carry, (c, h)."""
    return (carry.cell, carry.hidden) if hasattr(carry, "cell") else carry.hidden


def our_carry(like, carry):
    if hasattr(like, "cell"):
        return type(like)(hidden=carry[1], cell=carry[0])
    return type(like)(hidden=carry)


def differentiate(apply):
    """Return what does what `comparing.run_ours` does, and is compiled once."""

    @jax.jit
    def derive(tree, inputs, carries, weights):
        def run(inputs):
            finals, outputs = apply(tree, inputs, list(map(lstm_pair, carries)))
            return outputs, list(map(our_carry, carries, finals))

        results, transpose = jax.vjp(run, inputs)
        return *results, transpose(weights)[0]

    return derive


def assert_layers_agree(network, params, derive, tree):
    inputs = comparing.draw_inputs()
    carries = comparing.draw_carries(network)
    weights = comparing.draw_cotangents(network, carries, network.out_features)
    ours = comparing.run_ours(network, params, inputs, carries, weights)
    comparing.assert_close(ours, derive(tree, inputs, carries, weights))


# linen

LINEN_CELLS = {
    "lstm": (linen.LSTMCell, LSTM(H)),
    "optimized_lstm": (linen.OptimizedLSTMCell, LSTM(H)),
    "gru": (linen.GRUCell, GRU(H)),
    "simple": (linen.SimpleCell, Elman(H)),
}


@functools.cache
def linen_model(name):
    """Return three layers, what equals them, and what runs and derives them."""
    cell, ours = LINEN_CELLS[name]
    below, readout = linen.RNN(cell(H)), linen.Dense(4)
    both = linen.Bidirectional(linen.RNN(cell(H)), linen.RNN(cell(H)))
    network = Stack(RNN(ours), Bidirectional(ours, ours), Dense(4))
    shapes = jax.eval_shape(
        linen.Sequential((below, both, readout)).init,
        jax.random.key(0),
        np.zeros((B, T, F), np.float32),
    )

    def apply(tree, inputs, carries):
        def run(number, layer, *args, **kwargs):
            variables = {"params": tree[f"layers_{number}"]}
            return layer.apply(variables, *args, **kwargs)

        options = {"time_major": True, "return_carry": True}
        first, hidden = run(0, below, inputs, initial_carry=carries[0], **options)
        rest, hidden = run(1, both, hidden, initial_carry=tuple(carries[1:]), **options)
        return [first, *rest], run(2, readout, hidden)

    return shapes, network, differentiate(apply)


each_linen_cell = pytest.mark.parametrize("name", LINEN_CELLS)


@each_linen_cell
def test_linen_layers_run_the_same_here(name):
    shapes, network, derive = linen_model(name)
    variables = comparing.draw(1, shapes)
    converted, params = from_linen(variables)
    assert converted == network
    assert_layers_agree(network, params, derive, variables["params"])


@each_linen_cell
def test_our_network_runs_the_same_in_linen(name):
    shapes, network, derive = linen_model(name)
    params = comparing.draw_params(network, seed=2)
    tree = to_linen(network, params)
    expected = jax.tree.map(jnp.shape, shapes["params"])
    assert jax.tree.map(jnp.shape, tree) == expected
    assert_layers_agree(network, params, derive, tree)
    back, same = from_linen(tree)
    assert back == network
    comparing.assert_same(same, params)


@each_linen_cell
def test_linen_cell_steps_as_ours(name):
    cell, ours = LINEN_CELLS[name]
    network = RNN(ours)
    params = comparing.draw_params(network, seed=3)
    tree = to_linen(network, params)["cell"]
    comparing.assert_same(from_linen(tree)[1], params)
    (carry,) = comparing.draw_carries(network)
    inputs = comparing.draw_inputs()[0]
    end, outputs = network.step(params, carry, inputs)
    expected = cell(H).apply({"params": tree}, lstm_pair(carry), inputs)
    comparing.assert_close((lstm_pair(end), outputs), expected)


def test_linen_layers_in_a_list_are_a_stack():
    network = Stack(RNN(GRU(H)), RNN(LSTM(4)))
    params = comparing.draw_params(network)
    tree = to_linen(network, params)
    same, back = from_linen([tree["layers_0"]["cell"], tree["layers_1"]])
    assert same == network
    comparing.assert_same(back, params)


def test_linen_network_without_biases_gets_zeros():
    for cell in (LSTM(H, use_bias=False), GRU(H, use_bias=False), Elman(H)):
        network = RNN(cell)
        params = comparing.draw_params(network)
        converted, back = from_linen(to_linen(network, params))
        inputs = comparing.draw_inputs()[0]
        (carry,) = comparing.draw_carries(network)
        expected = network.step(params, carry, inputs)
        comparing.assert_close(converted.step(back, carry, inputs), expected)


def test_linen_mgu_is_refused_by_name():
    shapes = jax.eval_shape(
        linen.MGUCell(H).init,
        jax.random.key(0),
        np.zeros((B, H), np.float32),
        np.zeros((B, F), np.float32),
    )
    with pytest.raises(ValueError, match="got an MGUCell, which is another function"):
        from_linen(comparing.draw(1, shapes["params"]))


# nnx

NNX_CELLS = {
    "lstm": (nnx.LSTMCell, LSTM(H)),
    "optimized_lstm": (nnx.OptimizedLSTMCell, LSTM(H)),
    "gru": (nnx.GRUCell, GRU(H)),
    "simple": (nnx.SimpleCell, Elman(H)),
}

each_nnx_cell = pytest.mark.parametrize("name", NNX_CELLS)


@functools.cache
def nnx_model(name):
    """Return three layers, what equals them, and what runs and derives them."""
    cell, ours = NNX_CELLS[name]
    rngs = nnx.Rngs(0)
    both = nnx.Bidirectional(
        nnx.RNN(cell(H, H, rngs=rngs)), nnx.RNN(cell(H, H, rngs=rngs))
    )
    model = nnx.Sequential(
        nnx.RNN(cell(F, H, rngs=rngs)), both, nnx.Linear(2 * H, 4, rngs=rngs)
    )
    graph, state, rest = nnx.split(model, nnx.Param, ...)

    def apply(tree, inputs, carries):
        params = jax.tree.map(lambda leaf: leaf, state)
        nnx.replace_by_pure_dict(params, tree)
        others = jax.tree.map(lambda leaf: leaf, rest)
        below, both, readout = nnx.merge(graph, params, others).layers
        options = {"time_major": True, "return_carry": True}
        first, hidden = below(inputs, initial_carry=carries[0], **options)
        ends, hidden = both(hidden, initial_carry=tuple(carries[1:]), **options)
        return [first, *ends], readout(hidden)

    network = Stack(RNN(ours), Bidirectional(ours, ours), Dense(4))
    return model, network, differentiate(apply)


def without_recurrent_bias(network, params):
    """Return the parameters with the zeros that nnx' GRU stands for."""

    def change(part):
        if getattr(part, "recurrent_bias", None) is None:
            return part
        return part._replace(recurrent_bias=jnp.zeros_like(part.recurrent_bias))

    return jax.tree.map(
        change, params, is_leaf=lambda part: hasattr(part, "recurrent_kernel")
    )


@each_nnx_cell
def test_nnx_layers_run_the_same_here(name):
    model, network, derive = nnx_model(name)
    tree = comparing.draw(4, nnx.to_pure_dict(nnx.state(model, nnx.Param)))
    converted, params = from_nnx(tree)
    assert converted == network
    assert_layers_agree(network, params, derive, tree)


@each_nnx_cell
def test_our_network_runs_the_same_in_nnx(name):
    model, network, derive = nnx_model(name)
    drawn = comparing.draw_params(network, seed=5)
    params = without_recurrent_bias(network, drawn)
    tree = to_nnx(network, params, optimized=name == "optimized_lstm")
    expected = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    assert jax.tree.map(jnp.shape, tree) == jax.tree.map(jnp.shape, expected)
    assert_layers_agree(network, params, derive, tree)
    back, same = from_nnx(tree)
    assert back == network
    comparing.assert_same(same, params)


def test_nnx_state_is_taken_as_it_is():
    model, network, _ = nnx_model("gru")
    state = nnx.state(model, nnx.Param)
    same, params = from_nnx(state)
    assert same == network
    comparing.assert_same(params, from_nnx(nnx.to_pure_dict(state))[1])


def test_gru_with_a_bias_that_nnx_lacks_is_refused():
    network = RNN(GRU(H))
    params = comparing.draw_params(network)
    with pytest.raises(ValueError, match="nnx' GRUCell has no bias inside the reset"):
        to_nnx(network, params)
    back, same = from_nnx(to_nnx(network, without_recurrent_bias(network, params)))
    assert back == network
    comparing.assert_same(same, without_recurrent_bias(network, params))


# What neither has, and what is spoilt

REFUSED = {
    "projected": (RNN(ProjectedLSTM(4, projected_features=H)), "LSTM or GRU or Elman"),
    "mgu": (RNN(MGU(H)), "LSTM or GRU or Elman, which the format has, got MGU"),
    "reset_before": (RNN(GRU(H, reset_after=False)), "GRU.reset_after: expected True"),
    "activation": (RNN(Elman(H, activation=jax.nn.relu)), "expected tanh"),
    "backward": (RNN(GRU(H), reverse=True), "a layer that runs forward"),
    "merge": (Bidirectional(LSTM(H), LSTM(H), merge="mean"), "merge='concat'"),
    "zoneout": (RNN(LSTM(H), zoneout=0.1), "without noise inside"),
}


@pytest.mark.parametrize("convert", [to_linen, to_nnx])
@pytest.mark.parametrize("name", REFUSED)
def test_network_that_flax_lacks_is_refused(name, convert):
    network, expected = REFUSED[name]
    with pytest.raises(ValueError) as caught:
        convert(network, comparing.draw_params(network))
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


each_cell = pytest.mark.parametrize(
    "cell", [LSTM(H), GRU(H), Elman(H)], ids=["lstm", "gru", "elman"]
)


def whole_network(cell):
    network = Stack(Bidirectional(cell, cell), Bidirectional(cell, cell))
    params = comparing.draw_params(network, seed=6)
    return network, without_recurrent_bias(network, params)


@pytest.mark.parametrize(
    "cell", [LSTM(H), GRU(H), Elman(H)], ids=["lstm", "gru", "rnn"]
)
def test_spoilt_linen_tree_is_refused_in_one_line(cell):
    tree = to_linen(*whole_network(cell))
    comparing.assert_every_spoilt_source_is_refused(from_linen, tree)


@pytest.mark.parametrize(
    "cell", [LSTM(H), GRU(H), Elman(H)], ids=["lstm", "gru", "rnn"]
)
def test_spoilt_nnx_tree_is_refused_in_one_line(cell):
    tree = to_nnx(*whole_network(cell))
    comparing.assert_every_spoilt_source_is_refused(from_nnx, tree)


@pytest.mark.parametrize("convert", [from_linen, from_nnx])
@pytest.mark.parametrize("source", [None, 3, "cell", [], {}, [{}], [3], {"cell": {}}])
def test_source_that_is_no_tree_is_refused(convert, source):
    comparing.assert_refused_in_one_line(convert, source, source)


def test_sequential_with_a_gap_is_refused():
    tree = to_linen(*whole_network(LSTM(H)))
    tree["layers_2"] = tree.pop("layers_1")
    with pytest.raises(ValueError, match=r"layers_2/\S+: expected no entry"):
        from_linen(tree)
