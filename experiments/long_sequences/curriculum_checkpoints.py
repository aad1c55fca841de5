"""The curriculum's way to a checkpoint and back."""

from pathlib import Path
from typing import Any

import numpy as np

from experiments.command import UsageError
from experiments.long_sequences.curriculum import Course
from gated_rnn.training import CheckpointError, Checkpoints, PieceState
from gated_rnn.training.saved_state import from_arrays, to_arrays

_CURVES = ("losses", "counts", "seconds")


class CourseCheckpoints:
    """Checkpoints of one arm: a run goes on with the numbers of one left alone.

    Args:
        directory: Where they are.
        identity: What makes it this run, in JSON's types; must be equal to go on.
    """

    def __init__(self, directory: Path, identity: dict[str, Any]):
        self._checkpoints = Checkpoints(directory)
        self._identity = identity

    def save(self, course: Course) -> None:
        """Write where the seeds stand.

        Raises:
            UsageError: If it cannot be written.
        """
        arrays = to_arrays("train", course.train)
        arrays |= {name: getattr(course, name) for name in _CURVES}
        description = {"identity": self._identity, "schedules": course.schedules}
        try:
            self._checkpoints.save(arrays, description)
        except CheckpointError as error:
            raise UsageError(str(error)) from error

    def load(self, start: Course, num_epochs: int) -> Course:
        """Return where the newest checkpoint stands, `start` if there is none.

        Args:
            start: The run before its first epoch.
            num_epochs: How many are asked for in all.

        Returns:
            The run to go on with.

        Raises:
            UsageError: If none can be read, it is of another run, or it has made more
                epochs.
        """
        directory = self._checkpoints.directory
        try:
            loaded = self._checkpoints.load()
            if loaded is None:
                return start
            before = loaded.description["identity"]
            names = sorted({*before, *self._identity})
            for name in names:
                was, now = before.get(name), self._identity.get(name)
                if was != now:
                    raise UsageError(
                        f"The checkpoints in {directory} are of another run: "
                        f"{name} {was!r}, now {now!r}."
                    )
            train = from_arrays("train", start.train, loaded.arrays, directory)
        except CheckpointError as error:
            raise UsageError(str(error)) from error
        schedules = tuple(PieceState(*row) for row in loaded.description["schedules"])
        curves = (np.asarray(loaded.arrays[name]) for name in _CURVES)
        course = Course(train, schedules, *curves)
        if course.num_epochs > num_epochs:
            raise UsageError(
                f"The run in {directory} has made {course.num_epochs} epochs: expected "
                f"num_epochs of at least as many, got {num_epochs}."
            )
        return course
