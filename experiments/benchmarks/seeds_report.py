"""The tables of a record of `seeds`, for the terminal and for the page.

Made from the record alone, as it stands in results.json.
"""

from typing import Any

from experiments.benchmarks.cases import Sizes
from experiments.benchmarks.implementations import IMPLEMENTATIONS
from experiments.benchmarks.report import show_quantity, show_ratio
from experiments.benchmarks.summary import Ratio
from experiments.tables import Table

_MILLISECONDS, _MEBIBYTES = 1e3, 2**20


def list_tables(record: dict[str, Any]) -> list[Table]:
    """Lay out a record.

    Args:
        record: What `json.loads` gives of results.json.

    Returns:
        Throughput, memory, and the comparison with other libraries if it was made.
    """
    rows = [row for cell in record["cells"].values() for row in cell["rows"]]
    place = ("", "seeds", "block", "devices")
    throughput = Table(
        "Throughput of train_seeds, in seeds x updates a second",
        (*place, "ms an update", "throughput"),
        [
            (
                *_place(row),
                show_quantity(row["seconds_median"] * _MILLISECONDS),
                f"{row['seeds_updates_a_second']:,.0f}",
            )
            for row in rows
        ],
    )
    memory = Table(
        "Memory of train_seeds, in MiB",
        (*place, "planned", "measured"),
        [
            (
                *_place(row),
                _show_bytes(row["planned_bytes"]),
                _show_bytes(row["peak_bytes"]),
            )
            for row in rows
        ],
    )
    compared = Table(
        "All seeds at once, against others' runs one after another",
        ("", "implementation", "ms an update of all", "ours over it [95 %]"),
        [
            (
                _label(row),
                _name(row["implementation"]),
                show_quantity(row["seconds_median"] * _MILLISECONDS),
                show_ratio(Ratio(**row["ours_over_this"])),
            )
            for row in record["summary"]["comparisons"]
            if row["ours_over_this"]
        ],
    )
    return [table for table in (throughput, memory, compared) if table.rows]


def list_notes(record: dict[str, Any]) -> list[str]:
    """Say what the tables leave out.

    Args:
        record: As in `list_tables`.

    Returns:
        Sentences: the comparison's terms, and who was left out.
    """
    comparisons = record["summary"]["comparisons"]
    if not comparisons:
        return []
    first = comparisons[0]
    reasons = {
        f"{_name(row['implementation'])}: {row['reason']}.": None
        for row in comparisons
        if row["reason"]
    }
    return [
        f"{first['num_seeds']} seeds: ours in blocks of {first['seed_block']} on "
        f"{first['num_devices']} devices in a process of its own, the others at "
        "default settings in another, in turns.",
        *reasons,
    ]


def _place(row: dict[str, Any]) -> tuple[str, ...]:
    numbers = (row[name] for name in ("num_seeds", "seed_block", "num_devices"))
    return (_label(row), *map(str, numbers))


def _label(row: dict[str, Any]) -> str:
    sizes = Sizes(*(row[name] for name in Sizes._fields))
    return f"{row['cell'].upper()} {sizes.label}"


def _name(implementation: str) -> str:
    entry = IMPLEMENTATIONS.get(implementation)
    return implementation if entry is None else entry.title


def _show_bytes(count: int | None) -> str:
    return "" if count is None else show_quantity(count / _MEBIBYTES)
