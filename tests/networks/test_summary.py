"""Counts of parameters, bytes and operations against closed formulas."""

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
    Scan,
    Stack,
)
from gated_rnn.networks.summary import count_parameters, summarize

SIZES = [(3, 16), (1, 50), (7, 2)]
each_size = pytest.mark.parametrize(("features", "hidden"), SIZES, ids=lambda n: str(n))


def only_row(net, in_features, **options):
    summary = summarize(net, in_features, **options)
    (row,) = summary.layers
    assert summary.total == row._replace(path="total")
    return row


# Closed formulas


@each_size
def test_counts_of_the_lstm(features, hidden):
    row = only_row(RNN(LSTM(hidden)), features)
    f, h = features, hidden
    assert row.num_parameters == 4 * (f * h + h * h + h)
    assert row.num_bytes == 4 * row.num_parameters
    assert row.matmul_operations == 8 * h * (f + h)
    # 4 biases, 4 sums of both matmuls, 3 sigmoids, 2 tanh; f c + i g and o tanh(c)
    assert row.elementwise_operations == (4 + 4 + 3 + 2 + 3 + 1) * h
    assert row.operations == row.matmul_operations + row.elementwise_operations
    assert (row.in_features, row.out_features) == (f, h)


@each_size
def test_counts_of_the_gru(features, hidden):
    row = only_row(RNN(GRU(hidden)), features)
    f, h = features, hidden
    assert row.num_parameters == 3 * (f * h + h * h + h) + h
    assert row.matmul_operations == 6 * h * (f + h)
    # 3 biases; for r and z a sum and a sigmoid; for n a bias, r times it, a sum and
    # a tanh; (1 - z) n + z h
    assert row.elementwise_operations == (3 + 2 * 2 + 4 + 4) * h


def test_counts_of_a_readout():
    row = only_row(Dense(5), 7)
    assert row.num_parameters == 7 * 5 + 5
    assert (row.matmul_operations, row.elementwise_operations) == (2 * 7 * 5, 5)
    assert only_row(Dense(5, use_bias=False), 7).operations == 2 * 7 * 5


def test_counts_without_biases():
    row = only_row(RNN(LSTM(4, use_bias=False)), 3)
    assert row.num_parameters == 4 * (3 * 4 + 4 * 4)
    assert row.elementwise_operations == 13 * 4


def test_counts_of_an_embedding():
    row = only_row(Embedding(11, 6), None)
    assert (row.num_parameters, row.operations) == (11 * 6, 0)
    assert (row.in_features, row.out_features) == (None, 6)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("dtype", "size"),
    [(jnp.bfloat16, 2), (jnp.float32, 4), (jnp.float64, 8)],
    ids=["bfloat16", "float32", "float64"],
)
def test_bytes_follow_the_dtype(dtype, size):
    row = only_row(RNN(LSTM(4)), 3, dtype=dtype)
    assert row.num_bytes == size * 4 * (3 * 4 + 4 * 4 + 4)


def test_a_learned_carry_is_a_parameter():
    plain = only_row(RNN(LSTM(4)), 3)
    learned = only_row(RNN(LSTM(4), learned_carry=True), 3)
    assert learned.num_parameters == plain.num_parameters + 2 * 4
    assert learned.operations == plain.operations


def test_engine_options_change_no_count():
    chunked = RNN(LSTM(4), engine=Scan(chunk_size=3, unroll=2))
    assert only_row(chunked, 3)[4:] == only_row(RNN(LSTM(4)), 3)[4:]


# Walking the jaxpr


class Program:
    """A layer whose apply is any function of a vector."""

    out_features = None

    def __init__(self, function):
        self.function = function

    def init(self, key, in_features, dtype):
        return ()

    def apply(self, params, inputs):
        return (), self.function(inputs[0])[None]


def repeat(times):
    def function(x):
        return jax.lax.scan(lambda c, _: (c * c + 1.0, None), x, length=times)[0]

    return function


@jax.custom_vjp
def squared(x):
    return x * x


