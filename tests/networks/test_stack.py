"""RNN, Stack and Dense against layers by hand, and what a dropout mask depends on."""

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gated_rnn import (
    GRU,
    LSTM,
    RNN,
    Dense,
    DenseParams,
    Scan,
    Stack,
    StackCarry,
    initializers,
)
from tests import cases, reference

pytestmark = pytest.mark.usefixtures("strict_promotion")

# Pairwise different: steps, rows, inputs, both hidden layers, outputs.
T, B, F, H_LSTM, H_GRU, OUT = 7, 6, 3, 5, 4, 2
LAYERS = (RNN(LSTM(H_LSTM)), RNN(GRU(H_GRU)), Dense(OUT))
NET = Stack(*LAYERS)
RATE = 0.4
NOISY = Stack(*LAYERS, dropout=RATE)
STEPS = {LSTM: cases.CELLS["lstm"].step, GRU: cases.CELLS["gru"].step}

BFLOAT16 = 5e-2  # 8 bits, several roundings a step, three layers

apply = cases.quick_jit(lambda net, *args, **kwargs: net.apply(*args, **kwargs))
step = cases.quick_jit(lambda net, *args, **kwargs: net.step(*args, **kwargs))


def random_params(net, in_features=F, seed=0):
    """Random values in every parameter, biases included."""
    shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), in_features))
    return cases.random_like(shapes, np.random.default_rng(seed), scale=0.7)


def random_carry(net, seed=1):
    """Random values in the carry of every layer; the time differs by row."""
    zeros = jax.eval_shape(lambda: net.init_carry((B,)))
    carry = cases.random_like(zeros, np.random.default_rng(seed))
    return carry._replace(time=np.arange(B, dtype=np.int32))


def random_run(seed=2):
    """Inputs that are NaN under the mask, and mask and resets."""
    rng = np.random.default_rng(seed)
    mask = cases.random_mask(rng, T, (B,))
    inputs = rng.normal(size=(T, B, F))
    inputs[~mask] = np.nan
    return inputs, {"mask": mask, "resets": cases.random_resets(rng, T, (B,))}


def by_hand(layer, params, inputs, carry, mask=None, resets=None):
    """Run one layer in NumPy; return its carry and outputs."""
    if isinstance(layer, RNN):
        return reference.unroll(
            STEPS[type(layer.cell)],
            params,
            inputs,
            carry,
            mask=mask,
            resets=resets,
            reverse=layer.reverse,
        )
    outputs = np.asarray(inputs) @ params.kernel
    if params.bias is not None:
        outputs = outputs + params.bias
    return (), outputs if mask is None else np.where(mask[..., None], outputs, 0.0)


def stack_by_hand(net, params, inputs, carry, **flags):
    """Run layer after layer; return the carries of the layers and the outputs."""
    carries, x = [], inputs
    for layer, layer_params, layer_carry in zip(net.layers, params, carry, strict=True):
        after, outputs = by_hand(layer, layer_params, x, layer_carry, **flags)
        same_width = outputs.shape[-1] == x.shape[-1]
        x = x + outputs if net.residual and same_width else outputs
        carries.append(after)
    return tuple(carries), x


def assert_same(actual, expected, tolerance=cases.FLOAT64):
    """Compare (carry, outputs), the carries of recurrent layers by field name."""
    (carry, outputs), (carries, expected_outputs) = actual, expected
    for index, (ours, theirs) in enumerate(zip(carry.layers, carries, strict=True)):
        if theirs:
            name = f"carry of layer {index}"
            cases.assert_close(reference.as_arrays(ours), theirs, tolerance, name)
        else:
            assert ours == ()
    cases.assert_close(outputs, expected_outputs, tolerance, "outputs")


# Against layers by hand


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("flagged", [False, True], ids=["plain", "mask_and_resets"])
def test_apply_equals_layers_by_hand(flagged):
    inputs, flags = random_run()
    flags = flags if flagged else {}
    inputs = inputs if flagged else np.nan_to_num(inputs, nan=0.5)
    params, carry = random_params(NET), random_carry(NET)
    actual = apply(NET, params, inputs, carry, **flags)
    expected = stack_by_hand(NET, params, inputs, carry.layers, **flags)
    assert_same(actual, expected)
    real = flags["mask"].sum(axis=0) if flagged else T
    np.testing.assert_array_equal(actual[0].time, carry.time + real)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
