"""cuDNN's flat vector of an LSTM, as `jax.experimental.rnn` takes it (layer 4).

Layer by layer, forward before backward: `[4H, F]` and `[4H, H]`, gates i f g o; after
all matrices, in the same order, two biases `[4H]`.
"""

import math
from typing import Any

import numpy as np

from gated_rnn.cells import LSTM
from gated_rnn.conversion.entries import as_array
from gated_rnn.conversion.gates import merge_biases
from gated_rnn.conversion.layers import (
    join_directions,
    join_layers,
    split_directions,
    split_layers,
)
from gated_rnn.conversion.packed_cells import Packed, check_cell, make_lstm, pack_lstm
from gated_rnn.networks import Network
from gated_rnn.types import DType, Params, Shape, check_positive, invalid

__all__ = ["from_cudnn", "to_cudnn"]

GATES = ("i", "f", "g", "o")


def from_cudnn(
    weights: Any,
    in_features: int,
    hidden_features: int,
    num_layers: int = 1,
    bidirectional: bool = False,
    *,
    dtype: DType | None = None,
) -> tuple[Network, Params]:
    """Return the network and the parameters of cuDNN's LSTM.

    The two biases of a gate become their sum.

    Args:
        weights: The flat vector, as of `jax.experimental.rnn.init_lstm_weight`.
        in_features: F.
        hidden_features: H.
        num_layers: Layers.
        bidirectional: Whether each layer has both directions.
        dtype: dtype of the parameters; None: that of the vector.

    Returns:
        An `RNN`, a `Bidirectional`, or a `Stack` of them; and the parameters.

    Raises:
        ValueError: If the vector has another length than these sizes make.

    Examples:
        >>> network, params = from_cudnn(np.ones(84, np.float32), 2, 3)
        >>> network.cell.hidden_features, params.kernel.shape
        (3, (2, 12))
    """
    check_positive("in_features", in_features)
    check_positive("hidden_features", hidden_features)
    check_positive("num_layers", num_layers)
    num_directions = 2 if bidirectional else 1
    matrices = _matrix_shapes(in_features, hidden_features, num_layers, num_directions)
    bias_shapes = [(4 * hidden_features,)] * len(matrices)
    size = sum(map(math.prod, matrices)) + sum(map(math.prod, bias_shapes))
    vector = as_array("weights", weights, dtype)
    if vector.shape != (size,):
        raise invalid("weights", f"shape ({size},)", f"shape {vector.shape}")
    arrays = iter(_cut(vector, [*matrices, *bias_shapes]))
    kernels = [(next(arrays).T, next(arrays).T) for _ in matrices[::2]]
    biases = [merge_biases(next(arrays), next(arrays)) for _ in matrices[::2]]
    cells = [
        make_lstm(Packed(*pair, bias), GATES)
        for pair, bias in zip(kernels, biases, strict=True)
    ]
    layers = [
        join_directions(cells[begin : begin + num_directions])
        for begin in range(0, len(cells), num_directions)
    ]
    return join_layers(layers)


def to_cudnn(network: Network, params: Params) -> np.ndarray:
    """Return cuDNN's flat vector of an LSTM.

    A bias is the first of cuDNN's two, the second is zero.

    Args:
        network: LSTMs of one size, all with both directions or all with one.
        params: Its parameters.

    Raises:
        ValueError: If cuDNN has no such network.

    Examples:
        >>> import jax
        >>> from gated_rnn import LSTM, RNN
        >>> network = RNN(LSTM(3))
        >>> to_cudnn(network, network.init(jax.random.key(0), in_features=2)).shape
        (84,)
    """
    layers = [split_directions(*pair) for pair in split_layers(network, params)]
    if len({len(directions) for directions in layers}) > 1:
        expected = "as many directions in all layers"
        raise invalid("network", expected, "one and two")
    matrices, biases = [], []
    for cell, cell_params in (each for directions in layers for each in directions):
        check_cell(cell, LSTM)
        if cell.hidden_features != layers[0][0].cell.hidden_features:
            expected = f"{layers[0][0].cell.hidden_features} in all layers"
            raise invalid("hidden_features", expected, cell.hidden_features)
        packed = pack_lstm(cell, cell_params, GATES)
        matrices += [packed.kernel.T, packed.recurrent_kernel.T]
        zeros = np.zeros_like(packed.kernel[0])
        biases += [zeros if packed.bias is None else packed.bias, zeros]
    return np.concatenate([array.ravel() for array in [*matrices, *biases]])


def _matrix_shapes(
    in_features: int, hidden_features: int, num_layers: int, num_directions: int
) -> list[Shape]:
    """Return the shapes of both matrices of each layer and direction, in order."""
    shapes: list[Shape] = []
    for layer in range(num_layers):
        width = num_directions * hidden_features if layer else in_features
        pair = [(4 * hidden_features, width), (4 * hidden_features, hidden_features)]
        shapes += pair * num_directions
    return shapes


def _cut(vector: np.ndarray, shapes: list[Shape]) -> list[np.ndarray]:
    """Return consecutive pieces of a vector, each in its shape."""
    ends = np.cumsum([math.prod(shape) for shape in shapes])
    pieces = np.split(vector, ends[:-1])
    return [piece.reshape(shape) for piece, shape in zip(pieces, shapes, strict=True)]
