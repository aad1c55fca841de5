"""Networks: layers with one interface, composed into a model (layer 3).

A layer is a frozen static dataclass with `init`, `init_carry`, `apply`, `step` and
`out_features`; so is a stack of layers. A model is again pure functions.
"""

from gated_rnn.networks.bidirectional import (
    Bidirectional,
    BidirectionalCarry,
    BidirectionalParams,
)
from gated_rnn.networks.dense import Dense, DenseParams
from gated_rnn.networks.embedding import Embedding, EmbeddingParams
from gated_rnn.networks.network import Network
from gated_rnn.networks.recurrent import RNN, RNNCarry, RNNParams
from gated_rnn.networks.reductions import LastStep, MaskedMean
from gated_rnn.networks.stack import Stack, StackCarry

__all__ = [
    "RNN",
    "Bidirectional",
    "BidirectionalCarry",
    "BidirectionalParams",
    "Dense",
    "DenseParams",
    "Embedding",
    "EmbeddingParams",
    "LastStep",
    "MaskedMean",
    "Network",
    "RNNCarry",
    "RNNParams",
    "Stack",
    "StackCarry",
]
