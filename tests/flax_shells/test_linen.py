"""Linen modules among Linen's own: transforms, boxes, checkpoints, training, errors."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint
import pytest
from flax import errors, serialization
from flax import linen as nn
from jax.sharding import PartitionSpec as P

import gated_rnn
from gated_rnn import (
    GRU,
    LSTM,
    Associative,
    Bidirectional,
    Dense,
    DenseParams,
    Elman,
    Embedding,
    FusedScan,
    GRUParams,
    LastStep,
    LSTMCarry,
    LSTMParams,
    Stack,
    unroll,
)
from gated_rnn.flax.linen import RNN, Network, RNNCell
from tests import cases
from tests.cases import B, F, H, T, assert_close, assert_says

SEEDS = 4
LENGTHS = np.array([7, 1, 3, 5, 2, 6])
# Sums of T * B * H products in another order.
FLOAT32 = 1e-5
# Of sums of bfloat16 products, compiled one way or the other.
BFLOAT16 = 1e-2
PARTITIONING = LSTMParams(
    kernel=P(None, "model"), recurrent_kernel=P("data", "model"), bias=P("model")
)


@pytest.fixture
def inputs():
    return jax.random.normal(jax.random.key(7), (B, T, F))


def random_like(tree, seed=3):
    """Fill a pytree of arrays with normal float32 numbers."""
    values = cases.random_like(tree, np.random.default_rng(seed))
    return cases.cast(values, jnp.float32)


def init_randomly(module, *arguments):
    """Variables of a module with random values everywhere, biases included."""
    return random_like(jax.eval_shape(module.init, jax.random.key(0), *arguments))


def pure_shapes(net):
    return jax.eval_shape(lambda: net.init(jax.random.key(0), F))


# Among Flax's modules


def test_cell_is_a_cell_of_flax():
    cell = RNNCell(LSTM(H))
    assert isinstance(cell, nn.RNNCellBase)
    assert cell.num_feature_axes == 1
    carry = cell.initialize_carry(jax.random.key(0), (B, 2, F))
    assert isinstance(carry, LSTMCarry)
    assert carry.cell.shape == (B, 2, H)


@pytest.mark.parametrize("layer_type", ["flax", "ours"])
def test_bidirectional_of_flax_equals_our_bidirectional(layer_type, inputs):
    def layer(cell):
        return RNN(cell) if layer_type == "ours" else nn.RNN(RNNCell(cell))

    flax_net = nn.Bidirectional(layer(LSTM(H)), layer(GRU(2)), return_carry=True)
    net = Bidirectional(LSTM(H), GRU(2))
    params = random_like(pure_shapes(net))
    carry = random_like(net.init_carry((B,)), 4)
    variables = {
        "params": {
            "forward_rnn": RNN(LSTM(H)).variables_of(params.forward)["params"],
            "backward_rnn": RNN(GRU(2)).variables_of(params.backward)["params"],
        }
    }
    mask = np.arange(T)[:, None] < LENGTHS

    @cases.quick_jit
    def run(params, variables, inputs, carry):
        ends, outputs = net.apply(params, inputs.swapaxes(0, 1), carry, mask=mask)
        expected = (tuple(ends), outputs.swapaxes(0, 1))
        actual = flax_net.apply(
            variables, inputs, initial_carry=tuple(carry), seq_lengths=LENGTHS
        )
        return actual, expected

    (ends, outputs), expected = run(params, variables, inputs, carry)
    if layer_type == "flax":  # Flax leaves something where a row is padded
        outputs = jnp.where(mask.T[..., None], outputs, 0)
    assert_close((ends, outputs), expected, FLOAT32)


def test_own_layer_has_the_variables_of_flaxs_around_the_cell(inputs):
    shapes = [
        jax.eval_shape(layer.init, jax.random.key(0), inputs)
        for layer in (RNN(LSTM(H)), RNN(RNNCell(LSTM(H))), nn.RNN(RNNCell(LSTM(H))))
    ]
    assert shapes[0] == shapes[1] == shapes[2]


class Policy(nn.Module):
    """Acts by one step and learns from whole sequences, with the same parameters."""

    def setup(self):
        self.cell = RNNCell(LSTM(H))
        self.layer = RNN(self.cell)

    def __call__(self, inputs):
        return self.layer(inputs)

    def act(self, carry, inputs):
        return self.cell(carry, inputs)


def test_one_cell_serves_a_layer_and_single_steps(inputs):
    policy = Policy()
    variables = init_randomly(policy, inputs)
    assert list(variables["params"]) == ["cell"]
    carry, outputs = RNNCell(LSTM(H)).initialize_carry(None, (B, F)), []
    act = cases.quick_jit(functools.partial(policy.apply, method="act"))
    for t in range(T):
        carry, now = act(variables, carry, inputs[:, t])
        outputs.append(now)
    expected = cases.quick_jit(policy.apply)(variables, inputs)
    assert_close(jnp.stack(outputs, 1), expected, FLOAT32)


class Encoder(nn.Module):
    @nn.compact
    def __call__(self, inputs):
        hidden = RNN(LSTM(H))(inputs)
        return nn.Dense(1)(RNN(GRU(H))(hidden))


def test_layers_made_in_a_compact_method_hold_their_own_parameters(inputs):
    shapes = jax.eval_shape(Encoder().init, jax.random.key(0), inputs)["params"]
    assert sorted(shapes) == ["Dense_0", "RNN_0", "RNN_1"]
    assert shapes["RNN_0"]["cell"]["kernel"].shape == (F, 4 * H)
    assert shapes["RNN_1"]["cell"]["kernel"].shape == (H, 3 * H)


# Initialisation


class Tied(Elman):
    """A cell whose fields are drawn together: the bias is a row of the kernel."""

    def init(self, key, in_features, dtype=jnp.float32):
        params = super().init(key, in_features, dtype)
        return params._replace(bias=params.kernel[1])


@pytest.mark.parametrize("make_key", [jax.random.key, jax.random.PRNGKey])
@pytest.mark.parametrize("layer_type", [RNN, lambda cell: nn.RNN(RNNCell(cell))])
def test_one_key_draws_all_parameters_by_the_cells_own_init(
    layer_type, make_key, inputs
):
    init = cases.quick_jit(layer_type(Tied(H)).init)
    first, same, other = (
        init(make_key(seed), inputs)["params"]["cell"] for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first["bias"], first["kernel"][1])
    np.testing.assert_array_equal(first["kernel"], same["kernel"])
    assert np.all(first["kernel"] != other["kernel"])
    square = first["recurrent_kernel"] @ first["recurrent_kernel"].T
    np.testing.assert_allclose(square, np.eye(H), atol=FLOAT32)  # Orthogonal


def test_two_layers_draw_different_parameters(inputs):
    params = nn.Bidirectional(RNN(LSTM(H)), RNN(LSTM(H))).init(
        jax.random.key(0), inputs
    )["params"]
    kernels = [params[name]["cell"]["kernel"] for name in params]
    assert np.all(kernels[0] != kernels[1])


def test_missing_parameter_is_flaxs_error(inputs):
    variables = init_randomly(RNN(LSTM(H)), inputs)
    del variables["params"]["cell"]["bias"]
    with pytest.raises(errors.ScopeParamNotFoundError, match="bias"):
        RNN(LSTM(H)).apply(variables, inputs)


def test_parameter_of_another_shape_is_flaxs_error(inputs):
    variables = init_randomly(RNN(LSTM(H)), inputs)
    with pytest.raises(errors.ScopeParamShapeError, match="kernel"):
        RNN(LSTM(H)).apply(variables, inputs[..., :2])


# Transforms


def test_nn_vmap_trains_many_models_at_once(inputs):
    stacked = nn.vmap(
        RNN, variable_axes={"params": 0}, split_rngs={"params": True}, in_axes=None,
        axis_size=SEEDS,
    )(LSTM(H))  # fmt: skip
    drawn = cases.quick_jit(stacked.init)(jax.random.key(0), inputs)
    kernels = drawn["params"]["cell"]["kernel"]
    assert kernels.shape == (SEEDS, F, 4 * H)
    assert len({float(kernel[0, 0]) for kernel in kernels}) == SEEDS
    variables = random_like(drawn)
    outputs = cases.quick_jit(stacked.apply)(variables, inputs)
    apply = cases.quick_jit(RNN(LSTM(H)).apply)
    for seed in range(SEEDS):
        one = jax.tree.map(lambda leaf, seed=seed: leaf[seed], variables)
        assert_close(outputs[seed], apply(one, inputs), FLOAT32)
    by_jax = cases.quick_jit(jax.vmap(RNN(LSTM(H)).apply, in_axes=(0, None)))
    assert_close(by_jax(variables, inputs), outputs, FLOAT32)
    params = jax.vmap(lambda one: RNN(LSTM(H)).params_of(one, F))(variables)
    np.testing.assert_array_equal(params.bias, variables["params"]["cell"]["bias"])


@pytest.mark.parametrize("transform", [nn.jit, nn.remat])
def test_lifted_jit_and_remat_change_nothing(transform, inputs):
    layer = RNN(GRU(H))
    variables = init_randomly(layer, inputs)
    lifted = transform(RNN)(GRU(H))
    assert_close(
        cases.quick_jit(lifted.apply)(variables, inputs),
        cases.quick_jit(layer.apply)(variables, inputs),
        FLOAT32,
    )


# Partitioning


def test_partition_specs_are_those_that_were_given(inputs):
    layer = RNN(RNNCell(LSTM(H), partitioning=PARTITIONING))
    shapes = jax.eval_shape(layer.init, jax.random.key(0), inputs)
    assert isinstance(shapes["params"]["cell"]["kernel"], nn.Partitioned)
    specs = nn.get_partition_spec(shapes)["params"]["cell"]
    assert specs == PARTITIONING._asdict()


def test_boxes_change_no_value_and_survive_conversion(inputs):
    plain, boxed = RNN(LSTM(H)), RNN(RNNCell(LSTM(H), partitioning=PARTITIONING))
    variables = boxed.init(jax.random.key(0), inputs)
    expected = plain.init(jax.random.key(0), inputs)
    assert_close(nn.meta.unbox(variables), expected, 0)
    outputs = boxed.apply(variables, inputs)
    assert_close(outputs, plain.apply(expected, inputs), 0)
    params = boxed.params_of(variables, F)
    assert isinstance(params, LSTMParams)
    again = boxed.variables_of(params)
    assert jax.tree.structure(again) == jax.tree.structure(variables)


def test_nn_vmap_adds_its_axis_to_the_specs(inputs):
    stacked = nn.vmap(
        RNN, variable_axes={"params": 0}, split_rngs={"params": True}, in_axes=None,
        axis_size=SEEDS, metadata_params={nn.PARTITION_NAME: "seed"},
    )(RNNCell(LSTM(H), partitioning=PARTITIONING))  # fmt: skip
    shapes = jax.eval_shape(stacked.init, jax.random.key(0), inputs)
    specs = nn.get_partition_spec(shapes)["params"]
    kernel = jax.tree.leaves(specs, is_leaf=lambda node: isinstance(node, P))[1]
    assert kernel == P("seed", None, "model")


def test_partitioning_of_a_part_leaves_the_rest_without_boxes(inputs):
    partitioning = LSTMParams(kernel=P(None, "model"), recurrent_kernel=None, bias=None)
    cell = RNNCell(LSTM(H, use_bias=False), partitioning=partitioning)
    params = jax.eval_shape(RNN(cell).init, jax.random.key(0), inputs)["params"]["cell"]
    assert isinstance(params["kernel"], nn.Partitioned)
    assert isinstance(params["recurrent_kernel"], jax.ShapeDtypeStruct)
    assert sorted(params) == ["kernel", "recurrent_kernel"]


# dtypes


def test_compute_dtype_is_that_of_the_matmuls_alone(inputs):
    layer = RNN(RNNCell(LSTM(H), dtype=jnp.bfloat16), return_carry=True)
    variables = init_randomly(RNN(LSTM(H)), inputs)
    carry, outputs = cases.quick_jit(layer.apply)(variables, inputs)
    assert {leaf.dtype for leaf in (*carry, outputs)} == {jnp.dtype("float32")}
    params = layer.params_of(variables, F)
    assert params.kernel.dtype == jnp.float32
    engine = FusedScan(compute_dtype=jnp.bfloat16)
    run = functools.partial(unroll, LSTM(H))
    expected = cases.quick_jit(functools.partial(run, engine=engine))(
        params, inputs.swapaxes(0, 1)
    )
    assert_close((carry, outputs.swapaxes(0, 1)), expected, FLOAT32)
    exact = cases.quick_jit(run)(params, inputs.swapaxes(0, 1))
    assert cases.relative_error(outputs.swapaxes(0, 1), exact[1]) > 1e-4
    # The cell inside Flax's own layer does the same.
    flaxs = nn.RNN(RNNCell(LSTM(H), dtype=jnp.bfloat16), return_carry=True)
    assert_close(
        cases.quick_jit(flaxs.apply)(variables, inputs), (carry, outputs), BFLOAT16
    )


def test_gradients_of_bfloat16_matmuls_are_float32(inputs):
    layer = RNN(RNNCell(GRU(H), dtype=jnp.bfloat16))
    variables = init_randomly(layer, inputs)

    def loss(variables):
        return layer.apply(variables, inputs).sum()

    gradients = jax.eval_shape(jax.grad(loss), variables)
    assert {leaf.dtype for leaf in jax.tree.leaves(gradients)} == {jnp.dtype("float32")}


@pytest.mark.parametrize("layer_type", [RNN, nn.RNN])
def test_param_dtype_is_that_of_parameters_carry_and_outputs(layer_type, inputs):
    layer = layer_type(RNNCell(LSTM(H), param_dtype=jnp.bfloat16), return_carry=True)
    variables = jax.eval_shape(layer.init, jax.random.key(0), inputs)
    results = jax.eval_shape(layer.apply, variables, inputs)
    leaves = jax.tree.leaves((variables, results))
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype("bfloat16")}


# Checkpoints


def test_orbax_restores_every_bit(tmp_path, inputs):
    layer = RNN(GRU(H, use_bias=False))
    variables = init_randomly(layer, inputs)
    with orbax.checkpoint.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "saved", variables)
        checkpointer.wait_until_finished()
        target = jax.eval_shape(layer.init, jax.random.key(0), inputs)
        restored = checkpointer.restore(tmp_path / "saved", target)
    assert_close(restored, variables, 0)
    assert jax.tree.structure(restored) == jax.tree.structure(variables)


def test_flax_serialization_restores_every_bit(inputs):
    variables = init_randomly(RNN(LSTM(H)), inputs)
    data = serialization.to_bytes(variables)
    zeros = jax.tree.map(jnp.zeros_like, variables)
    assert_close(serialization.from_bytes(zeros, data), variables, 0)


# Networks


NET = Stack(
    Bidirectional(gated_rnn.RNN(GRU(H), learned_carry=True), LSTM(H)),
    gated_rnn.RNN(LSTM(2), engine=FusedScan(chunk_size=2)),
    Dense(1),
    dropout=0.5,
)


def test_network_equals_the_pure_one_and_converts_exactly(inputs):
    model = Network(NET, return_carry=True)
    params = random_like(pure_shapes(NET))
    variables = model.variables_of(params)
    shapes = jax.eval_shape(model.init, jax.random.key(0), inputs)
    assert jax.tree.structure(variables) == jax.tree.structure(shapes)
    assert variables["params"]["2"]["kernel"].shape == (2, 1)
    assert_close(model.params_of(variables, F), params, 0)
    mask = np.arange(T)[:, None] < LENGTHS
    resets = np.zeros((T, B), bool)
    resets[2, :3] = True
    carry, outputs = cases.quick_jit(model.apply)(
        variables, inputs, seq_lengths=LENGTHS, resets=resets.T
    )
    expected = cases.quick_jit(NET.apply)(
        params, inputs.swapaxes(0, 1), mask=mask, resets=resets
    )
    assert_close((carry, outputs.swapaxes(0, 1)), expected, FLOAT32)


def test_network_draws_noise_from_the_dropout_stream_alone(inputs):
    model = Network(Stack(gated_rnn.RNN(GRU(H)), Dense(2), dropout=0.5))
    variables = init_randomly(model, inputs)
    quiet = cases.quick_jit(model.apply)(variables, inputs)

    @cases.quick_jit
    def run(key):
        rngs = {"dropout": key}
        return model.apply(variables, inputs, deterministic=False, rngs=rngs)

    loud, same, other = (run(jax.random.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(loud, same)
    assert np.mean(loud == other) < 0.5
    assert np.mean(loud == quiet) < 0.5


def test_network_of_tokens_that_ends_in_one_vector(inputs):
    net = Stack(Embedding(11, F), gated_rnn.RNN(GRU(H)), LastStep(), Dense(2))
    tokens = jnp.arange(T * B).reshape(B, T) % 11
    model = Network(net)
    variables = init_randomly(model, tokens)
    params = model.params_of(variables)
    _, expected = net.apply(params, tokens.T)
    assert expected.shape == (B, 2)
    assert_close(model.apply(variables, tokens), expected, FLOAT32)


def test_network_steps_as_it_runs(inputs):
    net = Stack(gated_rnn.RNN(LSTM(H)), Dense(1))
    model = Network(net)
    variables = init_randomly(model, inputs)
    resets = np.zeros((B, T), bool)
    resets[1, 3] = resets[4, 0] = True
    step = cases.quick_jit(functools.partial(model.apply, method="step"))
    carry, outputs = net.init_carry((B,)), []
    for t in range(T):
        carry, now = step(variables, carry, inputs[:, t], reset=resets[:, t])
        outputs.append(now)
    expected = cases.quick_jit(model.apply)(variables, inputs, resets=resets)
    assert_close(jnp.stack(outputs, 1), expected, FLOAT32)


def test_network_partition_specs(inputs):
    specs = (
        GRUParams(P(None, "model"), P(None, "model"), P("model"), P()),
        DenseParams(P("model"), None),
    )
    model = Network(Stack(gated_rnn.RNN(GRU(H)), Dense(1)), partitioning=specs)
    shapes = jax.eval_shape(model.init, jax.random.key(0), inputs)
    found = nn.get_partition_spec(shapes)["params"]
    assert found["0"]["kernel"] == P(None, "model")
    assert found["1"]["kernel"] == P("model", None)
    assert found["1"]["bias"] == P()


# Training


class Recall(nn.Module):
    """Reads the input of two steps ago back."""

    @nn.compact
    def __call__(self, inputs):
        return nn.Dense(1)(RNN(LSTM(H))(inputs))


def test_optax_trains_a_module():
    model, optimizer = Recall(), optax.adam(3e-2)
    inputs = jax.random.normal(jax.random.key(1), (B, 12, 1))

    def loss(variables):
        outputs = model.apply(variables, inputs)
        return jnp.mean((outputs[:, 2:] - inputs[:, :-2]) ** 2)

    @cases.quick_jit
    def train(variables):
        def update(state, _):
            variables, opt_state = state
            value, gradients = jax.value_and_grad(loss)(variables)
            updates, opt_state = optimizer.update(gradients, opt_state)
            return (optax.apply_updates(variables, updates), opt_state), value

        state = (variables, optimizer.init(variables))
        return jax.lax.scan(update, state, length=150)[1]

    losses = train(model.init(jax.random.key(0), inputs))
    assert losses[-1] < 0.2 * losses[0]


# Errors


X = np.zeros((B, T, F), np.float32)
X_TB = X.swapaxes(0, 1)
MASK = np.ones((B, T), bool)
ONES = np.ones(B, np.int32)
CARRY = (np.zeros((B, H), np.float32),) * 2


@pytest.mark.parametrize(
    ("name", "words", "inputs", "arguments"),
    [
        ("inputs", ["[*batch, T, F]", "shape (3,)"], X[0, 0], {}),
        ("inputs", ["[T, *batch, F]"], X[0, 0], {"time_major": True}),
        ("inputs", ["list"], [[1.0]], {}),
        ("seq_lengths", ["mask", "both"], X, {"mask": MASK, "seq_lengths": ONES}),
        ("seq_lengths", ["(6,)", "(7,)"], X, {"seq_lengths": np.ones(T, np.int32)}),
        ("lengths", ["integer", "float32"], X, {"seq_lengths": ONES + 0.5}),
        ("mask", ["[*batch, T] = (6, 7)", "(7, 6)"], X, {"mask": MASK.T}),
        ("mask", ["(6, 7)", "(7, 6)"], X_TB, {"mask": MASK, "time_major": True}),
        ("mask", ["bool", "a list"], X, {"mask": MASK.tolist()}),
        ("mask", ["bool", "int32"], X, {"mask": MASK.astype(np.int32)}),
        ("resets", ["[*batch, T] = (6, 7)", "(6,)"], X, {"resets": MASK[:, 0]}),
        ("keep_order", ["aligned"], X, {"reverse": True, "keep_order": False}),
        ("carry", ["LSTMCarry", "tuple"], X, {"initial_carry": CARRY}),
    ],
)  # fmt: skip
def test_layer_says_in_one_line_what_is_wrong(name, words, inputs, arguments):
    with pytest.raises(ValueError) as error:
        RNN(LSTM(H)).init(jax.random.key(0), inputs, **arguments)
    assert_says(error, name, *words)
    assert "\n" not in str(error.value)


def with_specs(partitioning):
    return RNN(RNNCell(LSTM(H), partitioning=partitioning)).init(jax.random.key(0), X)


def step(carry, inputs):
    return RNNCell(LSTM(H)).init(jax.random.key(0), carry, inputs)


@pytest.mark.parametrize(
    ("name", "words", "make"),
    [
        ("cell", ["LSTM(16)", "LSTMCell"], lambda: RNNCell(nn.LSTMCell(H))),
        ("cell", ["LSTM(16)", "LSTMCell"], lambda: RNN(nn.LSTMCell(H))),
        ("cell", ["LSTM(16)", "class"], lambda: RNN(LSTM)),
        ("engine", ["LSTM", "Associative"], lambda: RNN(LSTM(H), engine=Associative())),
        ("engine", ["Scan()", "class"], lambda: RNN(LSTM(H), engine=FusedScan)),
        ("net", ["Stack(", "got LSTM."], lambda: Network(LSTM(H))),
        ("partitioning", ["LSTMParams"], lambda: with_specs((P(), P()))),
        ("partitioning", ["2 axes", "'c'"], lambda: with_specs(
            LSTMParams(P("a", "b", "c"), None, None))),
        ("partitioning", ["1 axes", "'a'"], lambda: with_specs(
            LSTMParams(P(), P(), P("a", "b")))),
        ("partitioning", ["PartitionSpec", "'model'"], lambda: with_specs(
            LSTMParams("model", None, None))),
        ("inputs", ["[*batch, F]", "()"], lambda: step(CARRY, np.float32(1))),
        ("inputs", ["[*batch, F]", "list"], lambda: step(CARRY, [1.0])),
        ("carry", ["LSTMCarry", "tuple"], lambda: step(CARRY, X[:, 0])),
        ("carry", ["(7, 5)", "(6, 5)"], lambda: step(LSTMCarry(*CARRY), X[0])),
    ],
)  # fmt: skip
def test_mistakes_are_answered_in_one_line(name, words, make):
    with pytest.raises(ValueError) as error:
        make()
    assert_says(error, name, *words)
    assert "\n" not in str(error.value)
