"""docs/conventions.md: every row of its tables, run by the library itself.

Each library steps through a sequence on random parameters, and a NumPy loop made of the
words of the row must do the same. What the row does not say must disagree.
"""

import functools
import itertools
import os
import pathlib
import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gated_rnn import GRU, LSTM
from gated_rnn.initializers import Zeros
from tests.conversion import comparing
from tests.conversion.comparing import B, F, H

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "conventions.md"
NUM_STEPS = 4
MANY = 400  # hidden features, where a distribution shows
ZEROS = jax.nn.initializers.zeros  # quicker than an orthogonal matrix of that size


def read_table(first_column):
    """Return the rows of the page's table whose header begins so, by library."""
    lines = PAGE.read_text().splitlines()
    header = next(n for n, line in enumerate(lines) if line.startswith(first_column))
    rows = itertools.takewhile(lambda line: line.startswith("|"), lines[header + 2 :])
    names, *cells = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in (lines[header], *rows)
    ]
    return {row[0]: dict(zip(names, row, strict=True)) for row in cells}


LSTM_ROWS = read_table("| library | carry |")
GRU_ROWS = read_table("| library | gates |")


class Library(NamedTuple):
    """A cell of a library, its arrays as it stores them.

    Attributes:
        kernel: `[F, G*H]`, transposed if it is stored so.
        recurrent_kernel: `[H, G*H]`.
        input_bias: `[G*H]`, on the side of the inputs, or None.
        hidden_bias: The same on the other side; `[H]` if n's alone; or None.
        shape: Of what it stores as its kernel, in letters.
        step: A function (carry, inputs) -> carry; the LSTM's carry is a pair.
        forget_biases: What the library gives to f, for `MANY` hidden features.
        compiled: Whether the step runs in JAX.
    """

    kernel: np.ndarray
    recurrent_kernel: np.ndarray
    input_bias: np.ndarray | None
    hidden_bias: np.ndarray | None
    shape: str
    step: object
    forget_biases: tuple = ()
    compiled: bool = True


def letters(shape, num_gates):
    """Write a shape as the page does."""
    names = {F: "F", F + H: "F+H", H: "H", num_gates * H: f"{num_gates}H"}
    return f"[{', '.join(names[size] for size in shape)}]"


def keras_cell(name, seed, *args, **kwargs):
    """Return a cell of Keras, and its weights: random ones if there is a seed."""
    os.environ.setdefault("KERAS_BACKEND", "jax")
    cell = getattr(pytest.importorskip("keras").layers, name)(*args, **kwargs)
    cell.build((B, F))
    weights = [np.asarray(variable.value) for variable in cell.weights]
    if seed is not None:
        weights = comparing.draw(seed, weights)
        for variable, drawn in zip(cell.weights, weights, strict=True):
            variable.assign(drawn)
    return cell, weights


# The libraries' LSTMs


def our_lstm(order):
    def init(features):
        cell = LSTM(features, recurrent_init=Zeros())
        return cell.init(jax.random.key(0), F)

    params = comparing.draw(1, init(H))
    cell, carry_type = LSTM(H), type(LSTM(H).init_carry())

    def step(carry, inputs):
        carry, _ = cell.step(params, carry_type(*carry), inputs)
        return carry.hidden, carry.cell

    return Library(
        params.kernel,
        params.recurrent_kernel,
        params.bias,
        None,
        letters(params.kernel.shape, 4),
        step,
        (init(MANY).bias[MANY : 2 * MANY],),
    )


def linen_lstm(order):
    linen = pytest.importorskip("flax.linen")
    zeros = np.zeros((B, H), np.float32)

    def init(features):
        cell = linen.LSTMCell(features, recurrent_kernel_init=ZEROS)
        carry = np.zeros((B, features), np.float32)
        inputs = np.zeros((B, F), np.float32)
        return cell.init(jax.random.key(0), (carry, carry), inputs)["params"]

    params = comparing.draw(2, init(zeros.shape[1]))
    sides = {
        side: np.concatenate([params[side + gate]["kernel"] for gate in order], axis=1)
        for side in "ih"
    }
    return Library(
        sides["i"],
        sides["h"],
        None,
        np.concatenate([params["h" + gate]["bias"] for gate in order]),
        letters(params["ii"]["kernel"].shape, 4) + " each",
        lambda carry, x: linen.LSTMCell(H).apply({"params": params}, carry, x)[0],
        (init(MANY)["hf"]["bias"],),
    )


