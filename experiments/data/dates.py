"""Reading a time however a file writes it. Layer: experiments (data).

ISO 8601, seconds or milliseconds since 1970, 20/06/2021 or 06/20/2021, Jun 20, 2021.
"""

import datetime
import math
import re
from array import array
from typing import NamedTuple

import numpy as np

_UTC = datetime.UTC
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=_UTC)
_UNKNOWN = np.iinfo(np.int64).min
_LATEST = datetime.datetime(2200, 1, 1, tzinfo=_UTC).timestamp()
_NUMBER = re.compile(r"\d+(\.\d*)?([eE]\+?\d+)?")
_COMPACT = re.compile(r"(19|20|21)\d{6}")
_CLOCK = r"(?:[ T]+(\d{1,2})(?::(\d{2}))?(?::(\d{2})(?:\.\d+)?)?[ -]?([AaPp][Mm])?)?"
_DIGITS = re.compile(
    r"(\d{1,4})[/.-](\d{1,2})[/.-](\d{1,4})" + _CLOCK + r" ?(?:Z|UTC|\+00:?00)?"
)
_NAMED_FORMATS = ("%b %d, %Y", "%B %d, %Y", "%d %b %Y", "%d-%b-%Y")


class Reading(NamedTuple):
    """A time in seconds since 1970, UTC, under both readings of day and month.

    Attributes:
        day_first: Where 04/03/2016 is 4 March; `None` if that is no date.
        month_first: Where it is 3 April. Most forms leave no doubt: both are equal.
    """

    day_first: int | None
    month_first: int | None


def parse_time(text: str) -> Reading:
    """Read a time; without a zone it is UTC.

    A plain number is a date if it is eight digits that begin with a century, and else
    an epoch in seconds, milliseconds, microseconds or nanoseconds by its size.

    Args:
        text: The field.

    Returns:
        Both readings; they differ only for dates such as 04/03/2016.

    Raises:
        ValueError: If the field is no time, or one outside 1970 to 2200.

    Examples:
        >>> parse_time("2021-06-20") == parse_time("1624147200000")
        True
        >>> parse_time("04/03/2016 0:05").day_first
        1457049900
    """
    text = text.strip()
    if _NUMBER.fullmatch(text) and not _COMPACT.fullmatch(text):
        seconds = float(text)
        finer = (seconds / 1000**power for power in range(4))  # down to nanoseconds
        return _both(next((time for time in finer if time < _LATEST), math.inf))
    try:
        return _both(_seconds(datetime.datetime.fromisoformat(text)))
    except ValueError:
        pass
    if match := _DIGITS.fullmatch(text):
        return _from_digits(*match.groups())
    for form in _NAMED_FORMATS:
        try:
            return _both(_seconds(datetime.datetime.strptime(text, form)))
        except ValueError:
            continue
    raise ValueError(f"no time: {text!r}")


class Times:
    """Gathers the times of a file and chooses one reading for all of them."""

    def __init__(self):
        self._columns = (array("q"), array("q"))

    def add(self, text: str) -> None:
        """Read one more time; raise `ValueError` if it is none."""
        for column, seconds in zip(self._columns, parse_time(text), strict=True):
            column.append(_UNKNOWN if seconds is None else seconds)

    def resolve(self) -> np.ndarray:
        """Choose between day first and month first.

        The reading under which every row is a date; if both, the one that spans less
        time, for a record has its days next to each other and the wrong reading
        scatters them over the months; if that does not tell either, the day is first.

        Returns:
            int64 `[N]`, seconds since 1970.

        Raises:
            ValueError: If neither fits all rows.
        """
        columns = [np.array(column, np.int64) for column in self._columns]
        fitting = [column for column in columns if (column != _UNKNOWN).all()]
        if not fitting:
            raise ValueError("days and months change places within the file")
        return min(fitting, key=np.ptp) if fitting[0].size else fitting[0]


def _from_digits(first, second, third, hour, minute, second_of, half) -> Reading:
    clock = _seconds_of_day(hour, minute, second_of, half)
    if len(first) == 4:
        return _both(_seconds(_midnight(first, second, third)) + clock)
    if len(third) != 4:
        raise ValueError("a year of two digits")
    readings = []
    for day, month in ((first, second), (second, first)):
        try:
            readings.append(int(_seconds(_midnight(third, month, day))) + clock)
        except ValueError:
            readings.append(None)
    if readings == [None, None]:
        raise ValueError("no such day")
    return Reading(*readings)


def _midnight(year: str, month: str, day: str) -> datetime.datetime:
    return datetime.datetime(int(year), int(month), int(day))


def _seconds_of_day(hour, minute, second, half) -> int:
    hour, minute, second = (int(part or 0) for part in (hour, minute, second))
    if half:
        if not 1 <= hour <= 12:
            raise ValueError("no such hour")
        hour = hour % 12 + (12 if half.lower() == "pm" else 0)
    if hour > 23 or minute > 59 or second > 59:
        raise ValueError("no such time of day")
    return hour * 3600 + minute * 60 + second


def _seconds(moment: datetime.datetime) -> float:
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=_UTC)
    return (moment - _EPOCH).total_seconds()


def _both(seconds: float) -> Reading:
    if not 0 <= seconds < _LATEST:
        raise ValueError("outside 1970 to 2200")
    return Reading(int(seconds), int(seconds))
