"""The trees of Flax' layers, which linen and nnx share but for some names (layer 4).

`nn.RNN` keeps its cell under "cell", `nn.Bidirectional` its layers under "forward_rnn"
and "backward_rnn".
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from gated_rnn.conversion.entries import Entries, flatten, show_names
from gated_rnn.conversion.gates import join_gates, split_gates
from gated_rnn.conversion.layers import (
    CellAndParams,
    join_directions,
    join_layers,
    split_directions,
    split_layers,
)
from gated_rnn.conversion.packed_cells import Packed, make_dense, pack_dense
from gated_rnn.networks import Dense, Network, Stack
from gated_rnn.types import DType, Params, invalid

__all__ = [
    "read_tree",
    "take_gates",
    "unknown_cell",
    "write_gates",
    "write_layers",
    "zero_bias",
]

ReadCell = Callable[[Entries], CellAndParams]
WriteCell = Callable[[CellAndParams], dict[str, Any]]
_DIRECTIONS = ("forward_rnn", "backward_rnn")


def read_tree(
    source: Mapping[Any, Any] | Sequence[Any],
    read_cell: ReadCell,
    layer_name: str,
    dtype: DType | None,
) -> tuple[Network, Params]:
    """Return the network of a tree of parameters.

    Args:
        source: The tree of a cell or a layer, or a sequence of them, bottom first.
        read_cell: Takes the entries of one cell.
        layer_name: What the path of a layer of a `Sequential` is, with {} for its
            number.
        dtype: dtype of the parameters; None: that of the entries.
    """
    if isinstance(source, Sequence) and not isinstance(source, str | bytes):
        source = {layer_name.format(number): tree for number, tree in enumerate(source)}
    if not isinstance(source, Mapping):
        expected = "the parameters of a layer, or a sequence of them"
        raise invalid("source", expected, f"a {type(source).__name__}")
    entries = Entries(flatten(source), dtype=dtype)
    if entries.children() == ["params"]:
        entries = entries.within("params/")
    layers = []
    while list(within := entries.within(layer_name.format(len(layers)) + "/")):
        layers.append(_read_layer(within, read_cell))
    if not layers:
        layers.append(_read_layer(entries, read_cell))
    entries.finish()
    return join_layers(layers)


def _read_layer(entries: Entries, read_cell: ReadCell) -> tuple[Network, Params]:
    children = entries.children()
    if set(children) == set(_DIRECTIONS):
        return join_directions(
            [_read_rnn(entries.within(f"{name}/"), read_cell) for name in _DIRECTIONS]
        )
    if "kernel" in entries:
        kernel = entries.take("kernel", (None, None))
        has_bias = "bias" in entries
        bias = entries.take("bias", kernel.shape[1:]) if has_bias else None
        return make_dense(kernel, bias)
    return join_directions([_read_rnn(entries, read_cell)])


def _read_rnn(entries: Entries, read_cell: ReadCell) -> CellAndParams:
    """Read a cell, or the layer that has it under "cell"."""
    inside = entries.within("cell/") if entries.children() == ["cell"] else entries
    return read_cell(inside)


def unknown_cell(entries: Entries) -> ValueError:
    """Return the error that says what is there instead of a cell."""
    expected = "an LSTMCell, OptimizedLSTMCell, GRUCell or SimpleCell"
    names = show_names([entries.prefix + child for child in entries.children()])
    return invalid(entries.prefix or "source", expected, names)


def take_gates(
    entries: Entries,
    gates: Sequence[str],
    bias_side: str,
    renamed: Mapping[str, str] = MappingProxyType({}),
) -> Packed:
    """Take a kernel of each gate and side, and a bias of each gate on one side.

    Args:
        entries: Entries such as "ii/kernel", "hi/kernel" and "hi/bias".
        gates: The gates, in the order of the result.
        bias_side: "i" or "h".
        renamed: Names that differ from a side and a gate.
    """

    def take(name: str, part: str, *shape: int) -> np.ndarray:
        return entries.take(f"{renamed.get(name, name)}/{part}", shape)

    first = f"i{gates[0]}"
    in_features, features = entries.shape(f"{renamed.get(first, first)}/kernel", 2)
    kernel, recurrent_kernel, bias = {}, {}, {}
    for gate in gates:
        kernel[gate] = take(f"i{gate}", "kernel", in_features, features)
        recurrent_kernel[gate] = take(f"h{gate}", "kernel", features, features)
        bias[gate] = take(f"{bias_side}{gate}", "bias", features)
    return Packed(
        *(join_gates(part, gates) for part in (kernel, recurrent_kernel, bias))
    )


def write_gates(
    packed: Packed,
    gates: Sequence[str],
    bias_side: str,
    renamed: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, dict[str, np.ndarray]]:
    """Return the tree that `take_gates` reads; zeros stand in for absent biases."""
    bias = split_gates(zero_bias(packed.bias, packed.kernel), gates)
    tree: dict[str, dict[str, np.ndarray]] = {}
    for side, kernel in (("i", packed.kernel), ("h", packed.recurrent_kernel)):
        for gate, block in split_gates(kernel, gates).items():
            name = renamed.get(side + gate, side + gate)
            tree[name] = {"kernel": block}
            if side == bias_side:
                tree[name]["bias"] = bias[gate]
    return tree


def write_layers(
    network: Network, params: Params, write_cell: WriteCell
) -> tuple[list[dict[str, Any]], bool]:
    """Return the trees of the layers, and whether they are those of a `Stack`.

    Args:
        network: The network.
        params: Its parameters.
        write_cell: Returns the tree of a cell.
    """
    trees = []
    for layer, layer_params in split_layers(network, params):
        if isinstance(layer, Dense):
            kernel, bias = pack_dense(layer_params)
            trees.append({"kernel": kernel} | ({} if bias is None else {"bias": bias}))
            continue
        cells = [write_cell(each) for each in split_directions(layer, layer_params)]
        rnns: list[dict[str, Any]] = [{"cell": cell} for cell in cells]
        both = len(rnns) == len(_DIRECTIONS)
        trees.append(dict(zip(_DIRECTIONS, rnns, strict=True)) if both else rnns[0])
    return trees, isinstance(network, Stack)


def zero_bias(bias: np.ndarray | None, kernel: np.ndarray) -> np.ndarray:
    """Return the bias, or zeros where the format's cells always have one."""
    return np.zeros_like(kernel[0]) if bias is None else bias
