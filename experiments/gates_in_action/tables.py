"""The report of a run as tables and sentences, for the terminal and for summary.md."""

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.cells import LABELS
from experiments.gates_in_action.readings import GATES, NEAR_ONE, NEAR_ZERO
from experiments.gates_in_action.report import (
    PriceSeries,
    ReviewSeries,
    ShownText,
    Statement,
    mean_of_finite,
)
from experiments.tables import Table, show_interval, show_number


def list_tables(
    summary: Mapping[str, Any],
    measured: Mapping[str, ReviewSeries],
    prices: Mapping[str, PriceSeries],
) -> list[Table]:
    """Lay out the summary.

    Args:
        summary: From `summarise`, with what the run adds.
        measured: On reviews, by cell.
        prices: On prices, by cell.

    Returns:
        Tables.
    """
    return [
        _statement_table(summary["statements"]),
        _pair_table(measured),
        _gate_table("reviews", measured),
        _gate_table("prices", prices),
        _quality_table(summary, measured),
    ]


def list_notes(summary: Mapping[str, Any], texts: Mapping[str, ShownText]) -> list[str]:
    """Say what the tables leave out.

    Args:
        summary: From `summarise`, with what the run adds.
        texts: What was shown.

    Returns:
        Sentences.
    """
    notes = [
        "In our GRU, as in the text, the new hidden is (1 - z) n + z h: an update gate "
        "near 1 keeps the past whatever the reset gate does. A share says how much of "
        "what two parts do to the logit the neutral one does: 0 if it is ignored, 1/2 "
        "if both count alike.",
        f"Decisive: {', '.join(summary['decisive_words'][:12])}, ...",
        f"Seeds vary: {summary['seeds_vary']}.",
    ]
    for name, text in texts.items():
        chances = ", ".join(
            f"{LABELS[cell]} {show_interval(mean_of_finite(values))}"
            for cell, values in text.chances.items()
        )
        notes.append(f"Chance that the review ({name}) is positive: {chances}.")
    for task, of_task in summary["diverged"].items():
        for cell, seeds in of_task.items():
            if len(seeds):
                listed = ", ".join(map(str, seeds))
                notes.append(
                    f"{LABELS[cell]} diverged on {task}, seeds {listed}: left out."
                )
    return notes


def _statement_table(statements: Sequence[Statement]) -> Table:
    rows = []
    for one in statements:
        difference = one.found.difference
        rows.append(
            (
                f"{LABELS[one.cell]}, {one.words}",
                one.claim,
                show_interval(difference and difference.mean),
                show_number(one.found.margin, 2) if one.found.margin else "0",
                one.expected or "(no claim)",
                one.found.verdict,
            )
        )
    columns = ("", "claim", "mean [95 %]", "margin", "the text implies", "found")
    return Table(
        "What the sentences of Singhal (2020) imply, and what was found", columns, rows
    )


def _pair_table(measured: Mapping[str, ReviewSeries]) -> Table:
    rows = []
    for cell, one in measured.items():
        for gate, name in enumerate(GATES[cell].values()):
            values = (
                *(one.neutral_start, one.decisive_end),
                *(one.decisive_start, one.neutral_end),
            )
            shown = [show_interval(mean_of_finite(value[:, gate])) for value in values]
            rows.append((f"{LABELS[cell]}, {name}", *shown))
        shares = (
            *("", show_interval(mean_of_finite(one.neutral_share_first))),
            *("", show_interval(mean_of_finite(one.neutral_share_last))),
        )
        rows.append((f"{LABELS[cell]}, share of the neutral part", *shares))
    columns = (
        *("", "decisive last: neutral start", "decisive end"),
        *("decisive first: decisive start", "neutral end"),
    )
    return Table("Pairs of reviews: mean of the gates [95 %]", columns, rows)


def _gate_table(task: str, measured: Mapping[str, Any]) -> Table:
    rows = []
    for cell, one in measured.items():
        for gate, name in enumerate(GATES[cell].values()):
            shown = [
                f"{show_interval(mean_of_finite(after[:, gate]))} "
                f"(untrained {show_interval(mean_of_finite(before[:, gate]))})"
                for after, before in zip(one.trained, one.untrained, strict=True)
            ]
            rows.append((f"{LABELS[cell]}, {name}", *shown))
    columns = (
        *("", "mean", f"share below {NEAR_ZERO}", f"share above {NEAR_ONE}"),
        "share of the variance over time",
    )
    return Table(f"What values gates take on {task}, mean [95 %]", columns, rows)


def _quality_table(
    summary: Mapping[str, Any], measured: Mapping[str, ReviewSeries]
) -> Table:
    rows = []
    for cell, one in measured.items():
        values = (
            *(one.accuracy, one.accuracy_decisive_last),
            one.accuracy_decisive_first,
        )
        shown = [show_interval(mean_of_finite(value)) for value in values]
        error = show_interval(summary["price_error"][cell])
        rows.append((LABELS[cell], *shown, error))
    linear = show_number(summary["linear_accuracy"])
    rows.append(("linear classifier of words", linear, "", "", ""))
    for name, error in summary["price_baselines"].items():
        rows.append((f"price: {name}", "", "", "", show_number(error)))
    columns = (
        *("", "accuracy on test reviews", "on pairs, decisive last"),
        *("decisive first", "price: squared error"),
    )
    return Table("How good the models are, mean [95 %]", columns, rows)
