"""The tables and notes that a person reads."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.long_lags.config import Config, label_of
from experiments.long_lags.report import Setting, median_updates, share_interval
from experiments.tables import Table, show_interval, show_number
from experiments.verdicts import comparisons_table


def report_tables(
    config: Config, settings: Sequence[Setting], summary: dict[str, Any]
) -> list[Table]:
    """Lay out what was found.

    Args:
        config: The settings of the run.
        settings: Every cell on every task at every length.
        summary: From `summarise`.

    Returns:
        Tables.
    """
    labels = {cell: label_of(cell) for cell in config.cells}
    return [
        *(_task_table(config, settings, task) for task in config.tasks),
        _share_table(config, summary, labels),
        comparisons_table(
            summary["together"],
            labels,
            title="All tasks and lengths together, mean of each seed",
        ),
        comparisons_table(summary["by_setting"], labels, title="Task by task"),
        _rates_table(config, summary, labels),
    ]


def _task_table(config: Config, settings: Sequence[Setting], task: str) -> Table:
    rows = []
    for one in settings:
        if one.task != task:
            continue
        median = median_updates(one)
        rows.append(
            (
                f"{one.length}: {label_of(one.cell)}",
                f"{one.units} / {one.parameters:,}",
                f"{one.rate:g}",
                show_interval(share_interval(one.solved), 2),
                f"over {config.num_updates}" if median is None else f"{median:.0f}",
                show_number(float(one.scores.wrong.mean())),
                show_number(float(one.scores.far.mean())),
                show_number(float(np.mean(one.scores.loss)) / one.baseline),
                str(int(one.diverged.sum())),
            )
        )
    columns = (
        *("T: cell", "units / parameters", "rate", "solved [95 %]", "median updates"),
        *("wrong", "wrong, strictly", "loss / without memory", "diverged"),
    )
    return Table(config.task(task).label.capitalize(), columns, rows)


def _share_table(
    config: Config, summary: dict[str, Any], labels: dict[str, str]
) -> Table:
    rows = [
        (
            f"{one['task'].replace('_', ' ')} {one['length']}: "
            f"{labels[one['first']]} - {labels[one['second']]}",
            show_interval(one["difference"], 2),
            show_number(one["margin"], 2),
            one["verdict"],
        )
        for one in summary["shares"]
        if one["length"] == config.lengths[-1]
    ]
    columns = ("share solved", "difference [95 %]", "margin", "the first is")
    return Table(f"Longest, T = {config.lengths[-1]}", columns, rows)


def _rates_table(
    config: Config, summary: dict[str, Any], labels: dict[str, str]
) -> Table:
    found = summary["rates_and_seeds"]
    rows = [
        (
            labels[cell],
            show_interval(shares["all"], 2),
            *(show_interval(one, 2) for one in shares["by_rate"]),
        )
        for cell, shares in found["shares"].items()
    ]
    if "gru_minus_lstm" in found:
        one = found["gru_minus_lstm"]
        cells = (show_interval(one["difference"], 2), one["verdict"])
        blank = ("",) * (len(config.learning_rates) - 1)
        rows.append(("GRU - LSTM", *cells, *blank))
    columns = (
        "cell",
        "all rates",
        *(f"rate {rate:g}" for rate in config.learning_rates),
    )
    return Table("Of rates and seeds, the share that solves a task", columns, rows)


def report_notes(config: Config) -> list[str]:
    """Say what the tables mean.

    Args:
        config: The settings of the run.

    Returns:
        Sentences.
    """
    return [
        f"A seed solves a task when at most 1 % of the answers to "
        f"{config.num_validation} sequences it does not train on are wrong, looked at "
        f"every {config.validate_every} updates; it then stops. A sum is right if the "
        "squared error of the mean of the two numbers is at most 0.04 (Pascanu, "
        "Mikolov and Bengio 2013); strictly, if its error is below 0.04 (Hochreiter "
        "and Schmidhuber 1997).",
        f"A seed that does not counts as {config.num_updates} updates, a lower bound: "
        "where both cells fail, a difference of times says little.",
        "Wrong and loss are those of fresh sequences with the best parameters by "
        "validation. The rate was chosen for each cell, task and length by other "
        "seeds; a matched cell has that of its own kind.",
    ]
