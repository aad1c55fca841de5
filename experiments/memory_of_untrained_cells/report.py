"""What the counts say: against the published table, and of one cell against another.

Margins and measures are those of this file, written down before any full run.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.data import published_memory
from experiments.data.published_memory import published_mean
from experiments.memory_of_untrained_cells.agreement import Agreement, compare_table
from experiments.memory_of_untrained_cells.measure import MEASURES, Size
from experiments.memory_of_untrained_cells.setups import ALTERED, MAIN, SETUPS
from experiments.tables import Table, show_number
from experiments.verdicts import Comparison, compare

#: Steps that do not matter: about the standard error of a published mean of the LSTM.
MARGIN = 2.0
#: What two cells are compared by: it does not depend on how a machine rounds.
COMPARED_BY = "distance"
#: The GRU with as many parameters as the LSTM, at one size.
MATCHED = "gru_matched"

#: Steps `[R, F, H]` by set-up and measure.
Steps = Mapping[str, Mapping[str, np.ndarray]]


def published_places(sizes: Sequence[Size], cell: str) -> list[int]:
    """Say which sizes the published table has.

    Args:
        sizes: What was measured.
        cell: "lstm" or "gru".

    Returns:
        Their indices.
    """
    return [
        place
        for place, size in enumerate(sizes)
        if published_mean(cell, *size) is not None
    ]


def fit_setups(sizes: Sequence[Size], steps: Steps, seed: int) -> dict[str, Any]:
    """Compare every reading of the text with its table.

    Args:
        sizes: M sizes.
        steps: `[R, M]` by set-up and measure.
        seed: Of the resamples.

    Returns:
        By set-up and measure, an `Agreement` for the runs that the text states and for
        those that its digits imply; nothing where no published place was measured.
    """
    fits = {}
    for name, by_measure in steps.items():
        cell = SETUPS[name].published if name in SETUPS else None
        places = published_places(sizes, cell) if cell else []
        if not places:
            continue
        means = np.array([published_mean(cell, *sizes[place]) for place in places])
        fits[name] = {
            measure: {
                label: compare_table(means, runs, counts[:, places], seed)
                for label, runs in _RUNS.items()
            }
            for measure, counts in by_measure.items()
        }
    return fits


_RUNS = {
    "implied": published_memory.RUNS_IMPLIED,
    "stated": published_memory.RUNS_STATED,
}


def compare_cells(
    sizes: Sequence[Size], steps: Steps, matched: np.ndarray, reference: Size, key: Any
) -> list[Comparison]:
    """Compare cells, and sizes of one cell, run by run.

    Args:
        sizes: M sizes.
        steps: `[R, M]` by set-up and measure.
        matched: `[R]`, the GRU's steps with the LSTM's parameters at the reference.
        reference: The size at which parameters are matched.
        key: For the resamples.

    Returns:
        Comparisons of mean steps over all sizes, at matched parameters, and by size.
    """
    over_all = {
        name: counts[COMPARED_BY].mean(axis=1) for name, counts in steps.items()
    }
    comparisons = [
        compare("steps, all sizes", over_all, *pair, key, margin=MARGIN)
        for pair in _PAIRS
    ]
    at = sizes.index(reference)
    scores = {"lstm": steps["lstm"][COMPARED_BY][:, at], MATCHED: matched}
    measure = f"steps, parameters matched ({reference.in_features} features)"
    comparisons.append(compare(measure, scores, "lstm", MATCHED, key, margin=MARGIN))
    for cell in ("lstm", "gru"):
        for label, few, many in _size_pairs(sizes, reference):
            scores = {
                "many": steps[cell][COMPARED_BY][:, many],
                "few": steps[cell][COMPARED_BY][:, few],
            }
            measure = f"steps, {SETUPS[cell].label}, {label}"
            comparisons.append(
                compare(measure, scores, "many", "few", key, margin=MARGIN)
            )
    return comparisons


_PAIRS = (
    ("lstm", "gru"),
    ("lstm_forget_0", "gru"),
    ("lstm", "gru_update_1"),
    ("gru_reset_before", "gru"),
    ("elman", "gru"),
)
COMPARED_LABELS = {
    **{name: setup.label for name, setup in SETUPS.items()},
    MATCHED: "GRU",
    "many": "largest",
    "few": "smallest",
}


def _size_pairs(sizes: Sequence[Size], reference: Size) -> list[tuple[str, int, int]]:
    """Pair the extremes: of units at the reference's features, of features likewise."""
    pairs = []
    units = [at for at, size in enumerate(sizes) if size[0] == reference[0]]
    features = [at for at, size in enumerate(sizes) if size[1] == reference[1]]
    for label, places, axis in (("units", units, 1), ("features", features, 0)):
        places = sorted(places, key=lambda at: sizes[at][axis])
        few, many = places[0], places[-1]
        if few != many:
            what = f"{sizes[many][axis]} {label} or {sizes[few][axis]}"
            pairs.append((what, few, many))
    return pairs