def nnx_lstm(order):
    nnx = pytest.importorskip("flax.nnx")
    cell = nnx.OptimizedLSTMCell(F, H, rngs=nnx.Rngs(0))
    state = nnx.state(cell, nnx.Param)
    params = comparing.draw(3, nnx.to_pure_dict(state))
    nnx.replace_by_pure_dict(state, params)
    nnx.update(cell, state)
    many = nnx.OptimizedLSTMCell(F, MANY, recurrent_kernel_init=ZEROS, rngs=nnx.Rngs(0))
    return Library(
        params["dense_i"]["kernel"],
        params["dense_h"]["kernel"],
        None,
        params["dense_h"]["bias"],
        letters(params["dense_i"]["kernel"].shape, 4),
        lambda carry, inputs: cell(carry, inputs)[0],
        (many.dense_h.bias[...][MANY : 2 * MANY],),
    )


def haiku_lstm(order):
    hk = pytest.importorskip("haiku")

    def cell(features):
        return hk.without_apply_rng(hk.transform(lambda x, s: hk.LSTM(features)(x, s)))

    def init(features):
        zeros = np.zeros((B, features), np.float32)
        state = hk.LSTMState(zeros, zeros)
        inputs = np.zeros((B, F), np.float32)
        return cell(features).init(jax.random.key(0), inputs, state)

    params = comparing.draw(4, init(H))
    weights = params["lstm/linear"]["w"]

    def step(carry, inputs):
        state = hk.LSTMState(*carry)
        return tuple(cell(H).apply(params, inputs, state)[1])

    f = order.index("f")
    return Library(
        weights[:F],
        weights[F:],
        params["lstm/linear"]["b"],
        None,
        letters(weights.shape, 4),
        step,
        (init(MANY)["lstm/linear"]["b"][f * MANY : (f + 1) * MANY],),
    )


def equinox_lstm(order):
    eqx = pytest.importorskip("equinox")
    cell = eqx.nn.LSTMCell(F, H, key=jax.random.key(0))
    cell = eqx.combine(comparing.draw(5, eqx.filter(cell, eqx.is_array)), cell)
    many = eqx.nn.LSTMCell(F, MANY, key=jax.random.key(0))
    return Library(
        cell.weight_ih.T,
        cell.weight_hh.T,
        cell.bias,
        None,
        letters(cell.weight_ih.shape, 4),
        lambda carry, inputs: jax.vmap(cell)(inputs, carry),
        (many.bias[MANY : 2 * MANY],),
    )


def keras_lstm(order):
    cell, weights = keras_cell("LSTMCell", 6, H)
    _, many = keras_cell("LSTMCell", None, MANY, recurrent_initializer="zeros")
    return Library(
        *weights[:2],
        weights[2],
        None,
        letters(weights[0].shape, 4),
        lambda carry, inputs: tuple(cell(inputs, list(carry))[1]),
        (many[2][MANY : 2 * MANY],),
    )


def torch_cell(name, num_gates, seed):
    """Return a library whose step is given the function that runs the cell."""
    torch = pytest.importorskip("torch")
    cell = getattr(torch.nn, name)(F, H)
    with torch.no_grad():
        for number, parameter in enumerate(cell.parameters()):
            drawn = comparing.draw(seed + number, np.zeros(parameter.shape))
            parameter.copy_(torch.from_numpy(drawn))

    def step(carry, inputs):
        tensors = jax.tree.map(lambda leaf: torch.tensor(np.asarray(leaf)), carry)
        with torch.no_grad():
            return jax.tree.map(
                lambda leaf: leaf.numpy(), cell(torch.tensor(inputs), tensors)
            )

    arrays = {name: p.detach().numpy() for name, p in cell.named_parameters()}
    many = getattr(torch.nn, name)(F, MANY)
    f = slice(MANY, 2 * MANY)
    return Library(
        arrays["weight_ih"].T,
        arrays["weight_hh"].T,
        arrays["bias_ih"],
        arrays["bias_hh"],
        letters(arrays["weight_ih"].shape, num_gates),
        step,
        (many.bias_ih.detach().numpy()[f], many.bias_hh.detach().numpy()[f]),
        compiled=False,
    )


