"""Checkpoints of a run on disk; the newest intact one is found (layer 5).

Orbax writes them: a checkpoint appears under its number only when it is complete, so a
process may be killed at any instant. Damage that comes later shows in its file.
"""

import contextlib
import dataclasses
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from gated_rnn.training.checkpoint_file import read_arrays, write_arrays
from gated_rnn.types import check_positive

__all__ = ["CheckpointError", "Checkpoints", "Loaded", "reason_of"]

FILE_NAME = "arrays"
_INCOMPLETE = ocp.path.step.TMP_DIR_SUFFIX  # Orbax', of what it has not finished
_NUMBER = re.compile(r"0|[1-9][0-9]*")
# What writing raises, in Orbax or below; and reading a file that is not ours.
_FAILURES = (OSError, ValueError, TypeError, RuntimeError)
_LINE_ENDS = re.compile(r"[\r\n]+")
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
        return sorted(int(name) for name in names if _NUMBER.fullmatch(name))

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
        number = max(self.numbers(), default=-1) + 1
        content = _Content({"number": number, "run": dict(description)}, dict(arrays))
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._delete_incomplete()  # of a process that was killed; Orbax warns of it
            with ocp.Checkpointer(_OneFile()) as checkpointer:
                checkpointer.save(self.directory / str(number), args=content)
        except _FAILURES as error:
            self._delete_incomplete()
            raise CheckpointError(
                f"Cannot save a checkpoint in {self.directory}: {reason_of(error)}. "
                "Earlier checkpoints are as they were."
            ) from error
        self._delete_old()
        return number

    def load(self) -> Loaded | None:
        """Read the newest intact checkpoint; None where there is none at all.

        Raises:
            CheckpointError: If there are checkpoints and none can be read.
        """
        damaged: list[tuple[int, str]] = []
        for number in reversed(self.numbers()):
            try:
                description, arrays = read_arrays(self._file(number))
                if description["number"] != number:
                    words = f"its file is that of checkpoint {description['number']}"
                    raise ValueError(words)
            except (OSError, ValueError, MemoryError) as error:
                damaged.append((number, reason_of(error)))
                continue
            return Loaded(number, arrays, description["run"], tuple(damaged))
        if damaged:
            number, reason = damaged[0]
            raise CheckpointError(
                f"None of the {len(damaged)} checkpoints in {self.directory} can be "
                f"read; the newest, {number}: {reason}."
            )
        return None

    def _file(self, number: int) -> Path:
        return self.directory / str(number) / FILE_NAME

    def _delete_old(self) -> None:
        """Delete what is not kept; what cannot be deleted is tried again later."""
        if jax.process_index() != 0:
            return
        ours = [number for number in self.numbers() if self._file(number).exists()]
        for number in ours[: -self.keep]:
            folder = self.directory / str(number)
            incomplete = folder.with_name(folder.name + _INCOMPLETE)
            with contextlib.suppress(OSError):
                folder.rename(incomplete)  # at once: no half of one is ever found
        self._delete_incomplete()

    def _delete_incomplete(self) -> None:
        if jax.process_index() != 0:
            return
        for folder in self.directory.glob(f"[0-9]*{_INCOMPLETE}*"):
            shutil.rmtree(folder, ignore_errors=True)


class _OneFile(ocp.CheckpointHandler):
    """How Orbax writes a `_Content`."""

    def save(self, directory: os.PathLike[str], args: "_Content") -> None:
        if jax.process_index() == 0:
            write_arrays(Path(directory) / FILE_NAME, args.description, args.arrays)

    def restore(self, directory: os.PathLike[str], args: Any = None) -> "_Content":
        return _Content(*read_arrays(Path(directory) / FILE_NAME))


@ocp.args.register_with_handler(_OneFile, for_save=True, for_restore=True)
@dataclasses.dataclass
class _Content(ocp.args.CheckpointArgs):
    """What a checkpoint holds."""

    description: dict[str, Any]
    arrays: dict[str, np.ndarray]


def reason_of(error: BaseException) -> str:
    """Return why something failed, in one line without its last full stop."""
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno)
    words = _LINE_ENDS.sub(" ", str(error)).strip().rstrip(".")
    return words[:_LONGEST_REASON] or type(error).__name__
