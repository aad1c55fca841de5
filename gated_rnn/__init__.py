"""Gated recurrent networks in JAX: pure functions, compiled, over many seeds.

Layer by layer: types, initialisers and losses; cells (the mathematics) and engines
(time); `unroll`; networks. `gated_rnn.training` and `gated_rnn.statistics` are imported
when asked for.
"""

from gated_rnn import initializers, losses
from gated_rnn.cells import (
    GRU,
    LSTM,
    GRUCarry,
    GRUParams,
    LSTMCarry,
    LSTMParams,
    gru_step,
    lstm_step,
)
from gated_rnn.engines import Scan
from gated_rnn.networks import RNN, Dense, DenseParams, Network, Stack, StackCarry
from gated_rnn.types import Cell, Engine
from gated_rnn.unrolling import lengths_to_mask, unroll

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Cell",
    "Dense",
    "DenseParams",
    "Engine",
    "GRUCarry",
    "GRUParams",
    "LSTMCarry",
    "LSTMParams",
    "Network",
    "Scan",
    "Stack",
    "StackCarry",
    "gru_step",
    "initializers",
    "lengths_to_mask",
    "losses",
    "lstm_step",
    "unroll",
]
