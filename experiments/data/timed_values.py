"""A column of numbers with their times, from a table in any order, with any holes.

What bitcoin and traffic read alike. Layer: experiments (data).
"""

import math
from array import array
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from experiments.data.dates import Times
from experiments.data.reading import Table, parse_number, unusable
from experiments.data.reports import Tally


class TimedValues(NamedTuple):
    """Values in the order of time, every time once.

    Attributes:
        seconds: int64 `[N]`, seconds since 1970.
        values: float64 `[N]`, finite.
    """

    seconds: np.ndarray
    values: np.ndarray


def read_timed_values(
    table: Table,
    tally: Tally,
    *,
    time_at: int,
    value_at: int,
    noun: str,
    refuse: Callable[[float], str | None],
) -> TimedValues:
    """Read all rows that have a time and a value, and put them in order.

    Rows that cannot be read count as unreadable; rows without a value are left out; of
    rows with the same time the last in the file counts.

    Args:
        table: The open table.
        tally: Counts what is left out.
        time_at: Place of the column of times.
        value_at: Place of the column of values.
        noun: What a value is called in the report.
        refuse: Says why a finite value is left out, or None.

    Returns:
        The values; there may be none.

    Raises:
        UsageError: If days and months change places within the file.
    """
    times, values = Times(), array("d")
    thousands = table.delimiter == ","
    for line, fields in table.rows:
        tally.rows += 1
        if len(fields) != len(table.columns):
            tally.unreadable("with a wrong number of fields", f"line {line}")
            continue
        try:
            value = parse_number(fields[value_at], thousands=thousands)
        except ValueError:
            tally.unreadable(f"with text for a {noun}", f"line {line}")
            continue
        reason = refuse(value) if math.isfinite(value) else f"without a {noun}"
        try:
            if reason is None:
                times.add(fields[time_at])
                values.append(value)
            else:
                tally.drop(reason, f"line {line}")
        except ValueError:
            tally.unreadable("without a time", f"line {line}")
    try:
        seconds = times.resolve()
    except ValueError as error:
        raise unusable(tally.path, f"has times whose {error}", "Correct it") from None
    return _in_order(tally, seconds, np.array(values))


def _in_order(tally: Tally, seconds: np.ndarray, values: np.ndarray) -> TimedValues:
    order = np.argsort(seconds, kind="stable")
    seconds, values = seconds[order], values[order]
    again = np.append(seconds[1:] == seconds[:-1], False)[: seconds.size]
    if again.any():
        first = str(seconds[again][0].astype("datetime64[s]"))
        tally.drop("with a time that comes again", first, int(again.sum()))
    return TimedValues(seconds[~again], values[~again])
