"""What was read from a file, what was left out and why: printed and recorded.

Layer: experiments (data).
"""

import dataclasses
from pathlib import Path
from typing import NamedTuple

from experiments.data.reading import sha256_of, unusable

#: Of the rows that hold something, so many may be unreadable; with more, the file is
#: taken for one of another kind.
MAX_UNREADABLE_SHARE = 0.1


class Drop(NamedTuple):
    """Rows left out for one reason.

    Attributes:
        reason: In words.
        number: How many.
        first: Where the first of them stands: a line, or a name.
    """

    reason: str
    number: int
    first: str


class Report(NamedTuple):
    """What became of a file's rows.

    Attributes:
        file: Its name, without the folder.
        sha256: Of the file, or None for a folder.
        unit: What is counted: "rows", "pieces", "texts", "characters".
        rows: How many were read, headers and blank lines not counted.
        kept: How many are used.
        dropped: Those left out, by reason.
        notes: What else a reader of the result should know.
    """

    file: str
    sha256: str | None
    unit: str
    rows: int
    kept: int
    dropped: tuple[Drop, ...]
    notes: tuple[str, ...]

    def __str__(self) -> str:
        """Say it in one line.

        Examples:
            >>> drop = Drop("no price", 2, "line 3")
            >>> notes = ("1 day filled",)
            >>> print(Report("a.csv", None, "rows", 9, 7, (drop,), notes))
            a.csv: 9 rows, 7 kept; left out: 2 no price (first: line 3); 1 day filled
        """
        parts = [f"{self.file}: {self.rows:,} {self.unit}, {self.kept:,} kept"]
        if self.dropped:
            reasons = [
                f"{drop.number:,} {drop.reason} (first: {drop.first})"
                for drop in self.dropped
            ]
            parts.append(f"left out: {', '.join(reasons)}")
        return "; ".join([*parts, *self.notes])


@dataclasses.dataclass
class Tally:
    """Counts rows while a file is read.

    Attributes:
        path: The file.
        kind: What the file should be, for the message: "a file of prices".
        unit: What is counted.
        rows: How many were read so far.
    """

    path: Path
    kind: str
    unit: str = "rows"
    rows: int = 0
    _drops: dict[str, Drop] = dataclasses.field(default_factory=dict)
    _unreadable: int = 0

    def drop(self, reason: str, first: str, number: int = 1) -> None:
        """Leave rows out that are what they should be, but of no use.

        Args:
            reason: In words.
            first: Where the first of them stands.
            number: How many.
        """
        if number:
            before = self._drops.get(reason, Drop(reason, 0, first))
            self._drops[reason] = before._replace(number=before.number + number)

    def unreadable(self, reason: str, first: str) -> None:
        """Leave a row out that is not what it should be."""
        self._unreadable += 1
        self.drop(reason, first)

    def finish(self, kept: int, *notes: str) -> Report:
        """Close the count.

        Args:
            kept: Rows used.
            *notes: What else to say; empty ones are skipped.

        Returns:
            The report.

        Raises:
            UsageError: If nothing is left, or too much could not be read.
        """
        sha256 = sha256_of(self.path) if self.path.is_file() else None
        dropped = tuple(self._drops.values())
        notes = tuple(note for note in notes if note)
        name, unit = self.path.name, self.unit
        report = Report(name, sha256, unit, self.rows, kept, dropped, notes)
        if self._unreadable > MAX_UNREADABLE_SHARE * self.rows:
            problem = f"is not {self.kind}, or is damaged: {report}"
        elif not kept:
            problem = f"has nothing to use: {report}"
        else:
            return report
        raise unusable(self.path, problem, "Give another one with --data-dir")
