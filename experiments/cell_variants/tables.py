"""The tables and notes that a person reads."""

from collections.abc import Sequence
from typing import Any

from experiments.cell_variants.config import NUM_GATES, Config, label_of
from experiments.cell_variants.problem import Ground
from experiments.cell_variants.report import PAIRS, Entry, describe, of_tasks
from experiments.tables import Table, show_interval, show_number
from experiments.verdicts import comparisons_table


def report_tables(
    config: Config,
    grounds: Sequence[Ground],
    entries: Sequence[Entry],
    summary: dict[str, Any],
) -> list[Table]:
    """Lay out what was found.

    Args:
        config: The settings.
        grounds: The tasks.
        entries: Every cell on every task in every matching.
        summary: From `summarise`.

    Returns:
        Tables.
    """
    labels = {cell: label_of(cell) for cell in config.cells}
    return [
        *(
            _entries_table(config, ground, entries, matching)
            for ground in grounds
            for matching in config.matchings(ground.name)
        ),
        _ranks_table(config, summary),
        comparisons_table(summary["tests"], labels, title="Test loss over baseline"),
        comparisons_table(
            summary["together"], labels, title="Means over tasks, same parameters"
        ),
    ]


def report_notes(config: Config, summary: dict[str, Any]) -> list[str]:
    """Say what the tables mean.

    Args:
        config: The settings.
        summary: From `summarise`.

    Returns:
        Sentences.
    """
    pairs = "; ".join(
        f"{label_of(first)} - {label_of(second)}: {what}"
        for (first, second), what in PAIRS.items()
        if {first, second} <= set(config.cells)
    )
    notes = [
        f"What a pair differs by: {pairs}.",
        "Losses are over the baseline's: of a predictor without memory, or of the flow "
        "seen last. The test is that of the parameters best by validation; the "
        "training loss is the mean of the last tenth of the updates; roughness is the "
        "mean absolute second difference of the log validation loss, "
        f"{config.validate_every} updates apart.",
    ]
    found = summary["roughness_per_gate"]
    if found is not None:
        notes.append(
            f"Log roughness for each gate more: {show_interval(found['slope'])} "
            f"(margin {show_number(found['margin'], 2)}); verdict: {found['verdict']}."
        )
    return notes


def _entries_table(config, ground, entries, matching) -> Table:
    rows = []
    for cell, one in of_tasks(entries, matching)[ground.name].items():
        shown = describe(one)
        rows.append(
            (
                label_of(cell),
                str(NUM_GATES[cell]),
                f"{one.units} / {one.parameters:,}",
                f"{one.rate:g}",
                show_interval(shown["test"]),
                show_interval(shown["fit"]),
                show_interval(shown["roughness"]),
                str(shown["diverged_seeds"]),
            )
        )
    columns = (
        *("cell", "gates", "units / parameters", "rate", "test [95 %]"),
        *("training", "roughness", "diverged"),
    )
    title = (
        f"{ground.label.capitalize()}, same {matching}: loss over that of "
        f"{ground.baseline_label}, {show_number(ground.baseline)}"
    )
    return Table(title, columns, rows)


def _ranks_table(config: Config, summary: dict[str, Any]) -> Table:
    matchings = list(summary["ranks"])
    rows = [
        (
            label_of(cell),
            *(show_interval(summary["ranks"][one].get(cell)) for one in matchings),
        )
        for cell in config.cells
    ]
    columns = ("cell", *(f"same {one}" for one in matchings))
    return Table("Mean rank by test loss, 1 is best", columns, rows)
