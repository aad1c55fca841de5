"""Noise of a recurrent layer: what it does, when, and that pieces see the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gated_rnn import GRU, LSTM, MUT, RNN, Dense, Elman, Embedding, MinGRU, Stack
from gated_rnn.activations import identity

pytestmark = pytest.mark.usefixtures("strict_promotion")

T, B, F, H = 7, 4, 3, 5
KEY = jax.random.key(3)
# float32: one run of 7 steps against another program of the same run.
FLOAT32 = 1e-6
# A frequency over N draws is off by 4 sqrt(p (1 - p) / N) once in 16,000 times.
NUM_DRAWS = 40_000


def frequency_tolerance(rate):
    return 4 * np.sqrt(rate * (1 - rate) / NUM_DRAWS)


def linear(size, **options):
    """Make the layer h' = x W + h U, whose outputs show what noise did to x, h or U."""
    return RNN(Elman(size, activation=identity, use_bias=False), **options)


def linear_params(size, kernel, recurrent_kernel):
    params = Elman(size, use_bias=False).init(jax.random.key(0), len(kernel))
    return params._replace(kernel=kernel, recurrent_kernel=recurrent_kernel)


def perturbed(params, key):
    """Add random numbers to every parameter, those that start at zero included."""
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))
    moved = [
        leaf + 0.4 * jax.random.normal(k, leaf.shape)
        for leaf, k in zip(leaves, keys, strict=True)
    ]
    return jax.tree.unflatten(structure, moved)