def cudnn_lstm(order):
    from jax.experimental import rnn

    shapes = rnn.init_lstm_weight(jax.random.key(0), F, H, 1, False)
    parts = rnn.unpack_lstm_weights(comparing.draw(7, shapes), F, H, 1, False)
    w, u, input_bias, hidden_bias = (part[0] for part in parts)

    def step(carry, inputs):
        _, hidden, cell = rnn.lstm_ref(
            inputs[:, None],
            *(jnp.asarray(part)[None] for part in carry),
            *parts,
            jnp.ones(B, jnp.int32),
            F,
            H,
            1,
            0.0,
            False,
        )
        return hidden[0], cell[0]

    many = rnn.init_lstm_weight(jax.random.key(0), F, MANY, 1, False)
    biases = rnn.unpack_lstm_weights(many, F, MANY, 1, False)[2:]
    return Library(
        w.T,
        u.T,
        input_bias,
        hidden_bias,
        letters(w.shape, 4),
        step,
        tuple(bias[0][MANY : 2 * MANY] for bias in biases),
    )


LSTMS = {
    "gated_rnn": our_lstm,
    "Flax linen": linen_lstm,
    "Flax nnx": nnx_lstm,
    "Haiku": haiku_lstm,
    "Equinox": equinox_lstm,
    "Keras 3": keras_lstm,
    "PyTorch": lambda order: torch_cell("LSTMCell", 4, 10),
    "jax.experimental.rnn": cudnn_lstm,
}


# The libraries' GRUs


def our_gru(order, reset_after=True):
    cell = GRU(H, reset_after=reset_after)
    params = comparing.draw(20, cell.init(jax.random.key(0), F))
    carry_type = type(cell.init_carry())
    return Library(
        params.kernel,
        params.recurrent_kernel,
        params.bias,
        params.recurrent_bias,
        letters(params.kernel.shape, 3),
        lambda carry, x: cell.step(params, carry_type(jnp.asarray(carry)), x)[1],
    )


def linen_gru(order):
    linen = pytest.importorskip("flax.linen")
    cell = linen.GRUCell(H)
    zeros = (np.zeros((B, H), np.float32), np.zeros((B, F), np.float32))
    params = comparing.draw(21, cell.init(jax.random.key(0), *zeros)["params"])
    sides = {
        side: np.concatenate([params[side + gate]["kernel"] for gate in order], axis=1)
        for side in "ih"
    }
    return Library(
        sides["i"],
        sides["h"],
        np.concatenate([params["i" + gate]["bias"] for gate in order]),
        params["hn"]["bias"],
        letters(params["ir"]["kernel"].shape, 3) + " each",
        lambda carry, inputs: cell.apply({"params": params}, carry, inputs)[0],
    )


def nnx_gru(order):
    nnx = pytest.importorskip("flax.nnx")
    cell = nnx.GRUCell(F, H, rngs=nnx.Rngs(0))
    state = nnx.state(cell, nnx.Param)
    params = comparing.draw(22, nnx.to_pure_dict(state))
    nnx.replace_by_pure_dict(state, params)
    nnx.update(cell, state)
    return Library(
        params["dense_i"]["kernel"],
        params["dense_h"]["kernel"],
        params["dense_i"]["bias"],
        params["dense_h"].get("bias"),
        letters(params["dense_i"]["kernel"].shape, 3),
        lambda carry, inputs: cell(carry, inputs)[0],
    )


def haiku_gru(order):
    hk = pytest.importorskip("haiku")
    cell = hk.without_apply_rng(hk.transform(lambda x, h: hk.GRU(H)(x, h)))
    zeros = (np.zeros((B, F), np.float32), np.zeros((B, H), np.float32))
    params = comparing.draw(23, cell.init(jax.random.key(0), *zeros))
    arrays = params["gru"]
    return Library(
        arrays["w_i"],
        arrays["w_h"],
        arrays["b"],
        None,
        letters(arrays["w_i"].shape, 3),
        lambda carry, inputs: cell.apply(params, inputs, carry)[1],
    )


