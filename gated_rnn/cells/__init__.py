"""The mathematics: one cell a file, nothing about time (layer 1)."""

from gated_rnn.cells.gru import GRU, GRUCarry, GRUParams, gru_step
from gated_rnn.cells.lstm import LSTM, LSTMCarry, LSTMParams, lstm_step

__all__ = [
    "GRU",
    "LSTM",
    "GRUCarry",
    "GRUParams",
    "LSTMCarry",
    "LSTMParams",
    "gru_step",
    "lstm_step",
]