def test_input_dropout_keeps_the_same_features_of_a_row_at_every_step():
    size, rate = 50, 0.3
    layer = linear(size, input_dropout=rate)
    params = linear_params(size, jnp.eye(size), jnp.zeros((size, size)))
    inputs = 1 + jax.random.uniform(jax.random.key(1), (T, NUM_DRAWS // size, size))
    _, outputs = layer.apply(params, inputs, key=KEY)
    kept = np.asarray(outputs != 0)
    assert (kept == kept[0]).all()
    assert (kept[0, 0] != kept[0, 1]).any()
    expected = kept * np.asarray(inputs) / (1 - rate)
    np.testing.assert_allclose(outputs, expected, rtol=FLOAT32)
    assert abs(kept[0].mean() - (1 - rate)) < frequency_tolerance(rate)


def test_recurrent_dropout_keeps_the_same_hidden_features_at_every_step():
    size, rate = 50, 0.4
    layer = linear(size, recurrent_dropout=rate)
    params = linear_params(size, jnp.zeros((F, size)), jnp.eye(size))
    rows = NUM_DRAWS // size
    carry = layer.cell.init_carry((rows,))
    carry = carry._replace(hidden=jnp.ones((rows, size)))
    _, outputs = layer.apply(params, jnp.zeros((3, rows, F)), carry, key=KEY)
    kept = np.asarray(outputs[0] != 0)
    for t in range(3):
        expected = kept / (1 - rate) ** (t + 1)
        np.testing.assert_allclose(outputs[t], expected, rtol=FLOAT32)
    assert (kept[0] != kept[1]).any()
    assert abs(kept.mean() - (1 - rate)) < frequency_tolerance(rate)


def test_weight_dropout_loses_entries_of_the_recurrent_kernel_alone():
    size, rate = 200, 0.2
    layer = linear(size, weight_dropout=rate)
    kernel_key, recurrent_key = jax.random.split(jax.random.key(1))
    kernel = jax.random.normal(kernel_key, (F, size))
    recurrent_kernel = 1 + jax.random.uniform(recurrent_key, (size, size))
    params = linear_params(size, kernel, recurrent_kernel)
    # Row b starts from the unit vector b, so that its first outputs are row b of U.
    carry = layer.cell.init_carry((size,))._replace(hidden=jnp.eye(size))
    inputs = jnp.zeros((2, size, F))
    _, outputs = layer.apply(params, inputs, carry, key=KEY)
    dropped = np.asarray(outputs[0], np.float64)
    expected = (dropped != 0) * np.asarray(recurrent_kernel) / (1 - rate)
    np.testing.assert_allclose(dropped, expected, rtol=FLOAT32)
    np.testing.assert_allclose(outputs[1], dropped @ dropped, rtol=1e-5)
    assert abs((dropped != 0).mean() - (1 - rate)) < frequency_tolerance(rate)
    _, outputs = layer.apply(params, inputs.at[0].set(1.0), key=KEY)
    np.testing.assert_allclose(
        outputs[0], np.broadcast_to(kernel.sum(axis=0), (size, size)), rtol=1e-5
    )


def test_zoneout_keeps_old_values_at_the_stated_rates():
    size, rates = 100, (0.1, 0.4)
    layer = RNN(LSTM(size), zoneout=rates)
    params = perturbed(layer.init(jax.random.key(0), F), jax.random.key(1))
    rows = NUM_DRAWS // size
    inputs = jax.random.normal(jax.random.key(2), (1, rows, F))
    draws = jax.random.normal(jax.random.key(4), (2, rows, size))
    before = layer.cell.init_carry((rows,))._replace(hidden=draws[0], cell=draws[1])
    stepped, _ = layer.cell.step(params, before, inputs[0])
    after, outputs = layer.apply(params, inputs, before, key=KEY)
    np.testing.assert_array_equal(outputs[0], after.cell.hidden)
    kept = []
    for old, new, now, rate in zip(before, stepped, after.cell, rates, strict=True):
        kept.append(np.asarray(now == old))
        expected = np.where(kept[-1], old, new)
        np.testing.assert_allclose(now, expected, rtol=FLOAT32, atol=FLOAT32)
        assert abs(kept[-1].mean() - rate) < frequency_tolerance(rate)
    # Each field is drawn on its own: both stay at the product of the rates.
    together = (kept[0] & kept[1]).mean()
    product = rates[0] * rates[1]
    assert abs(together - product) < frequency_tolerance(product)


def test_zoneout_without_a_key_takes_the_expected_carry():
    rates = (0.2, 0.5)
    layer = RNN(LSTM(H), zoneout=rates)
    params = perturbed(layer.init(jax.random.key(0), F), jax.random.key(1))
    inputs = jax.random.normal(jax.random.key(2), (T, B, F))
    final, outputs = layer.apply(params, inputs)
    carry = layer.cell.init_carry((B,))
    for t in range(T):
        stepped, _ = layer.cell.step(params, carry, inputs[t])
        carry = type(carry)(
            *(
                z * old + (1 - z) * new
                for z, old, new in zip(rates, carry, stepped, strict=True)
            )
        )
        np.testing.assert_allclose(outputs[t], carry.hidden, atol=FLOAT32)
    np.testing.assert_allclose(final.cell.cell, carry.cell, atol=FLOAT32)


def test_without_a_key_dropout_does_nothing():
    inputs = jax.random.normal(jax.random.key(2), (T, B, F))
    rates = {"input_dropout": 0.3, "recurrent_dropout": 0.4, "weight_dropout": 0.2}
    layer = RNN(GRU(H), **rates)
    params = perturbed(layer.init(jax.random.key(0), F), jax.random.key(1))
    _, outputs = layer.apply(params, inputs)
    _, plain = RNN(GRU(H)).apply(params, inputs)
    np.testing.assert_array_equal(outputs, plain)
    _, noisy = layer.apply(params, inputs, key=KEY)
    assert np.max(np.abs(noisy - plain)) > 0.01


def noisy_network():
    noise = {"input_dropout": 0.2, "recurrent_dropout": 0.3, "weight_dropout": 0.1}
    net = Stack(
        Embedding(11, F),
        RNN(LSTM(H), learned_carry=True, zoneout=(0.1, 0.4), **noise),
        RNN(GRU(H + 1), zoneout=0.2),
        Dense(2),
        dropout=0.3,
    )
    return net, perturbed(net.init(jax.random.key(0)), jax.random.key(1))


def draw_tokens():
    tokens_key, mask_key, resets_key = jax.random.split(jax.random.key(2), 3)
    tokens = jax.random.randint(tokens_key, (T, B), 0, 11)
    mask = jax.random.bernoulli(mask_key, 0.7, (T, B)).at[:3, 0].set(False)
    return tokens, mask, jax.random.bernoulli(resets_key, 0.3, (T, B))


@pytest.mark.parametrize("key", [None, KEY], ids=["no_key", "key"])
def test_pieces_and_single_steps_draw_the_noise_of_the_whole(key):
    net, params = noisy_network()
    tokens, mask, resets = draw_tokens()
    apply = jax.jit(net.apply)
    whole, outputs = apply(params, tokens, mask=mask, resets=resets, key=key)
    carry, parts = None, []
    for part in (slice(0, 2), slice(2, 5), slice(5, T)):
        carry, piece = apply(
            params, tokens[part], carry, mask=mask[part], resets=resets[part], key=key
        )
        parts.append(piece)
    np.testing.assert_allclose(np.concatenate(parts), outputs, atol=FLOAT32)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=FLOAT32), carry, whole
    )

    _, outputs = apply(params, tokens, resets=resets, key=key)
    carry = net.init_carry((B,))
    step = jax.jit(net.step)
    for t in range(T):
        carry, now = step(params, carry, tokens[t], reset=resets[t], key=key)
        np.testing.assert_allclose(now, outputs[t], atol=FLOAT32)