def test_rnn_runs_its_cell_with_its_direction_and_engine(reverse):
    layer = RNN(LSTM(H_LSTM), reverse=reverse, engine=Scan(chunk_size=3))
    inputs, flags = random_run()
    params, (carry, *_) = random_params(layer), random_carry(NET).layers
    actual = apply(layer, params, inputs, carry, **flags)
    expected = by_hand(layer, params, inputs, carry, **flags)
    cases.assert_same_run(actual, expected, cases.FLOAT64)


def test_rnn_hands_the_engine_it_has_to_unroll():
    runs = []

    class Noting(Scan):
        def __call__(self, cell, *arguments, **options):
            runs.append(cell)
            return super().__call__(cell, *arguments, **options)

    layer = RNN(LSTM(H_LSTM), engine=Noting())
    params, inputs = cases.cast(random_params(layer), "float32"), jnp.zeros((T, B, F))
    layer.apply(params, inputs)
    assert runs == [LSTM(H_LSTM)]


def test_rnn_refuses_an_engine_that_refuses_its_cell():
    class Refusing(Scan):
        def refuses(self, cell):
            return "it runs nothing"

    refused(
        "engine",
        "it runs nothing",
        call=lambda: RNN(LSTM(H_LSTM), engine=Refusing()),
    )


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("use_bias", [True, False], ids=["bias", "no_bias"])
def test_dense_is_a_matmul_and_a_bias_at_every_real_step(use_bias):
    layer = Dense(OUT, use_bias=use_bias)
    inputs, flags = random_run()
    params = random_params(layer)
    assert (params.bias is None) != use_bias
    carry, outputs = apply(layer, params, inputs, **flags)
    _, expected = by_hand(layer, params, inputs, (), **flags)
    assert carry == ()
    cases.assert_close(outputs, expected, cases.FLOAT64)
    one_step = step(layer, params, (), inputs[2])[1][flags["mask"][2]]
    cases.assert_close(one_step, expected[2][flags["mask"][2]], cases.FLOAT64)


@pytest.mark.usefixtures("x64")
def test_residual_adds_inputs_where_the_widths_agree():
    # The first layer has another width than its inputs and is left as it is.
    net = Stack(RNN(LSTM(5)), RNN(GRU(5)), Dense(5), Dense(OUT), residual=True)
    inputs, flags = random_run()
    params, carry = random_params(net), random_carry(net)
    actual = apply(net, params, inputs, carry, **flags)
    expected = stack_by_hand(net, params, inputs, carry.layers, **flags)
    assert_same(actual, expected)
    plain = Stack(*net.layers)
    other = stack_by_hand(plain, params, inputs, carry.layers, **flags)
    assert cases.relative_error(actual[1], other[1]) > 0.1


@pytest.mark.usefixtures("x64")
def test_without_a_carry_all_layers_start_from_zero():
    inputs = np.nan_to_num(random_run()[0], nan=0.5)
    params = random_params(NET)
    zeros = jax.tree.map(np.asarray, NET.init_carry((B,), jnp.float64))
    actual = apply(NET, params, inputs)
    assert_same(actual, stack_by_hand(NET, params, inputs, zeros.layers))
    np.testing.assert_array_equal(actual[0].time, np.full(B, T))
    assert actual[0].time.dtype == jnp.int32


# Steps


@pytest.mark.usefixtures("x64")
def test_steps_with_resets_equal_apply():
    inputs, flags = random_run()
    inputs, resets = np.nan_to_num(inputs, nan=0.5), flags["resets"]
    params, start = random_params(NET), random_carry(NET)
    final, outputs = apply(NET, params, inputs, start, resets=resets)
    carry = start
    for t in range(T):
        carry, output = step(NET, params, carry, inputs[t], reset=resets[t])
        cases.assert_close(output, outputs[t], cases.FLOAT64, f"outputs[{t}]")
    cases.assert_close(carry, final, cases.FLOAT64, "carry")