def equinox_gru(order):
    eqx = pytest.importorskip("equinox")
    cell = eqx.nn.GRUCell(F, H, key=jax.random.key(0))
    cell = eqx.combine(comparing.draw(24, eqx.filter(cell, eqx.is_array)), cell)
    return Library(
        cell.weight_ih.T,
        cell.weight_hh.T,
        cell.bias,
        cell.bias_n,
        letters(cell.weight_ih.shape, 3),
        lambda carry, inputs: jax.vmap(cell)(inputs, carry),
    )


def keras_gru(order, reset_after=True):
    cell, weights = keras_cell("GRUCell", 25, H, reset_after=reset_after)
    biases = weights[2] if reset_after else (weights[2], None)
    return Library(
        *weights[:2],
        *biases,
        letters(weights[0].shape, 3),
        lambda carry, inputs: cell(inputs, [carry])[1][0],
    )


GRUS = {
    "gated_rnn": our_gru,
    "gated_rnn, reset_after=False": functools.partial(our_gru, reset_after=False),
    "Flax linen": linen_gru,
    "Flax nnx": nnx_gru,
    "Haiku": haiku_gru,
    "Equinox": equinox_gru,
    "Keras 3": keras_gru,
    "Keras 3, reset_after=False": functools.partial(keras_gru, reset_after=False),
    "PyTorch": lambda order: torch_cell("GRUCell", 3, 30),
}


# What a row says, in NumPy


def sigmoid(values):
    return 1 / (1 + np.exp(-values))


def preactivations(library, order, carry, inputs):
    """Return both sides of each gate, float64."""

    def split(packed):
        blocks = np.split(np.asarray(packed, np.float64), len(order), axis=-1)
        return dict(zip(order, blocks, strict=True))

    zeros = np.zeros(library.kernel.shape[1])
    of_inputs = split(inputs @ library.kernel)
    of_hidden = split(carry @ library.recurrent_kernel)
    biases = []
    for bias in (library.input_bias, library.hidden_bias):
        if bias is not None and len(bias) == H:  # n's alone
            biases.append(dict.fromkeys(order, 0.0) | {"n": np.asarray(bias)})
        else:
            biases.append(split(zeros if bias is None else bias))
    return (
        {gate: of_inputs[gate] + biases[0][gate] for gate in order},
        {gate: of_hidden[gate] + biases[1][gate] for gate in order},
    )


ADDED = {"f": 0.0, "f + 1": 1.0}


def lstm_of_row(row, library, carry, inputs):
    names = re.findall(r"\w", row["carry"])
    order = row["gates"].split()
    values = dict(zip(names, carry, strict=True))
    of_inputs, of_hidden = preactivations(library, order, values["h"], inputs)
    total = {gate: of_inputs[gate] + of_hidden[gate] for gate in order}
    f = sigmoid(total["f"] + ADDED[row["f as it runs"]])
    c = f * values["c"] + sigmoid(total["i"]) * np.tanh(total["g"])
    after = {"h": sigmoid(total["o"]) * np.tanh(c), "c": c}
    return tuple(after[name] for name in names)


UPDATES = {
    "(1 - z) n + z h": lambda z, n, h: (1 - z) * n + z * h,
    "(1 - z) h + z n": lambda z, n, h: (1 - z) * h + z * n,
}


def gru_of_row(row, library, carry, inputs):
    order = row["gates"].split()
    of_inputs, of_hidden = preactivations(library, order, carry, inputs)
    r, z = (sigmoid(of_inputs[gate] + of_hidden[gate]) for gate in "rz")
    if row["reset"] == "after":
        hidden = r * of_hidden["n"]
    else:
        n = order.index("n")
        kernel = np.split(np.asarray(library.recurrent_kernel), 3, axis=1)[n]
        hidden = (r * carry) @ kernel
    return UPDATES[row["h'"]](z, np.tanh(of_inputs["n"] + hidden), carry)


INPUTS = comparing.draw(40, np.zeros((NUM_STEPS, B, F)))


