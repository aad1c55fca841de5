"""The order of packed gates, by name, and what two biases are in one (layer 4).

Gates have the names of the cell's own `GATES` in every format: Keras' i f c o is
("i", "f", "g", "o"), its z r h ("z", "r", "n").
"""

from collections.abc import Mapping, Sequence

import numpy as np

from gated_rnn.cells import gru, lstm

__all__ = [
    "GRU_GATES",
    "LSTM_GATES",
    "join_gates",
    "merge_biases",
    "merge_gru_biases",
    "reorder_gates",
    "split_gates",
    "split_gru_biases",
]

LSTM_GATES = lstm.GATES
GRU_GATES = gru.GATES


def split_gates(
    packed: np.ndarray, gates: Sequence[str], axis: int = -1
) -> dict[str, np.ndarray]:
    """Return the blocks of a packed array by the names of their gates.

    Args:
        packed: Any shape, with G*H entries along `axis`.
        gates: The G names in the order of the blocks.
        axis: The axis that is packed.

    Examples:
        >>> split_gates(np.array([1, 2, 3, 4, 5, 6]), ("z", "r", "n"))["r"].tolist()
        [3, 4]
    """
    blocks = np.split(packed, len(gates), axis=axis)
    return dict(zip(gates, blocks, strict=True))


def join_gates(
    blocks: Mapping[str, np.ndarray], gates: Sequence[str], axis: int = -1
) -> np.ndarray:
    """Return the blocks packed in the order of `gates`.

    Examples:
        >>> join_gates({"a": np.array([1]), "b": np.array([2])}, ("b", "a")).tolist()
        [2, 1]
    """
    return np.concatenate([blocks[gate] for gate in gates], axis=axis)


def reorder_gates(
    packed: np.ndarray, source: Sequence[str], target: Sequence[str], axis: int = -1
) -> np.ndarray:
    """Return a packed array whose gates stood in one order in another.

    Examples:
        >>> reorder_gates(np.array([1, 2, 3]), ("z", "r", "n"), GRU_GATES).tolist()
        [2, 1, 3]
    """
    return join_gates(split_gates(packed, source, axis), target, axis)


def merge_biases(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the sum of two biases, rounded once to the dtype of the first."""
    total = first.astype(np.float64) + second.astype(np.float64)
    return total.astype(first.dtype)


def merge_gru_biases(
    input_bias: np.ndarray,
    recurrent_bias: np.ndarray,
    gates: Sequence[str] = GRU_GATES,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the two biases of a GRU that resets after as `GRUParams` holds them.

    Those of r and z are added, that of n on the recurrent side stands inside the reset
    product and stays apart.

    Args:
        input_bias: `[3H]`, on the side of the inputs.
        recurrent_bias: `[3H]`, on the side of h.
        gates: The order of their blocks, and of those of the result.

    Returns:
        What becomes the fields `bias`, `[3H]`, and `recurrent_bias`, `[H]`.

    Examples:
        >>> merge_gru_biases(np.array([1.0, 2, 3]), np.array([4.0, 5, 6]))
        (array([5., 7., 3.]), array([6.]))
    """
    ours = split_gates(input_bias, gates)
    other = split_gates(recurrent_bias, gates)
    merged = {gate: merge_biases(ours[gate], other[gate]) for gate in ("r", "z")}
    return join_gates({**ours, **merged}, gates), other["n"]


def split_gru_biases(
    bias: np.ndarray, recurrent_bias: np.ndarray, gates: Sequence[str] = GRU_GATES
) -> tuple[np.ndarray, np.ndarray]:
    """Return two biases `[3H]` that `merge_gru_biases` makes these of.

    The recurrent one is zero but for n; both are in the order of `gates`.

    Examples:
        >>> split_gru_biases(np.array([5.0, 7, 3]), np.array([6.0]))
        (array([5., 7., 3.]), array([0., 0., 6.]))
    """
    zeros = np.zeros_like(recurrent_bias)
    blocks = dict.fromkeys(gates, zeros) | {"n": recurrent_bias}
    return bias, join_gates(blocks, gates)
