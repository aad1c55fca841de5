"""Pictures of results: curves with a band over seeds, readable without colour.

matplotlib is imported when a picture is drawn, without a display and without pyplot's
global state.
"""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.files import write_file

CURVES_SIZE = (8.0, 5.0)  # inches
DOTS_PER_INCH = 150
_NUM_MARKERS = 8
#: Above this ratio of the largest to the smallest value drawn the axis is logarithmic.
_LINEAR_RATIO = 5.0


class Style(NamedTuple):
    """How one curve differs from the others: by shape as much as by shade."""

    colour: str
    line: str | tuple[int, tuple[int, ...]]
    marker: str
    hatch: str


# Okabe and Ito's palette, which the colour-blind can tell apart.
STYLES = (
    Style("#0072B2", "-", "o", "///"),
    Style("#D55E00", "--", "s", "..."),
    Style("#009E73", "-.", "^", "xxx"),
    Style("#CC79A7", (0, (1, 1)), "D", "\\\\\\"),
    Style("#000000", (0, (5, 1, 1, 1, 1, 1)), "v", "+++"),
    Style("#56B4E9", (0, (8, 3)), "P", "---"),
)
_LEVEL_LINES = ((0, (1, 2)), (0, (6, 2, 1, 2)), (0, (3, 3)))


def plot_curves(
    path: Path,
    curves: Mapping[str, np.ndarray],
    *,
    title: str,
    x_label: str,
    y_label: str,
    levels: Mapping[str, float] | None = None,
) -> Path:
    """Draw the median over seeds of each group of curves, in a band from least to most.

    Args:
        path: The png file; an old one is replaced.
        curves: For each label `[S, N]`, one curve a seed; what is not finite is left
            out, point by point.
        title: Title of the picture.
        x_label: Label of the axis of N.
        y_label: Label of the axis of values.
        levels: Values to mark by a horizontal line, by label.

    Returns:
        The path.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=CURVES_SIZE, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    num_points = max(values.shape[1] for values in curves.values())
    for (label, values), style in zip(curves.items(), STYLES, strict=False):
        _draw_band(axes, label, values, style)
    levels = levels or {}
    for (label, value), pattern in zip(levels.items(), _LEVEL_LINES, strict=False):
        axes.axhline(value, color="0.35", linewidth=1.0, linestyle=pattern, label=label)
    drawn = np.concatenate([values.ravel() for values in curves.values()])
    drawn = np.append(drawn[np.isfinite(drawn)], list(levels.values()))
    if drawn.size and drawn.min() > 0 and drawn.max() / drawn.min() > _LINEAR_RATIO:
        axes.set_yscale("log")
    axes.set(title=title, xlabel=x_label, ylabel=y_label)
    axes.set_xlim(0, max(1, num_points - 1))
    axes.grid(visible=True, which="both", color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.legend(frameon=True)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=DOTS_PER_INCH)
    return write_file(path, picture.getvalue())


def _draw_band(axes, label: str, values: np.ndarray, style: Style) -> None:
    num_seeds, num_points = values.shape
    # Masked arrays leave gaps, and no warning, where no seed has a finite value.
    finite = np.ma.masked_invalid(values)
    epochs = np.arange(num_points)
    seeds = "1 seed" if num_seeds == 1 else f"median, range of {num_seeds} seeds"
    axes.plot(
        epochs,
        np.ma.median(finite, axis=0),
        color=style.colour,
        linestyle=style.line,
        linewidth=1.8,
        marker=style.marker,
        markersize=5,
        markevery=max(1, num_points // _NUM_MARKERS),
        label=f"{label} ({seeds})",
    )
    if num_seeds > 1:
        axes.fill_between(
            epochs,
            finite.min(axis=0),
            finite.max(axis=0),
            facecolor=(style.colour, 0.18),
            edgecolor=(style.colour, 0.6),
            hatch=style.hatch,
            linewidth=0.5,
        )