squared.defvjp(lambda x: (x * x, x), lambda x, g: (2 * x * g,))


@jax.custom_jvp
def doubled(x):
    return 2 * x


doubled.defjvp(lambda x, t: (2 * x[0], 2 * t[0]))

SWAP = jnp.arange(6.0).reshape(3, 2)


def matmul_in_scan(x):
    return jax.lax.scan(lambda c, _: (SWAP @ (c @ SWAP), None), x, length=4)[0]


def branches(x):
    return jax.lax.cond(x[0] > 0, jnp.sin, lambda x: x * x + 1.0, x)


# name: (function of a vector of 3, operations of matmuls, other operations)
PROGRAMS = {
    "tanh": (jnp.tanh, 0, 3),
    "arithmetic": (lambda x: -x + 2 * jnp.exp(x), 0, 4 * 3),
    "scan": (repeat(7), 0, 7 * 2 * 3),
    "scans in turn": (lambda x: repeat(5)(repeat(2)(x)), 0, 7 * 2 * 3),
    "jit in jit": (jax.jit(jax.jit(lambda x: x * x)), 0, 3),
    "checkpoint": (jax.checkpoint(lambda x: x * x * x), 0, 6),
    "custom_vjp": (squared, 0, 3),
    "custom_jvp": (doubled, 0, 3),
    "vmap": (jax.vmap(lambda x: x * x), 0, 3),
    "larger branch": (branches, 0, 2 * 3),
    "while": (lambda x: jax.lax.while_loop(lambda x: x[0] < 1, jnp.exp, x), 0, 3),
    "reduction": (lambda x: jnp.sum(x) * x, 0, 3 + 3),
    "vector times matrix": (lambda x: x @ SWAP, 2 * 3 * 2, 0),
    "matrix times matrix": (lambda x: jnp.outer(x, x) @ SWAP, 2 * 3 * 3 * 2, 9),
    "leading axes": (lambda x: jnp.einsum("ij,ik->jk", SWAP, x[:, None]), 12, 0),
    "batched products": (
        lambda x: jnp.einsum("bi,bij->bj", x[:, None] * SWAP, jnp.ones((3, 2, 5))),
        2 * 3 * 2 * 5,
        3 * 2,
    ),
    "matmuls in scan": (matmul_in_scan, 4 * 2 * (2 * 3 * 2), 0),
    "moving": (lambda x: jnp.concatenate([x[::-1], x[:1]]).reshape(2, 2).T, 0, 0),
    "choosing": (lambda x: jnp.where(x > 0, x, 0.0), 0, 0),
    "casting": (lambda x: x.astype(jnp.bfloat16), 0, 0),
    "integers": (lambda x: jnp.cumsum(jnp.arange(9)) * 3, 0, 0),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_operations_are_counted_wherever_they_stand(name):
    function, *expected = PROGRAMS[name]
    row = only_row(Program(function), 3)
    assert [row.matmul_operations, row.elementwise_operations] == expected


# Nested layers

NESTED = Stack(
    Embedding(11, 6),
    Bidirectional(GRU(5), Stack(RNN(LSTM(4), reverse=True), Dense(3))),
    Stack(RNN(GRU(8))),
    LastStep(),
    Dense(2),
)


def test_layers_in_layers_have_rows_with_their_path_and_features():
    rows = summarize(NESTED, None).layers
    assert [
        (row.path, row.name, row.in_features, row.out_features) for row in rows
    ] == [
        ("0", "Embedding", None, 6),
        ("1", "Bidirectional", 6, 8),
        ("1.forward", "RNN(GRU)", 6, 5),
        ("1.backward", "Stack", 6, 3),
        ("1.backward.0", "RNN(LSTM)", 6, 4),
        ("1.backward.1", "Dense", 4, 3),
        ("2", "Stack", 8, 8),
        ("2.0", "RNN(GRU)", 8, 8),
        ("3", "LastStep", 8, 8),
        ("4", "Dense", 8, 2),
    ]


def test_layers_in_layers_count_as_they_do_alone():
    rows = {row.path: row for row in summarize(NESTED, None).layers}
    alone = {
        "1.forward": only_row(RNN(GRU(5)), 6),
        "1.backward.0": only_row(RNN(LSTM(4)), 6),
        "1.backward.1": only_row(Dense(3), 4),
        "2.0": only_row(RNN(GRU(8)), 8),
        "4": only_row(Dense(2), 8),
    }
    for path, row in alone.items():
        assert rows[path] == row._replace(path=path)


def test_outer_layers_include_those_in_them():
    summary = summarize(NESTED, None)
    rows = {row.path: row for row in summary.layers}

    def numbers(*paths):
        return np.sum([rows[path][4:] for path in paths], axis=0).tolist()

    assert list(rows["1.backward"][4:]) == numbers("1.backward.0", "1.backward.1")
    assert list(rows["1"][4:]) == numbers("1.forward", "1.backward")
    assert list(rows["2"][4:]) == numbers("2.0")
    assert list(summary.total[4:]) == numbers("0", "1", "2", "3", "4")
    params = jax.eval_shape(NESTED.init, jax.random.key(0))
    assert summary.total.num_parameters == count_parameters(params)


def test_what_joins_layers_counts_for_the_outer_one():
    plain = summarize(Stack(RNN(GRU(4)), Dense(4)), 4)
    residual = summarize(Stack(RNN(GRU(4)), Dense(4), residual=True), 4)
    assert residual.layers == plain.layers
    assert residual.total.operations == plain.total.operations + 2 * 4
    mean = summarize(Bidirectional(GRU(5), GRU(5), merge="mean"), 3)
    parts = sum(row.operations for row in mean.layers)
    assert mean.total.operations == parts + 2 * 5


def test_the_network_is_left_as_it_was():
    layers = NESTED.layers
    summarize(NESTED, None)
    assert NESTED.layers is layers
    assert [type(layer).__name__ for layer in layers[1:3]] == ["Bidirectional", "Stack"]
    assert isinstance(layers[1].backward.layers[0], RNN)


def test_nothing_is_computed():
    hidden = 1_000_000  # the parameters would take 32 terabytes
    row = only_row(RNN(LSTM(hidden)), 3)
    assert row.num_parameters == 4 * hidden * (3 + hidden + 1)


def test_dropout_is_off():
    quiet, noisy = (
        summarize(Stack(RNN(GRU(4)), Dense(2), dropout=rate), 3) for rate in (0.0, 0.5)
    )
    assert quiet == noisy


# Printing


def test_table_has_a_line_for_each_layer_and_aligned_columns():
    lines = str(summarize(NESTED, None)).splitlines()
    assert len(lines) == 1 + 10 + 1 + 1
    assert lines[0].split() == [
        "layer",
        "type",
        "in",
        "out",
        "parameters",
        "bytes",
        "operations",
    ]
    assert len({len(line) for line in lines}) == 1
    assert set(lines[-2]) == {"-"}
    column = lines[0].index("type")
    assert all(line[column - 1] == " " for line in lines if line != lines[-2])
    assert lines[1].split() == ["0", "Embedding", "-", "6", "66", "264", "0"]
    assert lines[-1].split()[:4] == ["total", "Stack", "-", "2"]


def test_table_groups_thousands():
    text = str(summarize(RNN(LSTM(100)), 20))
    assert "48,400" in text
    assert "193,600" in text


def test_parameters_of_any_pytree_are_counted():
    tree = {"a": np.ones((3, 4)), "b": (jnp.ones(5), None, 2.0)}
    assert count_parameters(tree) == 3 * 4 + 5 + 1
    assert count_parameters(()) == 0


@pytest.mark.parametrize("in_features", [0, -1, 2.0, None], ids=str)
def test_features_are_checked(in_features):
    with pytest.raises(ValueError, match="in_features: expected a positive integer"):
        summarize(RNN(GRU(3)), in_features)
