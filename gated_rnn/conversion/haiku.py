"""Haiku: `hk.LSTM`, `hk.GRU`, `hk.VanillaRNN`, `hk.Linear` (layer 4).

The LSTM has one matrix for inputs above hidden, gates i g f o, and adds 1 to the forget
gate as it runs; the GRU has gates z r n, resets before, and its z multiplies the new n.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from gated_rnn.cells import GRU, LSTM, Elman
from gated_rnn.conversion.entries import Entries, flatten, show_names
from gated_rnn.conversion.flax_trees import zero_bias
from gated_rnn.conversion.gates import join_gates, merge_biases, split_gates
from gated_rnn.conversion.layers import (
    CellAndParams,
    join_directions,
    join_layers,
    split_directions,
    split_layers,
)
from gated_rnn.conversion.packed_cells import (
    Packed,
    check_cell,
    make_dense,
    make_elman,
    make_gru,
    make_lstm,
    pack_dense,
    pack_elman,
    pack_gru,
    pack_lstm,
)
from gated_rnn.networks import Dense, Network
from gated_rnn.types import DType, Params, invalid

__all__ = ["from_haiku", "to_haiku"]

LSTM_GATES = ("i", "g", "f", "o")
GRU_GATES = ("z", "r", "n")
FORGET_BIAS = 1.0  # added by hk.LSTM in the forward pass
Modules = Sequence[str | Sequence[str]]
_GRU_ENTRIES = {"w_i", "w_h", "b"}
_OWN_LINEAR = re.compile(r"((?:^|/)(?:lstm|vanilla_rnn)(?:_\d+)?)/linear(?:_1)?$")


def from_haiku(
    source: Mapping[str, Any],
    modules: Modules | None = None,
    *,
    dtype: DType | None = None,
) -> tuple[Network, Params]:
    """Return the network and the parameters of Haiku modules.

    The 1 that `hk.LSTM` adds to the forget gate becomes a part of the bias, and the
    update gate of `hk.GRU` is negated; its GRU resets before. An `hk.VanillaRNN` is an
    `Elman` with relu.

    Args:
        source: The parameters that `hk.transform` gives.
        modules: The names of the layers' modules in `source`, bottom first, such as
            ["lstm", "lstm_1", "linear"]; two names for a layer of both directions,
            forward first. Other modules are left alone. None: there is one module.
        dtype: dtype of the parameters; None: that of the entries.

    Returns:
        An `RNN`, a `Bidirectional`, a `Dense`, or a `Stack` of them; and the
        parameters.

    Raises:
        ValueError: If an entry is missing, extra, or of a wrong shape or dtype.

    Examples:
        >>> w = np.ones((5, 12), np.float32)
        >>> source = {"lstm/linear": {"w": w, "b": np.zeros(12, np.float32)}}
        >>> network, params = from_haiku(source)
        >>> network.cell.hidden_features, params.bias.tolist()[3:6]  # forget gate
        (3, [1.0, 1.0, 1.0])
    """
    if not isinstance(source, Mapping):
        expected = "a mapping from modules to parameters"
        raise invalid("source", expected, f"a {type(source).__name__}")
    entries = Entries(flatten(source), dtype=dtype)
    alone = modules is None
    layers = []
    for names in [_only_module(entries)] if modules is None else modules:
        names = [names] if isinstance(names, str) else names
        layers.append(_take_layer([entries.within(f"{name}/") for name in names]))
        for name in names:
            entries.within("" if alone else f"{name}/").finish()
    if not layers:
        raise invalid("modules", "at least one name", "none")
    return join_layers(layers)


def to_haiku(
    network: Network, params: Params, modules: Modules | None = None
) -> dict[str, dict[str, np.ndarray]]:
    """Return the parameters of the Haiku modules that equal a network.

    Args:
        network: The network.
        params: Its parameters.
        modules: The names of the layers' modules, as `from_haiku` takes them; None:
            those that Haiku gives if they are made in this order: lstm, lstm_1, gru,
            vanilla_rnn, linear.

    Raises:
        ValueError: If Haiku has no such module.

    Examples:
        >>> from gated_rnn import GRU, RNN
        >>> network = RNN(GRU(3, reset_after=False))
        >>> params = network.init(jax.random.key(0), in_features=2)
        >>> sorted(to_haiku(network, params)["gru"])
        ['b', 'w_h', 'w_i']
    """
    pairs = split_layers(network, params)
    written = [_write_layer(*pair) for pair in pairs]
    if modules is None:
        modules = _default_names([[kind for kind, _ in layer] for layer in written])
    if len(modules) != len(written):
        raise invalid("modules", f"names of {len(written)} layers", len(modules))
    haiku = {}
    for names, layer in zip(modules, written, strict=True):
        names = [names] if isinstance(names, str) else names
        if len(names) != len(layer):
            raise invalid(
                "modules", f"{len(layer)} names for a layer", show_names(names)
            )
        for name, (_, tree) in zip(names, layer, strict=True):
            haiku |= {f"{name}{inner}": arrays for inner, arrays in tree.items()}
    return haiku


def _only_module(entries: Entries) -> str:
    """Return the name of the one recurrent module that there is.

    The linear layers of an LSTM that was given a name of its own look like those of any
    module, so only Haiku's own names are taken at their word.
    """
    owners = list(dict.fromkeys(name.rpartition("/")[0] for name in entries))
    names = {_OWN_LINEAR.sub(r"\1", owner) for owner in owners}
    found = names.pop()
    if names or (found in owners and f"{found}/w_h" not in entries):
        expected = "the names of the layers' modules, bottom first"
        raise invalid("modules", expected, f"None for {show_names(owners)}")
    return found


def _take_layer(views: Sequence[Entries]) -> tuple[Network, Params]:
    if len(views) == 1 and "w" in views[0]:
        kernel = views[0].take("w", (None, None))
        bias = views[0].take("b", kernel.shape[1:]) if "b" in views[0] else None
        return make_dense(kernel, bias)
    if len(views) not in (1, 2):
        raise invalid("modules", "one or two names for a layer", len(views))
    return join_directions([_take_cell(entries) for entries in views])


def _take_cell(entries: Entries) -> CellAndParams:
    children = set(entries.children())
    if children == {"linear", "linear_1"}:
        return _take_vanilla(entries)
    if children == {"linear"}:
        return _take_lstm(entries)
    if children == _GRU_ENTRIES:
        return _take_gru(entries)
    names = show_names([entries.prefix + child for child in entries.children()])
    expected = "an hk.LSTM, hk.GRU or hk.VanillaRNN"
    raise invalid(f"module {entries.prefix[:-1]!r}", expected, names)


def _take_lstm(entries: Entries) -> CellAndParams:
    rows, columns = entries.shape("linear/w", 2)
    hidden = columns // 4
    if columns % 4 or rows <= hidden:
        name = f"{entries.prefix}linear/w"
        raise invalid(name, "shape (F + H, 4 H)", f"shape {(rows, columns)}")
    weights = entries.take("linear/w", (rows, columns))
    blocks = split_gates(entries.take("linear/b", (columns,)), LSTM_GATES)
    blocks["f"] = blocks["f"] + np.asarray(FORGET_BIAS, blocks["f"].dtype)
    kernel, recurrent_kernel = weights[:-hidden], weights[-hidden:]
    bias = join_gates(blocks, LSTM_GATES)
    return make_lstm(Packed(kernel, recurrent_kernel, bias), LSTM_GATES)


def _take_gru(entries: Entries) -> CellAndParams:
    hidden, _ = entries.shape("w_h", 2)
    packed = Packed(
        kernel=entries.take("w_i", (None, 3 * hidden)),
        recurrent_kernel=entries.take("w_h", (hidden, 3 * hidden)),
        bias=entries.take("b", (3 * hidden,)),
    )
    return make_gru(_negate_z(packed), GRU_GATES, reset_after=False)


def _take_vanilla(entries: Entries) -> CellAndParams:
    hidden, _ = entries.shape("linear_1/w", 2)
    kernel = entries.take("linear/w", (None, hidden))
    recurrent_kernel = entries.take("linear_1/w", (hidden, hidden))
    bias = entries.take("linear/b", (hidden,))
    if "linear_1/b" in entries:  # double_bias
        bias = merge_biases(bias, entries.take("linear_1/b", (hidden,)))
    return make_elman(Packed(kernel, recurrent_kernel, bias), jax.nn.relu)


def _negate_z(packed: Packed) -> Packed:
    """Return the GRU whose z is one minus the other's."""

    def negate(array: np.ndarray) -> np.ndarray:
        blocks = split_gates(array, GRU_GATES)
        return join_gates(blocks | {"z": -blocks["z"]}, GRU_GATES)

    return packed._replace(
        kernel=negate(packed.kernel),
        recurrent_kernel=negate(packed.recurrent_kernel),
        bias=None if packed.bias is None else negate(packed.bias),
    )