def test_steps_take_any_batch_axes():
    params = cases.cast(random_params(NET), "float32")
    x = np.float32(np.random.default_rng(0).normal(size=(B, F)))
    _, outputs = step(NET, params, NET.init_carry((B,)), x)
    carry, folded = step(NET, params, NET.init_carry((2, 3)), x.reshape(2, 3, F))
    cases.assert_close(folded.reshape(B, OUT), outputs, cases.FLOAT32)
    assert carry.time.shape == (2, 3)
    _, alone = step(NET, params, NET.init_carry(), x[4])
    cases.assert_close(alone, outputs[4], cases.FLOAT32)


# What dropout does


@jax.tree_util.register_static
@dataclass(frozen=True)
class Tapped:
    """A layer that hands out, as its carry, the inputs that reached it."""

    layer: Any

    @property
    def out_features(self):
        return self.layer.out_features

    def init(self, key, in_features, dtype=jnp.float32):
        return self.layer.init(key, in_features, dtype)

    def init_carry(self, batch_shape=(), dtype=jnp.float32):
        return self.layer.init_carry(batch_shape, dtype)

    def apply(self, params, inputs, carry=None, **kwargs):
        _, outputs = self.layer.apply(params, inputs, carry, **kwargs)
        return inputs, outputs


TAPPED = Stack(*map(Tapped, LAYERS), dropout=RATE)


@pytest.mark.usefixtures("x64")
def test_dropout_zeroes_features_between_layers_and_scales_the_others_up():
    inputs, flags = random_run()
    params, carry = random_params(NET), random_carry(NET)
    noisy, outputs = apply(
        TAPPED, params, inputs, carry, **flags, key=jax.random.key(3)
    )
    reached = noisy.layers
    real = flags["mask"]
    np.testing.assert_array_equal(reached[0][real], inputs[real])  # as they came
    for index, (layer, layer_carry) in enumerate(
        zip(LAYERS, carry.layers, strict=True)
    ):
        given = np.asarray(reached[index])
        _, expected = by_hand(layer, params[index], given, layer_carry, **flags)
        if index + 1 == len(LAYERS):  # not after the last layer
            cases.assert_close(outputs, expected, cases.FLOAT64)
            break
        kept = np.asarray(reached[index + 1]) != 0
        scaled = np.where(kept, expected / (1 - RATE), 0.0)
        cases.assert_close(reached[index + 1], scaled, cases.FLOAT64)
        assert 0.5 < np.mean(kept[real]) < 0.7


# What a mask depends on: two layers that are the identity give out what was kept.

WIDTH = 8
IDENTITY = Dense(WIDTH, kernel_init=initializers.Identity(), use_bias=False)
PROBE = Stack(IDENTITY, IDENTITY, dropout=RATE)
IDENTITY_PARAMS = DenseParams(np.eye(WIDTH, dtype=np.float32), None)


def keep(shape, key=0, net=PROBE, **arguments):
    """Return the carry and what was kept of ones, bool `[*shape, WIDTH]`."""
    ones = np.ones((*shape, WIDTH), np.float32)
    params = (IDENTITY_PARAMS,) * len(net.layers)
    carry, outputs = apply(net, params, ones, key=jax.random.key(key), **arguments)
    return carry, np.asarray(outputs) != 0


def test_without_a_key_or_at_rate_zero_nothing_is_lost():
    ones, key = np.ones((T, B, WIDTH), np.float32), jax.random.key(0)
    for net, arguments in ((PROBE, {}), (Stack(IDENTITY, IDENTITY), {"key": key})):
        _, outputs = apply(net, (IDENTITY_PARAMS,) * 2, ones, **arguments)
        np.testing.assert_array_equal(outputs, ones)


def test_features_are_lost_at_the_rate_and_the_mean_is_kept():
    for rate in (0.1, 0.7):
        net = Stack(IDENTITY, IDENTITY, dropout=rate)
        _, kept = keep((50, 20), net=net)
        # Five standard errors of a share of 8000.
        assert abs(np.mean(kept) - (1 - rate)) < 5 * np.sqrt(rate * (1 - rate) / 8000)
        params, ones = (IDENTITY_PARAMS,) * 2, np.ones((50, 20, WIDTH), np.float32)
        _, outputs = apply(net, params, ones, key=jax.random.key(0))
        values = np.where(kept, np.float32(1 / (1 - rate)), np.float32(0))
        np.testing.assert_array_equal(outputs, values)


