"""The scores on fresh sequences as tables, for the terminal and for summary.md."""

from collections.abc import Mapping
from typing import Any

from experiments.long_sequences.held_out import HOLDS, LINEAR, MEAN, NEVER, TRUE_VALUES
from experiments.tables import Table, show_interval, show_number
from experiments.verdicts import comparisons_table

_STEPS = 1000  # changes of position are counted in so many
_LABELS = {"lstm": "LSTM", "gru": "GRU"}


def held_out_tables(summary: Mapping[str, Any]) -> list[Table]:
    """Lay out the scores.

    Args:
        summary: From `held_out.summarise`.

    Returns:
        Losses and traders; if both cells were trained, their comparison too.
    """
    cells, baselines = summary["cells"], summary["baselines"]
    named = {_LABELS[cell]: score for cell, score in cells.items()}
    tables = [_loss_table(named, baselines), _trader_table(named, baselines)]
    if "comparisons" in summary:
        title = "On fresh sequences, paired [95 % interval]"
        tables.append(comparisons_table(summary["comparisons"], _LABELS, title=title))
    return tables


def _loss_table(cells: Mapping[str, Any], baselines: Mapping[str, Any]) -> Table:
    rows = [
        (
            name,
            show_interval(score["training_loss"]),
            show_interval(score["held_out_loss"]),
            show_interval(score["gap"]),
        )
        for name, score in (*cells.items(), *_some(baselines, MEAN, LINEAR))
    ]
    return Table(
        "Loss after training, mean over seeds [95 % interval]",
        ("", "training sequences", "fresh sequences", "gap"),
        rows,
    )


def _trader_table(cells: Mapping[str, Any], baselines: Mapping[str, Any]) -> Table:
    best = baselines[TRUE_VALUES]["earned"].estimate
    rows = []
    for name, score in (
        *_some(baselines, TRUE_VALUES),
        *cells.items(),
        *_some(baselines, LINEAR, HOLDS, NEVER),
    ):
        earned, moves = score["earned"], score["moves"]
        share = 100 * earned.estimate / best if earned and best else None
        rows.append(
            (
                name,
                show_interval(earned),
                show_number(share),
                show_number(_STEPS * moves.estimate if moves else None),
            )
        )
    columns = (
        *("", "return a step, price units", "% of the true values'"),
        f"changes of position in {_STEPS} steps",
    )
    title = (
        "Traders on fresh sequences: each takes the action worth most by its values; "
        "mean over seeds [95 % interval]"
    )
    return Table(title, columns, rows)


def _some(scores: Mapping[str, Any], *names: str) -> list[tuple[str, Any]]:
    return [(name, scores[name]) for name in names]
