"""What both directions end with, and functions behind a readout."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gated_rnn import GRU, LSTM, RNN, Bidirectional, Dense, LastStep, Stack
from gated_rnn.networks import MaskedMean, Nonlinearity
from tests import cases

pytestmark = pytest.mark.usefixtures("strict_promotion")

T, B, F, H = 7, 4, 3, 5
FLOAT32 = 1e-6  # relative; the same steps in the same order

BOTH_ENDS = Bidirectional(
    Stack(RNN(LSTM(H)), LastStep()),
    Stack(RNN(LSTM(H), reverse=True), LastStep(reverse=True)),
)


def draw(network):
    keys = jax.random.split(jax.random.key(0), 3)
    params = network.init(keys[0], F)
    leaves, structure = jax.tree.flatten(params)
    noise = jax.random.split(keys[1], len(leaves))
    params = jax.tree.unflatten(
        structure,
        [
            leaf + 0.3 * jax.random.normal(k, leaf.shape)
            for leaf, k in zip(leaves, noise, strict=True)
        ],
    )
    inputs = jax.random.normal(keys[2], (T, B, F))
    lengths = np.array([T, 4, 1, 0])
    mask = jnp.asarray(np.arange(T)[:, None] < lengths)
    mask = mask.at[2, 0].set(False).at[0, 1].set(False)
    return params, jnp.where(mask[..., None], inputs, jnp.nan), mask


def test_each_direction_gives_the_hidden_it_ends_with():
    params, inputs, mask = draw(BOTH_ENDS)
    carry, outputs = BOTH_ENDS.apply(params, inputs, mask=mask)
    ends = [side.layers[0].hidden for side in carry]
    cases.assert_close(outputs, jnp.concatenate(ends, axis=-1), FLOAT32)
    assert np.abs(outputs[:3]).min() > 0
    assert not outputs[3].any()  # a row without a real step ends where it began
    whole = jnp.nan_to_num(inputs)
    _, unmasked = BOTH_ENDS.apply(params, whole)
    everything = jnp.ones((T, B), jnp.bool_)
    _, masked = BOTH_ENDS.apply(params, whole, mask=everything)
    cases.assert_close(unmasked, masked, FLOAT32)


def test_stack_goes_on_behind_both_ends():
    network = Stack(BOTH_ENDS, Dense(2), Nonlinearity(jax.nn.softmax))
    assert network.reduces_time
    params, inputs, mask = draw(network)
    _, vector = BOTH_ENDS.apply(params[0], inputs, mask=mask)
    logits = vector @ params[1].kernel + params[1].bias
    _, outputs = network.apply(params, inputs, mask=mask)
    cases.assert_close(outputs, jax.nn.softmax(logits), FLOAT32)


def test_directions_that_do_not_fit_together_are_refused():
    with pytest.raises(ValueError, match=r"for backward: expected one vector"):
        Bidirectional(Stack(RNN(GRU(H)), LastStep()), GRU(H))
    with pytest.raises(ValueError, match=r"for layer: expected .* runs forward"):
        LastStep(reverse=True).step((), (), jnp.ones((B, F)))
    assert Bidirectional(
        Stack(RNN(GRU(H)), MaskedMean()), Stack(RNN(GRU(H)), MaskedMean())
    ).reduces_time


def test_nonlinearity_sees_real_steps_alone():
    layer = Nonlinearity(jnp.exp)
    _, inputs, mask = draw(RNN(GRU(H)))
    _, outputs = layer.apply((), inputs, mask=mask)
    expected = np.where(mask[..., None], np.exp(np.nan_to_num(inputs)), 0)
    cases.assert_close(outputs, expected, FLOAT32)
    _, stepped = layer.step((), (), inputs[1])
    cases.assert_close(stepped[:2], outputs[1, :2], FLOAT32)
    gradient = jax.grad(lambda x: layer.apply((), x, mask=mask)[1].sum())(inputs)
    assert np.isfinite(gradient).all()
    with pytest.raises(ValueError, match=r"for function: expected a function"):
        Nonlinearity(3)
