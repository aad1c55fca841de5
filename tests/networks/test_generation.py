"""Generation against feeding the whole sequence again for every value."""

import functools
import math

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
    Embedding,
    LastStep,
    Stack,
    lengths_to_mask,
)
from gated_rnn.networks.generation import (
    Bernoulli,
    Categorical,
    continue_generation,
    generate,
    read_prompt,
)

FLOAT32_TOLERANCE = 1e-5  # relative: a sequence at once against step by step
STANDARD_ERRORS = 4.5  # of a frequency; the keys are fixed, so this never flickers
DRAWS = 40_000

T, B, VOCABULARY, FEATURES, H = 4, 2, 7, 3, 5
TOKENS = Stack(Embedding(VOCABULARY, FEATURES), RNN(LSTM(H)), Dense(VOCABULARY))
NOTES = Stack(RNN(GRU(H)), Dense(FEATURES), dropout=0.5)
KEY = jax.random.key(5)
PROMPT = np.array([[3, 1], [0, 6], [2, 2], [5, 4]], np.int32)

STATIC = ("num_steps", "encode")
run = jax.jit(generate, static_argnames=STATIC)
run_on = jax.jit(continue_generation, static_argnames=STATIC)
apply = jax.jit(lambda net, params, inputs: net.apply(params, inputs)[1])


@functools.cache
def make_params(net, in_features=None, seed=9):
    """Parameters of a network whose likeliest values differ from step to step."""
    shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), in_features))
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: jnp.asarray(1.5 * rng.normal(size=leaf.shape), leaf.dtype), shapes
    )


def make_notes():
    return np.random.default_rng(1).integers(2, size=(T, B, FEATURES)).astype(float)


def relative_error(actual, expected):
    actual, expected = (np.asarray(x, np.float64) for x in (actual, expected))
    assert actual.shape == expected.shape
    return np.max(np.abs(actual - expected)) / np.max(np.abs(expected))