def test_masks_differ_by_key_layer_time_row_and_feature():
    _, kept = keep((T, B))
    _, other_key = keep((T, B), key=1)
    three = Stack(Tapped(IDENTITY), Tapped(IDENTITY), Tapped(IDENTITY), dropout=RATE)
    carry, _ = keep((T, B), net=three)
    once, twice = (np.asarray(reached) != 0 for reached in carry.layers[1:])
    np.testing.assert_array_equal(once, kept)
    pairs = {
        "key": (kept, other_key),
        "layer": (np.ones_like(kept), twice[once]),
        "time": (kept[1:], kept[:-1]),
        "row": (kept[:, 1:], kept[:, :-1]),
        "feature": (kept[..., 1:], kept[..., :-1]),
    }
    # Independent masks agree with the chance below, of 300 to 400 features: 3 % either
    # way, five times that.
    same_twice = RATE**2 + (1 - RATE) ** 2
    for name, (one, two) in pairs.items():
        if name == "layer":  # of what was kept once, a second mask keeps this share
            assert abs(np.mean(two) - (1 - RATE)) < 0.15
        else:
            assert abs(np.mean(one == two) - same_twice) < 0.15, name


def test_masks_of_pieces_and_steps_are_those_of_the_whole():
    carry, whole = keep((T, B))
    assert carry.time.tolist() == [T] * B
    first, one = keep((3, B))
    second, two = keep((T - 3, B), carry=first)
    np.testing.assert_array_equal(np.concatenate([one, two]), whole)
    params, carry = (IDENTITY_PARAMS,) * 2, PROBE.init_carry((B,))
    for t in range(T):
        ones = np.ones((B, WIDTH), np.float32)
        carry, outputs = step(PROBE, params, carry, ones, key=jax.random.key(0))
        np.testing.assert_array_equal(np.asarray(outputs) != 0, whole[t])
    np.testing.assert_array_equal(carry.time, second.time)


@pytest.mark.usefixtures("x64")
def test_results_of_pieces_and_steps_under_dropout_are_those_of_the_whole():
    inputs = np.nan_to_num(random_run()[0], nan=0.5)
    params, start, key = random_params(NET), random_carry(NET), jax.random.key(5)
    final, whole = apply(NOISY, params, inputs, start, key=key)
    carry, one = apply(NOISY, params, inputs[:3], start, key=key)
    carry, two = apply(NOISY, params, inputs[3:], carry, key=key)
    cases.assert_close(np.concatenate([one, two]), whole, cases.FLOAT64, "pieces")
    cases.assert_close(carry, final, cases.FLOAT64, "carry of pieces")
    carry = start
    for t in range(T):
        carry, outputs = step(NOISY, params, carry, inputs[t], key=key)
        cases.assert_close(outputs, whole[t], cases.FLOAT64, f"step {t}")
    cases.assert_close(carry, final, cases.FLOAT64, "carry of steps")


def test_masks_do_not_depend_on_what_comes_later_or_in_later_rows():
    _, kept = keep((T, B))
    np.testing.assert_array_equal(keep((4, 2))[1], kept[:4, :2])
    folded = keep((T, 2, 3))[1]
    np.testing.assert_array_equal(folded.reshape(T, B, WIDTH), kept)


def test_masks_of_a_padded_row_are_those_of_its_real_steps_alone():
    _, flags = random_run()
    mask = flags["mask"]
    carry, padded = keep((T, B), mask=mask)
    _, alone = keep((T, B))
    np.testing.assert_array_equal(carry.time, mask.sum(axis=0))
    assert 0 < mask.sum() < mask.size
    for row in range(B):
        real = mask[:, row]
        np.testing.assert_array_equal(padded[real, row], alone[: real.sum(), row])
        assert not padded[~real, row].any()


def test_time_may_be_one_number_for_all_rows():
    _, kept = keep((T, B))
    start = PROBE.init_carry((B,))._replace(time=np.int32(3))
    carry, later = keep((T - 3, B), carry=start)
    np.testing.assert_array_equal(later, kept[3:])
    assert carry.time.tolist() == [T] * B


# The interface

