"""Flax nnx: LSTMCell, OptimizedLSTMCell, GRUCell, SimpleCell and layers (layer 4).

An LSTMCell has a kernel a gate, as linen's (if_ for if); the others pack theirs in
dense_i and dense_h. The GRU has no bias on the hidden side (google/flax issue 5594).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gated_rnn.cells import GRU, LSTM, Elman
from gated_rnn.conversion.entries import Entries
from gated_rnn.conversion.flax_trees import (
    read_tree,
    take_gates,
    unknown_cell,
    write_gates,
    write_layers,
    zero_bias,
)
from gated_rnn.conversion.layers import CellAndParams
from gated_rnn.conversion.packed_cells import (
    Packed,
    check_cell,
    make_elman,
    make_gru,
    make_lstm,
    pack_elman,
    pack_gru,
    pack_lstm,
)
from gated_rnn.networks import Network
from gated_rnn.types import DType, Params, invalid

__all__ = ["from_nnx", "to_nnx"]

LAYER_NAME = "layers/{}"  # in nnx.Sequential
GATES = {4: ("i", "f", "g", "o"), 3: ("r", "z", "n"), 1: ("h",)}  # by their number
_BIAS_SIDE = {4: "dense_h", 3: "dense_i", 1: "dense_i"}
_RENAMED = {"if": "if_"}  # `if` is a keyword
_UNPACKED = {_RENAMED.get(f"i{g}", f"i{g}") for g in "ifgo"} | {f"h{g}" for g in "ifgo"}


def from_nnx(
    source: Mapping[Any, Any] | Sequence[Any], *, dtype: DType | None = None
) -> tuple[Network, Params]:
    """Return the network and the parameters of Flax nnx cells or layers.

    The state says neither activations, which are taken to be nnx' defaults, nor whether
    a SimpleCell is residual, which it must not be.

    Args:
        source: `nnx.to_pure_dict(nnx.state(model, nnx.Param))` of an LSTMCell,
            OptimizedLSTMCell, GRUCell or SimpleCell, of an `nnx.RNN`, an
            `nnx.Bidirectional` or an `nnx.Linear`, or of an `nnx.Sequential` of those;
            or a list of them, bottom first.
        dtype: dtype of the parameters; None: that of the entries.

    Returns:
        An `RNN`, a `Bidirectional`, a `Dense`, or a `Stack` of them; and the
        parameters. The `recurrent_bias` of a GRU is zero.

    Raises:
        ValueError: If an entry is missing, extra, or of a wrong shape or dtype.

    Examples:
        >>> state = {
        ...     "dense_i": {"kernel": np.ones((2, 9), "f"), "bias": np.ones(9, "f")},
        ...     "dense_h": {"kernel": np.ones((3, 9), "f")},
        ... }
        >>> network, params = from_nnx(state)
        >>> network.cell.hidden_features, params.recurrent_bias.tolist()
        (3, [0.0, 0.0, 0.0])
    """
    return read_tree(source, _read_cell, LAYER_NAME, dtype)


def to_nnx(network: Network, params: Params, *, optimized: bool = True) -> Any:
    """Return the state of the nnx layer that equals a network, as a pure dict.

    Of `nnx.RNN(cell)` for an `RNN` (its cell's stands under "cell"), of
    `nnx.Bidirectional`, of `nnx.Linear`, or of `nnx.Sequential` for a `Stack`. Put it
    into a model by `nnx.replace_by_pure_dict(state, pure)` and `nnx.update`.

    Args:
        network: The network.
        params: Its parameters.
        optimized: Whether an LSTM is an OptimizedLSTMCell or an LSTMCell.

    Raises:
        ValueError: If nnx has no such cell or layer, such as a GRU whose
            `recurrent_bias` is not zero.

    Examples:
        >>> import jax
        >>> from gated_rnn import LSTM, RNN
        >>> network = RNN(LSTM(3))
        >>> params = network.init(jax.random.key(0), in_features=2)
        >>> to_nnx(network, params)["cell"]["dense_h"]["bias"].shape
        (12,)
    """
    write_cell = _write_cell if optimized else _write_unpacked
    trees, is_stack = write_layers(network, params, write_cell)
    return {"layers": dict(enumerate(trees))} if is_stack else trees[0]


def _read_cell(entries: Entries) -> CellAndParams:
    names = set(entries.children())
    if names == {"dense_i", "dense_h"}:
        return _take_packed(entries)
    if names == _UNPACKED:
        return make_lstm(take_gates(entries, GATES[4], "h", _RENAMED), GATES[4])
    raise unknown_cell(entries)


def _take_packed(entries: Entries) -> CellAndParams:
    features, columns = entries.shape("dense_h/kernel", 2)
    num_gates = columns // features
    if columns % features or num_gates not in GATES:
        name = f"{entries.prefix}dense_h/kernel"
        counts = " or ".join(str(count * features) for count in GATES)
        raise invalid(name, f"{counts} columns", f"shape {(features, columns)}")
    packed = Packed(
        kernel=entries.take("dense_i/kernel", (None, columns)),
        recurrent_kernel=entries.take("dense_h/kernel", (features, columns)),
        bias=entries.take(f"{_BIAS_SIDE[num_gates]}/bias", (columns,)),
    )
    if num_gates == 4:
        return make_lstm(packed, GATES[4])
    if num_gates == 3:
        zeros = np.zeros_like(packed.recurrent_kernel[:, 0])
        return make_gru(packed._replace(recurrent_bias=zeros), GATES[3])
    return make_elman(packed)


def _write_cell(each: CellAndParams) -> dict[str, Any]:
    cell, params = each
    check_cell(cell, LSTM, GRU, Elman)
    if isinstance(cell, LSTM):
        packed, num_gates = pack_lstm(cell, params, GATES[4]), 4
    elif isinstance(cell, GRU):
        packed, num_gates = pack_gru(cell, params, GATES[3]), 3
        if packed.recurrent_bias is not None and np.any(packed.recurrent_bias):
            expected = "zeros: nnx' GRUCell has no bias inside the reset product"
            raise invalid("params.recurrent_bias", expected, "other values")
    else:
        packed, num_gates = pack_elman(cell, params), 1
    tree = {
        "dense_i": {"kernel": packed.kernel},
        "dense_h": {"kernel": packed.recurrent_kernel},
    }
    tree[_BIAS_SIDE[num_gates]]["bias"] = zero_bias(packed.bias, packed.kernel)
    return tree


def _write_unpacked(each: CellAndParams) -> dict[str, Any]:
    """Write an LSTM as an LSTMCell, others as they are."""
    if not isinstance(each.cell, LSTM):
        return _write_cell(each)
    packed = pack_lstm(each.cell, each.params, GATES[4])
    return write_gates(packed, GATES[4], "h", _RENAMED)
