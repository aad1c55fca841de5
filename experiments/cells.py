"""The cells that experiments compare, by name, and the units that match parameters."""

from typing import Any, Literal, get_args

import jax

from gated_rnn import GRU, JANET, LSTM, MGU, CoupledLSTM, Elman, OpenLSTM, PeepholeLSTM
from gated_rnn.activations import identity
from gated_rnn.networks import count_parameters
from gated_rnn.types import Cell, invalid

CellName = Literal[
    *("elman", "mgu", "janet", "gru", "gru_reset_before", "cifg", "lstm"),
    *("lstm_no_output_gate", "lstm_no_output_tanh", "peephole_lstm"),
]

#: What a person reads.
LABELS: dict[str, str] = {
    "elman": "Elman",
    "mgu": "MGU",
    "janet": "JANET",
    "gru": "GRU",
    "gru_reset_before": "GRU, reset before",
    "cifg": "CIFG",
    "lstm": "LSTM",
    "lstm_no_output_gate": "LSTM, no output gate",
    "lstm_no_output_tanh": "LSTM, no output tanh",
    "peephole_lstm": "peephole LSTM",
}


def make_cell(name: str, hidden_features: int, **settings: Any) -> Cell:
    """Build a cell by its name.

    Args:
        name: One of `CellName`.
        hidden_features: H.
        **settings: Passed to the cell, such as initialisers.

    Returns:
        The cell.

    Raises:
        ValueError: If the name is not known.

    Examples:
        >>> make_cell("gru_reset_before", 16).reset_after
        False
    """
    match name:
        case "elman":
            return Elman(hidden_features, **settings)
        case "mgu":
            return MGU(hidden_features, **settings)
        case "janet":
            return JANET(hidden_features, **settings)
        case "gru":
            return GRU(hidden_features, **settings)
        case "gru_reset_before":
            return GRU(hidden_features, reset_after=False, **settings)
        case "cifg":
            return CoupledLSTM(hidden_features, **settings)
        case "lstm":
            return LSTM(hidden_features, **settings)
        case "lstm_no_output_gate":
            return OpenLSTM(hidden_features, **settings)
        case "lstm_no_output_tanh":
            return LSTM(hidden_features, output_activation=identity, **settings)
        case "peephole_lstm":
            return PeepholeLSTM(hidden_features, **settings)
    raise invalid("cell", f"one of {', '.join(get_args(CellName))}", repr(name))


def count_cell_parameters(cell: Cell, in_features: int) -> int:
    """Count the parameters of a cell.

    Args:
        cell: The cell.
        in_features: F.

    Returns:
        How many numbers are trained.

    Examples:
        >>> count_cell_parameters(make_cell("lstm", 16), 1)
        1152
    """
    return count_parameters(
        jax.eval_shape(lambda key: cell.init(key, in_features), jax.random.key(0))
    )


def match_units(name: str, in_features: int, num_parameters: int) -> int:
    """Choose the units with which a cell has the number of parameters of another.

    Args:
        name: One of `CellName`.
        in_features: F.
        num_parameters: How many are wanted; of the recurrent layer alone.

    Returns:
        The H, at least 1, that comes nearest.

    Examples:
        >>> match_units("gru", 10, count_cell_parameters(make_cell("lstm", 36), 10))
        42
    """

    def count(units: int) -> int:
        return count_cell_parameters(make_cell(name, units), in_features)

    high = 1
    while count(high) < num_parameters:
        high *= 2
    low = max(1, high // 2)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(middle) < num_parameters else (low, middle)
    return min((low, high), key=lambda units: abs(count(units) - num_parameters))
