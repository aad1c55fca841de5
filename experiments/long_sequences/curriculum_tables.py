"""The comparison of schedules as tables, for the terminal and for summary.md."""

from collections.abc import Mapping
from typing import Any

from experiments.long_sequences.held_out import LINEAR, MEAN, TRUE_VALUES
from experiments.tables import Table, show_interval, show_number
from experiments.verdicts import comparisons_table


def curriculum_tables(
    summary: Mapping[str, Any], labels: Mapping[str, str]
) -> list[Table]:
    """Lay out the summary.

    Args:
        summary: From `curriculum_run`.
        labels: What a person reads of an arm, by its name.

    Returns:
        Losses, phases, and the comparisons.
    """
    title = "Pieces first less whole from the start, paired [95 % interval]"
    return [
        _loss_table(summary, labels),
        _phase_table(summary, labels),
        comparisons_table(summary["comparisons"], labels, title=title),
    ]


def _loss_table(summary: Mapping[str, Any], labels: Mapping[str, str]) -> Table:
    rows = [(labels[name], *_show_scores(arm)) for name, arm in summary["arms"].items()]
    baselines = summary["baselines"]
    rows += [
        (name, *_show_scores(baselines[name])) for name in (MEAN, LINEAR, TRUE_VALUES)
    ]
    return Table(
        "After training, mean over seeds [95 % interval]",
        ("", "training loss", "held-out loss", "trader's return a step"),
        rows,
    )


def _show_scores(score: Mapping[str, Any]) -> tuple[str, str, str]:
    names = ("training_loss", "held_out_loss", "earned")
    return tuple(show_interval(score[name]) for name in names)


def _phase_table(summary: Mapping[str, Any], labels: Mapping[str, str]) -> Table:
    rows = []
    for name, arm in summary["arms"].items():
        phases = "; ".join(
            f"{phase['pieces']} from {phase['median_first_epoch']:.0f} "
            f"({phase['seeds']} seeds)"
            for phase in arm["phases"]
            if phase["seeds"]
        )
        rows.append(
            (
                labels[name],
                phases,
                show_number(arm["updates"].estimate, 4),
                show_number(arm["seconds_per_epoch"]),
                show_number(arm["seconds"]),
            )
        )
    columns = (
        *("", "pieces from epoch (median of the seeds that got there)"),
        *("updates a seed", "s per epoch of all seeds", "s in all, with compiling"),
    )
    return Table("Schedules", columns, rows)
