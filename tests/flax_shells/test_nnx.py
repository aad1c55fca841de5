"""NNX modules among NNX's own: transforms, metadata, checkpoints, training, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint
import pytest
from flax import nnx
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
from gated_rnn.flax.nnx import RNN, Network, RNNCell
from tests import cases
from tests.cases import B, F, H, T, assert_close, assert_says

SEEDS = 4
LENGTHS = np.array([7, 1, 3, 5, 2, 6])
# Sums of T * B * H products in another order.
FLOAT32 = 1e-5
PARTITIONING = LSTMParams(
    kernel=P(None, "model"), recurrent_kernel=P("data", "model"), bias=P("model")
)


@pytest.fixture
def inputs():
    return jax.random.normal(jax.random.key(7), (B, T, F))


@pytest.fixture
def mesh():
    """A mesh of one device, which Flax asks for where it is told how to shard."""
    mesh = jax.make_mesh((1, 1), ("data", "model"), (jax.sharding.AxisType.Auto,) * 2)
    with jax.set_mesh(mesh):
        yield mesh


def random_like(tree, seed=3):
    """Fill a pytree of arrays with normal float32 numbers."""
    values = cases.random_like(tree, np.random.default_rng(seed))
    return cases.cast(values, jnp.float32)


def randomized(module):
    """Give a module random values everywhere, biases included."""
    module.set_params(random_like(module.get_params()))
    return module


def cell_of(cell, in_features=F, **options):
    return randomized(RNNCell(cell, in_features, rngs=nnx.Rngs(0), **options))


def layer_of(cell, **options):
    return RNN(cell_of(cell), **options)


def call(module, *arguments, **keywords):
    """Call a module in a program that is compiled as quickly as it can be."""
    graphdef, state = nnx.split(module)

    @cases.quick_jit
    def run(state, arguments, keywords):
        return nnx.merge(graphdef, state)(*arguments, **keywords)

    return run(state, arguments, keywords)


# Among Flax's modules


def test_cell_is_a_cell_of_flax():
    cell = cell_of(LSTM(H), param_dtype=jnp.bfloat16)
    assert isinstance(cell, nnx.RNNCellBase)
    assert cell.num_feature_axes == 1
    carry = cell.initialize_carry((B, 2, F))
    assert isinstance(carry, LSTMCarry)
    assert carry.cell.shape == (B, 2, H)


def test_carry_init_draws_every_leaf_of_the_carry():
    cell = cell_of(LSTM(H))
    draw = nnx.initializers.normal()
    for rngs in (nnx.Rngs(1), nnx.Rngs(1).carry):
        carry = cell.initialize_carry((B, F), rngs, carry_init=draw)
        assert carry.cell.shape == (B, H)
        assert np.all(carry.cell != carry.hidden)


@pytest.mark.parametrize("layer_type", [nnx.RNN, RNN])
def test_bidirectional_of_flax_equals_our_bidirectional(layer_type, inputs):
    net = Bidirectional(LSTM(H), GRU(2))
    forward, backward = cell_of(LSTM(H)), cell_of(GRU(2))
    flax_net = nnx.Bidirectional(
        layer_type(forward), layer_type(backward), return_carry=True
    )
    carry = random_like(net.init_carry((B,)), 4)
    mask = np.arange(T)[:, None] < LENGTHS

    ends, outputs = call(
        flax_net, inputs, initial_carry=tuple(carry), seq_lengths=LENGTHS
    )
    params = gated_rnn.BidirectionalParams(forward.get_params(), backward.get_params())
    expected = cases.quick_jit(net.apply)(
        params, inputs.swapaxes(0, 1), carry, mask=mask
    )
    if layer_type is nnx.RNN:  # Flax leaves something where a row is padded
        outputs = jnp.where(mask.T[..., None], outputs, 0)
    assert_close((ends, outputs.swapaxes(0, 1)), expected, FLOAT32)


def test_one_cell_serves_a_layer_and_single_steps(inputs):
    cell = cell_of(LSTM(H))
    layer = RNN(cell)
    step = nnx.jit(lambda cell, carry, inputs: cell(carry, inputs))
    carry, outputs = cell.initialize_carry((B, F)), []
    for t in range(T):
        carry, now = step(cell, carry, inputs[:, t])
        outputs.append(now)
    assert_close(jnp.stack(outputs, 1), call(layer, inputs), FLOAT32)


def test_state_is_parameters_alone(inputs):
    model = nnx.Dict(layer=RNN(LSTM(H), F, rngs=nnx.Rngs(0)), cell=cell_of(GRU(H)))
    state = nnx.state(model)
    assert {type(leaf) for _, leaf in nnx.to_flat_state(state)} == {nnx.Param}
    layer = nnx.to_pure_dict(nnx.state(model["layer"]))
    assert sorted(layer["cell"]["params"]) == ["bias", "kernel", "recurrent_kernel"]


# Initialisation


class Tied(Elman):
    """A cell whose fields are drawn together: the bias is a row of the kernel."""

    def init(self, key, in_features, dtype=jnp.float32):
        params = super().init(key, in_features, dtype)
        return params._replace(bias=params.kernel[1])


def test_one_key_draws_all_parameters_by_the_cells_own_init():
    first, same, other = (
        RNN(Tied(H), F, rngs=nnx.Rngs(params=seed)).get_params() for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first.bias, first.kernel[1])
    np.testing.assert_array_equal(first.kernel, same.kernel)
    assert np.all(first.kernel != other.kernel)
    expected = Tied(H).init(nnx.Rngs(params=0).params(), F)
    assert_close(first, expected, 0)


def test_layers_from_the_same_streams_differ():
    rngs = nnx.Rngs(0)
    kernels = [RNN(GRU(H), F, rngs=rngs).get_params().kernel for _ in range(2)]
    assert np.all(kernels[0] != kernels[1])


# Transforms


def test_gradients_are_those_of_unroll(inputs):
    layer = layer_of(GRU(H))

    @nnx.jit
    def differentiate(layer, inputs):
        return nnx.grad(lambda layer: jnp.sum(jnp.sin(layer(inputs))))(layer)

    def loss(params, inputs):
        outputs = unroll(GRU(H), params, inputs.swapaxes(0, 1))[1]
        return jnp.sum(jnp.sin(outputs))

    gradients = nnx.to_pure_dict(differentiate(layer, inputs))["cell"]["params"]
    expected = cases.quick_jit(jax.grad(loss))(layer.get_params(), inputs)
    assert_close(gradients, expected._asdict(), FLOAT32)


def test_nnx_vmap_trains_many_models_at_once(inputs):
    @nnx.jit
    @nnx.split_rngs(splits=SEEDS)
    @nnx.vmap
    def make(rngs):
        return RNN(LSTM(H), F, rngs=rngs)

    stacked = make(nnx.Rngs(0))
    kernels = stacked.get_params().kernel
    assert kernels.shape == (SEEDS, F, 4 * H)
    assert len({float(kernel[0, 0]) for kernel in kernels}) == SEEDS
    stacked = randomized(stacked)
    outputs = nnx.jit(nnx.vmap(lambda m, x: m(x), in_axes=(0, None)))(stacked, inputs)
    by_time = inputs.swapaxes(0, 1)
    for seed in range(SEEDS):
        params = jax.tree.map(lambda leaf, seed=seed: leaf[seed], stacked.get_params())
        _, expected = cases.unroll_quickly(LSTM(H), params, by_time)
        assert_close(outputs[seed].swapaxes(0, 1), expected, FLOAT32)


def test_split_and_merge_and_plain_jax_transforms(inputs):
    layer = layer_of(LSTM(H))
    graphdef, state = nnx.split(layer)
    outputs = cases.quick_jit(lambda state, x: nnx.merge(graphdef, state)(x))(
        state, inputs
    )
    assert_close(outputs, call(layer, inputs), FLOAT32)
    # The same configuration is the same graph: nothing is compiled again.
    other, params = nnx.split(layer_of(LSTM(H)), nnx.Param)[:2]
    assert other == graphdef
    assert hash(other) == hash(graphdef)
    assert len(jax.tree.leaves(params)) == 3


def test_clones_share_nothing(inputs):
    layer = layer_of(GRU(H))
    clone = nnx.clone(layer)
    before = layer.get_params()
    clone.set_params(jax.tree.map(jnp.zeros_like, before))
    assert_close(layer.get_params(), before, 0)


# Partitioning


def test_partition_specs_are_those_that_were_given(mesh):
    cell = RNNCell(LSTM(H), F, partitioning=PARTITIONING, rngs=nnx.Rngs(0))
    layer = RNN(cell)
    state = nnx.state(layer)
    specs = nnx.to_pure_dict(nnx.get_partition_spec(state))["cell"]["params"]
    assert specs == PARTITIONING._asdict()
    shardings = nnx.get_named_sharding(state, mesh)["cell"]["params"]
    assert shardings["kernel"].get_value().spec == P(None, "model")
    assert layer.cell.params.kernel.get_value().sharding.spec == P(None, "model")


@pytest.mark.usefixtures("mesh")
def test_metadata_changes_no_value(inputs):
    plain = RNN(LSTM(H), F, rngs=nnx.Rngs(0))
    cell = RNNCell(LSTM(H), F, partitioning=PARTITIONING, rngs=nnx.Rngs(0))
    assert_close(cell.get_params(), plain.get_params(), 0)
    assert_close(call(RNN(cell), inputs), call(plain, inputs), FLOAT32)


@pytest.mark.usefixtures("mesh")
def test_nnx_vmap_adds_its_axis_to_the_specs():
    @nnx.split_rngs(splits=SEEDS)
    @nnx.vmap(transform_metadata={nnx.PARTITION_NAME: None})
    def make(rngs):
        return RNNCell(LSTM(H), F, partitioning=PARTITIONING, rngs=rngs)

    specs = nnx.get_partition_spec(nnx.state(make(nnx.Rngs(0))))
    kernel = nnx.to_pure_dict(specs)["params"]["kernel"]
    assert kernel == P(None, None, "model")


@pytest.mark.usefixtures("mesh")
def test_partitioning_of_a_part_leaves_the_rest_without_metadata():
    partitioning = LSTMParams(kernel=P("data"), recurrent_kernel=None, bias=None)
    cell = cell_of(LSTM(H, use_bias=False), partitioning=partitioning)
    specs = nnx.to_pure_dict(nnx.get_partition_spec(nnx.state(cell)))["params"]
    assert specs == {"kernel": P("data", None), "recurrent_kernel": P()}


# dtypes


def test_compute_dtype_is_that_of_the_matmuls_alone(inputs):
    layer = RNN(cell_of(LSTM(H), dtype=jnp.bfloat16), return_carry=True)
    carry, outputs = call(layer, inputs)
    assert {leaf.dtype for leaf in (*carry, outputs)} == {jnp.dtype("float32")}
    params = layer.get_params()
    assert params.kernel.dtype == jnp.float32
    by_time = inputs.swapaxes(0, 1)
    run = cases.quick_jit(unroll, static_argnames="engine")
    engine = FusedScan(compute_dtype=jnp.bfloat16)
    expected = run(LSTM(H), params, by_time, engine=engine)
    assert_close((carry, outputs.swapaxes(0, 1)), expected, FLOAT32)
    exact = run(LSTM(H), params, by_time, engine=FusedScan())[1]
    assert cases.relative_error(outputs.swapaxes(0, 1), exact) > 1e-4


@pytest.mark.parametrize("layer_type", [RNN, nnx.RNN])
def test_param_dtype_is_that_of_parameters_carry_and_outputs(layer_type, inputs):
    cell = RNNCell(LSTM(H), F, param_dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    layer = layer_type(cell, return_carry=True)
    results = nnx.eval_shape(lambda layer: layer(inputs), layer)
    leaves = jax.tree.leaves((cell.get_params(), results))
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype("bfloat16")}


# Checkpoints


def test_orbax_restores_every_bit(tmp_path):
    layer = RNN(cell_of(GRU(H, use_bias=False)))
    graphdef, state = nnx.split(layer)
    with orbax.checkpoint.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "saved", state)
        checkpointer.wait_until_finished()
        target = nnx.eval_shape(
            lambda: RNN(GRU(H, use_bias=False), F, rngs=nnx.Rngs(1))
        )
        restored = checkpointer.restore(tmp_path / "saved", nnx.state(target))
    again = nnx.merge(graphdef, restored)
    assert_close(again.get_params(), layer.get_params(), 0)


# Networks


NET = Stack(
    Bidirectional(gated_rnn.RNN(GRU(H), learned_carry=True), LSTM(H)),
    gated_rnn.RNN(LSTM(2), engine=FusedScan(chunk_size=2)),
    Dense(1),
    dropout=0.5,
)


def network_of(net, in_features=F, **options):
    return randomized(Network(net, in_features, rngs=nnx.Rngs(0), **options))


def test_network_equals_the_pure_one_and_converts_exactly(inputs):
    model = network_of(NET, return_carry=True)
    mask = np.arange(T)[:, None] < LENGTHS
    resets = np.zeros((T, B), bool)
    resets[2, :3] = True

    carry, outputs = call(model, inputs, seq_lengths=LENGTHS, resets=resets.T)
    params = model.get_params()
    assert isinstance(params[2], DenseParams)
    expected = cases.quick_jit(NET.apply)(
        params, inputs.swapaxes(0, 1), mask=mask, resets=resets
    )
    assert_close((carry, outputs.swapaxes(0, 1)), expected, FLOAT32)


def test_network_draws_noise_from_the_dropout_stream_of_the_call_alone(inputs):
    model = network_of(Stack(gated_rnn.RNN(GRU(H)), Dense(2), dropout=0.5))
    quiet = call(model, inputs)
    graphdef, state = nnx.split(model)

    @cases.quick_jit
    def run(state, inputs, key):
        rngs = nnx.Rngs(dropout=key)
        model = nnx.merge(graphdef, state)
        return model(inputs, rngs=rngs), model(inputs, rngs=rngs.dropout)

    loud, same, other = (run(state, inputs, jax.random.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(loud, same)
    # A stream never draws the same twice.
    for another in (quiet, other[0], loud[1]):
        assert np.mean(loud[0] == another) < 0.5


def test_network_of_tokens_that_ends_in_one_vector():
    net = Stack(Embedding(11, F), gated_rnn.RNN(GRU(H)), LastStep(), Dense(2))
    tokens = jnp.arange(T * B).reshape(B, T) % 11
    model = network_of(net, None)
    _, expected = cases.quick_jit(net.apply)(model.get_params(), tokens.T)
    assert expected.shape == (B, 2)
    assert_close(call(model, tokens), expected, FLOAT32)


def test_network_steps_as_it_runs(inputs):
    model = network_of(Stack(gated_rnn.RNN(LSTM(H)), Dense(1)))
    resets = np.zeros((B, T), bool)
    resets[1, 3] = resets[4, 0] = True
    step = nnx.jit(lambda model, carry, x, reset: model.step(carry, x, reset=reset))
    carry, outputs = model.net.init_carry((B,)), []
    for t in range(T):
        carry, now = step(model, carry, inputs[:, t], resets[:, t])
        outputs.append(now)
    assert_close(jnp.stack(outputs, 1), call(model, inputs, resets=resets), FLOAT32)


@pytest.mark.usefixtures("mesh")
def test_network_partition_specs():
    partitioning = (
        GRUParams(P(None, "model"), P(None, "model"), P("model"), P()),
        DenseParams(P("model"), None),
    )
    net = Stack(gated_rnn.RNN(GRU(H)), Dense(1))
    model = network_of(net, partitioning=partitioning)
    specs = nnx.to_pure_dict(nnx.get_partition_spec(nnx.state(model)))["params"]
    assert specs[0]["kernel"] == P(None, "model")
    assert specs[1]["kernel"] == P("model", None)
    assert specs[1]["bias"] == P()


# Training


class Recall(nnx.Module):
    """Reads the input of two steps ago back."""

    def __init__(self, *, rngs):
        self.layer = RNN(LSTM(H), 1, rngs=rngs)
        self.readout = nnx.Linear(H, 1, rngs=rngs)

    def __call__(self, inputs):
        return self.readout(self.layer(inputs))


def test_optax_trains_a_module():
    model = Recall(rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adam(3e-2), wrt=nnx.Param)
    inputs = jax.random.normal(jax.random.key(1), (B, 12, 1))

    def loss(model):
        return jnp.mean((model(inputs)[:, 2:] - inputs[:, :-2]) ** 2)

    @nnx.jit
    def train_step(model, optimizer):
        value, gradients = nnx.value_and_grad(loss)(model)
        optimizer.update(model, gradients)
        return value

    losses = [train_step(model, optimizer) for _ in range(150)]
    assert losses[-1] < 0.2 * losses[0]


# Errors


CARRY = (np.zeros((B, H), np.float32),) * 2
X = np.zeros((B, T, F), np.float32)
RNGS = nnx.Rngs(0)


def with_specs(partitioning):
    return RNNCell(LSTM(H), F, partitioning=partitioning, rngs=RNGS)


def with_params(**fields):
    cell = cell_of(LSTM(H))
    cell.set_params(cell.get_params()._replace(**fields))


@pytest.mark.parametrize(
    ("name", "words", "make"),
    [
        ("cell", ["LSTM(16)", "ndarray"], lambda: RNN(np.ones(2), F, rngs=RNGS)),
        ("cell", ["LSTM(16)", "class"], lambda: RNNCell(LSTM, F, rngs=RNGS)),
        ("in_features", ["positive", "None"], lambda: RNN(LSTM(H), rngs=RNGS)),
        ("in_features", ["positive", "0"], lambda: RNNCell(LSTM(H), 0, rngs=RNGS)),
        ("in_features", ["None beside"], lambda: RNN(cell_of(LSTM(H)), F)),
        ("in_features", ["positive"], lambda: Network(NET, rngs=RNGS)),
        ("rngs", ["nnx.Rngs(0)", "None"], lambda: RNN(LSTM(H), F)),
        ("rngs", ["nnx.Rngs(0)", "int"], lambda: RNNCell(LSTM(H), F, rngs=7)),
        ("rngs", ["None beside"], lambda: RNN(cell_of(LSTM(H)), rngs=RNGS)),
        ("rngs", ["nnx.Rngs(0)"], lambda: cell_of(LSTM(H)).initialize_carry(
            (B, F), carry_init=nnx.initializers.normal())),
        ("engine", ["LSTM", "Associative"], lambda: layer_of(
            LSTM(H), engine=Associative())),
        ("net", ["Stack("], lambda: Network(LSTM(H), F, rngs=RNGS)),
        ("partitioning", ["LSTMParams"], lambda: with_specs((P(), P()))),
        ("partitioning", ["2 axes"], lambda: with_specs(
            LSTMParams(P("a", "b", "c"), None, None))),
        ("params", ["LSTMParams", "GRUParams"], lambda: cell_of(LSTM(H)).set_params(
            cell_of(GRU(H)).get_params())),
        ("params", ["None"], lambda: with_params(bias=None)),
        ("params.bias", ["(20,)", "(5,)"], lambda: with_params(bias=jnp.ones(H))),
        ("inputs", ["[*batch, F]", "float"], lambda: cell_of(LSTM(H))(CARRY, 1.0)),
        ("carry", ["LSTMCarry", "tuple"], lambda: cell_of(LSTM(H))(CARRY, X[:, 0])),
        ("carry", ["(7, 5)", "(6, 5)"], lambda: cell_of(LSTM(H))(
            LSTMCarry(*CARRY), X[0])),
        ("inputs", ["3 features", "(7, 6, 2)"], lambda: layer_of(LSTM(H))(X[..., :2])),
        ("inputs", ["[*batch, T, F]", "(3,)"], lambda: layer_of(LSTM(H))(X[0, 0])),
        ("seq_lengths", ["mask", "both"], lambda: layer_of(LSTM(H))(
            X, mask=np.ones((B, T), bool), seq_lengths=LENGTHS)),
        ("mask", ["[*batch, T] = (6, 7)", "(7, 6)"], lambda: layer_of(LSTM(H))(
            X, mask=np.ones((T, B), bool))),
        ("keep_order", ["aligned", "False"], lambda: layer_of(LSTM(H))(
            X, reverse=True, keep_order=False)),
    ],
)  # fmt: skip
def test_mistakes_are_answered_in_one_line(name, words, make):
    with pytest.raises(ValueError) as error:
        make()
    assert_says(error, name, *words)
    assert "\n" not in str(error.value)


def test_failed_set_params_changes_nothing():
    cell = cell_of(LSTM(H))
    before = cell.get_params()
    others = jax.tree.map(jnp.zeros_like, before)._replace(bias=jnp.zeros(H))
    with pytest.raises(ValueError, match=r"params\.bias"):
        cell.set_params(others)
    assert_close(cell.get_params(), before, 0)
