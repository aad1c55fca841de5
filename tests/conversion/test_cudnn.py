"""cuDNN's flat vector through `jax.experimental.rnn`'s reference; spoilt vectors."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import rnn

from gated_rnn import GRU, LSTM, RNN, Bidirectional, Stack
from gated_rnn.conversion import from_cudnn, to_cudnn, to_torch
from tests.conversion import comparing
from tests.conversion.comparing import B, F, H, T

#: Layers and whether both directions, and what equals them.
NETWORKS = {
    (1, False): RNN(LSTM(H)),
    (2, False): Stack(RNN(LSTM(H)), RNN(LSTM(H))),
    (2, True): Stack(*[Bidirectional(LSTM(H), LSTM(H))] * 2),
}

each_shape = pytest.mark.parametrize("shape", NETWORKS)


def num_params(num_layers, bidirectional):
    return rnn.get_num_params_in_lstm(F, H, num_layers, bidirectional)


@functools.partial(jax.jit, static_argnums=4)
def derive(weights, inputs, carries, cotangents, shape):
    """Run and differentiate the reference that `jax.experimental.rnn` has for cuDNN."""
    sizes = (F, H, *shape)

    def run(inputs):
        outputs, hidden, cell = rnn.lstm_ref(
            inputs.swapaxes(0, 1),
            jnp.stack([carry.hidden for carry in carries]),
            jnp.stack([carry.cell for carry in carries]),
            *rnn.unpack_lstm_weights(weights, *sizes),
            jnp.full((B,), T, jnp.int32),
            F,
            H,
            shape[0],
            0.0,
            shape[1],
        )
        finals = [
            type(carry)(hidden=h, cell=c)
            for carry, h, c in zip(carries, hidden, cell, strict=True)
        ]
        return outputs.swapaxes(0, 1), finals

    results, transpose = jax.vjp(run, inputs)
    return *results, transpose(cotangents)[0]


def assert_layers_agree(shape, params, weights):
    network = NETWORKS[shape]
    inputs = comparing.draw_inputs()
    carries = comparing.draw_carries(network)
    cotangents = comparing.draw_cotangents(network, carries, network.out_features)
    ours = comparing.run_ours(network, params, inputs, carries, cotangents)
    theirs = derive(jnp.asarray(weights), inputs, carries, cotangents, shape)
    comparing.assert_close(ours, theirs)


@each_shape
def test_their_vector_runs_the_same_here(shape):
    weights = comparing.draw(1, np.zeros(num_params(*shape)))
    network, params = from_cudnn(weights, F, H, *shape)
    assert network == NETWORKS[shape]
    assert_layers_agree(shape, params, weights)


@each_shape
def test_our_network_runs_the_same_there(shape):
    network = NETWORKS[shape]
    params = comparing.draw_params(network, seed=2)
    weights = to_cudnn(network, params)
    assert weights.shape == (num_params(*shape),)
    assert_layers_agree(shape, params, weights)
    back, same = from_cudnn(weights, F, H, *shape)
    assert back == network
    comparing.assert_same(same, params)


def test_pytorch_lists_one_layer_in_the_same_order_and_two_in_another():
    torch = pytest.importorskip("torch")
    for num_layers, same in [(1, True), (2, False)]:
        network = NETWORKS[num_layers, False]
        params = comparing.draw_params(network)
        module = torch.nn.LSTM(F, H, num_layers)
        state_dict = to_torch(network, params)
        module.load_state_dict(
            {name: torch.from_numpy(array) for name, array in state_dict.items()}
        )
        flat = [weights.detach().numpy().ravel() for weights in module._flat_weights]
        assert np.array_equal(np.concatenate(flat), to_cudnn(network, params)) == same


def test_network_that_cudnn_lacks_is_refused():
    for network, expected in [
        (RNN(GRU(H)), "expected LSTM, which the format has, got GRU"),
        (Stack(RNN(LSTM(H)), RNN(LSTM(4))), "hidden_features: expected 3 in all"),
        (Stack(RNN(LSTM(H)), NETWORKS[2, True]), "as many directions in all layers"),
        (RNN(LSTM(H, activation=jax.nn.relu)), "LSTM.activation: expected tanh"),
        (RNN(LSTM(H), zoneout=0.1), "without noise inside"),
    ]:
        with pytest.raises(ValueError) as caught:
            to_cudnn(network, comparing.draw_params(network))
        assert expected in str(caught.value)
        assert "\n" not in str(caught.value)


def test_absent_biases_become_zeros():
    network = RNN(LSTM(H, use_bias=False))
    params = comparing.draw_params(network)
    back = from_cudnn(to_cudnn(network, params), F, H)[1]
    comparing.assert_same(back.kernel, params.kernel)
    np.testing.assert_array_equal(back.bias, np.zeros(4 * H))


def test_vector_of_another_length_or_kind_is_refused_in_one_line():
    rng = np.random.default_rng(0)
    weights = comparing.draw(1, np.zeros(num_params(2, True)))

    def convert(arguments):
        return from_cudnn(*arguments)

    spoils = (
        lambda: (weights[: rng.integers(len(weights))], F, H, 2, True),
        lambda: (np.repeat(weights, rng.integers(2, 5)), F, H, 2, True),
        lambda: (weights.reshape(rng.choice([2, 4]), -1), F, H, 2, True),
        lambda: (weights.astype(rng.choice(["i4", "c8", "U3", "O"])), F, H, 2, True),
        lambda: (weights, F + rng.integers(1, 9), H, 2, True),
        lambda: (weights, F, H + rng.integers(1, 9), 2, True),
        lambda: (weights, F, H, 2 + rng.integers(1, 9), True),
        lambda: (weights, F, H, rng.integers(1, 4), False),
        lambda: (weights, F, H, -rng.integers(3), True),
        lambda: (weights, rng.choice([0.5, 5.0]), H, 2, True),
        lambda: (rng.choice(["weights", "5"]), F, H, 2, True),
        lambda: ([list(weights), [1.0]], F, H, 2, True),
    )
    for _ in range(comparing.NUM_MUTATIONS):
        number = int(rng.integers(len(spoils)))
        comparing.assert_refused_in_one_line(convert, spoils[number](), number)