def measure_distance(library, step_of_row, carry):
    """Return a function of a row: how far a library is from it after some steps."""
    step = jax.jit(library.step) if library.compiled else library.step
    theirs = carry
    for inputs in INPUTS:
        theirs = step(theirs, inputs)
    theirs = [np.asarray(leaf) for leaf in jax.tree.leaves(theirs)]

    def distance(row):
        ours = jax.tree.map(np.float64, carry)
        for inputs in INPUTS:
            ours = step_of_row(row, library, ours, inputs)
        return max(
            np.max(np.abs(mine - other)) / np.max(np.abs(mine))
            for mine, other in zip(jax.tree.leaves(ours), theirs, strict=True)
        )

    return distance


BIASES = {
    "one": (True, False),
    "two": (True, True),
    "input side": (True, False),
    "input side, and d_n": (True, True),
    "hidden side": (False, True),
}
FAR = 1e-2  # what disagrees does so in the second digit at least


def assert_biases_are_as_stated(row, library):
    has = (library.input_bias is not None, library.hidden_bias is not None)
    assert has == BIASES[row["biases"]]
    alone = has[1] and len(library.hidden_bias) == H
    assert alone == ("d_n" in row["biases"])


def test_page_has_a_row_for_every_library():
    assert list(LSTM_ROWS) == list(LSTMS)
    assert list(GRU_ROWS) == list(GRUS)


@functools.cache
def lstm(name):
    return LSTMS[name](LSTM_ROWS[name]["gates"].split())


@pytest.mark.parametrize("name", LSTMS)
def test_lstm_is_what_its_row_says_and_nothing_else(name):
    row, library = LSTM_ROWS[name], lstm(name)
    assert library.shape == row["kernels"]
    assert_biases_are_as_stated(row, library)
    carry = tuple(comparing.draw(41, [np.zeros((B, H))] * 2))
    distance = measure_distance(library, lstm_of_row, carry)
    assert distance(row) < comparing.FLOAT32
    orders = itertools.permutations(row["gates"].split())
    others = [row | {"gates": " ".join(order)} for order in orders]
    others += [row | {"carry": carry} for carry in ("(h, c)", "(c, h)")]
    others += [row | {"f as it runs": added} for added in ADDED]
    for other in others:
        if other != row:
            assert distance(other) > FAR, other


@pytest.mark.parametrize("name", LSTMS)
def test_forget_bias_begins_as_its_row_says(name):
    row, bound = LSTM_ROWS[name], 1 / np.sqrt(MANY)
    for bias in lstm(name).forget_biases:
        assert bias.shape == (MANY,)
        if row["f's bias at the start"] == "uniform":
            assert 0.95 * bound < np.max(bias) <= bound
            assert 0.95 * bound < -np.min(bias) <= bound
        else:
            np.testing.assert_array_equal(bias, float(row["f's bias at the start"]))


@pytest.mark.parametrize("name", GRUS)
def test_gru_is_what_its_row_says_and_nothing_else(name):
    row = GRU_ROWS[name]
    library = GRUS[name](row["gates"].split())
    assert library.shape == row["kernels"]
    assert_biases_are_as_stated(row, library)
    carry = comparing.draw(42, np.zeros((B, H)))
    distance = measure_distance(library, gru_of_row, carry)
    assert distance(row) < comparing.FLOAT32
    orders = itertools.permutations(row["gates"].split())
    others = [row | {"gates": " ".join(order)} for order in orders]
    others += [row | {"h'": update} for update in UPDATES]
    others += [row | {"reset": place} for place in ("before", "after")]
    for other in others:
        if other != row:
            assert distance(other) > FAR, other


def test_negated_z_is_the_other_update():
    row = GRU_ROWS["gated_rnn"]
    library = our_gru(row["gates"].split())

    def negate(packed):
        r, z, n = np.split(packed, 3, axis=-1)
        return np.concatenate([r, -z, n], axis=-1)

    def negated_step(row, library, carry, inputs):
        negated = library._replace(
            kernel=negate(library.kernel),
            recurrent_kernel=negate(library.recurrent_kernel),
            input_bias=negate(library.input_bias),
        )
        return gru_of_row(row, negated, carry, inputs)

    carry = comparing.draw(43, np.zeros((B, H)))
    distance = measure_distance(library, negated_step, carry)
    assert distance(row | {"h'": "(1 - z) h + z n"}) < comparing.FLOAT32
    assert distance(row) > FAR
