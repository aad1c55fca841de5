"""Characters of a text, to predict the next one: tiny shakespeare or any other.

Parts are cut by position; the vocabulary is that of the training part. Layer:
experiments (data).
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.data.downloads import find_file, github_file
from experiments.data.reading import read_text
from experiments.data.reports import Report, Tally
from experiments.data.splits import check_share, split_by_share
from experiments.data.vocabulary import UNKNOWN, Vocabulary
from gated_rnn.types import check_positive, invalid

#: 1,115,394 characters of Shakespeare's plays, 65 of them distinct.
PUBLISHED = github_file(
    "lm_tinyshakespeare",
    "karpathy/char-rnn",
    "6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e",
    "data/tinyshakespeare/input.txt",
    "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
)


class Text(NamedTuple):
    """A text and what was read of it."""

    text: str
    report: Report


class CharacterData(NamedTuple):
    """A text in numbers.

    Attributes:
        train: int32 `[N]`, the numbers of the training characters, in order.
        valid: int32, of the characters that follow.
        test: int32, of the last ones.
        vocabulary: Characters of the training part; 0 is `<unk>`.
        num_unknown: How many characters of `valid` and of `test` are `<unk>`.
    """

    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray
    vocabulary: Vocabulary
    num_unknown: tuple[int, int]


class Streams(NamedTuple):
    """A text side by side, in pieces: the carry of one piece is that of the next.

    Attributes:
        inputs: int32 `[P, T, B]`: piece, time, stream.
        targets: int32 `[P, T, B]`, the character that follows each.
    """

    inputs: np.ndarray
    targets: np.ndarray


def load_text(data_dir: Path | None = None) -> Text:
    """Find the published text, or the user's, and read it.

    Args:
        data_dir: A folder with `input.txt`, or any text file in UTF-8.

    Returns:
        The text.

    Raises:
        UsageError: If there is no file, or none that can be used.
    """
    return read_characters(find_file(PUBLISHED, data_dir))


def read_characters(path: Path) -> Text:
    """Read a text in UTF-8 (or UTF-16 with a byte order mark).

    Args:
        path: The file.

    Returns:
        The text, its lines ended by line feeds.

    Raises:
        UsageError: If the file is empty or no text.
    """
    text = read_text(path)
    tally = Tally(path, "a text", unit="characters", rows=len(text))
    distinct = len(set(text))
    return Text(text, tally.finish(len(text), f"{distinct} distinct characters"))


def make_dataset(
    text: str,
    *,
    valid_share: float = 0.05,
    test_share: float = 0.05,
    fraction: float = 1.0,
) -> CharacterData:
    """Cut a text by position and number its characters.

    Args:
        text: The text.
        valid_share: Share of the text to validate on, before the test part.
        test_share: Share of the text to test on, the end of it.
        fraction: Share of the training part to keep, its beginning, in (0, 1]. The
            vocabulary stays that of the whole training part, so that every fraction
            is tested on the same numbers.

    Returns:
        The parts and the vocabulary, its characters by code point.

    Raises:
        ValueError: If a share is out of range or leaves nothing to train on.
    """
    check_share("fraction", fraction, whole=True)
    split = split_by_share(len(text), valid_share=valid_share, test_share=test_share)
    vocabulary = Vocabulary.of([UNKNOWN, *sorted(set(text[split.train]))])
    train, valid, test = (vocabulary.encode(text[part]) for part in split)
    kept = int(train.size * fraction)
    if kept < 2:
        expected = "a share that leaves two characters to train on"
        raise invalid("fraction", expected, f"{fraction} of {train.size}")
    unknown = vocabulary.unknown_id
    counts = (int((valid == unknown).sum()), int((test == unknown).sum()))
    return CharacterData(train[:kept], valid, test, vocabulary, counts)


def make_streams(ids: np.ndarray, batch_size: int, num_steps: int) -> Streams:
    """Cut a text into streams that are read side by side, in pieces of T steps.

    Stream b is one stretch of the text; piece p + 1 goes on where piece p ended, so
    that training may hand the carry on and cut only the gradient. What is left at the
    end, less than a piece of every stream, is not used.

    Args:
        ids: `[N]`.
        batch_size: Number of streams, B.
        num_steps: Steps in a piece, T.

    Returns:
        The pieces, as views where the layout allows.

    Raises:
        ValueError: If the text is too short for one piece of every stream.

    Examples:
        >>> streams = make_streams(np.arange(9), batch_size=2, num_steps=2)
        >>> streams.inputs[:, :, 1]
        array([[4, 5],
               [6, 7]])
        >>> streams.targets[:, :, 1]
        array([[5, 6],
               [7, 8]])
    """
    check_positive("batch_size", batch_size)
    check_positive("num_steps", num_steps)
    num_pieces = (ids.size - 1) // (batch_size * num_steps)
    if num_pieces < 1:
        expected = f"at least {batch_size * num_steps + 1} characters"
        raise invalid("ids", expected, f"{ids.size}")
    used = num_pieces * batch_size * num_steps

    def arrange(part: np.ndarray) -> np.ndarray:
        streams = part.reshape(batch_size, num_pieces, num_steps)
        return streams.transpose(1, 2, 0)

    return Streams(arrange(ids[:used]), arrange(ids[1 : used + 1]))