def test_noise_of_a_padded_row_is_that_of_the_row_alone():
    net, params = noisy_network()
    tokens, _, _ = draw_tokens()
    short = tokens[:4]
    _, expected = net.apply(params, short, key=KEY)
    for first in (0, 1, T - 4):  # right, both sides, left
        mask = jnp.zeros((T, B), jnp.bool_).at[first : first + 4].set(True)
        padded = jnp.full((T, B), -1).at[first : first + 4].set(short)
        _, outputs = net.apply(params, padded, mask=mask, key=KEY)
        np.testing.assert_allclose(outputs[first : first + 4], expected, atol=FLOAT32)


def test_noise_differs_from_seed_to_seed_under_vmap():
    net, params = noisy_network()
    tokens, _, _ = draw_tokens()
    keys = jax.random.split(KEY, 3)
    together = jax.vmap(lambda key: net.apply(params, tokens, key=key)[1])(keys)
    for key, outputs in zip(keys, together, strict=True):
        np.testing.assert_allclose(
            outputs, net.apply(params, tokens, key=key)[1], atol=FLOAT32
        )
    assert np.max(np.abs(together[0] - together[1])) > 0.01


def test_gradient_through_noise_equals_finite_differences(x64):
    layer = RNN(GRU(H), zoneout=0.3, recurrent_dropout=0.3, weight_dropout=0.2)
    params = perturbed(layer.init(jax.random.key(0), F, jnp.float64), jax.random.key(1))
    # Not 4 rows: see "A fault of a compiler" in docs/accuracy.md.
    inputs = jax.random.normal(jax.random.key(2), (T, 3, F), jnp.float64)
    direction = perturbed(jax.tree.map(jnp.zeros_like, params), jax.random.key(5))

    def loss(step_size):
        moved = jax.tree.map(lambda p, d: p + step_size * d, params, direction)
        return jnp.sum(layer.apply(moved, inputs, key=KEY)[1] ** 2)

    step_size = 1e-6
    difference = (loss(step_size) - loss(-step_size)) / (2 * step_size)
    np.testing.assert_allclose(jax.grad(loss)(0.0), difference, rtol=1e-7)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: RNN(LSTM(H), input_dropout=1.0), "input_dropout"),
        (lambda: RNN(LSTM(H), recurrent_dropout=-0.1), "recurrent_dropout"),
        (lambda: RNN(LSTM(H), weight_dropout=float("nan")), "weight_dropout"),
        (lambda: RNN(LSTM(H), zoneout=True), "zoneout"),
        (lambda: RNN(LSTM(H), zoneout=(0.1, 0.2, 0.3)), "zoneout"),
        (lambda: RNN(GRU(H), zoneout=(0.1, 0.2)), "zoneout"),
        (
            lambda: RNN(GRU(H, reset_after=False), recurrent_dropout=0.1),
            "recurrent_dropout",
        ),
        (lambda: RNN(MUT(H, variant=2), recurrent_dropout=0.1), "recurrent_dropout"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_noise_that_cannot_be_is_refused_when_the_layer_is_made(make, name):
    with pytest.raises(
        ValueError, match=rf"^Received an invalid value for {name}: exp"
    ):
        make()


def test_weight_dropout_needs_a_recurrent_kernel():
    layer = RNN(MinGRU(H), weight_dropout=0.1)
    params = layer.init(jax.random.key(0), F)
    with pytest.raises(ValueError, match="invalid value for weight_dropout"):
        layer.apply(params, jnp.ones((T, B, F)), key=KEY)
