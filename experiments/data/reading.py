"""Opening files that people bring: any of them may be cut, garbled or something else.

What cannot be used is one `UsageError` that says what the file is and what to do.
Layer: experiments (data).
"""

import csv
import hashlib
import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from experiments.command import UsageError

_HEAD_BYTES = 4096
_HEADER_LINES = 10  # a header stands within so many lines; before it, a URL or a title
_SHOWN_CHARACTERS = 60
_DELIMITERS = ",;\t"
_ARCHIVES = {b"PK\x03\x04": "zip", b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"7z": "7z"}
_MISSING = {"", "nan", "na", "n/a", "null", "none", "-", "--"}
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(,\d{3})+(\.\d*)?")


def unusable(path: Path, problem: str, remedy: str) -> UsageError:
    """Return the one error for a file that cannot be used: one line.

    Args:
        path: The file.
        problem: What is wrong, as the rest of a sentence about the file.
        remedy: What to do, as a sentence without its full stop.

    Returns:
        The error.
    """
    return UsageError(" ".join(f"{path} {problem}. {remedy}.".split()))


def sha256_of(path: Path) -> str:
    """Compute the sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_bytes(path: Path) -> bytes:
    """Read a file that must exist and hold something.

    Args:
        path: The file.

    Returns:
        All of it.

    Raises:
        UsageError: If it is missing, a folder, empty or not readable.
    """
    check_file(path)
    return path.read_bytes()


def check_file(path: Path) -> None:
    """Raise a `UsageError` unless a path is a file that holds something."""
    try:
        with path.open("rb") as file:
            head = file.read(1)
    except OSError as error:
        reason = error.strerror or str(error)
        raise unusable(
            path, f"cannot be read: {reason}", "Give another one with --data-dir"
        ) from error
    if not head:
        raise unusable(path, "is empty", "Get the file again")


def check_text(path: Path) -> None:
    """Raise a `UsageError` unless a file looks like text; archives are named."""
    check_file(path)
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    for magic, name in _ARCHIVES.items():
        if head.startswith(magic):
            raise unusable(path, f"is a {name} archive", "Unpack it first")
    if b"\x00" in head and not head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise unusable(path, "is not a text file", "Give a text file in UTF-8")


def read_text(path: Path, *, fallback: str | None = None) -> str:
    """Read a text: UTF-8, with or without a byte order mark, or UTF-16 with one.

    Args:
        path: The file.
        fallback: Encoding of a file that is not valid UTF-8; None to refuse it.

    Returns:
        The text; every line ends in a line feed, whatever it ended in.

    Raises:
        UsageError: If the file is missing, empty or no such text.
    """
    check_text(path)
    content = path.read_bytes()
    try:
        text = content.decode(_encoding(content))
    except UnicodeDecodeError as error:
        if fallback is None:
            raise unusable(
                path,
                f"is not text in UTF-8 (byte {error.start})",
                "Convert it to UTF-8",
            ) from error
        text = content.decode(fallback)
    if "\x00" in text:
        raise unusable(path, "is not a text file", "Give a text file in UTF-8")
    return text.replace("\r\n", "\n").replace("\r", "\n")


class Table(NamedTuple):
    """The rows of a table below its header.

    Attributes:
        columns: The names in the header, as written.
        delimiter: Between fields.
        rows: For each line that is not blank its number, from 1, and its fields.
    """

    columns: list[str]
    delimiter: str
    rows: Iterator[tuple[int, list[str]]]

    def find(self, pattern: str) -> list[int]:
        """Give the places of the columns whose `plain_name` is of a pattern."""
        names = map(plain_name, self.columns)
        return [at for at, name in enumerate(names) if re.fullmatch(pattern, name)]


def read_table(
    path: Path, required: Mapping[str, str], headless: Sequence[str] = ()
) -> Table:
    """Open a table of comma-, semicolon- or tab-separated values, line by line.

    The header is the first of the first lines that has all required columns. A field
    cannot go over several lines, so that a lost quotation mark costs one row. Bytes
    that are not text make a field that no number is read from.

    Args:
        path: The file.
        required: For each column that is needed what to call it in a message, and the
            pattern of its `plain_name`.
        headless: The columns of a table that has no header, if there is such a kind: it
            begins with as many numbers.

    Returns:
        The table; its rows are read when they are asked for.

    Raises:
        UsageError: If the file cannot be read or has no such header.
    """
    check_text(path)
    lines = _lines(path)
    head = list(itertools.islice(lines, _HEADER_LINES))
    for at, (_, line) in enumerate(head):
        for delimiter in _DELIMITERS:
            columns = _fields(line, delimiter)
            rest = itertools.chain(head[at + 1 :], lines)
            if at == 0 and len(columns) == len(headless) and _all_numbers(columns):
                columns, rest = list(headless), itertools.chain(head, lines)
            table = Table(columns, delimiter, _rows(rest, delimiter))
            if len(columns) > 1 and all(map(table.find, required.values())):
                return table
    first = head[0][1][:_SHOWN_CHARACTERS] if head else ""
    raise unusable(
        path,
        f"has no header with columns {' and '.join(required)}; it begins {first!r}",
        "Give a csv file that has them",
    )


def plain_name(column: str) -> str:
    """Write a column's name in lower case, its words joined by underscores.

    Examples:
        >>> plain_name("Volume (BTC)"), plain_name(" % Observed")
        ('volume_btc', 'observed')
    """
    return "_".join(re.findall(r"[a-z0-9]+", column.lower()))


def parse_number(text: str, *, thousands: bool = True) -> float:
    """Read a number; what stands for "no value" is NaN.

    Args:
        text: The field.
        thousands: Whether "35,911.2" is a number, as where a comma ends no field.

    Returns:
        The number, or NaN.

    Raises:
        ValueError: If the field is neither.

    Examples:
        >>> parse_number(" 35,911.2"), parse_number("null")
        (35911.2, nan)
    """
    text = text.strip()
    try:
        if "_" not in text:
            return float(text)
    except ValueError:
        if text.lower() in _MISSING:
            return float("nan")
        text = text.lstrip("$")
        if thousands and _THOUSANDS.fullmatch(text):
            return float(text.replace(",", ""))
        if re.fullmatch(r"\d+(\.\d*)?", text):  # after a currency sign
            return float(text)
    raise ValueError(f"no number: {text!r}")


def _encoding(content: bytes) -> str:
    utf_16 = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    return "utf-16" if utf_16 else "utf-8-sig"


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines that are not blank, with their numbers."""
    with path.open("rb") as file:
        encoding = _encoding(file.read(2))
    with path.open(encoding=encoding, errors="replace") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, line.rstrip("\n")


def _rows(
    lines: Iterable[tuple[int, str]], delimiter: str
) -> Iterator[tuple[int, list[str]]]:
    for number, line in lines:
        yield number, _fields(line, delimiter)


def _all_numbers(fields: list[str]) -> bool:
    try:
        return all(math.isfinite(parse_number(field)) for field in fields)
    except ValueError:
        return False


def _fields(line: str, delimiter: str) -> list[str]:
    if '"' not in line:
        return line.split(delimiter)
    try:
        return next(csv.reader([line], delimiter=delimiter))
    except csv.Error:
        return [line]
