"""Parameters of other frameworks to ours and back; no framework is imported.

`from_X` takes arrays by the names that X gives them and returns the network and its
parameters; `to_X` takes a network and its parameters and returns such arrays.
`save_model` and `load_model` keep both in one file.
"""

from gated_rnn.conversion.cudnn import from_cudnn, to_cudnn
from gated_rnn.conversion.equinox import from_equinox, to_equinox
from gated_rnn.conversion.files import load_metadata, load_model, save_model
from gated_rnn.conversion.haiku import from_haiku, to_haiku
from gated_rnn.conversion.keras import from_keras, to_keras
from gated_rnn.conversion.linen import from_linen, to_linen
from gated_rnn.conversion.nnx import from_nnx, to_nnx
from gated_rnn.conversion.torch import from_torch, to_torch

__all__ = [
    "from_cudnn",
    "from_equinox",
    "from_haiku",
    "from_keras",
    "from_linen",
    "from_nnx",
    "from_torch",
    "load_metadata",
    "load_model",
    "save_model",
    "to_cudnn",
    "to_equinox",
    "to_haiku",
    "to_keras",
    "to_linen",
    "to_nnx",
    "to_torch",
]