NETS = {
    "rnn": RNN(GRU(H_GRU)),
    "reverse": RNN(LSTM(H_LSTM), reverse=True),
    "dense": Dense(OUT),
    "stack": NOISY,
    "stack_in_stack": Stack(Stack(RNN(LSTM(H_LSTM)), dropout=RATE), Dense(OUT)),
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", NETS)
def test_every_network_has_the_same_interface(name, dtype):
    net, dtype = NETS[name], jnp.dtype(dtype)

    def run(key):
        params = net.init(key, F, dtype)
        carry = net.init_carry((B,), dtype)
        inputs = jnp.ones((T, B, F))
        flags = {"mask": jnp.ones((T, B), bool), "resets": jnp.ones((T, B), bool)}
        runs = [
            net.apply(params, inputs),
            net.apply(params, inputs, carry, **flags, key=key),
        ]
        if name != "reverse":
            reset = jnp.ones((B,), bool)
            one = net.step(params, carry, inputs[0], reset=reset, key=key)
            runs.append((one[0], jnp.broadcast_to(one[1], (T, *one[1].shape))))
        return params, carry, runs

    params, carry, runs = jax.eval_shape(run, jax.random.key(0))
    floats = [
        leaf
        for leaf in jax.tree.leaves((params, carry, runs))
        if leaf.dtype != jnp.int32
    ]
    assert {leaf.dtype for leaf in floats} == {dtype}
    for after, outputs in runs:
        assert outputs.shape == (T, B, net.out_features)
        assert jax.tree.structure(after) == jax.tree.structure(carry)
        assert jax.tree.leaves(after) == jax.tree.leaves(carry)


def test_bfloat16_stays_near_float64():
    inputs, flags = random_run()
    params, carry = random_params(NET), random_carry(NET)
    narrow = cases.cast((params, carry.layers), jnp.bfloat16)
    start = StackCarry(carry.time, narrow[1])
    _, outputs = apply(NET, narrow[0], np.float32(inputs), start, **flags)
    _, expected = stack_by_hand(NET, params, inputs, carry.layers, **flags)
    assert outputs.dtype == jnp.bfloat16
    assert cases.relative_error(outputs, expected) < BFLOAT16


@pytest.mark.usefixtures("no_key_reuse")
def test_layers_draw_their_own_parameters_and_no_key_is_used_twice():
    net = Stack(Dense(F), Dense(F), Dense(F), dropout=RATE)
    init = cases.quick_jit(lambda key: net.init(key, F))
    params, again = init(jax.random.key(0)), init(jax.random.key(0))
    assert jax.tree.all(jax.tree.map(np.array_equal, params, again))
    kernels = [np.asarray(layer.kernel) for layer in params]
    assert len(np.unique(kernels)) == 3 * F * F
    _, outputs = apply(net, params, jnp.ones((T, F)), key=jax.random.key(1))
    assert outputs.shape == (T, F)


@pytest.mark.usefixtures("x64")
def test_parameters_may_be_mapped():
    inputs, flags = random_run()
    seeds = [random_params(NET, seed=seed) for seed in range(4)]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *seeds)
    carry = random_carry(NET)
    run = functools.partial(NET.apply, inputs=inputs, carry=carry, **flags)
    runs = cases.quick_jit(jax.vmap(run))(stacked)
    for seed, params in enumerate(seeds):
        actual = jax.tree.map(lambda leaf, seed=seed: leaf[seed], runs)
        assert_same(actual, stack_by_hand(NET, params, inputs, carry.layers, **flags))


def test_networks_are_hashable_values_and_compiled_once():
    traces = []

    @cases.quick_jit
    def run(net, params):
        traces.append(net)
        return net.apply(params, jnp.ones((T, F)))[1]

    params = cases.cast(random_params(NET), "float32")
    for _ in range(3):
        run(Stack(RNN(LSTM(H_LSTM)), RNN(GRU(H_GRU)), Dense(OUT)), params)
    assert len(traces) == 1
    assert jax.tree.leaves(NET) == []
    assert Stack(*LAYERS) == NET
    assert hash(Stack(*LAYERS)) == hash(NET)
    assert len({NET, NOISY, Stack(*LAYERS, residual=True), Stack(*LAYERS[1:])}) == 4


