"""Numbers that Keras and TensorFlow Addons publish in their own tests.

Their weights are constant, so these tests are blind to much that the contract sees;
what they see is a whole framework's conventions at once: gate order, biases, where the
reset gate acts, directions, masks and initial states.

References:
    keras-team/keras, keras/src/layers/rnn: gru_test.py, lstm_test.py,
    simple_rnn_test.py, bidirectional_test.py; tensorflow/addons,
    tensorflow_addons/rnn/tests: peephole_lstm_cell_test.py,
    layer_norm_lstm_cell_test.py.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gated_rnn import (
    GRU,
    LSTM,
    Bidirectional,
    BidirectionalCarry,
    BidirectionalParams,
    Elman,
    ElmanCarry,
    GRUCarry,
    LayerNormLSTM,
    LayerNormLSTMCarry,
    LSTMCarry,
    PeepholeLSTM,
    unroll,
)

pytestmark = pytest.mark.usefixtures("strict_promotion")

# What Keras asks of itself, absolute; the numbers are printed with 7 or 8 digits.
PUBLISHED = 1e-5
KERNEL, RECURRENT, BIAS = 0.01, 0.02, 0.03


def constant_params(cell, in_features, kernel=KERNEL, recurrent=RECURRENT, bias=BIAS):
    """The parameters that Keras' constant initialisers make, in our layout.

    Keras' LSTM has a forget bias of 1 in any case, and its GRU, where the reset gate
    acts after the matmul, two biases per gate; ours has one where they add up.
    """
    size = cell.hidden_features
    params = cell.init(jax.random.key(0), in_features)
    params = params._replace(
        kernel=jnp.full_like(params.kernel, kernel),
        recurrent_kernel=jnp.full_like(params.recurrent_kernel, recurrent),
    )
    if params.bias is None:
        return params
    if isinstance(cell, LSTM):
        biases = [bias, 1.0, bias, bias]
    elif isinstance(cell, GRU) and cell.reset_after:
        biases = [2 * bias, 2 * bias, bias]
        params = params._replace(recurrent_bias=jnp.full((size,), bias))
    else:
        biases = [bias] * (params.bias.size // size)
    return params._replace(bias=jnp.repeat(jnp.array(biases), size))


def count(*shape):
    """0, 1, 2 ... in Keras' batch-major shape, time-major."""
    return jnp.swapaxes(
        jnp.arange(np.prod(shape), dtype=np.float32).reshape(shape), 0, 1
    )


def flags(*rows):
    """A mask of zeros and ones by row of the batch, time-major."""
    return jnp.array(rows, bool).T


def rows(*values):
    """One number per row of the batch, which all units share: `[B, 1]`."""
    return np.array(values)[:, None]


def assert_published(actual, expected):
    np.testing.assert_allclose(
        actual, np.broadcast_to(expected, actual.shape), rtol=0, atol=PUBLISHED
    )


CORRECTNESS = {
    "gru": (GRU(3), False, [0.5217289, 0.6371659, 0.39384964]),
    "gru backwards": (GRU(3), True, [0.24406259, 0.611516, 0.3928808]),
    "gru reset before": (
        GRU(3, reset_after=False),
        False,
        [0.51447755, 0.6426879, 0.40208298],
    ),
    "gru without bias": (
        GRU(3, use_bias=False),
        False,
        [0.49988455, 0.64701194, 0.4103359],
    ),
    "lstm": (LSTM(3), False, [0.6288687, 0.86899155, 0.9460773]),
    "lstm backwards": (LSTM(3), True, [0.35622165, 0.74789524, 0.8872726]),
    "lstm without bias": (
        LSTM(3, use_bias=False),
        False,
        [0.54986924, 0.86226785, 0.9443936],
    ),
}


@pytest.mark.parametrize(
    ("cell", "reverse", "expected"), CORRECTNESS.values(), ids=CORRECTNESS
)
def test_gru_and_lstm_give_the_constants_of_keras(cell, reverse, expected):
    params = constant_params(cell, 4)
    carry, _ = unroll(cell, params, count(3, 6, 4), reverse=reverse)
    assert_published(carry.hidden, rows(*expected))


def test_lstm_gives_the_constant_of_keras_without_its_forget_bias():
    params = constant_params(LSTM(3), 4)._replace(bias=jnp.full((12,), BIAS))
    carry, _ = unroll(LSTM(3), params, count(3, 6, 4))
    assert_published(carry.hidden, rows(0.57019705, 0.8661914, 0.9459622))


@pytest.mark.parametrize(
    ("reverse", "expected"),
    [(False, [0.405432, 0.73605347]), (True, [0.11144729, 0.5528889])],
    ids=["forward", "backwards"],
)
def test_elman_gives_the_constants_of_simple_rnn(reverse, expected):
    cell = Elman(4)
    params = constant_params(cell, 4)
    carry, _ = unroll(cell, params, count(2, 3, 4), reverse=reverse)
    assert_published(carry.hidden, rows(*expected))


