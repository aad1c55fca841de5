"""CuDNNLSTM and CuDNNGRU of Keras 2 against a loop that reads weights as cuDNN does.

Those layers run on GPUs with TensorFlow 1 alone, and Keras 3 does not load them. What
is known of them is cuDNN's own description (cudnnRNNMode_t): matrices `[H, F]` and
`[H, H]` that multiply from the left, two biases a gate; and that the layers hand over
the buffers of their arrays, gate by gate, without transposing them.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gated_rnn import GRU, LSTM, RNN, Bidirectional, Dense, Elman, Stack
from gated_rnn.conversion.keras import from_keras, to_keras
from gated_rnn.conversion.keras2 import is_cudnn_layer
from tests import cases

T, B, F, H = 6, 4, 3, 5
FLOAT32 = 1e-5  # relative; a few steps of rounding


def draw(num_gates, seed=0):
    rng = np.random.default_rng(seed)
    shapes = [(F, num_gates * H), (H, num_gates * H), (2 * num_gates * H,)]
    return [(0.7 * rng.normal(size=shape)).astype(np.float32) for shape in shapes]


def draw_inputs():
    return np.random.default_rng(1).normal(size=(T, B, F)).astype(np.float32)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def as_cudnn_reads(weights, num_gates):
    """Return W [H, F], R [H, H], b_W [H] and b_R [H] of each gate, in float64."""
    kernel, recurrent_kernel, bias = (np.asarray(each, np.float64) for each in weights)
    gates = []
    for gate in range(num_gates):
        columns = slice(gate * H, (gate + 1) * H)
        buffer = kernel[:, columns].flatten()
        recurrent_buffer = recurrent_kernel[:, columns].flatten()
        first = bias[gate * H : (gate + 1) * H]
        second = bias[(num_gates + gate) * H : (num_gates + gate + 1) * H]
        gates.append(
            (buffer.reshape(H, F), recurrent_buffer.reshape(H, H), first, second)
        )
    return gates


def cudnn_lstm(weights, inputs):
    """Gates i f c o; outputs [T, B, H], h and c."""
    gates = as_cudnn_reads(weights, 4)
    outputs = np.zeros((T, B, H))
    h, c = np.zeros((B, H)), np.zeros((B, H))
    for t in range(T):
        for row in range(B):
            i, f, g, o = (
                w @ inputs[t, row] + u @ h[row] + b + d for w, u, b, d in gates
            )
            c[row] = sigmoid(f) * c[row] + sigmoid(i) * np.tanh(g)
            outputs[t, row] = sigmoid(o) * np.tanh(c[row])
        h = outputs[t].copy()
    return outputs, h, c


def cudnn_gru(weights, inputs):
    """Gates z r h; outputs [T, B, H] and h."""
    gates = as_cudnn_reads(weights, 3)
    outputs, h = np.zeros((T, B, H)), np.zeros((B, H))
    for t in range(T):
        for row in range(B):
            x, (update, reset, new) = inputs[t, row], gates
            z, r = (
                sigmoid(w @ x + u @ h[row] + b + d) for w, u, b, d in (update, reset)
            )
            w, u, b, d = new
            n = np.tanh(w @ x + b + r * (u @ h[row] + d))
            outputs[t, row] = (1 - z) * n + z * h[row]
        h = outputs[t].copy()
    return outputs, h


LAYERS = {
    "CuDNNLSTM": (4, cudnn_lstm, RNN(LSTM(H))),
    "CuDNNGRU": (3, cudnn_gru, RNN(GRU(H))),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("stated", [False, True], ids=["by_shape", "by_name"])
def test_layer_computes_what_cudnn_does(name, stated):
    num_gates, loop, expected_network = LAYERS[name]
    weights, inputs = draw(num_gates), draw_inputs()
    config = {"units": H, "name": "layer"}
    network, params = from_keras(
        weights, {"class_name": name, "config": config} if stated else None
    )
    assert network == expected_network
    outputs, *states = loop(weights, inputs.astype(np.float64))
    carry, ours = cases.quick_jit(network.apply)(params, inputs)
    cases.assert_close(ours, outputs, FLOAT32, "outputs")
    cases.assert_close(tuple(carry), states, FLOAT32, "carry")


@pytest.mark.parametrize("name", LAYERS)
def test_layer_takes_its_weights_back(name):
    num_gates, loop, _ = LAYERS[name]
    weights, inputs = draw(num_gates), draw_inputs().astype(np.float64)
    network, params = from_keras(weights)
    back = to_keras(network, params, layout="cudnn")
    assert [each.shape for each in back] == [each.shape for each in weights]
    for ours, theirs in zip(back[:2], weights[:2], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for ours, theirs in zip(loop(back, inputs), loop(weights, inputs), strict=True):
        cases.assert_close(ours, theirs, FLOAT32)
    again, params_again = from_keras(back)
    assert again == network
    for ours, theirs in zip(params_again, params, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_both_directions_and_models_are_told_too():
    first, second = draw(4), draw(4, seed=2)
    network, params = from_keras([*first, *second])
    assert network == Bidirectional(LSTM(H), LSTM(H))
    alone = from_keras(second)[1]
    np.testing.assert_array_equal(params.backward.kernel, alone.kernel)
    np.testing.assert_array_equal(params.backward.bias, alone.bias)
    steps = [
        {"class_name": "CuDNNGRU", "config": {"units": H, "return_sequences": True}},
        {"class_name": "Dense", "config": {"units": 2}},
    ]
    dense = [np.ones((H, 2), np.float32), np.ones(2, np.float32)]
    network, _ = from_keras([*draw(3), *dense], {"layers": steps})
    assert network == Stack(RNN(GRU(H)), Dense(2))


def test_layouts_are_told_apart():
    assert is_cudnn_layer(draw(4))
    assert is_cudnn_layer(draw(3))
    kernel, recurrent_kernel, bias = draw(4)
    assert not is_cudnn_layer([kernel, recurrent_kernel, bias[: 4 * H]])
    assert not is_cudnn_layer([kernel, recurrent_kernel])
    assert not is_cudnn_layer([np.ones((F, H)), np.ones((H, H)), np.ones(2 * H)])
    with pytest.raises(ValueError, match=r"for the weights of layer 'unnamed'"):
        from_keras(
            [kernel, recurrent_kernel, bias[: 4 * H]],
            {"class_name": "CuDNNLSTM", "config": {}},
        )


@pytest.mark.parametrize(
    "network",
    [
        RNN(GRU(H, reset_after=False)),
        RNN(LSTM(H, activation=jax.nn.relu)),
        RNN(LSTM(H, use_bias=False)),
        RNN(Elman(H)),
    ],
    ids=["reset_before", "relu", "no_bias", "elman"],
)
def test_what_cudnn_has_not_is_refused(network):
    params = network.init(jax.random.key(0), F)
    with pytest.raises(ValueError, match=r"Received an invalid value for [^\n]+\."):
        to_keras(network, params, layout="cudnn")
    assert jnp.ndim(to_keras(network, params)[0]) == 2
