"""Flax linen: LSTMCell, OptimizedLSTMCell, GRUCell, SimpleCell and layers (layer 4).

A kernel a gate and side, such as ii and hi. The LSTM has its biases on the hidden side,
the GRU on that of the inputs, and one at hn inside the reset product.
"""

from collections.abc import Mapping, Sequence
from typing import Any

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
from gated_rnn.conversion.gates import GRU_GATES, LSTM_GATES
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

__all__ = ["from_linen", "to_linen"]

LAYER_NAME = "layers_{}"  # in nn.Sequential


def from_linen(
    source: Mapping[str, Any] | Sequence[Any], *, dtype: DType | None = None
) -> tuple[Network, Params]:
    """Return the network and the parameters of Flax linen cells or layers.

    The tree says neither activations, which are taken to be linen's defaults, nor
    whether a SimpleCell is residual, which it must not be.

    Args:
        source: The params of an LSTMCell, OptimizedLSTMCell, GRUCell or SimpleCell, of
            an `nn.RNN`, an `nn.Bidirectional` or an `nn.Dense`, or of an
            `nn.Sequential` of those; or a list of them, bottom first. {"params": ...}
            is opened.
        dtype: dtype of the parameters; None: that of the entries.

    Returns:
        An `RNN`, a `Bidirectional`, a `Dense`, or a `Stack` of them; and the
        parameters.

    Raises:
        ValueError: If an entry is missing, extra, or of a wrong shape or dtype; for an
            MGUCell, which is another function than `MGU`.

    Examples:
        >>> import numpy as np
        >>> tree = {
        ...     "i": {"kernel": np.ones((2, 3), np.float32), "bias": np.ones(3, "f")},
        ...     "h": {"kernel": np.ones((3, 3), np.float32)},
        ... }
        >>> network, params = from_linen(tree)
        >>> network.cell.hidden_features, params.kernel.shape
        (3, (2, 3))
    """
    return read_tree(source, _read_cell, LAYER_NAME, dtype)


def to_linen(network: Network, params: Params) -> dict[str, Any]:
    """Return the params of the linen layer that equals a network.

    Of `nn.RNN(cell)` for an `RNN` (its cell's stand under "cell"), of
    `nn.Bidirectional`, of `nn.Dense`, or of `nn.Sequential` for a `Stack`. LSTMCell and
    OptimizedLSTMCell read the same tree.

    Args:
        network: The network.
        params: Its parameters.

    Raises:
        ValueError: If linen has no such cell or layer.

    Examples:
        >>> import jax
        >>> from gated_rnn import GRU, RNN
        >>> network = RNN(GRU(3))
        >>> params = network.init(jax.random.key(0), in_features=2)
        >>> to_linen(network, params)["cell"]["hn"]["bias"].shape
        (3,)
    """
    trees, is_stack = write_layers(network, params, _write_cell)
    if not is_stack:
        return trees[0]
    return {LAYER_NAME.format(number): tree for number, tree in enumerate(trees)}


def _read_cell(entries: Entries) -> CellAndParams:
    names = set(entries.children())
    if names == {"i", "h"}:
        kernel = entries.take("i/kernel", (None, None))
        features = kernel.shape[1]
        bias = entries.take("i/bias", (features,))
        return make_elman(
            Packed(kernel, entries.take("h/kernel", (features, features)), bias)
        )
    if names == _names(LSTM_GATES):
        return make_lstm(take_gates(entries, LSTM_GATES, "h"))
    if names == _names(GRU_GATES):
        packed = take_gates(entries, GRU_GATES, "i")
        shape = packed.recurrent_kernel.shape[:1]
        return make_gru(packed._replace(recurrent_bias=entries.take("hn/bias", shape)))
    if names == _names(("f", "n")):
        expected = "an LSTMCell, OptimizedLSTMCell, GRUCell or SimpleCell"
        got = "an MGUCell, which is another function than MGU (its docstring says how)"
        raise invalid(entries.prefix or "source", expected, got)
    raise unknown_cell(entries)


def _names(gates: Sequence[str]) -> set[str]:
    return {side + gate for side in "ih" for gate in gates}


def _write_cell(each: CellAndParams) -> dict[str, Any]:
    cell, params = each
    check_cell(cell, LSTM, GRU, Elman)
    if isinstance(cell, Elman):
        packed = pack_elman(cell, params)
        bias = zero_bias(packed.bias, packed.kernel)
        return {
            "i": {"kernel": packed.kernel, "bias": bias},
            "h": {"kernel": packed.recurrent_kernel},
        }
    if isinstance(cell, LSTM):
        return write_gates(pack_lstm(cell, params), LSTM_GATES, "h")
    packed = pack_gru(cell, params)
    tree = write_gates(packed, GRU_GATES, "i")
    tree["hn"]["bias"] = zero_bias(packed.recurrent_bias, tree["hn"]["kernel"])
    return tree
