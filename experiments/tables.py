"""Tables of results: once as data, shown in a terminal and written as Markdown."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import rich.table

from gated_rnn.statistics import Interval


class Table(NamedTuple):
    """A table of text; the first column holds the names of the rows."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def to_rich(table: Table) -> rich.table.Table:
    """Make what a rich console prints.

    Args:
        table: The table.

    Returns:
        A rich table, numbers to the right.
    """
    shown = rich.table.Table(title=table.title, title_justify="left")
    for index, column in enumerate(table.columns):
        shown.add_column(column, justify="right" if index else "left")
    for row in table.rows:
        shown.add_row(*row)
    return shown


def to_markdown(table: Table) -> str:
    """Write a table in Markdown, its title above it.

    Args:
        table: The table; a `|` in a cell is escaped.

    Returns:
        Lines, ended by a newline.

    Examples:
        >>> print(to_markdown(Table("Loss", ("cell", "mean"), [("LSTM", "1.5")])))
        **Loss**
        <BLANKLINE>
        | cell | mean |
        | --- | ---: |
        | LSTM | 1.5 |
        <BLANKLINE>
    """

    def line(entries: Sequence[str]) -> str:
        escaped = (entry.replace("|", "\\|") for entry in entries)
        return f"| {' | '.join(escaped)} |"

    rule = ["---", *("---:" for _ in table.columns[1:])]
    lines = [line(table.columns), line(rule), *(line(row) for row in table.rows)]
    return f"**{table.title}**\n\n" + "\n".join(lines) + "\n"


def show_number(value: float | None, digits: int = 3) -> str:
    """Show a number in so many significant digits.

    Args:
        value: The number; None or not finite is shown as "none".
        digits: Significant digits.

    Returns:
        Text, without an exponent for common sizes.

    Examples:
        >>> show_number(0.04567), show_number(1216.0, 4), show_number(float("nan"))
        ('0.0457', '1216', 'none')
    """
    if value is None or not math.isfinite(value):
        return "none"
    return f"{value:#.{digits}g}".rstrip(".")


def show_interval(interval: Interval | None, digits: int = 3) -> str:
    """Show an estimate and its confidence interval.

    Args:
        interval: Of a single number; None is shown as "none".
        digits: Significant digits of the estimate.

    Returns:
        "estimate [low, high]", or the estimate alone where there is no interval.

    Examples:
        >>> show_interval(Interval(1.5, 1.25, 1.75, 0.95, "mean", "t", 4, 0))
        '1.50 [1.25, 1.75]'
    """
    if interval is None:
        return "none"
    estimate = show_number(interval.estimate, digits)
    if not math.isfinite(interval.low):
        return estimate
    low, high = (show_number(end, digits) for end in (interval.low, interval.high))
    return f"{estimate} [{low}, {high}]"
