"""Ours next to theirs: sizes, random numbers, runs, and entries that are spoilt."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gated_rnn import RNN, Bidirectional, Scan, Stack, StackCarry
from gated_rnn.conversion.entries import flatten

# Pairwise different, and so are 2H, F + H and every multiple by gates.
T, B, F, H, R = 7, 2, 5, 3, 4
FLOAT32 = 1e-5  # relative, max|a - b| / max|b|; seven steps of rounding
NUM_MUTATIONS = 500


def draw(seed, tree):
    """Return random normal numbers in the shapes of a tree, none of them zero."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: (0.6 * rng.normal(size=jnp.shape(leaf))).astype(np.float32), tree
    )


def draw_inputs(seed=100):
    return draw(seed, np.zeros((T, B, F)))


def draw_params(network, seed=1, in_features=F):
    """Return random parameters, biases included, as an initialiser would not."""
    shapes = jax.eval_shape(
        lambda key: network.init(key, in_features), jax.random.key(0)
    )
    return jax.tree.map(jnp.asarray, draw(seed, shapes))


def cells_of(network):
    """Return the cells of a network, bottom first, forward before backward."""
    layers = network.layers if isinstance(network, Stack) else (network,)
    cells = []
    for layer in layers:
        if isinstance(layer, Bidirectional):
            cells += [layer.forward.cell, layer.backward.cell]
        elif isinstance(layer, RNN):
            cells.append(layer.cell)
    return cells


def draw_carries(network, seed=200):
    """Return a random carry for each cell."""
    zeros = [cell.init_carry((B,)) for cell in cells_of(network)]
    return jax.tree.map(jnp.asarray, draw(seed, zeros))


def join_carry(network, carries):
    """Return the carry of a network, made of those of its cells."""
    rest = iter(carries)

    def join(layer):
        if isinstance(layer, Bidirectional):
            return layer.init_carry()._replace(forward=next(rest), backward=next(rest))
        return next(rest) if isinstance(layer, RNN) else ()

    if isinstance(network, Stack):
        time = jnp.zeros((B,), jnp.int32)
        return StackCarry(time, tuple(join(layer) for layer in network.layers))
    return join(network)


def split_carry(network, carry):
    """Return the carries of the cells of a network."""
    layers = network.layers if isinstance(network, Stack) else (network,)
    parts = carry.layers if isinstance(network, Stack) else (carry,)
    carries = []
    for layer, part in zip(layers, parts, strict=True):
        if isinstance(layer, Bidirectional):
            carries += list(part)
        elif isinstance(layer, RNN):
            carries.append(part)
    return carries


@jax.jit
def _run(network, params, inputs, carry, cotangents):
    def apply(inputs):
        carry_out, outputs = network.apply(params, inputs, carry)
        return outputs, split_carry(network, carry_out)

    results, transpose = jax.vjp(apply, inputs)
    return *results, transpose(cotangents)[0]


def plainly(layer):
    """Return a network run by the engine that is the quickest to compile."""
    if isinstance(layer, Stack):
        return Stack(*map(plainly, layer.layers))
    if isinstance(layer, Bidirectional):
        return Bidirectional(plainly(layer.forward), plainly(layer.backward))
    if isinstance(layer, RNN):
        return dataclasses.replace(layer, engine=Scan())
    return layer


def run_ours(network, params, inputs, carries, cotangents):
    """Return the outputs, the final carry of each cell, the gradient of the inputs.

    The gradient is that of the sum of outputs and final carries, each weighted by its
    cotangent.
    """
    carry = join_carry(network, carries)
    return _run(plainly(network), params, jnp.asarray(inputs), carry, cotangents)


def draw_cotangents(network, carries, out_features, seed=300):
    """Return weights of the outputs and of the final carries."""
    weights = draw(seed, (np.zeros((T, B, out_features)), carries))
    return jax.tree.map(jnp.asarray, weights)


def assert_close(actual, expected, tolerance=FLOAT32):
    """Compare two trees leaf by leaf, relative to the largest entry."""
    actual, expected = jax.tree.leaves(actual), jax.tree.leaves(expected)
    assert len(actual) == len(expected)
    for ours, theirs in zip(actual, expected, strict=True):
        ours, theirs = np.asarray(ours), np.asarray(theirs)
        assert ours.shape == theirs.shape
        scale = np.max(np.abs(theirs))
        assert scale > 0
        assert np.max(np.abs(ours - theirs)) <= tolerance * scale


def assert_same(actual, expected):
    """Compare two trees bit by bit, their structure included."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for ours, theirs in zip(
        jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True
    ):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


# Entries that are spoilt


def unflatten(flat):
    """Return nested dicts from paths."""
    tree = {}
    for path, value in flat.items():
        *parents, last = path.split("/")
        functools.reduce(lambda node, key: node.setdefault(key, {}), parents, tree)[
            last
        ] = value
    return tree


def spoil(rng, flat):
    """Return what was done, and a copy of named arrays in which one thing is wrong."""
    spoilt = dict(flat)
    name = str(rng.choice(sorted(flat)))
    value = np.asarray(flat[name])
    kinds = {
        "dropped": lambda: None,
        "renamed": lambda: None,
        "added": lambda: None,
        "cut": lambda: np.delete(value, 0, axis=rng.integers(value.ndim)),
        "widened": lambda: np.repeat(value, 2, axis=rng.integers(value.ndim)),
        "emptied": lambda: np.take(value, [], axis=rng.integers(value.ndim)),
        "transposed": lambda: value.T if len(set(value.shape)) > 1 else value[None],
        "given an axis": lambda: np.expand_dims(value, rng.integers(value.ndim + 1)),
        "flattened": lambda: value.reshape(-1, 1),
        "made integers": lambda: value.astype(np.int32),
        "made complex": lambda: value.astype(np.complex64),
        "given another dtype": lambda: value.astype(np.float64),
        "made text": lambda: "weights",
        "made an object": object,
        "made ragged": lambda: [[1.0], [1.0, 2.0]],
        "made a number": lambda: 1.0,
        "made a module": lambda: np,
    }
    kind = str(rng.choice(sorted(kinds)))
    if kind in ("dropped", "renamed"):
        del spoilt[name]
    if kind in ("renamed", "added"):
        letters = list(name)
        letters[rng.integers(len(letters))] = str(rng.choice(list("abcxyz019_")))
        other = "".join(letters)
        spoilt[other if other not in flat else name + "_"] = value
    elif kind != "dropped":
        spoilt[name] = kinds[kind]()
    return f"{name} {kind}", spoilt


def assert_refused_in_one_line(convert, source, what):
    """Check that nothing but a ValueError of one line comes of a source."""
    with pytest.raises(ValueError) as caught:
        convert(source)
    message = str(caught.value)
    assert type(caught.value) is ValueError, what
    assert "\n" not in message, what
    assert "expected" in message, what


def assert_every_spoilt_source_is_refused(convert, source):
    """Spoil the leaves of a tree in many ways, one at a time."""
    flat = flatten(source)
    convert(unflatten(flat))
    rng = np.random.default_rng(0)
    for _ in range(NUM_MUTATIONS):
        what, spoilt = spoil(rng, flat)
        try:
            assert_refused_in_one_line(convert, unflatten(spoilt), what)
        except pytest.fail.Exception:
            pytest.fail(f"accepted: {what}")