def assert_trees_close(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for pair in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert relative_error(*pair) <= FLOAT32_TOLERANCE


def one_hot(tokens):
    return jax.nn.one_hot(tokens, FEATURES)


CASES = {
    "tokens": (TOKENS, None, PROMPT, Categorical(), None),
    "notes": (NOTES, FEATURES, make_notes().astype(np.float32), Bernoulli(), None),
    "one-hot": (
        NOTES,
        FEATURES,
        np.eye(FEATURES, dtype=np.float32)[PROMPT % FEATURES],
        Categorical(1.3),
        one_hot,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_values_equal_those_of_feeding_the_whole_sequence_each_time(case):
    net, in_features, prompt, sample, encode = CASES[case]
    params = make_params(net, in_features)
    num_steps = 6
    options = {"sample": sample} | ({} if encode is None else {"encode": encode})
    carry, values = run(net, params, KEY, prompt, num_steps, **options)
    assert values.shape[:2] == (num_steps, B)

    # Causal, so that what follows a step changes nothing: one length, one program.
    sequence = np.zeros((T + num_steps, *prompt.shape[1:]), prompt.dtype)
    sequence[:T] = prompt
    for number in range(num_steps):
        outputs = apply(net, params, sequence)[T + number - 1]
        value = sample(jax.random.fold_in(KEY, number), outputs)
        np.testing.assert_array_equal(values[number], value)
        sequence[T + number] = value if encode is None else encode(value)
    expected = apply(net, params, sequence)[-1]
    assert relative_error(carry.outputs, expected) <= FLOAT32_TOLERANCE
    assert carry.step == num_steps
    assert len(np.unique(np.asarray(values), axis=0)) > 2


def test_going_on_equals_generating_more_at_once():
    params, options = make_params(TOKENS), {"sample": Categorical()}
    end, whole = run(TOKENS, params, KEY, PROMPT, 6, **options)
    carry, first = run(TOKENS, params, KEY, PROMPT, 4, **options)
    carry, second = run_on(TOKENS, params, KEY, carry, 2, **options)
    np.testing.assert_array_equal(np.concatenate([first, second]), whole)
    assert_trees_close(carry, end)


def test_a_prompt_may_be_read_in_pieces():
    params = make_params(TOKENS)
    options = {"sample": Categorical()}
    end, whole = run(TOKENS, params, KEY, PROMPT, 6, **options)
    start = read_prompt(TOKENS, params, PROMPT[:3])
    actual, values = run(
        TOKENS, params, KEY, PROMPT[3:], 6, carry=start.network, **options
    )
    np.testing.assert_array_equal(values, whole)
    assert_trees_close(actual, end)


@pytest.mark.parametrize("left", [False, True], ids=["right", "left"])
def test_a_padded_prompt_is_its_real_steps(left):
    params, lengths, greedy = make_params(TOKENS), [T, 2], Categorical(0.0)
    mask = np.asarray(lengths_to_mask(jnp.array(lengths), T))
    unknown = VOCABULARY + 3
    prompt = np.where(mask, PROMPT, unknown)
    if left:
        mask, prompt = mask[::-1], prompt[::-1]
    carry, values = run(TOKENS, params, KEY, prompt, 6, mask=mask, sample=greedy)
    for row, length in enumerate(lengths):
        real = prompt[mask[:, row], row][:, None]
        assert len(real) == length
        alone, expected = run(TOKENS, params, KEY, real, 6, sample=greedy)
        np.testing.assert_array_equal(values[:, row], expected[:, 0])
        outputs = carry.outputs[row]
        assert relative_error(outputs, alone.outputs[0]) <= FLOAT32_TOLERANCE
        hidden = carry.network.layers[1].hidden[row]
        expected_hidden = alone.network.layers[1].hidden[0]
        assert relative_error(hidden, expected_hidden) <= FLOAT32_TOLERANCE


def test_prompt_needs_no_batch_axis():
    params, greedy = make_params(TOKENS), Categorical(0.0)
    mask = np.array([True, True, True, False])
    carry, values = run(TOKENS, params, KEY, PROMPT[:, 0], 4, mask=mask, sample=greedy)
    _, expected = run(TOKENS, params, KEY, PROMPT[:3, :1], 4, sample=greedy)
    np.testing.assert_array_equal(values, expected[:, 0])
    assert carry.outputs.shape == (VOCABULARY,)


def test_values_depend_on_the_key():
    params = make_params(TOKENS)
    draw = functools.partial(run, sample=Categorical())
    runs = [draw(TOKENS, params, jax.random.key(i), PROMPT, 6)[1] for i in range(3)]
    assert len(np.unique(np.stack(runs), axis=0)) == 3


def test_keys_and_parameters_may_be_mapped():
    seeds = [make_params(TOKENS, seed=seed) for seed in (9, 4, 5)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *seeds)
    keys = jax.random.split(KEY, 3)

    def run_one(params, key):
        return generate(TOKENS, params, key, PROMPT, 6)

    carries, values = jax.jit(jax.vmap(run_one))(stacked, keys)
    for seed, params in enumerate(seeds):
        carry, expected = run(
            TOKENS, params, keys[seed], PROMPT, 6, sample=Categorical()
        )
        np.testing.assert_array_equal(values[seed], expected)
        one = jax.tree.map(lambda leaf, s=seed: leaf[s], carries)
        assert_trees_close(one, carry)


@pytest.mark.usefixtures("strict_promotion", "no_key_reuse")
def test_generation_mixes_no_dtypes_and_uses_no_key_twice():
    params = jax.tree.map(jnp.bfloat16, make_params(NOTES, FEATURES))
    prompt = jnp.asarray(make_notes(), jnp.bfloat16)
    carry, values = generate(NOTES, params, KEY, prompt, 3, sample=Bernoulli())
    assert values.dtype == carry.outputs.dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("net", "in_features", "prompt", "options", "message"),
    [
        (TOKENS, None, PROMPT[:0], {}, "inputs: expected a prompt of at least one"),
        (TOKENS, None, PROMPT, {"num_steps": 0}, "num_steps: expected a positive"),
        (TOKENS, None, PROMPT, {"mask": PROMPT}, "mask: expected a bool array"),
        (
            Stack(RNN(GRU(H)), LastStep()),
            FEATURES,
            make_notes(),
            {},
            "net: expected a network with outputs at every step",
        ),
        (
            Bidirectional(GRU(H), GRU(H)),
            FEATURES,
            make_notes(),
            {"encode": one_hot},
            "layer: expected one that runs forward",
        ),
        (
            NOTES,
            FEATURES,
            make_notes(),
            {},
            r"encode: expected inputs of shape \(2, 3\), got shape \(2,\)",
        ),
        (
            TOKENS,
            None,
            PROMPT,
            {"encode": one_hot},
            r"encode: expected inputs of shape \(2,\), got shape \(2, 3\)",
        ),
    ],
    ids=["empty", "no step", "mask", "reduced", "backward", "encode", "embedding"],
)
def test_wrong_arguments_are_named(net, in_features, prompt, options, message):
    arguments = {"num_steps": 3, **options}
    params = make_params(net, in_features)
    with pytest.raises(ValueError, match=message):
        generate(net, params, KEY, jnp.asarray(prompt), **arguments)


# Samplers


def assert_frequencies(values, probabilities):
    """Means over axis 0 agree with probabilities, within their standard error."""
    probabilities = np.asarray(probabilities, np.float64)
    error = np.sqrt(probabilities * (1 - probabilities) / len(values))
    difference = abs(np.mean(values, axis=0, dtype=np.float64) - probabilities)
    assert (difference <= STANDARD_ERRORS * error).all()


LOGITS = np.array([[0.3, -1.0, 1.2, 0.0], [2.0, 0.1, -np.inf, 0.9]], np.float32)


@pytest.mark.parametrize("temperature", [1.0, 0.4, 3], ids=str)
def test_classes_are_as_frequent_as_the_softmax_says(temperature):
    logits = jnp.broadcast_to(LOGITS, (DRAWS, *LOGITS.shape))
    labels = Categorical(temperature)(KEY, logits)
    assert labels.dtype == jnp.int32
    weights = np.exp(LOGITS.astype(np.float64) / temperature)
    probabilities = weights / weights.sum(axis=-1, keepdims=True)
    assert_frequencies(np.eye(4)[np.asarray(labels)], probabilities)


@pytest.mark.usefixtures("x64")
def test_classes_are_int32_and_logits_keep_their_precision_under_float64():
    close = jnp.array([1.0, 1.0 + 1e-12, 0.0])
    label = Categorical(0.0)(KEY, close)
    assert (label.dtype, int(label)) == (jnp.int32, 1)


def test_temperature_zero_takes_the_likeliest_class():
    for seed in range(20):
        labels = Categorical(0.0)(jax.random.key(seed), LOGITS)
        assert labels.tolist() == [2, 0]


def test_temperature_may_be_traced():
    temperatures = jnp.array([0.0, 0.4, 1.0])
    logits = jnp.broadcast_to(LOGITS, (50, *LOGITS.shape))
    traced = jax.jit(jax.vmap(lambda t: Categorical(t)(KEY, logits)))(temperatures)
    for labels, temperature in zip(traced, [0.0, 0.4, 1.0], strict=True):
        np.testing.assert_array_equal(labels, Categorical(temperature)(KEY, logits))


def test_classes_of_narrow_logits_are_drawn_in_float32():
    # In bfloat16 the noise would take few values, and ties go to the first class.
    logits = jnp.broadcast_to(LOGITS, (500, *LOGITS.shape)).astype(jnp.bfloat16)
    actual = Categorical()(KEY, logits)
    expected = Categorical()(KEY, logits.astype(jnp.float32))
    np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["f32", "bf16"])
def test_features_are_as_frequent_as_their_sigmoid_says(dtype):
    logits = jnp.asarray([-1.5, 0.0, 0.75, 40.0], dtype)
    values = Bernoulli()(KEY, jnp.broadcast_to(logits, (DRAWS, 4)))
    assert values.dtype == dtype
    probabilities = 1 / (1 + np.exp(-np.asarray(logits, np.float64)))
    wide = np.asarray(values, np.float64)
    assert set(np.unique(wide)) == {0.0, 1.0}
    assert_frequencies(wide, probabilities)
    # Each for itself: no two features agree more often than chance would have it.
    both = np.mean(wide[:, 0] * wide[:, 1])
    chance = probabilities[0] * probabilities[1]
    assert abs(both - chance) < STANDARD_ERRORS * math.sqrt(chance / DRAWS)


@pytest.mark.parametrize("temperature", [-0.1, math.inf, math.nan], ids=str)
def test_temperature_is_checked(temperature):
    with pytest.raises(ValueError, match="temperature: expected a finite number"):
        Categorical(temperature)


def test_logits_that_are_nan_give_no_token():
    logits = jnp.array([[0.0, jnp.nan, 1.0], [0.0, 9.0, 1.0]])
    assert Categorical(0.0)(KEY, logits).tolist() == [-1, 1]