@pytest.mark.usefixtures("x64")
def test_dropped_features_have_no_gradient_and_others_are_scaled():
    key = jax.random.key(2)

    def total(inputs):
        return PROBE.apply((IDENTITY_PARAMS,) * 2, inputs, key=key)[1].sum()

    inputs = np.random.default_rng(0).normal(size=(T, B, WIDTH))
    slopes = cases.quick_jit(jax.grad(total))(inputs)
    _, kept = keep((T, B), key=2)
    cases.assert_close(slopes, kept / (1 - RATE), cases.FLOAT32)


# Errors


def refused(name, *words, call):
    with pytest.raises(ValueError) as error:
        call()
    cases.assert_says(error, name, *words)


@pytest.mark.parametrize("rate", [-0.1, 1.0, 2, float("nan"), True, "0.5"], ids=repr)
def test_dropout_that_is_no_probability_below_one_is_refused(rate):
    refused(
        "dropout",
        "a probability in [0, 1)",
        repr(rate),
        call=lambda: Stack(*LAYERS, dropout=rate),
    )


def test_stack_without_layers_is_refused():
    refused("layers", "at least one", call=Stack)


@pytest.mark.parametrize("features", [0, -3, 2.0, True, None], ids=repr)
def test_dense_features_that_are_no_positive_integer_are_refused(features):
    refused(
        "features",
        "a positive integer",
        repr(features),
        call=lambda: Dense(features),
    )


def call_stack(**changes):
    """Apply the stack to a valid call with some arguments changed."""
    arguments = {
        "params": jax.tree.map(jnp.float32, random_params(NET)),
        "inputs": jnp.zeros((T, B, F)),
        "carry": NET.init_carry((B,)),
        "mask": jnp.ones((T, B), bool),
        "resets": jnp.zeros((T, B), bool),
    }
    return lambda: jax.eval_shape(NET.apply, **{**arguments, **changes})


def test_valid_call_is_not_refused():
    call_stack()()


def test_parameters_of_another_number_of_layers_are_refused():
    params = jax.tree.map(jnp.float32, random_params(NET))
    refused("params", "3 layers", "got 2", call=call_stack(params=params[:2]))


def test_carries_that_are_not_of_the_stack_are_refused():
    carry = NET.init_carry((B,))
    refused("carry", "StackCarry", "tuple", call=call_stack(carry=carry.layers))
    words = (str((B,)), str((T,)))
    wrong = carry._replace(time=jnp.zeros((T,), jnp.int32))
    refused("carry.time", *words, call=call_stack(carry=wrong))
    swapped = carry._replace(layers=carry.layers[::-1])
    refused("carry", "LSTMCarry", call=call_stack(carry=swapped))


def test_inputs_and_flags_that_do_not_fit_are_refused():
    refused("inputs", str(F), call=call_stack(inputs=jnp.zeros((T, B, F + 1))))
    refused("inputs", "[T, *batch, F]", call=call_stack(inputs=jnp.zeros((F,))))
    wrong = jnp.ones((B, T), bool)
    refused("mask", str((T, B)), str((B, T)), call=call_stack(mask=wrong))
    refused("resets", str((T, B)), str((B, T)), call=call_stack(resets=wrong))
    refused("mask", "bool", call=call_stack(mask=jnp.ones((T, B))))


def test_step_against_the_direction_and_with_wrong_flags_is_refused():
    params = jax.tree.map(jnp.float32, random_params(NET.layers[0]))
    x, carry = jnp.zeros((B, F)), LAYERS[0].init_carry((B,))
    backwards = RNN(LSTM(H_LSTM), reverse=True)
    refused(
        "layer",
        "forward",
        "reverse=True",
        call=lambda: backwards.step(params, carry, x),
    )
    for reset in (jnp.ones((B,)), jnp.ones((T,), bool)):
        refused(
            "reset",
            call=lambda reset=reset: LAYERS[0].step(params, carry, x, reset=reset),
        )


def test_residual_of_the_first_layer_is_zero_under_the_mask():
    net = Stack(RNN(GRU(3)), Dense(3), residual=True)
    params = net.init(jax.random.key(0), 3)
    mask = np.array([True, False, True])
    inputs = np.where(mask[:, None], np.ones((3, 3), np.float32), np.nan)
    _, outputs = net.apply(params, inputs, mask=mask)
    assert np.isfinite(outputs).all()
    assert not outputs[1].any()
    assert outputs[0].all()
