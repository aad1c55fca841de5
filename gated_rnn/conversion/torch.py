"""PyTorch: `nn.LSTM`, `nn.GRU`, `nn.RNN`, their cells, `nn.Linear` (layer 4).

Matrices are `[G*H, F]`, gates i f g o and r z n, two biases a gate.
"""

from collections.abc import Mapping
from os import PathLike
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gated_rnn.cells import GRU, LSTM, Elman, ProjectedLSTM
from gated_rnn.conversion.entries import Entries, show_names
from gated_rnn.conversion.gates import (
    merge_biases,
    merge_gru_biases,
    split_gru_biases,
)
from gated_rnn.conversion.layers import (
    CellAndParams,
    join_directions,
    join_layers,
    name_activation,
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
from gated_rnn.conversion.tensor_files import read_safetensors
from gated_rnn.networks import Dense, Network
from gated_rnn.types import DType, Params, invalid

__all__ = ["from_torch", "to_torch"]

GATES = {4: ("i", "f", "g", "o"), 3: ("r", "z", "n"), 1: ("h",)}  # by their number
NONLINEARITIES = {"tanh": jnp.tanh, "relu": jax.nn.relu}


class _Sizes(NamedTuple):
    """What the first layer says of all: G, H, features of h, what there is."""

    num_gates: int
    hidden: int
    outputs: int
    has_projection: bool
    has_bias: bool


def from_torch(
    source: Mapping[str, Any] | str | PathLike[str],
    *,
    prefix: str = "",
    nonlinearity: str | None = None,
    dropout: float = 0.0,
    dtype: DType | None = None,
) -> tuple[Network, Params]:
    """Return the network and the parameters of a PyTorch module.

    Layers, directions, biases, `proj_size` and the kind of cell follow from names and
    shapes. The two biases of a gate become their sum; the hidden one of a GRU's n is
    `recurrent_bias`. Networks are time-major here, whatever `batch_first` was.

    Args:
        source: The `state_dict()` of an `nn.LSTM`, `nn.GRU`, `nn.RNN`, `nn.LSTMCell`,
            `nn.GRUCell`, `nn.RNNCell` or `nn.Linear`, or of a model that has one; or
            the path of a safetensors file of it. Pickles (.pt, .pth) are not read.
        prefix: What the names of the module begin with in a larger state_dict, such as
            "encoder.lstm."; other names are left alone.
        nonlinearity: "tanh" or "relu" for `nn.RNN`, whose state_dict does not say.
        dropout: That between the layers, which the state_dict does not say.
        dtype: dtype of the parameters; None: that of the entries.

    Returns:
        An `RNN`, a `Bidirectional`, a `Stack` of several of them, or a `Dense`; and the
        parameters.

    Raises:
        ValueError: If an entry is missing, extra, or of a wrong shape or dtype.

    Examples:
        >>> state_dict = {
        ...     "lstm.weight_ih_l0": np.ones((12, 2), np.float32),
        ...     "lstm.weight_hh_l0": np.ones((12, 3), np.float32),
        ...     "lstm.bias_ih_l0": np.ones(12, np.float32),
        ...     "lstm.bias_hh_l0": np.ones(12, np.float32),
        ... }
        >>> network, params = from_torch(state_dict, prefix="lstm.")
        >>> network.cell.hidden_features, params.kernel.shape
        (3, (2, 12))
    """
    if not isinstance(source, Mapping):
        source = read_safetensors(source)
    entries = Entries(source, prefix, dtype)
    if "weight" in entries and "bias" in entries:
        kernel = entries.take("weight", (None, None)).T
        bias = entries.take("bias", kernel.shape[1:])
        entries.finish()
        return make_dense(kernel, bias)
    first = "_l0" if "weight_ih_l0" in entries else ""
    sizes = _read_sizes(entries, first)
    activation = _check_nonlinearity(nonlinearity, sizes.num_gates)
    suffixes = [first]
    while first and f"weight_ih_l{len(suffixes)}" in entries:
        suffixes.append(f"_l{len(suffixes)}")
    ends = ["", "_reverse"] if f"weight_ih{first}_reverse" in entries else [""]
    width = entries.shape(f"weight_ih{first}", 2)[1]
    layers = []
    for suffix in suffixes:
        cells = [
            _take_cell(entries, suffix + end, width, sizes, activation) for end in ends
        ]
        layers.append(join_directions(cells))
        width = len(ends) * sizes.outputs
    entries.finish()
    return join_layers(layers, dropout)


def to_torch(
    network: Network, params: Params, *, prefix: str = "", as_cell: bool = False
) -> dict[str, np.ndarray]:
    """Return the `state_dict` of the PyTorch module that equals a network.

    A module of the same sizes takes it by `load_state_dict(strict=True)`, each array
    made a tensor by `torch.from_numpy`. A bias is the first of PyTorch's two, and the
    second is zero but for the hidden one of a GRU's n. The dropout of a stack is an
    argument of the module.

    Args:
        network: Layers of one kind and size, all with both directions or all with one;
            or a `Dense`.
        params: Its parameters.
        prefix: What the names shall begin with.
        as_cell: Name the entries as `nn.LSTMCell`, `nn.GRUCell` and `nn.RNNCell` do.

    Raises:
        ValueError: If PyTorch has no such module.

    Examples:
        >>> from gated_rnn import GRU, RNN
        >>> network = RNN(GRU(3))
        >>> params = network.init(jax.random.key(0), in_features=2)
        >>> {name: a.shape for name, a in to_torch(network, params).items()}
        ... # doctest: +NORMALIZE_WHITESPACE
        {'weight_ih_l0': (9, 2), 'weight_hh_l0': (9, 3),
         'bias_ih_l0': (9,), 'bias_hh_l0': (9,)}
    """
    if isinstance(network, Dense):
        kernel, bias = pack_dense(params)
        arrays = {"weight": kernel.T} | ({} if bias is None else {"bias": bias})
        return {prefix + name: _own(array) for name, array in arrays.items()}
    layers = [split_directions(*pair) for pair in split_layers(network, params)]
    cells = [each for directions in layers for each in directions]
    for cell, _ in cells:
        check_cell(cell, LSTM, GRU, Elman, ProjectedLSTM)
    kinds = list(dict.fromkeys(_kind_of(cell) for cell, _ in cells))
    if len(kinds) > 1 or len({len(directions) for directions in layers}) > 1:
        expected = "one cell and as many directions in all layers, as PyTorch's modules"
        got = ", ".join(map(str, kinds)) if len(kinds) > 1 else "one and two directions"
        raise invalid("network", expected, got)
    if as_cell and len(cells) > 1:
        raise invalid("network", "one layer and direction as a cell", len(cells))
    has_bias = any(each.params.bias is not None for each in cells)
    state_dict = {}
    for number, directions in enumerate(layers):
        suffix = "" if as_cell else f"_l{number}"
        for each, end in zip(directions, ("", "_reverse"), strict=False):
            for name, array in _name_arrays(each, has_bias).items():
                state_dict[f"{prefix}{name}{suffix}{end}"] = _own(array)
    return state_dict


def _read_sizes(entries: Entries, suffix: str) -> _Sizes:
    name = f"weight_ih{suffix}"
    if name not in entries:
        raise _no_module(entries)
    rows, outputs = entries.shape(f"weight_hh{suffix}", 2)
    hidden, has_projection = outputs, f"weight_hr{suffix}" in entries
    if has_projection:
        hidden = entries.shape(f"weight_hr{suffix}", 2)[1]
    num_gates = rows // hidden
    wanted = (4,) if has_projection else tuple(GATES)
    if rows % hidden or num_gates not in wanted:
        counts = " or ".join(str(count * hidden) for count in wanted)
        full = f"{entries.prefix}weight_hh{suffix}"
        raise invalid(full, f"{counts} rows", f"shape {(rows, outputs)}")
    has_bias = f"bias_ih{suffix}" in entries or f"bias_hh{suffix}" in entries
    return _Sizes(num_gates, hidden, outputs, has_projection, has_bias)


def _no_module(entries: Entries) -> ValueError:
    """Return the error that says which prefixes would name a module."""
    found = [
        entries.prefix + name.removesuffix(end)
        for name in entries
        for end in ("weight_ih_l0", "weight_ih")
        if name.endswith(end)
    ]
    if found:
        expected = f"the one of a module, such as {show_names(found)}"
        return invalid("prefix", expected, repr(entries.prefix))
    names = show_names([entries.prefix + name for name in entries])
    expected = "entries of nn.LSTM, GRU, RNN, their cells, or nn.Linear with a bias"
    return invalid("source", expected, names)


def _check_nonlinearity(nonlinearity: str | None, num_gates: int) -> Any:
    if num_gates > 1:
        if nonlinearity is not None:
            raise invalid("nonlinearity", "None but for nn.RNN", repr(nonlinearity))
        return None
    if nonlinearity not in NONLINEARITIES:
        expected = "'tanh' or 'relu' for an nn.RNN, which does not say which"
        raise invalid("nonlinearity", expected, repr(nonlinearity))
    return NONLINEARITIES[nonlinearity]


def _take_cell(
    entries: Entries, suffix: str, in_features: int, sizes: _Sizes, activation: Any
) -> CellAndParams:
    rows, order = sizes.num_gates * sizes.hidden, GATES[sizes.num_gates]
    kernel = entries.take(f"weight_ih{suffix}", (rows, in_features)).T
    recurrent_kernel = entries.take(f"weight_hh{suffix}", (rows, sizes.outputs)).T
    bias = hidden_bias = recurrent_bias = projection = None
    if sizes.has_bias:
        bias = entries.take(f"bias_ih{suffix}", (rows,))
        hidden_bias = entries.take(f"bias_hh{suffix}", (rows,))
    if sizes.has_projection:
        shape = (sizes.outputs, sizes.hidden)
        projection = entries.take(f"weight_hr{suffix}", shape).T
    if bias is not None and hidden_bias is not None:
        if sizes.num_gates == 3:
            bias, recurrent_bias = merge_gru_biases(bias, hidden_bias, order)
        else:
            bias = merge_biases(bias, hidden_bias)
    packed = Packed(kernel, recurrent_kernel, bias, recurrent_bias, projection)
    if sizes.num_gates == 4:
        return make_lstm(packed, order)
    if sizes.num_gates == 3:
        return make_gru(packed, order)
    return make_elman(packed, activation)


def _kind_of(cell: Any) -> tuple[Any, ...]:
    """Return what PyTorch's layers and directions have in common."""
    kind = (type(cell).__name__, cell.hidden_features, cell.out_features)
    if isinstance(cell, Elman):
        return (*kind, name_activation("Elman.activation", cell.activation))
    return kind


def _name_arrays(each: CellAndParams, has_bias: bool) -> dict[str, np.ndarray]:
    """Return the arrays of a cell by PyTorch's names without the suffix."""
    cell, params = each
    if isinstance(cell, GRU):
        packed = pack_gru(cell, params, GATES[3])
    elif isinstance(cell, Elman):
        activation = name_activation("Elman.activation", cell.activation)
        if activation not in NONLINEARITIES:
            raise invalid("Elman.activation", "tanh or relu, as nn.RNN", activation)
        packed = pack_elman(cell, params, activation)
    else:
        packed = pack_lstm(cell, params, GATES[4])
    named = {"weight_ih": packed.kernel.T, "weight_hh": packed.recurrent_kernel.T}
    if has_bias:
        bias = packed.bias
        if bias is None:
            bias = np.zeros_like(packed.kernel[0])
        hidden_bias = np.zeros_like(bias)
        if packed.recurrent_bias is not None:
            bias, hidden_bias = split_gru_biases(bias, packed.recurrent_bias, GATES[3])
        named |= {"bias_ih": bias, "bias_hh": hidden_bias}
    if packed.projection is not None:
        named["weight_hr"] = packed.projection.T
    return named


def _own(array: np.ndarray) -> np.ndarray:
    """Return a contiguous copy that may be written to, as `torch.from_numpy` asks."""
    return np.array(array, order="C")
