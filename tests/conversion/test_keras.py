"""Keras beside ours: outputs, carries and gradients of the same random weights."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gated_rnn import (
    GRU,
    LSTM,
    RNN,
    Bidirectional,
    Dense,
    Elman,
    LastStep,
    MaskedMean,
    MinGRU,
    PeepholeLSTM,
    Stack,
)
from gated_rnn.activations import hard_sigmoid, identity
from gated_rnn.conversion.keras import from_keras, to_keras
from gated_rnn.conversion.keras_cells import ACTIVATIONS
from gated_rnn.networks import Nonlinearity
from tests import cases

keras = pytest.importorskip("keras")
layers = keras.layers
# Keras' own `get_weights` calls what NumPy 2 has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")

T, B, F, H = 6, 4, 3, 5
FLOAT32 = 1e-5  # relative: a few steps of rounding
LINE = r"Received an invalid value for [^\n]+: expected [^\n]+, got [^\n]+\."


def randomise(model, seed=0, scale=0.7):
    """Give every weight of a built layer or model random numbers, biases included."""
    rng = np.random.default_rng(seed)
    weights = [scale * rng.normal(size=w.shape) for w in model.get_weights()]
    model.set_weights([weight.astype(np.float32) for weight in weights])
    return model


def draw(seed=1):
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(T, B, F)).astype(np.float32)
    mask = rng.random((T, B)) < 0.6
    mask[:, 0] = True
    mask[:2, 1], mask[-2:, 2] = False, False  # padding left and right
    mask[0, 3] = mask[-1, 3] = True
    assert mask.any(axis=0).all()
    assert not mask[1:-1, 3].all()
    return inputs, mask


def build(cls, *args, **options):
    """Make a layer of random weights; what it would draw by itself only takes time."""
    options = {"kernel_initializer": "zeros", **options}
    if cls is not layers.Dense:
        options["recurrent_initializer"] = "zeros"
    layer = cls(*args, **options)
    layer.build((B, T, F))
    return randomise(layer)


def build_both(inner, **options):
    layer = layers.Bidirectional(inner, **options)
    layer.build((B, T, F))
    return randomise(layer)


def compiled(layer, mask=None):
    """Return the function (weights, inputs) -> outputs of a layer or model of Keras."""
    rest = [variable.value for variable in layer.non_trainable_variables]
    options = {} if mask is None else {"mask": mask.T}
    return cases.quick_jit(
        lambda weights, x: layer.stateless_call(weights, rest, x, **options)[0]
    )


def values_of(layer):
    return [variable.value for variable in layer.trainable_variables]


def differentiate(run, inputs, weights):
    """Return what `run` returns, and the gradient of a weighted sum of its outputs."""

    def loss(x):
        results = run(x)
        return (results[0] * weights).sum(), results

    step = cases.quick_jit(jax.value_and_grad(loss, has_aux=True))
    (_, results), gradient = step(jnp.asarray(inputs))
    return results, gradient


def draw_weights(shape):
    return np.random.default_rng(2).normal(size=shape).astype(np.float32)


LAYERS = {
    "lstm": (layers.LSTM, {}),
    "lstm_no_bias": (layers.LSTM, {"use_bias": False}),
    "lstm_activations": (
        layers.LSTM,
        {"activation": "relu", "recurrent_activation": "hard_sigmoid"},
    ),
    "gru": (layers.GRU, {}),
    "gru_no_bias": (layers.GRU, {"use_bias": False}),
    "gru_reset_before": (layers.GRU, {"reset_after": False}),
    "gru_reset_before_no_bias": (layers.GRU, {"reset_after": False, "use_bias": False}),
    "gru_activations": (
        layers.GRU,
        {"activation": "softsign", "recurrent_activation": "hard_sigmoid"},
    ),
    "simple_rnn": (layers.SimpleRNN, {}),
    "simple_rnn_relu": (layers.SimpleRNN, {"activation": "relu", "use_bias": False}),
    "simple_rnn_linear": (layers.SimpleRNN, {"activation": None}),
}
# What depends on the cell alone is seen once for each.
CORE = {name: LAYERS[name] for name in ("lstm", "gru_reset_before", "simple_rnn")}
each_layer = pytest.mark.parametrize("name", LAYERS)


@pytest.mark.parametrize(
    ("name", "masked"),
    [*((name, True) for name in LAYERS), *((name, False) for name in CORE)],
)
def test_layer_computes_what_keras_does(name, masked):
    cls, options = LAYERS[name]
    layer = build(cls, H, return_sequences=True, return_state=True, **options)
    network, params = from_keras(layer.get_weights(), layer.get_config())
    assert isinstance(network, RNN)
    inputs, mask = draw()
    mask = mask if masked else np.ones_like(mask)
    keras_mask = mask.T if masked else None
    our_mask = jnp.asarray(mask) if masked else None

    def run_keras(x):
        outputs, *states = layer(jnp.swapaxes(x, 0, 1), mask=keras_mask)
        # Keras holds the outputs under the mask, ours are zero.
        return jnp.swapaxes(outputs, 0, 1) * mask[..., None], states

    def run(x):
        carry, outputs = network.apply(params, x, mask=our_mask)
        return outputs, carry

    weights = draw_weights((T, B, H))
    (theirs, states), expected = differentiate(run_keras, inputs, weights)
    (ours, carry), gradient = differentiate(run, inputs, weights)
    cases.assert_close(ours, theirs, FLOAT32, "outputs")
    cases.assert_close(tuple(carry), states, FLOAT32, "carry")
    cases.assert_close(gradient, expected, FLOAT32, "gradient")


@pytest.mark.parametrize("name", CORE)
@pytest.mark.parametrize("go_backwards", [False, True], ids=["forward", "backward"])
def test_last_output_is_what_keras_returns(name, go_backwards):
    cls, options = LAYERS[name]
    layer = build(cls, H, go_backwards=go_backwards, **options)
    network, params = from_keras(layer.get_weights(), layer.get_config())
    assert network.layers[1] == LastStep(reverse=go_backwards)
    inputs, mask = draw()
    expected = compiled(layer, mask)(values_of(layer), np.swapaxes(inputs, 0, 1))
    run = cases.quick_jit(lambda x: network.apply(params, x, mask=jnp.asarray(mask))[1])
    cases.assert_close(run(inputs), expected, FLOAT32)


@pytest.mark.parametrize(
    ("kind", "merge", "sequences"),
    [
        ("lstm", "concat", True),
        ("gru", "concat", False),
        ("simple_rnn", "sum", True),
        ("simple_rnn", "ave", False),
        ("simple_rnn", "mul", True),
    ],
)
def test_bidirectional_computes_what_keras_does(kind, merge, sequences):
    cls, options = LAYERS[kind]
    inner = cls(H, return_sequences=sequences, recurrent_initializer="zeros", **options)
    layer = build_both(inner, merge_mode=merge)
    network, params = from_keras(layer.get_weights(), layer.get_config())
    inputs, mask = draw()

    def run(x):
        return network.apply(params, x, mask=jnp.asarray(mask))[::-1]

    def run_keras(x):
        outputs = layer(jnp.swapaxes(x, 0, 1), mask=mask.T)
        return (jnp.swapaxes(outputs, 0, 1) if sequences else outputs,)

    weights = draw_weights((*([T] if sequences else []), B, network.out_features))
    (theirs,), expected = differentiate(run_keras, inputs, weights)
    (ours, _), gradient = differentiate(run, inputs, weights)
    cases.assert_close(ours, theirs, FLOAT32, "outputs")
    cases.assert_close(gradient, expected, FLOAT32, "gradient")


def test_directions_may_differ_in_keras():
    layer = build_both(
        layers.LSTM(H, return_sequences=True),
        backward_layer=layers.GRU(
            4, return_sequences=True, go_backwards=True, reset_after=False
        ),
    )
    network, params = from_keras(layer.get_weights(), layer.get_config())
    inputs, _ = draw()
    expected = compiled(layer)(values_of(layer), np.swapaxes(inputs, 0, 1))
    _, outputs = cases.quick_jit(network.apply)(params, inputs)
    cases.assert_close(outputs, np.swapaxes(expected, 0, 1), FLOAT32)
    for back, array in zip(to_keras(network, params), layer.get_weights(), strict=True):
        np.testing.assert_array_equal(back, array)


ZEROS = {"kernel_initializer": "zeros", "recurrent_initializer": "zeros"}


def make_models():
    embedded = [
        keras.Input((None,), dtype="int32"),
        layers.Embedding(11, 4, mask_zero=True, embeddings_initializer="zeros"),
    ]
    return {
        "tagger": [
            *embedded,
            layers.Bidirectional(layers.LSTM(H, return_sequences=True, **ZEROS)),
            layers.GRU(6, return_sequences=True, reset_after=False, **ZEROS),
            layers.Dense(7, activation="relu", kernel_initializer="zeros"),
            layers.SimpleRNN(8, return_sequences=True, **ZEROS),
            layers.Dense(2, activation="softmax", kernel_initializer="zeros"),
        ],
        "classifier": [
            *embedded,
            layers.Dropout(0.3),
            layers.LSTM(H, return_sequences=True, recurrent_dropout=0.1, **ZEROS),
            layers.Dropout(0.3),
            layers.Bidirectional(layers.GRU(6, **ZEROS)),
            layers.Dropout(0.5),
            layers.Dense(7, activation="relu", kernel_initializer="zeros"),
            layers.Dense(1, activation="sigmoid", kernel_initializer="zeros"),
        ],
        "backward": [
            *embedded,
            layers.GRU(H, go_backwards=True, **ZEROS),
            layers.Dense(2, kernel_initializer="zeros"),
        ],
    }


def draw_tokens():
    tokens = np.random.default_rng(3).integers(1, 11, (B, T)).astype(np.int32)
    tokens[1, -2:], tokens[2, :2], tokens[3, 2] = 0, 0, 0
    return tokens


class Model(NamedTuple):
    """A model of Keras and its outputs for the tokens, as a function of its weights."""

    model: Any
    run: Any

    def outputs(self):
        return np.asarray(self.run(values_of(self.model), draw_tokens()))


@pytest.fixture(scope="module")
def models():
    return {
        name: Model(randomise(model), compiled(model))
        for name, steps in make_models().items()
        for model in [keras.Sequential(steps)]
    }


def run_ours(network, params, key=None):
    tokens = jnp.asarray(draw_tokens().T)
    run = cases.quick_jit(
        lambda params, key: network.apply(params, tokens, mask=tokens != 0, key=key)[1]
    )
    return np.asarray(run(params, key))


each_model = pytest.mark.parametrize("name", ["tagger", "classifier", "backward"])


@each_model
def test_model_computes_what_keras_does_with_its_mask(models, name):
    model, expected = models[name].model, models[name].outputs()
    outputs = run_ours(*from_keras(model.get_weights(), model.get_config()))
    if name == "tagger":  # behind a mask, Keras' outputs mean nothing and ours are zero
        outputs = np.swapaxes(outputs, 0, 1)
        expected = expected * (draw_tokens() != 0)[..., None]
    cases.assert_close(outputs, expected, FLOAT32)


@each_model
def test_model_takes_its_weights_back(models, name):
    model, before = models[name].model, models[name].model.get_weights()
    expected = models[name].outputs()
    network, params = from_keras(before, model.get_config())
    randomise(model, seed=9)
    assert np.abs(models[name].outputs() - expected).max() > 0.01
    model.set_weights(to_keras(network, params))
    cases.assert_close(models[name].outputs(), expected, FLOAT32)
    again, params_again = from_keras(model.get_weights(), model.get_config())
    assert again == network
    for ours, theirs in zip(
        jax.tree.leaves(params_again), jax.tree.leaves(params), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


@each_layer
def test_layer_takes_its_weights_back(name):
    cls, options = LAYERS[name]
    layer = build(cls, H, return_sequences=True, **options)
    inputs, run = np.swapaxes(draw()[0], 0, 1), compiled(layer)
    expected = run(values_of(layer), inputs)
    weights = to_keras(*from_keras(layer.get_weights(), layer.get_config()))
    randomise(layer, seed=9)
    assert np.abs(run(values_of(layer), inputs) - expected).max() > 0.01
    layer.set_weights(weights)
    cases.assert_close(run(values_of(layer), inputs), expected, FLOAT32)


def test_dropout_stands_where_keras_has_it(models):
    model = models["classifier"].model
    weights, config = model.get_weights(), model.get_config()
    network, params = from_keras(weights, config)
    _, lstm, rest = network.layers
    assert network.dropout == 0.3
    assert lstm.recurrent_dropout == 0.1
    assert rest.dropout == 0.5
    ends, readout = rest.layers
    assert isinstance(ends, Bidirectional)
    assert [type(each) for each in readout.layers] == [Dense, Nonlinearity] * 2
    assert readout.dropout == 0
    quiet, quiet_params = from_keras(weights, config, noise=False)
    assert quiet == Stack(*network.layers[:1], RNN(lstm.cell), ends, *readout.layers)
    outputs = run_ours(network, params)
    cases.assert_close(run_ours(quiet, quiet_params), outputs, FLOAT32)
    noisy = run_ours(network, params, jax.random.key(0))
    assert np.abs(noisy - outputs).max() > 1e-3


def test_dropout_is_nested_where_the_rate_changes():
    def dense(name):
        config = {"units": F, "name": name}
        return {"class_name": "Dense", "config": config}

    def drop(rate):
        return {"class_name": "Dropout", "config": {"rate": rate}}

    steps = [dense("a"), dense("b"), drop(0.2), dense("c"), drop(0.2), dense("d")]
    weights = 4 * [np.eye(F), np.ones(F)]
    network, params = from_keras(weights, {"layers": steps})
    assert network == Stack(Dense(F), Stack(Dense(F), Dense(F), Dense(F), dropout=0.2))
    assert jax.tree.structure(params) == jax.tree.structure(
        network.init(jax.random.key(0), F)
    )
    with pytest.raises(ValueError, match=r"expected one Dropout between two layers"):
        from_keras(weights[:4], {"layers": [*steps[1:3], drop(0.1), steps[3]]})


@pytest.mark.parametrize("name", [*ACTIVATIONS, "hard_sigmoid"])
def test_activation_is_the_function_of_keras(name):
    values = np.linspace(-5, 5, 24, dtype=np.float32).reshape(4, 6)
    layer = layers.Dense(6, activation=name)
    layer.build((None, 6))
    layer.set_weights([np.eye(6, dtype=np.float32), np.zeros(6, np.float32)])
    network, params = from_keras(layer.get_weights(), layer.get_config())
    _, outputs = network.apply(params, jnp.asarray(values[:, None]))
    cases.assert_close(outputs[:, 0], layer(values), FLOAT32)


def test_hard_sigmoid_is_that_of_the_version():
    layer = build(layers.GRU, H, recurrent_activation="hard_sigmoid")
    for version, function in ((3, jax.nn.hard_sigmoid), (2, hard_sigmoid)):
        network, params = from_keras(
            layer.get_weights(), layer.get_config(), keras_version=version
        )
        assert network.layers[0].cell.gate_activation is function
        to_keras(network, params, keras_version=version)
        with pytest.raises(ValueError, match=rf"an activation of Keras {5 - version}"):
            to_keras(network, params, keras_version=5 - version)


def test_weights_alone_tell_what_they_can():
    cases_by_layer = {
        "lstm": RNN(LSTM(H)),
        "lstm_no_bias": RNN(LSTM(H, use_bias=False)),
        "gru": RNN(GRU(H)),
        "gru_reset_before": RNN(GRU(H, reset_after=False)),
        "simple_rnn": RNN(Elman(H)),
    }
    for name, expected in cases_by_layer.items():
        cls, options = LAYERS[name]
        layer = build(cls, H, **options)
        assert from_keras(layer.get_weights())[0] == expected
        both = build_both(cls(H, **options))
        network, _ = from_keras(both.get_weights())
        assert network == Bidirectional(expected, expected)
        network, _ = from_keras(both.get_weights(), {"merge_mode": "sum"})
        assert network.merge == "sum"
    layer = build(layers.GRU, H, use_bias=False)
    with pytest.raises(ValueError, match=r"for reset_after of layer .*: expected True"):
        from_keras(layer.get_weights())
    network, _ = from_keras(layer.get_weights(), {"reset_after": True})
    assert network == RNN(GRU(H, use_bias=False))
    with pytest.raises(ValueError, match=r"for reset_after .*: expected True, as the"):
        from_keras(build(layers.GRU, H).get_weights(), {"reset_after": False})
    kernel = np.ones((F, 2), np.float32)
    assert from_keras([kernel, np.ones(2)])[0] == Dense(2)
    with pytest.raises(ValueError, match=r"for config: expected .*'class_name'"):
        from_keras([kernel])


def test_serialised_layers_are_read_like_their_configs():
    layer = build(layers.LSTM, H)
    whole = keras.saving.serialize_keras_object(layer)
    first = from_keras(layer.get_weights(), whole)
    second = from_keras(layer.get_weights(), layer.get_config())
    assert first[0] == second[0]


def test_dtype_is_that_of_the_weights_also_under_a_mixed_policy():
    for policy, expected in (
        ("mixed_bfloat16", jnp.float32),
        ("bfloat16", jnp.bfloat16),
    ):
        layer = build(layers.GRU, H, return_sequences=True, dtype=policy)
        network, params = from_keras(layer.get_weights(), layer.get_config())
        assert {leaf.dtype for leaf in params} == {jnp.dtype(expected)}
        inputs, _ = draw()
        theirs = cases.quick_jit(lambda x, layer=layer: layer(x))(inputs.swapaxes(0, 1))
        _, outputs = cases.quick_jit(network.apply)(params, inputs)
        theirs = np.swapaxes(theirs.astype(jnp.float32), 0, 1)
        cases.assert_close(outputs.astype(jnp.float32), theirs, 0.05)
        back = to_keras(network, params)
        assert {array.dtype for array in back} == {jnp.dtype(expected)}
    _, params = from_keras(layer.get_weights(), layer.get_config(), dtype=jnp.float16)
    assert {leaf.dtype for leaf in params} == {jnp.dtype(jnp.float16)}


def test_parameters_do_not_share_memory_with_keras():
    weights = [np.ones((F, 4 * H)), np.ones((H, 4 * H)), np.ones(4 * H)]
    weights = [each.astype(np.float32) for each in weights]
    network, params = from_keras(weights)
    back = to_keras(network, params)
    for mine in (*weights, *back):
        mine[:] = 7
    for leaf in params:
        np.testing.assert_array_equal(leaf, 1)


# What cannot be converted


def model_of(*steps, **options):
    return keras.Sequential([keras.Input((T, F)), *steps], **options)


UNSUPPORTED = {
    "LayerNormalization": lambda: [layers.GRU(H), layers.LayerNormalization()],
    "Conv1D": lambda: [layers.Conv1D(4, 2), layers.GRU(H)],
    "TimeDistributed": lambda: [layers.TimeDistributed(layers.Dense(4))],
    "RNN": lambda: [layers.RNN(layers.LSTMCell(H))],
    "Lambda": lambda: [layers.GRU(H), layers.Lambda(lambda x: x)],
    "GaussianNoise": lambda: [
        layers.GRU(H),
        layers.GaussianNoise(0.1),
        layers.Dense(2),
    ],
    "leaky_relu": lambda: [layers.Dense(2, activation="leaky_relu")],
    "gelu": lambda: [layers.LSTM(2, activation="gelu")],
    "go_backwards": lambda: [layers.GRU(H, go_backwards=True, return_sequences=True)],
    "no Dropout before": lambda: [layers.Dropout(0.1), layers.GRU(H)],
    "behind each Dropout": lambda: [layers.GRU(H), layers.Dropout(0.1)],
    "noise_shape": lambda: [
        layers.GRU(H, return_sequences=True),
        layers.Dropout(0.1, noise_shape=(B, 1, H)),
        layers.Dense(2),
    ],
}


@pytest.mark.parametrize("words", UNSUPPORTED)
def test_what_is_not_supported_is_named(words):
    model = model_of(*UNSUPPORTED[words]())
    with pytest.raises(ValueError, match=LINE) as error:
        from_keras(model.get_weights(), model.get_config())
    assert words in str(error.value)


def test_weights_that_do_not_fit_are_refused():
    layer = build(layers.LSTM, H)
    weights, config = layer.get_weights(), layer.get_config()
    wrong = [
        (weights[:1], config),
        ([*weights, weights[2]], config),
        ([weights[0], weights[1], weights[2][:-1]], config),
        ([weights[0][:, :-1], *weights[1:]], config),
        ([weights[0], weights[1].T, weights[2]], config),
        ([weights[1], weights[0], weights[2]], config),
        ([np.ones((0, 4 * H), np.float32), *weights[1:]], config),
        ([weights[0].astype(np.int32), *weights[1:]], config),
        ([weights[0], "x", weights[2]], config),
        (weights, {**config, "units": H + 1}),
        (weights, {**config, "use_bias": False}),
        (weights, {**config, "units": "5"}),
        (weights, {**config, "activation": {"class_name": "function", "config": "f"}}),
        (weights, {"class_name": "GRU", "config": {}}),
        (
            weights,
            {"class_name": "LSTM", "config": config, "registered_name": "m>LSTM"},
        ),
        (weights, {"class_name": "Bidirectional", "config": {}}),
        (weights, {"class_name": "Embedding", "config": {}}),
        (weights, {"class_name": "Dense", "config": {}}),
        (weights, {"layers": []}),
        (weights, {"layers": 3}),
        (weights, [config]),
        (weights, "lstm"),
        ([], config),
        (None, config),
        (3, config),
        (np.ones(3), config),
    ]
    for source, wrong_config in wrong:
        with pytest.raises(ValueError, match=LINE):
            from_keras(source, wrong_config)
    with pytest.raises(ValueError, match=r"for keras_version: expected 2 or 3"):
        from_keras(weights, config, keras_version=1)
    model = model_of(layers.GRU(H), layers.Dense(2))
    weights, config = model.get_weights(), model.get_config()
    with pytest.raises(ValueError, match=r"expected 5 arrays, as the layers of config"):
        from_keras(weights[:-1], config)
    weights[3] = np.ones((H + 1, 2), np.float32)
    with pytest.raises(ValueError, match=LINE):
        from_keras(weights, config)


def test_networks_that_keras_has_not_are_refused():
    def params_of(network):
        return network.init(jax.random.key(0), F)

    refused = {
        "residual": Stack(RNN(GRU(F)), RNN(GRU(F)), residual=True),
        "learned_carry": RNN(GRU(H), learned_carry=True),
        "zoneout": RNN(GRU(H), zoneout=0.1),
        "PeepholeLSTM": RNN(PeepholeLSTM(H)),
        "MinGRU": RNN(MinGRU(H)),
        "output_activation": RNN(LSTM(H, output_activation=identity)),
        "GRU.activation": RNN(GRU(H, activation=jnp.sin)),
        "MaskedMean": Stack(RNN(GRU(H)), MaskedMean()),
        "reverse": RNN(GRU(H), reverse=True),
        "LastStep": Stack(RNN(GRU(H), reverse=True), LastStep()),
        "behind Bidirectional": Stack(Bidirectional(GRU(H), GRU(H)), LastStep()),
        "each direction": Bidirectional(
            Stack(RNN(GRU(H)), LastStep()),
            Stack(RNN(GRU(H), reverse=True), LastStep()),
        ),
    }
    for words, network in refused.items():
        with pytest.raises(ValueError, match=LINE) as error:
            to_keras(network, params_of(network))
        assert words in str(error.value)
    network = RNN(LSTM(H))
    params = params_of(network)
    with pytest.raises(ValueError, match=LINE):
        to_keras(network, params._replace(bias=None))
    with pytest.raises(ValueError, match=r"for layout: expected one of keras, cudnn"):
        to_keras(network, params, layout="torch")
