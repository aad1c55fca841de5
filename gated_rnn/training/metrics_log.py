"""Metrics of every seed and update as JSON lines (layer 5)."""

import contextlib
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gated_rnn.training.checkpoints import CheckpointError, reason_of
from gated_rnn.training.seeds import Piece

__all__ = ["MetricsLog"]


class MetricsLog:
    """A file with a line for each seed and update.

    A line is an object with "seed", "step" (the update, from 0) and every metric by its
    name; a number that is not finite is null.

    Args:
        path: The file; its folder exists.
    """

    def __init__(self, path: Path):
        self.path = path

    def rewrite(
        self, parts: Iterable[tuple[np.ndarray, Mapping[str, np.ndarray]]]
    ) -> None:
        """Write the file anew, whole or not at all.

        Args:
            parts: Seed ids `[S]` and their metrics from the first update on,
                `[S, updates, ...]` each.

        Raises:
            CheckpointError: If it cannot be written; an old one stays as it is.
        """
        fresh = self.path.with_name(f"{self.path.name}.new")
        try:
            with self._say_why(), fresh.open("w", encoding="utf-8") as file:
                for seed_ids, metrics in parts:
                    file.writelines(_lines(seed_ids, metrics, 0))
            with self._say_why():
                os.replace(fresh, self.path)
        finally:
            with contextlib.suppress(OSError):
                fresh.unlink(missing_ok=True)

    def append(self, piece: Piece) -> None:
        """Add the lines of a piece.

        Raises:
            CheckpointError: If they cannot be written.
        """
        count = next(iter(piece.metrics.values())).shape[1]
        with self._say_why(), self.path.open("a", encoding="utf-8") as file:
            file.writelines(_lines(piece.seed_ids, piece.metrics, piece.step - count))

    @contextlib.contextmanager
    def _say_why(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise CheckpointError(
                f"Cannot write the metrics to {self.path}: {reason_of(error)}. "
                "Checkpoints are as they were."
            ) from error


def _lines(
    seed_ids: np.ndarray, metrics: Mapping[str, np.ndarray], first_step: int
) -> Iterable[str]:
    """Yield lines, update by update."""
    lists = {name: curve.tolist() for name, curve in metrics.items()}
    for index in range(next(iter(metrics.values())).shape[1]):
        for row, seed_id in enumerate(seed_ids.tolist()):
            values = {name: _finite(rows[row][index]) for name, rows in lists.items()}
            line = {"seed": seed_id, "step": first_step + index, **values}
            yield json.dumps(line, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