def published_table(sizes: Sequence[Size], steps: Steps, measure: str) -> Table:
    """Lay the published means beside ours.

    Args:
        sizes: M sizes.
        steps: `[R, M]` by set-up and measure.
        measure: Of `MEASURES`.

    Returns:
        A row for each cell and number of features, the published one above ours.
    """
    columns = sorted({size.hidden_features for size in sizes})
    rows = []
    for cell in ("lstm", "gru"):
        for in_features in sorted(
            {sizes[at][0] for at in published_places(sizes, cell)}
        ):
            name = f"{SETUPS[cell].label}, {in_features} features"
            published, ours = [], []
            for units in columns:
                size = Size(in_features, units)
                published.append(show_number(published_mean(cell, *size)))
                counts = steps[cell][measure][:, sizes.index(size)]
                ours.append(show_steps(counts))
            rows += [(f"{name}: text", *published), (f"{name}: here", *ours)]
    title = f"Mean steps by units, until {MEASURES[measure]}"
    return Table(title, ("", *map(str, columns)), rows)


def memory_table(sizes: Sequence[Size], steps: Steps, reference: Size) -> Table:
    """Lay out how long each cell remembers, by every measure.

    Args:
        sizes: M sizes.
        steps: `[R, M]` by set-up and measure.
        reference: Its number of features is shown.

    Returns:
        A row for each cell and measure.
    """
    columns = sorted({size.hidden_features for size in sizes})
    rows = []
    for name in (*MAIN, *ALTERED):
        for measure in MEASURES:
            shown = [
                show_steps(
                    steps[name][measure][:, sizes.index(Size(reference[0], units))]
                )
                for units in columns
            ]
            rows.append((f"{SETUPS[name].label}: {measure}", *shown))
    title = f"Mean steps by units, {reference.in_features} input features"
    return Table(title, ("", *map(str, columns)), rows)


def show_steps(counts: np.ndarray) -> str:
    """Show a mean of steps, or in how many runs there is none.

    Args:
        counts: `[R]`, infinite where a memory did not end.

    Returns:
        Text.

    Examples:
        >>> show_steps(np.array([3.0, 4.0])), show_steps(np.array([3.0, np.inf]))
        ('3.50', '1 of 2 never')
    """
    endless = int(np.isinf(counts).sum())
    if endless:
        return f"{endless} of {counts.size} never"
    return show_number(float(counts.mean()))


def fit_table(fits: Mapping[str, Any]) -> Table:
    """Lay out how well each reading of the text fits its table.

    Args:
        fits: From `fit_setups`.

    Returns:
        A row for each set-up by its cosine, and for LSTM and GRU by every measure.
    """
    rows = []
    for name, by_measure in fits.items():
        for measure, both in by_measure.items():
            if measure != "cosine" and name not in ("lstm", "gru"):
                continue
            implied: Agreement = both["implied"]
            rows.append(
                (
                    f"{SETUPS[name].label}: {measure}",
                    show_number(implied.root_mean_square, 2),
                    f"{implied.share_within:.0%}",
                    _show_p(implied),
                    _show_p(both["stated"]),
                    "within seed noise" if implied.agrees else "no",
                )
            )
    columns = (
        "",
        "root mean square of z",
        "within 2 sd",
        f"p ({published_memory.RUNS_IMPLIED} runs)",
        f"p ({published_memory.RUNS_STATED} runs)",
        "the published table is",
    )
    return Table("Which reading gives the published table", columns, rows)


def _show_p(agreement: Agreement) -> str:
    return show_number(agreement.p_value, 2) if agreement.p_value else "0"
