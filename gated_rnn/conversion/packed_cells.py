"""Cells from packed arrays in any gate order, and back (layer 4).

What a format's file is left with is its names, its shapes and its own additions.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from gated_rnn.cells import (
    GRU,
    LSTM,
    Elman,
    ElmanParams,
    GRUParams,
    LSTMParams,
    ProjectedLSTM,
    ProjectedLSTMParams,
)
from gated_rnn.conversion.entries import to_jax
from gated_rnn.conversion.gates import GRU_GATES, LSTM_GATES, reorder_gates
from gated_rnn.conversion.layers import CellAndParams, check_activations
from gated_rnn.networks import Dense, DenseParams
from gated_rnn.types import Params, invalid

__all__ = [
    "Packed",
    "check_cell",
    "make_dense",
    "make_elman",
    "make_gru",
    "make_lstm",
    "pack_dense",
    "pack_elman",
    "pack_gru",
    "pack_lstm",
]


class Packed(NamedTuple):
    """The arrays of a cell, gates packed along the last axis in a format's order.

    Attributes:
        kernel: `[F, G*H]`.
        recurrent_kernel: `[H, G*H]`.
        bias: `[G*H]`, or None.
        recurrent_bias: `[H]`, that of a GRU's n inside the reset product, or None.
        projection: `[H, R]` of a projected LSTM, or None.
    """

    kernel: np.ndarray
    recurrent_kernel: np.ndarray
    bias: np.ndarray | None
    recurrent_bias: np.ndarray | None = None
    projection: np.ndarray | None = None

    def reorder(self, source: Sequence[str], target: Sequence[str]) -> "Packed":
        """Return the same gates in another order."""

        def order(packed: np.ndarray) -> np.ndarray:
            return reorder_gates(packed, source, target)

        return self._replace(
            kernel=order(self.kernel),
            recurrent_kernel=order(self.recurrent_kernel),
            bias=None if self.bias is None else order(self.bias),
        )


def make_lstm(packed: Packed, order: Sequence[str] = LSTM_GATES) -> CellAndParams:
    """Return an LSTM, or a projected one, from arrays in the given order of gates."""
    ours = packed.reorder(order, LSTM_GATES)
    hidden_features, use_bias = ours.kernel.shape[1] // 4, ours.bias is not None
    fields = _to_jax(ours.kernel, ours.recurrent_kernel, ours.bias)
    if ours.projection is None:
        cell = LSTM(hidden_features, use_bias=use_bias)
        return CellAndParams(cell, LSTMParams(*fields))
    cell = ProjectedLSTM(
        hidden_features,
        use_bias=use_bias,
        projected_features=ours.projection.shape[1],
    )
    params = ProjectedLSTMParams(*fields, *_to_jax(ours.projection))
    return CellAndParams(cell, params)


def make_gru(
    packed: Packed, order: Sequence[str] = GRU_GATES, reset_after: bool = True
) -> CellAndParams:
    """Return a GRU from arrays in the given order of gates."""
    ours = packed.reorder(order, GRU_GATES)
    cell = GRU(
        ours.kernel.shape[1] // 3,
        reset_after=reset_after,
        use_bias=ours.bias is not None,
    )
    fields = _to_jax(ours.kernel, ours.recurrent_kernel, ours.bias, ours.recurrent_bias)
    return CellAndParams(cell, GRUParams(*fields))


def make_elman(
    packed: Packed, activation: Callable[..., Any] = jnp.tanh
) -> CellAndParams:
    """Return a simple recurrent network."""
    cell = Elman(
        packed.kernel.shape[1],
        use_bias=packed.bias is not None,
        activation=activation,
    )
    fields = _to_jax(packed.kernel, packed.recurrent_kernel, packed.bias)
    return CellAndParams(cell, ElmanParams(*fields))


def make_dense(
    kernel: np.ndarray, bias: np.ndarray | None
) -> tuple[Dense, DenseParams]:
    """Return a readout from a kernel `[F, features]` and its bias."""
    layer = Dense(kernel.shape[1], use_bias=bias is not None)
    return layer, DenseParams(*_to_jax(kernel, bias))


def check_cell(cell: Any, *types: type) -> None:
    """Raise unless the format has a cell of this type."""
    if type(cell) not in types:
        names = " or ".join(each.__name__ for each in types)
        raise invalid("cell", f"{names}, which the format has", type(cell).__name__)


def pack_lstm(
    cell: LSTM | ProjectedLSTM, params: Params, order: Sequence[str] = LSTM_GATES
) -> Packed:
    """Return the arrays of an LSTM, or a projected one, in the given order of gates.

    Raises:
        ValueError: If it has another activation than tanh and sigmoid, or clips.
    """
    check_activations(cell, activation="tanh", gate_activation="sigmoid")
    projection = None
    if isinstance(cell, ProjectedLSTM):
        if cell.cell_clip is not None:
            expected = "None, which is all the format has"
            raise invalid("ProjectedLSTM.cell_clip", expected, cell.cell_clip)
        projection = np.asarray(params.projection)
    else:
        check_activations(cell, output_activation="tanh")
    fields = _to_numpy(params.kernel, params.recurrent_kernel, params.bias)
    return Packed(*fields, projection=projection).reorder(LSTM_GATES, order)


def pack_gru(
    cell: GRU,
    params: GRUParams,
    order: Sequence[str] = GRU_GATES,
    reset_after: bool = True,
) -> Packed:
    """Return the arrays of a GRU in the given order of gates.

    Raises:
        ValueError: If it has other activations, or resets elsewhere than the format.
    """
    check_activations(cell, activation="tanh", gate_activation="sigmoid")
    if cell.reset_after != reset_after:
        expected = f"{reset_after}, as the format's GRU (another function)"
        raise invalid("GRU.reset_after", expected, cell.reset_after)
    return Packed(*_to_numpy(*params)).reorder(GRU_GATES, order)


def pack_elman(cell: Elman, params: ElmanParams, activation: str = "tanh") -> Packed:
    """Return the arrays of a simple recurrent network.

    Raises:
        ValueError: If it has another activation.
    """
    check_activations(cell, activation=activation)
    return Packed(*_to_numpy(*params))


def pack_dense(params: DenseParams) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the kernel `[F, features]` and the bias of a readout."""
    kernel, bias = _to_numpy(*params)
    return kernel, bias


def _to_jax(*arrays: np.ndarray | None) -> list[Any]:
    return [None if array is None else to_jax(array) for array in arrays]


def _to_numpy(*arrays: Any) -> list[Any]:
    return [None if array is None else np.asarray(array) for array in arrays]
