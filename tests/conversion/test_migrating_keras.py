"""docs/migrating_from_keras.md: its code runs, and both sides agree."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gated_rnn import GRU, LSTM, RNN, Bidirectional, LastStep, Stack
from gated_rnn.conversion.keras2 import from_cudnn_layer
from tests import cases
from tests.conversion.test_migrating import run_page

pytest.importorskip("keras")
pytest.importorskip("h5py")
# Keras' own `get_weights` calls what NumPy 2 has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")

T, B = 7, 4
FLOAT32 = 1e-5  # relative; a few steps of rounding


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return run_page("migrating_from_keras.md", folder=tmp_path_factory.mktemp("page"))


def test_models_agree_on_masked_tokens(page):
    tokens = np.random.default_rng(0).integers(1, 50, (B, T)).astype(np.int32)
    tokens[1, -3:], tokens[2, :2] = 0, 0
    model = page["model"]
    rng = np.random.default_rng(1)
    weights = [0.5 * rng.normal(size=each.shape) for each in model.get_weights()]
    model.set_weights([each.astype(np.float32) for each in weights])
    expected = cases.quick_jit(lambda x: model(x))(tokens)
    _, params = page["from_keras"](model.get_weights(), model.get_config())
    cases.assert_close(page["predict"](params, tokens.T), expected, FLOAT32)
    assert np.ptp(expected, axis=0).min() > 0.01


def test_networks_are_what_the_page_says(page):
    first, rest = page["network"].layers[0], page["network"].layers[1]
    assert rest.dropout == 0.2
    both, behind = rest.layers
    assert both == Bidirectional(LSTM(16), LSTM(16))
    assert behind.layers[0] == Stack(RNN(GRU(12)), LastStep()).layers[0]
    assert first.vocabulary == 50
    assert page["recurrent"] == RNN(GRU(16, reset_after=False))
    gru = GRU(16, reset_after=False, activation=jax.nn.relu)
    assert page["quiet"] == Stack(RNN(gru), LastStep())
    np.testing.assert_array_equal(
        page["quiet_params"][0].kernel, page["recurrent_params"].kernel
    )


def test_cudnn_weights_come_and_go(page):
    for ours, theirs in zip(page["cudnn"][:2], page["weights"][:2], strict=True):
        np.testing.assert_array_equal(ours, theirs.astype(np.float32))
    expected = from_cudnn_layer(page["weights"])
    for ours, theirs in zip(page["same"], expected, strict=True):
        cases.assert_close(jnp.asarray(ours), theirs, FLOAT32)
