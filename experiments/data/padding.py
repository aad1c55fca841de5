"""Sequences of different lengths as one time-major array and their lengths.

Layer: experiments (data).
"""

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np

from gated_rnn.types import check_positive, invalid


class Padded(NamedTuple):
    """Sequences side by side, padded at the end.

    Attributes:
        values: `[T, B, *features]`, in the dtype of the sequences.
        lengths: int32 `[B]`, real steps of each; `gated_rnn.lengths_to_mask` reads it.
    """

    values: np.ndarray
    lengths: np.ndarray


def pad(
    sequences: Sequence[np.ndarray],
    *,
    fill: int = 0,
    num_steps: int | None = None,
    keep: Literal["start", "end"] = "start",
) -> Padded:
    """Put sequences side by side.

    Args:
        sequences: Each `[T_i, *features]`, at least one, of the same dtype.
        fill: What stands after a sequence's end.
        num_steps: T; None for the longest. Longer sequences are cut.
        keep: Which part of a sequence that is cut: its "start" or its "end".

    Returns:
        The array and the lengths.

    Raises:
        ValueError: If there is no sequence, or an option is not one of those above.

    Examples:
        >>> padded = pad([np.array([5, 6, 7]), np.array([8])])
        >>> padded.values.T
        array([[5, 6, 7],
               [8, 0, 0]])
        >>> padded.lengths
        array([3, 1], dtype=int32)
    """
    if not sequences:
        raise invalid("sequences", "at least one sequence", "none")
    if keep not in ("start", "end"):
        raise invalid("keep", "'start' or 'end'", repr(keep))
    if num_steps is None:
        num_steps = max(len(sequence) for sequence in sequences)
    else:
        check_positive("num_steps", num_steps)
    lengths = [min(len(sequence), num_steps) for sequence in sequences]
    shape = (num_steps, len(sequences), *sequences[0].shape[1:])
    values = np.full(shape, fill, sequences[0].dtype)
    for row, (sequence, length) in enumerate(zip(sequences, lengths, strict=True)):
        part = sequence[:length] if keep == "start" else sequence[-length:]
        values[:length, row] = part[:length]
    return Padded(values, np.array(lengths, np.int32))


def row_batches(
    num_rows: int, batch_size: int, generator: np.random.Generator | None = None
) -> Iterator[np.ndarray]:
    """Go once through all rows, in batches.

    Args:
        num_rows: Number of rows.
        batch_size: Rows in a batch; the last one has what is left.
        generator: Shuffles the rows; None keeps their order, as for a test part.

    Yields:
        int64 `[at most batch_size]`, numbers of rows.

    Raises:
        ValueError: If the batch size is not positive.
    """
    check_positive("batch_size", batch_size)
    rows = np.arange(num_rows) if generator is None else generator.permutation(num_rows)
    for start in range(0, num_rows, batch_size):
        yield rows[start : start + batch_size]
