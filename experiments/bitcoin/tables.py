"""The report of a run as tables and sentences, for the terminal and for summary.md."""

import math
from collections.abc import Mapping
from typing import Any

from experiments.bitcoin.config import PAPER_EPOCHS
from experiments.bitcoin.forecasts import Errors
from experiments.bitcoin.report import WHICH
from experiments.tables import Table, show_interval, show_number
from experiments.verdicts import comparisons_table
from gated_rnn.statistics import Interval

#: Of prices in dollars.
_DIGITS = 4
_MEASURES = ("MAE, US dollars", "RMSE, US dollars", "MAPE, %")


def report_tables(summary: Mapping[str, Any]) -> list[Table]:
    """Lay out the summary.

    Args:
        summary: From `report.summarise`.

    Returns:
        Errors and comparisons; and, where there are some, tuning, folds and time.
    """
    labels = dict(summary["labels"])
    labels |= {f"{name}_last": f"{label}, last" for name, label in labels.items()}
    tables = [
        _errors_table(summary),
        *(
            comparisons_table(comparisons, labels, title=f"{title} [95 % interval]")
            for title, comparisons in summary["comparisons"].items()
        ),
        comparisons_table(
            summary["epoch_chosen"],
            labels,
            title="The epoch chosen on validation days, less the last [95 % interval]",
        ),
        _days_table(summary),
    ]
    if summary["tuning"]:
        tables.append(_tuning_table(summary))
    if summary["folds"]:
        tables.append(_folds_table(summary))
    if summary["time"]:
        tables.append(_time_table(summary))
    return tables


def report_notes(summary: Mapping[str, Any]) -> list[str]:
    """Say what the tables leave out.

    Args:
        summary: From `report.summarise`.

    Returns:
        Sentences.
    """
    days = summary["days"]
    notes = [
        f"{summary['data']}.",
        f"Trained on {' to '.join(days['train'])}, chosen on "
        f"{' to '.join(days['valid'])}, tested on {' to '.join(days['test'])}. "
        f"Seeds vary {summary['seeds_vary']}: intervals over seeds say nothing of "
        "other days; those over days, and the walk-forward splits, do.",
    ]
    if summary["num_epochs"] < PAPER_EPOCHS:
        notes.append(
            f"The text trains for {PAPER_EPOCHS} epochs, this run for "
            f"{summary['num_epochs']}: --paper."
        )
    for cell, found in summary["tuning"].items():
        if found.at_edge:
            notes.append(
                f"{summary['labels'][cell]}: the best learning rate, {found.rate:g}, "
                "is at the edge of those tried."
            )
    of_folds = [fold["arms"] for fold in summary["folds"]]
    for arms in (summary["arms"], *of_folds):
        for name, one in arms.items():
            if len(one["diverged_seeds"]):
                seeds = ", ".join(str(seed) for seed in one["diverged_seeds"])
                notes.append(f"{name} diverged on seeds {seeds}: left out above.")
    return notes


def _errors_table(summary: Mapping[str, Any]) -> Table:
    rows = [
        (name, "", "", "", *(show_number(value, _DIGITS) for value in errors))
        for name, errors in summary["baselines"].items()
    ]
    for one in summary["arms"].values():
        for which, words in WHICH.items():
            rows.append(
                (
                    f"{one['label']}, {words}",
                    str(one["recurrent_parameters"]),
                    f"{one['learning_rate']:g}",
                    str(one["num_seeds"]),
                    *(_show(one[which][name]) for name in Errors._fields),
                )
            )
    columns = ("", "recurrent parameters", "learning rate", "seeds", *_MEASURES)
    num_days = len(summary["truth"])
    return Table(f"Errors on {num_days} test days [95 % interval]", columns, rows)


def _days_table(summary: Mapping[str, Any]) -> Table:
    rows = [
        (summary["labels"][name], _show(interval))
        for name, interval in summary["over_days"].items()
    ]
    title = (
        "Absolute error of a day, mean over seeds after the best epoch, less "
        "persistence's [95 % interval over test days]"
    )
    return Table(title, ("", "US dollars"), rows)


def _tuning_table(summary: Mapping[str, Any]) -> Table:
    first = next(iter(summary["tuning"].values()))
    rows = [
        (
            summary["labels"][cell],
            *(show_number(value) for value in found.values),
            f"{found.rate:g}",
        )
        for cell, found in summary["tuning"].items()
    ]
    columns = ("", *(f"{rate:g}" for rate in first.rates), "chosen")
    seeds = "one other seed" if first.seeds == 1 else f"mean of {first.seeds} others"
    title = f"Best validation by learning rate, scaled: {seeds}"
    return Table(title, columns, rows)


def _folds_table(summary: Mapping[str, Any]) -> Table:
    rows = []
    for fold in summary["folds"]:
        baselines = fold["baselines"]
        rows.append(
            (
                " to ".join(fold["days"]["test"]),
                *(show_number(one.mae, _DIGITS) for one in baselines.values()),
                *(_show(one["best"]["mae"]) for one in fold["arms"].values()),
            )
        )
    fold = summary["folds"][0]
    cells = [one["label"] for one in fold["arms"].values()]
    title = "Walk forward: MAE in US dollars, best epoch [95 % interval]"
    return Table(title, ("test days", *fold["baselines"], *cells), rows)


def _time_table(summary: Mapping[str, Any]) -> Table:
    time, labels = summary["time"], summary["labels"]
    rows = []
    for one in time["comparisons"]:
        ratio = None
        if one.difference is not None:
            mean = one.difference.mean
            estimate, low, high = (math.exp(value) for value in mean[:3])
            ratio = mean._replace(estimate=estimate, low=low, high=high)
        rows.append(
            (
                f"{labels[one.first]} / {labels[one.second]}",
                show_interval(ratio),
                show_number(math.exp(one.margin), 3),
                str(one.num_seeds),
                one.verdict,
            )
        )
    columns = ("", "ratio [95 %]", "margin", "rounds", "the first is")
    return Table("Time of an update, the cells in turn", columns, rows)


def _show(interval: Interval | None) -> str:
    return show_interval(interval, _DIGITS)
