"""Equinox: `eqx.nn.LSTMCell`, `eqx.nn.GRUCell`, `eqx.nn.Linear` (layer 4).

Matrices are `[G*H, F]`, gates i f g o and r z n, one bias, and bias_n inside the GRU's
reset product.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from gated_rnn.cells import GRU, LSTM
from gated_rnn.conversion.entries import Entries, flatten
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
    make_gru,
    make_lstm,
    pack_dense,
    pack_gru,
    pack_lstm,
)
from gated_rnn.networks import Dense, Network, Stack
from gated_rnn.types import DType, Params, invalid

__all__ = ["from_equinox", "to_equinox"]

LSTM_GATES = ("i", "f", "g", "o")
GRU_GATES = ("r", "z", "n")
_DIRECTIONS = ("forward", "backward")
#: Fields of the modules that are no arrays.
_STATIC = {"input_size", "hidden_size", "in_features", "out_features", "use_bias"}


def from_equinox(source: Any, *, dtype: DType | None = None) -> tuple[Network, Params]:
    """Return the network and the parameters of Equinox cells.

    Args:
        source: An `eqx.nn.LSTMCell`, `eqx.nn.GRUCell` or `eqx.nn.Linear`, or its arrays
            by the names of the fields, which is what `vars(cell)` holds; or
            {"forward": cell, "backward": cell} for both directions; or a list of those,
            bottom first.
        dtype: dtype of the parameters; None: that of the arrays.

    Returns:
        An `RNN`, a `Bidirectional`, a `Dense`, or a `Stack` of them; and the
        parameters.

    Raises:
        ValueError: If an array is missing, extra, or of a wrong shape or dtype.

    Examples:
        >>> arrays = {
        ...     "weight_ih": np.ones((9, 2), np.float32),
        ...     "weight_hh": np.ones((9, 3), np.float32),
        ...     "bias": np.ones(9, np.float32),
        ...     "bias_n": np.ones(3, np.float32),
        ... }
        >>> network, params = from_equinox(arrays)
        >>> network.cell.hidden_features, params.recurrent_bias.tolist()
        (3, [1.0, 1.0, 1.0])
    """
    if not isinstance(source, list | tuple):
        entries = Entries(flatten(_fields("source", source)), dtype=dtype)
        layer, params = _take_layer(entries)
        entries.finish()
        return layer, params
    trees = {str(n): _fields(f"source[{n}]", each) for n, each in enumerate(source)}
    entries = Entries(flatten(trees), dtype=dtype)
    layers = [_take_layer(entries.within(f"{number}/")) for number in trees]
    entries.finish()
    return join_layers(layers)


def to_equinox(network: Network, params: Params) -> Any:
    """Return the arrays of Equinox cells that equal a network.

    For an `RNN` or a `Dense` a dict from names of fields to arrays; {"forward": dict,
    "backward": dict} for a `Bidirectional`; a list of those for a `Stack`. Put them
    into a cell by

        eqx.tree_at(lambda c: [getattr(c, name) for name in arrays], cell,
                    list(arrays.values()))

    Args:
        network: The network.
        params: Its parameters.

    Raises:
        ValueError: If Equinox has no such cell.

    Examples:
        >>> import jax
        >>> from gated_rnn import LSTM, RNN
        >>> network = RNN(LSTM(3))
        >>> params = network.init(jax.random.key(0), in_features=2)
        >>> {name: array.shape for name, array in to_equinox(network, params).items()}
        {'weight_ih': (12, 2), 'weight_hh': (12, 3), 'bias': (12,)}
    """
    layers = [_write_layer(*pair) for pair in split_layers(network, params)]
    return layers if isinstance(network, Stack) else layers[0]


def _fields(name: str, source: Any) -> dict[str, Any]:
    """Return what a module has, or a mapping, without the fields that are no arrays."""
    if not isinstance(source, Mapping):
        if not hasattr(source, "__dict__"):
            expected = "an Equinox cell, or a mapping of its arrays"
            raise invalid(name, expected, f"a {type(source).__name__}")
        source = vars(source)
    if set(source) == set(_DIRECTIONS):
        return {
            each: _fields(f"{name}[{each!r}]", source[each]) for each in _DIRECTIONS
        }
    return {field: source[field] for field in source if field not in _STATIC}


def _take_layer(entries: Entries) -> tuple[Network, Params]:
    if set(entries.children()) == set(_DIRECTIONS):
        return join_directions(
            [_take_cell(entries.within(f"{each}/")) for each in _DIRECTIONS]
        )
    if "weight" in entries:
        kernel = entries.take("weight", (None, None)).T
        has_bias = "bias" in entries
        bias = entries.take("bias", kernel.shape[1:]) if has_bias else None
        return make_dense(kernel, bias)
    return join_directions([_take_cell(entries)])


def _take_cell(entries: Entries) -> CellAndParams:
    rows, hidden = entries.shape("weight_hh", 2)
    if rows not in (3 * hidden, 4 * hidden):
        expected = f"{4 * hidden} or {3 * hidden} rows"
        raise invalid(f"{entries.prefix}weight_hh", expected, f"shape {(rows, hidden)}")
    kernel = entries.take("weight_ih", (rows, None)).T
    recurrent_kernel = entries.take("weight_hh", (rows, hidden)).T
    bias = entries.take("bias", (rows,)) if "bias" in entries else None
    packed = Packed(kernel, recurrent_kernel, bias)
    if rows == 4 * hidden:
        return make_lstm(packed, LSTM_GATES)
    if bias is not None:
        packed = packed._replace(recurrent_bias=entries.take("bias_n", (hidden,)))
    return make_gru(packed, GRU_GATES)


def _write_layer(layer: Network, params: Params) -> dict[str, Any]:
    if isinstance(layer, Dense):
        kernel, bias = pack_dense(params)
        return {"weight": kernel.T} | ({} if bias is None else {"bias": bias})
    cells = [_write_cell(each) for each in split_directions(layer, params)]
    return cells[0] if len(cells) == 1 else dict(zip(_DIRECTIONS, cells, strict=True))


def _write_cell(each: CellAndParams) -> dict[str, np.ndarray]:
    cell, params = each
    check_cell(cell, LSTM, GRU)
    if isinstance(cell, LSTM):
        packed = pack_lstm(cell, params, LSTM_GATES)
    else:
        packed = pack_gru(cell, params, GRU_GATES)
    arrays = {"weight_ih": packed.kernel.T, "weight_hh": packed.recurrent_kernel.T}
    if packed.bias is not None:
        arrays["bias"] = packed.bias
    if packed.recurrent_bias is not None:
        arrays["bias_n"] = packed.recurrent_bias
    return arrays
