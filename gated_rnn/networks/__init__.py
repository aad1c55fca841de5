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
from gated_rnn.networks.generation import (
    Bernoulli,
    Categorical,
    GenerationCarry,
    continue_generation,
    generate,
    read_prompt,
)
from gated_rnn.networks.network import Network
from gated_rnn.networks.nonlinearity import Nonlinearity
from gated_rnn.networks.recurrent import RNN, RNNCarry, RNNParams
from gated_rnn.networks.reductions import LastStep, MaskedMean
from gated_rnn.networks.stack import Stack, StackCarry
from gated_rnn.networks.summary import (
    LayerSummary,
    Summary,
    count_parameters,
    summarize,
)

__all__ = [
    "RNN",
    "Bernoulli",
    "Bidirectional",
    "BidirectionalCarry",
    "BidirectionalParams",
    "Categorical",
    "Dense",
    "DenseParams",
    "Embedding",
    "EmbeddingParams",
    "GenerationCarry",
    "LastStep",
    "LayerSummary",
    "MaskedMean",
    "Network",
    "Nonlinearity",
    "RNNCarry",
    "RNNParams",
    "Stack",
    "StackCarry",
    "Summary",
    "continue_generation",
    "count_parameters",
    "generate",
    "read_prompt",
    "summarize",
]
