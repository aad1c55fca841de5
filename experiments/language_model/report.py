"""What the runs say about the claim, in numbers, tables and pictures.

Margins and measures are those of this file, written down before any full run.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.arms import diverged
from experiments.benchmarks.summary import bootstrap_ratio
from experiments.language_model.problem import CELLS
from experiments.plots import plot_curves
from experiments.tables import Table, show_interval, show_number
from experiments.verdicts import compare, comparisons_table
from gated_rnn.statistics import mean_interval
from gated_rnn.training import SeedResult

#: In bits a character. About one percent of what small networks reach; the step from
#: one order of n-grams to the next is some tenths.
MARGIN = 0.02
#: In validations: less than one cannot be told.
SPEED_MARGIN = 1.0
#: What a network has to know more than, for its speed: pairs of characters.
LEVEL = "bigram"
#: Pairs of arms, the kind of learning rate, and what a person reads.
PAIRS = (
    ("tuned", "gru", "lstm", "equal units, own rates"),
    ("tuned", "gru_matched", "lstm", "equal parameters, own rates"),
    ("shared", "gru", "lstm", "equal units, one rate"),
)
Measured = Mapping[tuple[str, str, int], "Series"]


class Series(NamedTuple):
    """What is kept of an arm, seeds on axis 0.

    Attributes:
        seeds: Ids.
        train: Bits a character of the windows trained on, the mean between two
            validations, `[S, K]`.
        valid: Bits at each validation, `[S, K]`.
        best_update: Updates made when validation was best.
        test: Bits on the test text, of the parameters of then; NaN if diverged.
        diverged: Whether something was no longer finite.
    """

    seeds: np.ndarray
    train: np.ndarray
    valid: np.ndarray
    best_update: np.ndarray
    test: np.ndarray
    diverged: np.ndarray


def ngram_orders(max_order: int) -> dict[str, Sequence[int]]:
    """Name the n-grams that are reported, and what validation may choose among.

    Args:
        max_order: The longest.

    Returns:
        Orders by name.
    """
    named = {"unigram": [1], "bigram": [2], "trigram": [3]}
    allowed = {name: orders for name, orders in named.items() if orders[0] <= max_order}
    return {**allowed, "best n-gram": range(1, max_order + 1)}


def make_series(result: SeedResult, test: np.ndarray, every: int) -> Series:
    """Gather what is kept of an arm.

    Args:
        result: Of training, with validation.
        test: Bits of the best parameters, `[S]`.
        every: Updates between two validations.

    Returns:
        The series.
    """
    num_updates = result.metrics["loss"].shape[1]
    whole = num_updates // every * every
    losses = result.metrics["loss"][:, :whole].reshape(len(test), -1, every)
    lost = diverged(result)
    return Series(
        seeds=result.seed_ids,
        train=_rounded(losses.mean(axis=2) / math.log(2)),
        valid=_rounded(result.metrics["validation"][:, every - 1 : whole : every]),
        best_update=np.asarray(result.best.step),
        test=np.where(lost, np.nan, test).astype(np.float64),
        diverged=lost,
    )


def updates_to(valid: np.ndarray, level: float, every: int) -> np.ndarray:
    """Find after how many updates each curve first lies below a level.

    Between two validations the curve is a straight line; the first one is taken as it
    is.

    Args:
        valid: `[S, K]`, one value each `every` updates.
        level: What has to be fallen below.
        every: Updates between two values.

    Returns:
        `[S]`; NaN where a curve does not.

    Examples:
        >>> updates_to(np.array([[5.0, 3.0, 2.0], [4.0, 4.0, 4.0]]), 3.5, 10)
        array([17.5,  nan])
    """
    found = np.full(len(valid), np.nan)
    for row, curve in enumerate(np.asarray(valid, np.float64)):
        below = np.flatnonzero(curve < level)
        if below.size and below[0] == 0:
            found[row] = every
        elif below.size:
            before, after = curve[below[0] - 1], curve[below[0]]
            found[row] = every * (below[0] + (before - level) / (before - after))
    return found


def summarise(
    measured: Measured,
    *,
    rounds: Mapping[str, Sequence[float]],
    sizes: Sequence[int],
    baselines: Sequence[Mapping[str, Any]],
    validate_every: int,
    key: jax.Array,
) -> dict[str, Any]:
    """Turn measurements into what is reported.

    Args:
        measured: By kind of rate, cell and number of characters.
        rounds: Seconds an update took, for each cell, the cells in turn.
        sizes: Numbers of characters, rising.
        baselines: The n-grams of each.
        validate_every: Updates between two validations.
        key: For the statistics.

    Returns:
        Intervals of every arm, and the comparisons.
    """
    levels = [row.get(LEVEL, {"valid": math.nan})["valid"] for row in baselines]
    speeds = {
        at: updates_to(series.valid, levels[sizes.index(at[2])], validate_every)
        for at, series in measured.items()
    }
    quality, interaction, speed = [], [], []
    for kind, first, second, words in PAIRS:
        for size in sizes:
            scores = {cell: measured[kind, cell, size].test for cell in (first, second)}
            named = f"{words}, {size:,} characters"
            quality.append(compare(named, scores, first, second, key, margin=MARGIN))
            steps = {cell: speeds[kind, cell, size] for cell in (first, second)}
            margin = SPEED_MARGIN * validate_every
            speed.append(compare(named, steps, first, second, key, margin=margin))
        ends = {
            name: measured[kind, first, size].test - measured[kind, second, size].test
            for name, size in (("least", sizes[0]), ("all", sizes[-1]))
        }
        if len(sizes) > 1:
            interaction.append(compare(words, ends, "least", "all", key, margin=MARGIN))
    return {
        "margin_bits": MARGIN,
        "margin_updates": SPEED_MARGIN * validate_every,
        "level": {"of": LEVEL, "bits": levels},
        "ngrams": dict(zip(sizes, baselines, strict=True)),
        "arms": [
            {
                "rate": at[0],
                "cell": at[1],
                "characters": at[2],
                **_describe(series, speeds[at]),
            }
            for at, series in measured.items()
        ],
        "bits": quality,
        "interaction": interaction,
        "updates": speed,
        "seconds": {
            "rounds": rounds,
            "over_lstm": {
                cell: bootstrap_ratio(rounds[cell], rounds["lstm"])
                for cell in ("gru", "gru_matched")
                if rounds[cell]
            },
        },
    }


def list_tables(summary: Mapping[str, Any]) -> list[Table]:
    """Lay out the summary.

    Args:
        summary: From `summarise`, with what the run adds.

    Returns:
        Tables.
    """
    tables = [_bits_table(summary), _arms_table(summary)]
    ends = {"least": "least text", "all": "all text"}
    bits = "Bits a character on the test text (lower is better)"
    tables.append(comparisons_table(summary["bits"], CELLS, title=bits))
    if summary["interaction"]:
        title = "Does less text favour the GRU? GRU - LSTM in bits, least - all text"
        tables.append(comparisons_table(summary["interaction"], ends, title=title))
    title = f"Updates until validation is below the {LEVEL} of the same text"
    tables.append(comparisons_table(summary["updates"], CELLS, title=title))
    return tables


def list_notes(summary: Mapping[str, Any]) -> list[str]:
    """Say what the tables leave out.

    Args:
        summary: From `summarise`, with what the run adds.

    Returns:
        Sentences, and the text that networks wrote.
    """
    units = {
        cell: " + ".join(map(str, facts["units"]))
        for cell, facts in summary["networks"].items()
    }
    notes = [
        f"Units: LSTM and GRU {units['lstm']}, GRU with the LSTM's parameters "
        f"{units['gru_matched']}. Test: {summary['test_characters']:,} characters in "
        "streams, each read whole with one carry, of the parameters that were best on "
        f"validation. Seeds vary: {summary['seeds_vary']}.",
    ]
    notes += [
        f"An update of all seeds takes the {CELLS[cell]} {show_number(ratio.estimate)} "
        f"[{show_number(ratio.low)}, {show_number(ratio.high)}] of the LSTM's time "
        f"({len(summary['seconds']['rounds'][cell])} rounds in turn)."
        for cell, ratio in summary["seconds"]["over_lstm"].items()
    ]
    edges = [name for name, found in summary["tuning"].items() if found.at_edge]
    if edges:
        notes.append(f"The best rate was the first or last tried: {', '.join(edges)}.")
    for arm in summary["arms"]:
        if any(arm["diverged"]):
            notes.append(
                f"{CELLS[arm['cell']]}, {arm['characters']:,} characters, "
                f"{arm['rate']} rate: {sum(arm['diverged'])} seeds diverged and are "
                "left out."
            )
    for name, text in summary["samples"].items():
        indented = text.replace("\n", "\n    ")
        notes.append(f"Written by seed 0 of {name}:\n\n    {indented}")
    return notes


def list_pictures(
    measured: Measured, summary: Mapping[str, Any], every: int
) -> dict[str, Callable[[Path], object]]:
    """Name the pictures and what draws them.

    Args:
        measured: By kind of rate, cell and number of characters.
        summary: From `summarise`.
        every: Updates between two validations.

    Returns:
        Draws, by name.
    """
    sizes = list(summary["ngrams"])
    curves = {
        CELLS[cell]: np.stack([measured["tuned", cell, n].test for n in sizes], axis=1)
        for cell in CELLS
    }
    counted = {
        name: np.array([summary["ngrams"][size][name]["test"] for size in sizes])
        for name in ("trigram", "best n-gram")
        if name in summary["ngrams"][sizes[0]]
    }
    learning = {
        f"{CELLS[cell]}, {size:,} characters": measured["tuned", cell, size].valid
        for size in dict.fromkeys((sizes[0], sizes[-1]))
        for cell in ("lstm", "gru")
    }
    steps = every * (1 + np.arange(next(iter(learning.values())).shape[1]))
    return {
        "bits_by_amount": functools.partial(
            plot_curves,
            curves=curves,
            title="Test text: bits a character",
            x_label="characters trained on",
            y_label="bits a character",
            x=np.array(sizes),
            lines=counted,
            log_x=True,
        ),
        "learning_curves": functools.partial(
            plot_curves,
            curves=learning,
            title="Validation while training, each at its own learning rate",
            x_label="updates",
            y_label="bits a character",
            x=steps,
        ),
    }


def _describe(series: Series, speed: np.ndarray) -> dict[str, Any]:
    test, reached = (_mean_of_finite(values) for values in (series.test, speed))
    return {
        "test": test,
        "best_update": float(np.mean(series.best_update)),
        "updates_to_level": reached,
        "reached_level": int(np.isfinite(speed).sum()),
        "diverged": series.diverged.tolist(),
    }


def _mean_of_finite(values: np.ndarray) -> Any:
    finite = values[np.isfinite(values)]
    return mean_interval(finite) if finite.size else None


def _rounded(bits: np.ndarray) -> np.ndarray:
    """Keep four decimals, far below what seeds differ by: records stay small."""
    return np.round(bits.astype(np.float64), 4)


def _bits_table(summary: Mapping[str, Any]) -> Table:
    sizes = list(summary["ngrams"])
    rows = [
        (
            f"{CELLS[cell]}, {words}",
            *(
                show_interval(arm["test"], 4)
                for size in sizes
                for arm in summary["arms"]
                if (arm["rate"], arm["cell"], arm["characters"]) == (kind, cell, size)
            ),
        )
        for kind, words in (("tuned", "own rate"), ("shared", "shared rate"))
        for cell in CELLS
        if (kind, cell) != ("shared", "gru_matched")
    ]
    for name in summary["ngrams"][sizes[0]]:
        found = [summary["ngrams"][size][name] for size in sizes]
        shown = [
            show_number(one["test"], 4)
            + (f" (n = {one['order']})" if name == "best n-gram" else "")
            for one in found
        ]
        rows.append((name, *shown))
    columns = ("", *(f"{size:,} characters" for size in sizes))
    return Table("Bits a character on the test text, mean [95 %]", columns, rows)


def _arms_table(summary: Mapping[str, Any]) -> Table:
    rows = []
    for arm in summary["arms"]:
        name = f"{arm['cell']}_{arm['characters']}"
        rate = (
            show_number(summary["tuning"][name].rate, 2)
            if arm["rate"] == "tuned"
            else "shared"
        )
        seeds = len(arm["diverged"])
        rows.append(
            (
                f"{CELLS[arm['cell']]}, {arm['characters']:,} characters",
                rate,
                f"{summary['networks'][arm['cell']]['parameters']:,}",
                show_number(arm["best_update"]),
                show_interval(arm["updates_to_level"]),
                f"{arm['reached_level']} of {seeds}",
            )
        )
    columns = (
        *("", "rate", "parameters", "best at update", f"updates to {LEVEL}"),
        "seeds that got there",
    )
    return Table("How they learned", columns, rows)
