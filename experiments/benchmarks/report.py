"""The tables of a record of `against_peers`, for the terminal and for the page.

Made from the record alone, as it stands in results.json.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from experiments.benchmarks.cases import STEP, Case
from experiments.benchmarks.implementations import IMPLEMENTATIONS
from experiments.benchmarks.rows import Row, read_rows
from experiments.benchmarks.summary import (
    ALL_TARGET,
    JAX_CEILING,
    JAX_TARGET,
    Comparison,
    Ratio,
    compare,
    target_means,
)
from experiments.tables import Table, show_number

MODE_TITLES = {
    "forward": "Forward",
    "gradient": "Forward and gradient",
    "train": "Training step",
    STEP: "One step, batch size 1",
}
SUITE_TITLES = {
    "shapes": "",
    "lengths": ", padded sequences",
    "resets": ", resets at a tenth of the steps",
    "seeds": ", many seeds in a call",
    "latency": "",
}
_MILLISECONDS, _MEBIBYTES = 1e3, 2**20
_LARGE = 1000
_RESET_BEFORE_MARK = "*"
_MARKS = {"disagrees": "disagrees", "failed": "failed", "skipped": ""}


def list_tables(record: dict[str, Any]) -> list[Table]:
    """Lay out a record.

    Args:
        record: What `json.loads` gives of results.json.

    Returns:
        The targets, ratios, times, compile times and memory, as far as measured.
    """
    rows = read_rows(record)
    tables = [_targets_table(rows), _ratio_table(compare(rows), rows)]
    groups = dict.fromkeys((row.suite, row.mode) for row in rows)
    for suite, mode in groups:
        chosen = [row for row in rows if (row.suite, row.mode) == (suite, mode)]
        title = f"{MODE_TITLES[mode]}{SUITE_TITLES[suite]}: median, in milliseconds"
        tables.append(_grid(title, chosen, "seconds_median", _MILLISECONDS))
    compiled = [row for row in rows if row.suite == "shapes"]
    tables.append(
        _grid("Tracing and compiling, in seconds", compiled, "compile_seconds", 1)
    )
    with_peak = [row for row in rows if row.peak_bytes is not None]
    title = "Peak memory that a call adds, in MiB"
    tables.append(_grid(title, with_peak, "peak_bytes", 1 / _MEBIBYTES))
    gradients = [row for row in compiled if row.mode == "gradient"]
    title = "Scratch memory planned by XLA for forward and gradient, in MiB"
    tables.append(_grid(title, gradients, "temporary_bytes", 1 / _MEBIBYTES))
    return [table for table in tables if table.rows]


def list_notes(record: dict[str, Any]) -> list[str]:
    """Say what the tables leave out.

    Args:
        record: As in `list_tables`.

    Returns:
        Sentences: marks, who was left out and why, and the largest error.
    """
    rows = read_rows(record)
    notes = []
    if any(row.reset_after is False for row in rows):
        notes.append(
            f"Marked {_RESET_BEFORE_MARK}: resets before the matmul, which is another "
            "function; compared with that form of ours."
        )
    reasons: dict[str, None] = {}
    for row in rows:
        title = IMPLEMENTATIONS[row.implementation].title
        if row.status == "skipped":
            reasons[f"{title}: {row.reason}."] = None
        elif row.status != "timed":
            reasons[f"{title}, {row.case.label}, {row.status}: {row.reason}."] = None
    notes += reasons
    errors = [row.max_relative_error for row in rows if row.status == "timed"]
    if errors:
        notes.append(
            f"Largest relative error of what was timed: {max(errors):.1e}, over "
            f"{len(errors)} rows."
        )
    return notes


def _targets_table(rows: Sequence[Row]) -> Table:
    targets = {
        "jax": ("fastest JAX peer", JAX_TARGET),
        "all": ("fastest of all", ALL_TARGET),
    }
    lines = []
    for mean in target_means(rows):
        against, target = targets[mean.against]
        ceiling = f" and none above {JAX_CEILING}" if mean.against == "jax" else ""
        lines.append(
            (
                f"{IMPLEMENTATIONS[mean.ours].title} / {against}",
                show_ratio(mean.ratio),
                show_number(mean.largest),
                f"at most {target}{ceiling}",
                str(mean.num_cases) + ("" if mean.complete else " (not all)"),
            )
        )
    title = "Forward and gradient, geometric mean over the target shapes"
    columns = ("", "ratio [95 %]", "largest", "target", "cases")
    return Table(title, columns, lines)


def _ratio_table(comparisons: Sequence[Comparison], rows: Sequence[Row]) -> Table:
    found = {(row.suite, row.case, row.implementation): row for row in rows}
    groups: dict[tuple[str, Case, str], dict[str, Comparison]] = {}
    for each in comparisons:
        groups.setdefault((each.suite, each.case, each.ours), {})[each.against] = each
    lines = []
    for (suite, case, ours), by_kind in groups.items():
        entries = []
        for kind in ("jax", "all"):
            each = by_kind.get(kind)
            if each is None:
                entries.append("")
                continue
            mark = _mark(found[suite, case, each.peer])
            entries.append(f"{show_ratio(each.ratio)} {each.peer}{mark}")
        multiple = show_number(found[suite, case, ours].roofline_multiple)
        memory = by_kind["jax"].memory_ratio if "jax" in by_kind else None
        shown = "" if memory is None else show_number(memory)
        lines.append((case.label, ours, *entries, multiple, shown))
    columns = ("", "ours", "/ JAX peer", "/ any peer", "x limit", "memory")
    title = "Ours over the fastest peer [95 %]; times the machine's limit; peak memory"
    return Table(title, columns, lines)


def _grid(title: str, rows: Sequence[Row], field: str, scale: float) -> Table:
    """Lay out one number a row: cases down, implementations across."""
    names = [name for name in IMPLEMENTATIONS if _has(rows, name, field)]
    entries = {(row.case, row.implementation): row for row in rows}
    lines = []
    for case in dict.fromkeys(row.case for row in rows):
        cells = [_show(entries.get((case, name)), field, scale) for name in names]
        if any(cells):
            lines.append((_short_label(case), *cells))
    return Table(title, ("", *names), lines)


def _has(rows: Iterable[Row], name: str, field: str) -> bool:
    return any(
        row.implementation == name and (getattr(row, field) is not None) for row in rows
    )


def _show(row: Row | None, field: str, scale: float) -> str:
    if row is None:
        return ""
    if row.status != "timed":
        return _MARKS[row.status]
    value = getattr(row, field)
    return "" if value is None else show_quantity(value * scale) + _mark(row)


def _mark(row: Row) -> str:
    return _RESET_BEFORE_MARK if row.reset_after is False else ""


def _short_label(case: Case) -> str:
    """Name a case where the title has its mode and variant."""
    return case._replace(mode="", variant="plain").label.replace("  ", " ").strip()


def show_quantity(value: float) -> str:
    """Show a time or a size, large ones without an exponent.

    Args:
        value: The number.

    Returns:
        Text.

    Examples:
        >>> show_quantity(0.01234), show_quantity(1866.3)
        ('0.0123', '1,866')
    """
    return f"{value:,.0f}" if value >= _LARGE else show_number(value)


def show_ratio(ratio: Ratio) -> str:
    """Show a ratio and its interval.

    Args:
        ratio: The ratio.

    Returns:
        Text.

    Examples:
        >>> show_ratio(Ratio(0.8, 0.75, 0.85))
        '0.800 [0.750, 0.850]'
    """
    low, high = show_number(ratio.low), show_number(ratio.high)
    return f"{show_number(ratio.estimate)} [{low}, {high}]"
