"""Checkpoints of a run on disk; the newest intact one is found (layer 5).

Orbax writes them: a checkpoint appears under its number only when it is complete, so a
process may be killed at any instant. A digest tells damage that is not seen otherwise.
"""

import errno
import hashlib
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from gated_rnn.types import check_positive

__all__ = ["CheckpointError", "Checkpoints", "Loaded"]

FORMAT = 1
# What reading a damaged checkpoint raises, depending on where it is damaged.
_DAMAGE = (OSError, ValueError, LookupError, TypeError, RuntimeError, AttributeError)
_REASON = re.compile(r"[\r\n]+")
_LONGEST_REASON = 200


class CheckpointError(ValueError):
    """A checkpoint cannot be written, read or used; one line says why."""


class Loaded(NamedTuple):
    """A checkpoint that was read.

    Attributes:
        number: Its number in the folder.
        arrays: By name, NumPy.
        description: In JSON's types.
        damaged: Newer ones that could not be read: number and reason.
    """

    number: int
    arrays: dict[str, np.ndarray]
    description: dict[str, Any]
    damaged: tuple[tuple[int, str], ...]


class Checkpoints:
    """A folder of checkpoints of one run, numbered from 0.

    Args:
        directory: The folder, made when the first checkpoint is saved.
        keep: How many of the newest ones are kept.

    Raises:
        ValueError: If `keep` is not a positive integer.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     checkpoints = Checkpoints(folder, keep=2)
        ...     for step in (10, 20, 30):
        ...         weights = {"weights": np.full(3, step)}
        ...         _ = checkpoints.save(weights, {"step": step})
        ...     loaded = checkpoints.load()
        ...     checkpoints.numbers(), loaded.description, loaded.arrays["weights"]
        ([1, 2], {'step': 30}, array([30, 30, 30]))
    """

    def __init__(self, directory: str | os.PathLike[str], *, keep: int = 3):
        check_positive("keep", keep)
        self.directory = Path(directory).absolute()
        self.keep = keep

    def numbers(self) -> list[int]:
        """Return the numbers of the complete checkpoints, ascending."""
        try:
            names = [entry.name for entry in os.scandir(self.directory)]
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(int(name) for name in names if name.isdecimal())

    def save(
        self, arrays: Mapping[str, np.ndarray], description: Mapping[str, Any]
    ) -> int:
        """Write a checkpoint; afterwards delete those that are not kept.

        Args:
            arrays: NumPy arrays by name.
            description: JSON's types.

        Returns:
            The number of the checkpoint.

        Raises:
            CheckpointError: If it cannot be written; earlier ones stay as they are.
        """
        arrays = {name: np.asarray(array) for name, array in arrays.items()}
        packed = _pack(arrays.values())
        index = [
            [name, array.dtype.name, list(array.shape)]
            for name, array in arrays.items()
        ]
        about = {
            "format": FORMAT,
            "description": dict(description),
            "arrays": index,
            "digest": _digest(packed),
        }
        number = max(self.numbers(), default=-1) + 1
        items = ocp.args.Composite(
            about=ocp.args.JsonSave(about), arrays=ocp.args.StandardSave([packed])
        )
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            with self._manager() as manager:
                manager.save(number, args=items, force=True)
        except _DAMAGE as error:
            raise CheckpointError(
                f"Cannot save a checkpoint in {self.directory}: {_why(error)}. "
                "Earlier checkpoints are as they were."
            ) from error
        return number

    def load(self) -> Loaded | None:
        """Read the newest intact checkpoint; None where there is none at all.

        Raises:
            CheckpointError: If there are checkpoints and none can be read.
        """
        damaged: list[tuple[int, str]] = []
        for number in reversed(self.numbers()):
            try:
                arrays, description = self._read(number)
            except _DAMAGE as error:
                damaged.append((number, _why(error)))
                continue
            return Loaded(number, arrays, description, tuple(damaged))
        if damaged:
            number, reason = damaged[0]
            raise CheckpointError(
                f"None of the {len(damaged)} checkpoints in {self.directory} can be "
                f"read; the newest, {number}: {reason}."
            )
        return None

    def _read(self, number: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        with self._manager() as manager:
            about = manager.restore(
                number, args=ocp.args.Composite(about=ocp.args.JsonRestore())
            )["about"]
            if about["format"] != FORMAT:
                raise ValueError(f"its format is {about['format']}, expected {FORMAT}")
            shapes = [(_dtype(dtype), shape) for _, dtype, shape in about["arrays"]]
            num_bytes = sum(dtype.itemsize * math.prod(s) for dtype, s in shapes)
            empty = np.zeros(max(num_bytes, 1), np.uint8)
            (packed,) = manager.restore(
                number,
                args=ocp.args.Composite(arrays=ocp.args.StandardRestore([empty])),
            )["arrays"]
        if _digest(packed) != about["digest"]:
            raise ValueError("its numbers are not those that were saved")
        names = [name for name, _, _ in about["arrays"]]
        arrays = dict(zip(names, _unpack(packed, shapes), strict=True))
        return arrays, about["description"]

    def _manager(self) -> ocp.CheckpointManager:
        options = ocp.CheckpointManagerOptions(
            max_to_keep=self.keep, enable_async_checkpointing=False
        )
        return ocp.CheckpointManager(self.directory, options=options)


def _pack(arrays: Iterable[np.ndarray]) -> np.ndarray:
    """Return the bytes of all arrays, at least one: Orbax refuses an empty array.

    One array, since Orbax leaves tasks behind when it cannot read one of several.
    """
    parts = [np.frombuffer(array.tobytes(), np.uint8) for array in arrays]
    padding = np.zeros(0 if any(map(len, parts)) else 1, np.uint8)
    return np.concatenate([*parts, padding])


def _unpack(
    packed: np.ndarray, shapes: list[tuple[np.dtype, list[int]]]
) -> Iterator[np.ndarray]:
    first = 0
    for dtype, shape in shapes:
        last = first + dtype.itemsize * math.prod(shape)
        yield np.frombuffer(packed[first:last].tobytes(), dtype).reshape(shape).copy()
        first = last


def _digest(packed: np.ndarray) -> str:
    return hashlib.sha256(packed.tobytes()).hexdigest()


def _dtype(name: str) -> np.dtype:
    return jnp.dtype(name)  # knows bfloat16 too


def _why(error: BaseException) -> str:
    """Return the reason in one line without its last full stop."""
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno)
    for code in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EROFS):
        if os.strerror(code) in str(error):  # the words of a library in C++
            return os.strerror(code)
    words = _REASON.sub(" ", str(error)).strip().rstrip(".")
    return words[:_LONGEST_REASON] or type(error).__name__
