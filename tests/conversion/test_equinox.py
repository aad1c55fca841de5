"""Equinox' cells next to ours, both ways; spoilt arrays."""

import functools

import jax
import jax.numpy as jnp
import pytest

from gated_rnn import GRU, LSTM, RNN, Bidirectional, Dense, Elman, Stack
from gated_rnn.conversion import from_equinox, to_equinox
from tests.conversion import comparing
from tests.conversion.comparing import F, H

eqx = pytest.importorskip("equinox")

CELLS = {
    "lstm": (eqx.nn.LSTMCell, LSTM(H), True),
    "gru": (eqx.nn.GRUCell, GRU(H), True),
    "lstm_no_bias": (eqx.nn.LSTMCell, LSTM(H, use_bias=False), False),
    "gru_no_bias": (eqx.nn.GRUCell, GRU(H, use_bias=False), False),
}

each_cell = pytest.mark.parametrize("name", CELLS)


def load(cell, arrays):
    """Put arrays into a cell, as the docstring of `to_equinox` says."""
    return eqx.tree_at(
        lambda c: [getattr(c, name) for name in arrays], cell, list(arrays.values())
    )


@functools.cache
def model(name):
    """Return cells, what equals them, and what runs and derives them.

    One layer of one direction, one of both on top of it, and a readout.
    """
    make, ours, use_bias = CELLS[name]
    key = jax.random.key(0)
    first = make(F, H, use_bias=use_bias, key=key)
    upper = make(H, H, use_bias=use_bias, key=key)
    cells = [
        first,
        {"forward": upper, "backward": upper},
        eqx.nn.Linear(2 * H, 4, key=key),
    ]
    network = Stack(RNN(ours), Bidirectional(ours, ours), Dense(4))
    return cells, network, derive


def run(cell, inputs, carry, reverse=False):
    pair = hasattr(carry, "cell")

    def step(carry, inputs):
        carry = jax.vmap(cell)(inputs, carry)
        return carry, carry[0] if pair else carry

    start = (carry.hidden, carry.cell) if pair else carry.hidden
    end, outputs = jax.lax.scan(step, start, inputs, reverse=reverse)
    named = {"hidden": end[0], "cell": end[1]} if pair else {"hidden": end}
    return type(carry)(**named), outputs


@eqx.filter_jit
def derive(cells, inputs, carries, weights):
    def apply(inputs):
        below, both, readout = cells
        first, hidden = run(below, inputs, carries[0])
        second, forward = run(both["forward"], hidden, carries[1])
        third, backward = run(both["backward"], hidden, carries[2], reverse=True)
        hidden = jnp.concatenate([forward, backward], axis=-1)
        return jax.vmap(jax.vmap(readout))(hidden), [first, second, third]

    results, transpose = jax.vjp(apply, inputs)
    return *results, transpose(weights)[0]


def draw_cells(seed, cells):
    return comparing.draw(seed, eqx.filter(cells, eqx.is_array))


def assert_layers_agree(network, params, cells):
    inputs = jnp.asarray(comparing.draw_inputs())
    carries = comparing.draw_carries(network)
    weights = comparing.draw_cotangents(network, carries, 4)
    ours = comparing.run_ours(network, params, inputs, carries, weights)
    comparing.assert_close(ours, derive(cells, inputs, carries, weights))


@each_cell
def test_their_cells_run_the_same_here(name):
    cells, network, _ = model(name)
    cells = eqx.combine(draw_cells(1, cells), cells)
    converted, params = from_equinox(cells)
    assert converted == network
    assert_layers_agree(network, params, cells)


@each_cell
def test_our_network_runs_the_same_there(name):
    (below, both, readout), network, _ = model(name)
    params = comparing.draw_params(network, seed=2)
    first, directions, last = to_equinox(network, params)
    cells = [
        load(below, first),
        {end: load(both[end], directions[end]) for end in both},
        load(readout, last),
    ]
    assert_layers_agree(network, params, cells)
    back, same = from_equinox([first, directions, last])
    assert back == network
    comparing.assert_same(same, params)


@each_cell
def test_one_cell_and_its_fields_are_the_same_source(name):
    make, ours, use_bias = CELLS[name]
    cell = make(F, H, use_bias=use_bias, key=jax.random.key(0))
    network, params = from_equinox(cell)
    assert network == RNN(ours)
    comparing.assert_same(from_equinox(vars(cell))[1], params)
    comparing.assert_same(from_equinox(to_equinox(network, params))[1], params)


REFUSED = {
    "elman": (RNN(Elman(H)), "expected LSTM or GRU, which the format has"),
    "reset_before": (RNN(GRU(H, reset_after=False)), "GRU.reset_after: expected True"),
    "activation": (RNN(GRU(H, activation=jax.nn.relu)), "GRU.activation: expected"),
    "backward": (RNN(LSTM(H), reverse=True), "a layer that runs forward"),
    "zoneout": (RNN(LSTM(H), zoneout=0.1), "without noise inside"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_network_that_equinox_lacks_is_refused(name):
    network, expected = REFUSED[name]
    with pytest.raises(ValueError) as caught:
        to_equinox(network, comparing.draw_params(network))
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_spoilt_arrays_are_refused_in_one_line():
    # A GRU: an LSTM that has lost its bias is an LSTM without one.
    network = Bidirectional(GRU(H), GRU(H))
    arrays = to_equinox(network, comparing.draw_params(network))
    comparing.assert_every_spoilt_source_is_refused(from_equinox, arrays)


@pytest.mark.parametrize("source", [None, 3, "cell", [], {}, [{}], [3]])
def test_source_that_is_no_cell_is_refused(source):
    comparing.assert_refused_in_one_line(from_equinox, source, source)
