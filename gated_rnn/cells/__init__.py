"""The mathematics: one cell a file, nothing about time (layer 1)."""

from gated_rnn.cells.coupled_lstm import (
    CoupledLSTM,
    CoupledLSTMCarry,
    CoupledLSTMParams,
)
from gated_rnn.cells.elman import Elman, ElmanCarry, ElmanParams
from gated_rnn.cells.gru import GRU, GRUCarry, GRUParams, gru_step
from gated_rnn.cells.janet import JANET, JANETCarry, JANETParams
from gated_rnn.cells.layer_norm_gru import (
    LayerNormGRU,
    LayerNormGRUCarry,
    LayerNormGRUParams,
)
from gated_rnn.cells.layer_norm_lstm import (
    LayerNormLSTM,
    LayerNormLSTMCarry,
    LayerNormLSTMParams,
)
from gated_rnn.cells.lstm import LSTM, LSTMCarry, LSTMParams, lstm_step
from gated_rnn.cells.mgu import MGU, MGUCarry, MGUParams
from gated_rnn.cells.min_gru import MinGRU, MinGRUCarry, MinGRUParams
from gated_rnn.cells.min_lstm import MinLSTM, MinLSTMCarry, MinLSTMParams
from gated_rnn.cells.mut import MUT, MUTCarry, MUTParams
from gated_rnn.cells.open_lstm import OpenLSTM, OpenLSTMCarry, OpenLSTMParams
from gated_rnn.cells.peephole_lstm import (
    PeepholeLSTM,
    PeepholeLSTMCarry,
    PeepholeLSTMParams,
)
from gated_rnn.cells.projected_lstm import (
    ProjectedLSTM,
    ProjectedLSTMCarry,
    ProjectedLSTMParams,
)

__all__ = [
    "GRU",
    "JANET",
    "LSTM",
    "MGU",
    "MUT",
    "CoupledLSTM",
    "CoupledLSTMCarry",
    "CoupledLSTMParams",
    "Elman",
    "ElmanCarry",
    "ElmanParams",
    "GRUCarry",
    "GRUParams",
    "JANETCarry",
    "JANETParams",
    "LSTMCarry",
    "LSTMParams",
    "LayerNormGRU",
    "LayerNormGRUCarry",
    "LayerNormGRUParams",
    "LayerNormLSTM",
    "LayerNormLSTMCarry",
    "LayerNormLSTMParams",
    "MGUCarry",
    "MGUParams",
    "MUTCarry",
    "MUTParams",
    "MinGRU",
    "MinGRUCarry",
    "MinGRUParams",
    "MinLSTM",
    "MinLSTMCarry",
    "MinLSTMParams",
    "OpenLSTM",
    "OpenLSTMCarry",
    "OpenLSTMParams",
    "PeepholeLSTM",
    "PeepholeLSTMCarry",
    "PeepholeLSTMParams",
    "ProjectedLSTM",
    "ProjectedLSTMCarry",
    "ProjectedLSTMParams",
    "gru_step",
    "lstm_step",
]
