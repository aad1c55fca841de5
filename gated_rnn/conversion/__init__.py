"""Parameters of other frameworks to ours and back; no framework is imported.

`from_X` takes arrays by the names that X gives them and returns the network and its
parameters; `to_X` takes a network and its parameters and returns such arrays.
"""

from gated_rnn.conversion.cudnn import from_cudnn, to_cudnn
from gated_rnn.conversion.equinox import from_equinox, to_equinox
from gated_rnn.conversion.haiku import from_haiku, to_haiku
from gated_rnn.conversion.linen import from_linen, to_linen
from gated_rnn.conversion.nnx import from_nnx, to_nnx
from gated_rnn.conversion.torch import from_torch, to_torch

__all__ = [
    "from_cudnn",
    "from_equinox",
    "from_haiku",
    "from_linen",
    "from_nnx",
    "from_torch",
    "to_cudnn",
    "to_equinox",
    "to_haiku",
    "to_linen",
    "to_nnx",
    "to_torch",
]
