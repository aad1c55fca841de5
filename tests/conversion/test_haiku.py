"""Haiku's modules next to ours, both ways; spoilt parameters."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gated_rnn import GRU, LSTM, MGU, RNN, Bidirectional, Dense, Elman, Stack
from gated_rnn.conversion import from_haiku, to_haiku
from tests.conversion import comparing
from tests.conversion.comparing import B, F, H, T

hk = pytest.importorskip("haiku")

CORES = {
    "lstm": (hk.LSTM, LSTM(H)),
    "gru": (hk.GRU, GRU(H, reset_after=False)),
    "vanilla_rnn": (hk.VanillaRNN, Elman(H, activation=jax.nn.relu)),
}
# One layer of one direction, one of both on top of it, and a readout.
MODULES = {
    name: [name, (f"{name}_1", f"{name}_2"), "linear"] for name in ("lstm", "gru")
} | {"vanilla_rnn": ["vanilla_rnn", ("vanilla_rnn_1", "vanilla_rnn_2"), "linear"]}

each_core = pytest.mark.parametrize("name", CORES)


def their_carry(carry):
    if hasattr(carry, "cell"):
        return hk.LSTMState(hidden=carry.hidden, cell=carry.cell)
    return carry.hidden


def our_carry(like, carry):
    if hasattr(like, "cell"):
        return type(like)(hidden=carry.hidden, cell=carry.cell)
    return type(like)(hidden=carry)


@functools.cache
def model(name):
    """Return the shapes of the parameters, the network, and what derives theirs."""
    core, ours = CORES[name]

    @hk.without_apply_rng
    @hk.transform
    def unroll(inputs, carries):
        hidden, first = hk.dynamic_unroll(core(H), inputs, carries[0])
        forward, second = hk.dynamic_unroll(core(H), hidden, carries[1])
        backward, third = hk.dynamic_unroll(core(H), hidden, carries[2], reverse=True)
        hidden = jnp.concatenate([forward, backward], axis=-1)
        return hk.Linear(4)(hidden), [first, second, third]

    @jax.jit
    def derive(params, inputs, carries, weights):
        def run(inputs):
            theirs = list(map(their_carry, carries))
            outputs, finals = unroll.apply(params, inputs, theirs)
            return outputs, list(map(our_carry, carries, finals))

        results, transpose = jax.vjp(run, inputs)
        return *results, transpose(weights)[0]

    network = Stack(RNN(ours), Bidirectional(ours, ours), Dense(4))
    carries = list(map(their_carry, comparing.draw_carries(network)))
    inputs = np.zeros((T, B, F), np.float32)
    shapes = jax.eval_shape(unroll.init, jax.random.key(0), inputs, carries)
    return shapes, network, derive


def assert_layers_agree(network, params, derive, tree):
    inputs = comparing.draw_inputs()
    carries = comparing.draw_carries(network)
    weights = comparing.draw_cotangents(network, carries, 4)
    ours = comparing.run_ours(network, params, inputs, carries, weights)
    comparing.assert_close(ours, derive(tree, inputs, carries, weights))


@each_core
def test_their_modules_run_the_same_here(name):
    shapes, network, derive = model(name)
    tree = comparing.draw(1, shapes)
    converted, params = from_haiku(tree, MODULES[name])
    assert converted == network
    assert_layers_agree(network, params, derive, tree)


@each_core
def test_our_network_runs_the_same_there(name):
    shapes, network, derive = model(name)
    params = comparing.draw_params(network, seed=2)
    tree = to_haiku(network, params)
    assert jax.tree.map(jnp.shape, tree) == jax.tree.map(jnp.shape, shapes)
    assert_layers_agree(network, params, derive, tree)
    back, same = from_haiku(tree, MODULES[name])
    assert back == network
    # The forget bias loses 1 on the way there and gets it back: its last bit may go.
    comparing.assert_close(same, params, 1e-6)
    if name != "lstm":
        comparing.assert_same(same, params)


@each_core
def test_only_module_needs_no_name(name):
    network = RNN(CORES[name][1])
    params = comparing.draw_params(network, seed=3)
    for tree in (
        to_haiku(network, params),
        to_haiku(network, params, [f"agent/~/{name}_2"]),
    ):
        back, same = from_haiku(tree)
        assert back == network
        comparing.assert_close(same, params, 1e-6)


def test_module_that_could_be_two_things_needs_its_name():
    network = RNN(LSTM(H))
    tree = to_haiku(network, comparing.draw_params(network), ["core"])
    with pytest.raises(ValueError, match="modules: expected the names"):
        from_haiku(tree)
    assert from_haiku(tree, ["core"])[0] == network
    assert from_haiku(tree, ["core/linear"])[0] == Dense(4 * H)


def test_other_modules_are_left_alone():
    shapes, _, _ = model("gru")
    tree = comparing.draw(1, shapes)
    assert from_haiku(tree, ["gru"])[0] == RNN(GRU(H, reset_after=False))
    with pytest.raises(ValueError, match=r"None for 'gru', 'gru_1', 'gru_2', 'linear'"):
        from_haiku(tree)


def test_single_bias_of_vanilla_rnn_is_taken():
    network = RNN(CORES["vanilla_rnn"][1])
    params = comparing.draw_params(network, seed=4)
    tree = to_haiku(network, params)
    del tree["vanilla_rnn/linear_1"]["b"]
    comparing.assert_same(from_haiku(tree)[1], params)


REFUSED = {
    "mgu": (RNN(MGU(H)), "expected LSTM or GRU or Elman"),
    "reset_after": (RNN(GRU(H)), "GRU.reset_after: expected False"),
    "tanh": (RNN(Elman(H)), "Elman.activation: expected relu"),
    "backward": (RNN(LSTM(H), reverse=True), "a layer that runs forward"),
    "zoneout": (RNN(LSTM(H), zoneout=0.1), "without noise inside"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_network_that_haiku_lacks_is_refused(name):
    network, expected = REFUSED[name]
    with pytest.raises(ValueError) as caught:
        to_haiku(network, comparing.draw_params(network))
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_names_that_do_not_fit_the_layers_are_refused():
    network = Bidirectional(LSTM(H), LSTM(H))
    params = comparing.draw_params(network)
    for modules in (["lstm"], [("a", "b", "c")], ["a", "b"], [("a",)]):
        comparing.assert_refused_in_one_line(
            lambda names: to_haiku(network, params, names), modules, modules
        )
    tree = to_haiku(network, params)
    for modules in ([], ["lstm", "lstm"], ["absent"], [("lstm", "lstm_1", "lstm_2")]):
        comparing.assert_refused_in_one_line(
            lambda names: from_haiku(tree, names), modules, modules
        )


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_spoilt_parameters_are_refused_in_one_line(name):
    cell = CORES[name][1]
    network = Stack(Bidirectional(cell, cell), Bidirectional(cell, cell))
    flat = {
        f"{module.replace('/', '.')}/{entry}": array
        for module, arrays in to_haiku(network, comparing.draw_params(network)).items()
        for entry, array in arrays.items()
    }
    modules = [(name, f"{name}_1"), (f"{name}_2", f"{name}_3")]

    def convert(tree):
        tree = {
            module.replace(".", "/") if isinstance(arrays, dict) else module: arrays
            for module, arrays in tree.items()
        }
        names = {outer.partition("/")[0] for outer in tree}
        if names - {each for pair in modules for each in pair}:
            raise ValueError("expected no other modules, which are left alone")
        return from_haiku(tree, modules)

    comparing.assert_every_spoilt_source_is_refused(convert, comparing.unflatten(flat))


@pytest.mark.parametrize("source", [None, 3, "lstm", [], {}, {"lstm": 3.0}])
def test_source_that_holds_no_parameters_is_refused(source):
    comparing.assert_refused_in_one_line(from_haiku, source, source)