STATEFUL = {
    "gru": (GRU(4), [0.29542392, 0.5885018]),
    "lstm": (LSTM(4), [0.3124785, 0.6863672]),
    "simple rnn": (Elman(4), [0.40559256, 0.7361247]),
}


@pytest.mark.parametrize(("cell", "expected"), STATEFUL.values(), ids=STATEFUL)
def test_carry_handed_on_gives_the_constants_of_stateful_layers(cell, expected):
    params, inputs = constant_params(cell, 4), count(2, 3, 4)
    carry, _ = unroll(cell, params, inputs)
    carry, _ = unroll(cell, params, inputs, carry)
    assert_published(carry.hidden, rows(*expected))


def arange(*shape):
    return jnp.arange(np.prod(shape), dtype=np.float32).reshape(shape)


INITIAL_STATE = {
    "gru": (
        GRU(2),
        GRUCarry(arange(2, 2)),
        False,
        [[0.23774096, 0.33508456], [0.83659905, 1.0227708]],
    ),
    "gru backwards": (
        GRU(2),
        GRUCarry(arange(2, 2)),
        True,
        [[0.13486053, 0.23261218], [0.78257304, 0.9691353]],
    ),
    "lstm": (
        LSTM(2),
        LSTMCarry(hidden=arange(2, 2), cell=arange(2, 2)),
        False,
        [[0.20574439, 0.3558822], [0.64930826, 0.66276]],
    ),
    "lstm backwards": (
        LSTM(2),
        LSTMCarry(hidden=arange(2, 2), cell=arange(2, 2)),
        True,
        [[0.13281618, 0.2790356], [0.5839337, 0.5992567]],
    ),
    "simple rnn": (
        Elman(4),
        ElmanCarry(arange(2, 4)),
        False,
        [[0.33621645], [0.6262637]],
    ),
    "simple rnn backwards": (
        Elman(4),
        ElmanCarry(arange(2, 4)),
        True,
        [[0.07344437], [0.43043602]],
    ),
}


@pytest.mark.parametrize(
    ("cell", "carry", "reverse", "expected"), INITIAL_STATE.values(), ids=INITIAL_STATE
)
def test_initial_carry_gives_the_constants_of_initial_state(
    cell, carry, reverse, expected
):
    params = constant_params(cell, 3)
    carry, _ = unroll(cell, params, count(2, 4, 3), carry, reverse=reverse)
    assert_published(carry.hidden, np.array(expected))


INNER = flags([1, 1, 0, 1], [1, 0, 0, 1])
RIGHT = flags([1, 1, 1, 0], [1, 1, 0, 0])
LEFT = flags([0, 1, 1, 1], [0, 0, 1, 1])
# The last output, with a mask; Keras repeats outputs under it, we hold the carry.
MASKED = {
    "gru": (GRU(2), INNER, False, [0.19393763, 0.30818558]),
    "gru backwards": (GRU(2), INNER, True, [0.11669192, 0.28380975]),
    "lstm": (LSTM(2), RIGHT, False, [0.11755939, 0.28556206]),
    "lstm backwards": (LSTM(2), LEFT, True, [0.15341201, 0.3844719]),
    "simple rnn": (Elman(4), INNER, False, [0.32951632, 0.61799484]),
    "simple rnn backwards": (Elman(4), INNER, True, [0.07376196, 0.43645123]),
}


@pytest.mark.parametrize(
    ("cell", "mask", "reverse", "expected"), MASKED.values(), ids=MASKED
)
def test_mask_gives_the_constants_of_masking(cell, mask, reverse, expected):
    params = constant_params(cell, 3)
    carry, _ = unroll(cell, params, count(2, 4, 3), mask=mask, reverse=reverse)
    assert_published(carry.hidden, rows(*expected))


# With zero_output_for_mask, which is our semantics; by row, then by time.
MASKED_SEQUENCES = {
    "gru": (
        GRU(2),
        INNER,
        [[0.03606692, 0.09497581, 0.0, 0.19393763], [0.16051409, 0.0, 0.0, 0.30818558]],
    ),
    "lstm": (
        LSTM(2),
        RIGHT,
        [[0.01588910, 0.05552048, 0.11755939, 0.0], [0.14185596, 0.28556206, 0.0, 0.0]],
    ),
    "simple rnn": (
        Elman(2),
        INNER,
        [[0.0599281, 0.15122814, 0.0, 0.32394567], [0.3969304, 0.0, 0.0, 0.608085]],
    ),
}


@pytest.mark.parametrize(
    ("cell", "mask", "expected"), MASKED_SEQUENCES.values(), ids=MASKED_SEQUENCES
)
def test_outputs_under_a_mask_are_those_of_zero_output_for_mask(cell, mask, expected):
    params = constant_params(cell, 3)
    _, outputs = unroll(cell, params, count(2, 4, 3), mask=mask)
    assert_published(outputs, np.array(expected).T[..., None])


# Bidirectional


