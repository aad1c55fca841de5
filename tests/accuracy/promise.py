"""What is promised: bounds from the largest errors of the record, by one rule."""

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from tests.accuracy.measure import (
    DTYPES,
    GRADIENTS,
    KINDS,
    SMOOTH,
    VALUES,
    kind_of,
)
from tests.accuracy.problems import ROW_CLASSES

#: A bound is at least so many times the largest error of the record.
MARGIN = 4
#: An error above this leaves no digit to promise.
USELESS = 0.5
_STEPS = (1, 2, 5, 10)

GROUPS = {"values": VALUES, "gradients": GRADIENTS}


class Largest(NamedTuple):
    """The largest error of a group of quantities, and whose it is."""

    error: float
    cell: str
    engine: str


class Row(NamedTuple):
    """One promise: a dtype, a row class, a kind of cell, a group of quantities."""

    dtype: str
    row_class: str
    kind: str
    group: str


def list_rows() -> list[Row]:
    """Return every row of the promise in the order of the page."""
    return [
        Row(dtype, row_class, kind, group)
        for dtype in DTYPES
        for kind in (SMOOTH, *KINDS)
        for row_class in ROW_CLASSES
        for group in GROUPS
    ]


def list_errors(cells: Mapping[str, Any]) -> Iterator[tuple[Row, Largest]]:
    """Yield the largest error of each measured row, cell by cell, engine by engine."""
    for cell, engines in cells.items():
        for engine, dtypes in engines.items():
            for dtype, row_classes in dtypes.items():
                for row_class, errors in row_classes.items():
                    for group, names in GROUPS.items():
                        row = Row(dtype, row_class, kind_of(cell), group)
                        # None is what a record has for an error that is not finite.
                        found = [errors[name] for name in names]
                        worst = math.inf if None in found else max(found)
                        yield row, Largest(worst, cell, engine)


def find_largest(cells: Mapping[str, Any]) -> dict[Row, Largest]:
    """Return the largest error of each row over all cells and engines."""
    largest: dict[Row, Largest] = {}
    for row, found in list_errors(cells):
        if row not in largest or found.error > largest[row].error:
            largest[row] = found
    return largest


def promise(error: float) -> float | None:
    """Return the bound for a largest error, or None where nothing is promised.

    It is the smallest of 1, 2 and 5 times a power of ten that is at least `MARGIN`
    times the error.

    Examples:
        >>> promise(3.1e-7), promise(1.2e-6), promise(0.3)
        (2e-06, 5e-06, None)
    """
    wanted = MARGIN * error
    if not wanted <= USELESS:
        return None
    exponent = math.floor(math.log10(wanted))
    bounds = (float(f"{step}e{exponent}") for step in _STEPS)
    return next(bound for bound in bounds if bound >= wanted)
