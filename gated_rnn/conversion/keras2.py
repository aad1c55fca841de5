"""CuDNNLSTM and CuDNNGRU of Keras 2: their arrays as those of LSTM and GRU (layer 4).

The arrays have the shapes of Keras' own and two biases in one row, but cuDNN reads the
buffer of a gate's kernel `[F, H]` as a matrix `[H, F]`, and multiplies by it from the
left.
"""

from collections.abc import Callable, Sequence

import numpy as np

from gated_rnn.types import invalid

__all__ = ["from_cudnn_layer", "is_cudnn_layer", "to_cudnn_layer"]


def is_cudnn_layer(arrays: Sequence[np.ndarray]) -> bool:
    """Return whether the weights are those of a CuDNNLSTM or a CuDNNGRU."""
    if len(arrays) != 3 or arrays[1].ndim != 2 or arrays[2].ndim != 1:
        return False
    columns = arrays[1].shape[1]
    return columns > arrays[1].shape[0] and arrays[2].shape == (2 * columns,)


def from_cudnn_layer(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return the weights that an LSTM, or a GRU that resets after, has in Keras.

    Args:
        arrays: The kernel `[F, G*H]`, the recurrent kernel `[H, G*H]` and the bias
            `[2*G*H]`, the one of the inputs first; gates i f c o or z r h.

    Examples:
        >>> kernel = np.arange(12.0).reshape(2, 6)
        >>> from_cudnn_layer([kernel, kernel, np.ones(12)])[0]
        array([[ 0.,  6.,  2.,  8.,  4., 10.],
               [ 1.,  7.,  3.,  9.,  5., 11.]])
    """
    kernel, recurrent_kernel, bias = arrays
    size = recurrent_kernel.shape[0]
    num_gates = recurrent_kernel.shape[1] // size
    biases = bias.reshape(2, -1)
    if num_gates == 4:  # one bias acts, their sum
        biases = (biases[0].astype(np.float64) + biases[1]).astype(bias.dtype)
    return [
        _each_gate(kernel, size, lambda block: block.reshape(size, -1).T),
        _each_gate(recurrent_kernel, size, np.transpose),
        biases,
    ]


def to_cudnn_layer(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return the weights that a CuDNNLSTM or a CuDNNGRU has; the second bias is zero.

    Args:
        arrays: Those of an LSTM, or of a GRU that resets after, with biases.

    Raises:
        ValueError: If they have none.
    """
    if len(arrays) != 3:
        raise invalid("use_bias", "True, as cuDNN's layers have biases", False)
    kernel, recurrent_kernel, bias = arrays
    size = recurrent_kernel.shape[0]
    if bias.ndim == 1:
        bias = np.stack([bias, np.zeros_like(bias)])
    return [
        _each_gate(kernel, size, lambda block: block.T.reshape(block.shape)),
        _each_gate(recurrent_kernel, size, np.transpose),
        bias.reshape(-1),
    ]


def _each_gate(
    packed: np.ndarray, size: int, change: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    blocks = np.split(packed, packed.shape[1] // size, axis=1)
    return np.concatenate(
        [change(np.ascontiguousarray(block)) for block in blocks], axis=1
    )
