"""The pictures of a run: heat maps of gates, and gates around decisive words."""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiments.cells import LABELS
from experiments.gates_in_action.measures import OFFSETS
from experiments.gates_in_action.readings import GATES, KEEPS
from experiments.gates_in_action.report import ReviewSeries, ShownText
from experiments.plots import plot_curves, plot_heat_maps


def list_pictures(
    measured: Mapping[str, ReviewSeries],
    texts: Mapping[str, ShownText],
    prices: Mapping[str, np.ndarray],
    series: Any,
) -> dict[str, Callable[[Path], object]]:
    """Name the pictures and what draws them.

    Args:
        measured: On reviews, by cell.
        texts: What was shown.
        prices: The gates of one seed on the first test series, by cell, `[G, T, H]`.
        series: The test series, `[T + 1, N, 1]`.

    Returns:
        Draws, by name.
    """
    pictures: dict[str, Callable[[Path], object]] = {}
    for name, text in texts.items():
        for cell, gates in text.gates.items():
            pictures[f"{name.replace(' ', '_')}_{cell}"] = functools.partial(
                plot_heat_maps,
                maps=_name_maps(cell, gates),
                title=f"{LABELS[cell]}, one seed: {name}",
                x_labels=text.words,
                x_label="word",
            )
    changes = np.asarray(series)[:-1, 0, 0]
    for cell, gates in prices.items():
        pictures[f"prices_{cell}"] = functools.partial(
            plot_heat_maps,
            maps={
                "price, from its least to its most": _scaled(np.cumsum(changes))[None],
                **_name_maps(cell, gates),
            },
            title=f"{LABELS[cell]}, one seed: a price series",
        )
    for cell, one in measured.items():
        pictures[f"around_decisive_words_{cell}"] = functools.partial(
            plot_curves,
            curves={
                name: one.around[:, gate]
                for gate, name in enumerate(GATES[cell].values())
            },
            title=f"{LABELS[cell]}: mean of the gates around decisive words",
            x_label="words after a decisive one",
            y_label="gate, mean over units",
            x=OFFSETS,
        )
    return pictures


def _name_maps(cell: str, gates: np.ndarray) -> dict[str, np.ndarray]:
    """Put the units `[G, T, H]` in the order of the gate that keeps the past."""
    keeps = list(GATES[cell]).index(KEEPS[cell])
    order = np.argsort(gates[keeps].mean(axis=0))
    return {
        name: gates[number][:, order].T
        for number, name in enumerate(GATES[cell].values())
    }


def _scaled(values: np.ndarray) -> np.ndarray:
    spread = np.ptp(values)
    return (values - values.min()) / (spread if spread > 0 else 1.0)