def both(cell, params, inputs, carry=None, mask=None, merge="concat"):
    """Carry and outputs of a layer with the same weights in both directions."""
    layer = Bidirectional(cell, cell, merge)
    return layer.apply(BidirectionalParams(params, params), inputs, carry, mask=mask)


def last(carry):
    """The last output of each direction side by side, `[B, 2H]`."""
    return np.concatenate([carry.forward.hidden, carry.backward.hidden], axis=-1)


def units(*values):
    """One number per direction and row, which two units share: `[B, 4]`."""
    return np.repeat(np.array(values), 2, axis=1)


def test_bidirectional_give_the_constants_of_keras():
    cell, inputs = Elman(2), count(2, 3, 4)
    carry, _ = both(cell, constant_params(cell, 4), inputs)
    forward, backward = carry
    concatenated = units([0.39687276, 0.10004295], [0.7237238, 0.53391594])
    assert_published(last(carry), concatenated)
    average = (forward.hidden + backward.hidden) / 2
    assert_published(average, rows(0.24845785, 0.6288199))
    params = constant_params(cell, 4, kernel=0.03, recurrent=0.02, bias=0.01)
    other, _ = unroll(cell, params, inputs, reverse=True)
    assert_published(forward.hidden * other.hidden, rows(0.08374989, 0.6740834))


def test_bidirectional_give_the_sequence_of_keras():
    cell = GRU(2)
    _, outputs = both(cell, constant_params(cell, 4), count(2, 3, 4), merge="sum")
    expected = [
        [0.20937867, 0.34462988, 0.40290534],
        [0.59829646, 0.6734641, 0.6479671],
    ]
    assert_published(outputs, np.array(expected).T[..., None])


def test_bidirectional_with_their_carries_give_the_constants_of_keras():
    cell, inputs = LSTM(2), count(2, 4, 3)
    params = constant_params(cell, 3)
    carry, _ = both(cell, params, inputs)
    returned = units([0.1990008, 0.12659755], [0.52335435, 0.44717982])
    assert_published(last(carry), returned)
    assert_published(carry.forward.cell, rows(0.35567185, 1.0492687))
    assert_published(carry.backward.cell, rows(0.2501858, 0.941473))
    again, _ = both(cell, params, inputs, carry)
    stateful = units([0.26234663, 0.16959146], [0.6137073, 0.5381646])
    assert_published(last(again), stateful)
    ours = BidirectionalCarry(
        forward=LSTMCarry(hidden=arange(2, 2), cell=2 * arange(2, 2)),
        backward=LSTMCarry(hidden=3 * arange(2, 2), cell=4 * arange(2, 2)),
    )
    passed = [
        [0.20794602, 0.4577124, 0.14046375, 0.48191673],
        [0.6682636, 0.6711909, 0.60943645, 0.60950446],
    ]
    assert_published(last(both(cell, params, inputs, ours)[0]), np.array(passed))


def test_bidirectional_with_a_mask_give_the_constants_of_keras():
    cell = GRU(2)
    carry, _ = both(cell, constant_params(cell, 3), count(2, 4, 3), mask=INNER)
    expected = units([0.19393763, 0.11669192], [0.30818558, 0.28380975])
    assert_published(last(carry), expected)


# TensorFlow Addons


def test_peephole_lstm_gives_the_constant_of_tensorflow_addons():
    # The peepholes are drawn as the kernel is there, so they are ones.
    cell = PeepholeLSTM(5)
    params = cell.init(jax.random.key(0), 4)
    params = params._replace(
        kernel=jnp.ones_like(params.kernel), peephole=jnp.ones_like(params.peephole)
    )
    one_hot = jnp.concatenate([jnp.eye(4)[1:], jnp.zeros((1, 4))])
    _, outputs = cell.step(params, cell.init_carry((4,)), one_hot)
    assert_published(outputs, rows(0.417551, 0.417551, 0.417551, 0.0))


@pytest.mark.parametrize("in_features", [2, 3])
def test_layer_norm_lstm_gives_the_outputs_of_tensorflow_addons(in_features):
    # The cell it hands on is normalised, -1 and 1; ours is not, and is so in its norm.
    cell = LayerNormLSTM(2, epsilon=1e-12)
    params = cell.init(jax.random.key(0), in_features)
    params = params._replace(
        kernel=jnp.full_like(params.kernel, 0.5),
        recurrent_kernel=jnp.full_like(params.recurrent_kernel, 0.5),
        bias=jnp.array([0.5, 0.5, 1.0, 1.0, 0.5, 0.5, 0.5, 0.5]),
    )
    carry = LayerNormLSTMCarry(
        hidden=jnp.array([[0.2, 0.3]]), cell=jnp.array([[0.0, 0.1]])
    )
    carry, outputs = cell.step(params, carry, jnp.ones((1, in_features)))
    assert_published(outputs, np.array([[-0.47406167, 0.47406143]]))
    assert_published(outputs, carry.hidden)
    normed = (carry.cell - carry.cell.mean()) / carry.cell.std()
    assert_published(normed, np.array([[-1.0, 1.0]]))