def _write_layer(layer: Network, params: Params) -> list[tuple[str, dict[str, Any]]]:
    """Return Haiku's default name and the tree of each module of a layer."""
    if isinstance(layer, Dense):
        kernel, bias = pack_dense(params)
        return [("linear", {"": {"w": kernel} | ({} if bias is None else {"b": bias})})]
    return [_write_cell(each) for each in split_directions(layer, params)]


def _write_cell(each: CellAndParams) -> tuple[str, dict[str, Any]]:
    cell, params = each
    check_cell(cell, LSTM, GRU, Elman)
    if isinstance(cell, GRU):
        packed = _negate_z(pack_gru(cell, params, GRU_GATES, reset_after=False))
        bias = zero_bias(packed.bias, packed.kernel)
        tree = {"w_i": packed.kernel, "w_h": packed.recurrent_kernel, "b": bias}
        return "gru", {"": tree}
    if isinstance(cell, Elman):
        packed = pack_elman(cell, params, "relu")
        bias = zero_bias(packed.bias, packed.kernel)
        return "vanilla_rnn", {
            "/linear": {"w": packed.kernel, "b": bias},
            "/linear_1": {"w": packed.recurrent_kernel, "b": np.zeros_like(bias)},
        }
    packed = pack_lstm(cell, params, LSTM_GATES)
    bias = split_gates(zero_bias(packed.bias, packed.kernel), LSTM_GATES)
    bias["f"] = bias["f"] - np.asarray(FORGET_BIAS, bias["f"].dtype)
    weights = np.concatenate([packed.kernel, packed.recurrent_kernel])
    return "lstm", {"/linear": {"w": weights, "b": join_gates(bias, LSTM_GATES)}}


def _default_names(kinds: Sequence[Sequence[str]]) -> list[list[str]]:
    """Number the modules as Haiku does: lstm, lstm_1, lstm_2."""
    counts: dict[str, int] = {}
    names = []
    for layer in kinds:
        names.append([])
        for kind in layer:
            number = counts[kind] = counts.get(kind, -1) + 1
            names[-1].append(f"{kind}_{number}" if number else kind)
    return names
