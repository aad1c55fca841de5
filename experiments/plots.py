"""Pictures of results: curves, intervals and heat maps, readable without colour.

matplotlib is imported when a picture is drawn, without a display and without pyplot's
global state.
"""

import io
import itertools
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from experiments.files import write_file
from gated_rnn.statistics import Interval
from gated_rnn.types import invalid

CURVES_SIZE = (8.0, 5.0)  # inches
DOTS_PER_INCH = 150
_NUM_MARKERS = 8
#: Above this ratio of the largest to the smallest value drawn the axis is logarithmic.
_LINEAR_RATIO = 5.0
#: Of the distance between two groups, what their points take.
_GROUP_WIDTH = 0.6
_AXIS_LETTERS = 90  # of all labels that stand side by side, each as the longest
_LEGEND_LETTERS = 96  # of all labels that stand side by side
_MAX_WIDTH, _COLUMN_WIDTH, _MAP_HEIGHT = 20.0, 0.12, 1.6  # inches, of heat maps


class Style(NamedTuple):
    """How one curve differs from the others: by shape as much as by shade."""

    colour: str
    line: str | tuple[int, tuple[int, ...]]
    marker: str
    hatch: str


# Okabe and Ito's palette, which the colour-blind can tell apart, and greys.
STYLES = (
    Style("#0072B2", "-", "o", "///"),
    Style("#D55E00", "--", "s", "..."),
    Style("#009E73", "-.", "^", "xxx"),
    Style("#CC79A7", (0, (1, 1)), "D", "\\\\\\"),
    Style("#000000", (0, (5, 1, 1, 1, 1, 1)), "v", "+++"),
    Style("#56B4E9", (0, (8, 3)), "P", "---"),
    Style("#E69F00", (0, (3, 1, 1, 1)), "X", "|||"),
    Style("#F0E442", (0, (5, 3)), "<", "ooo"),
    Style("#7F7F7F", (0, (8, 2, 2, 2)), ">", "**"),
    Style("#404040", (0, (2, 3)), "p", "OO"),
)
_LEVEL_LINES = (
    *((0, (1, 2)), (0, (6, 2, 1, 2)), (0, (3, 3)), (0, (10, 3)), (0, (1, 5))),
    (0, (4, 1, 1, 1, 1, 1)),
)


def plot_curves(
    path: Path,
    curves: Mapping[str, np.ndarray],
    *,
    title: str,
    x_label: str,
    y_label: str,
    x: np.ndarray | Mapping[str, np.ndarray] | None = None,
    levels: Mapping[str, float] | None = None,
    lines: Mapping[str, np.ndarray] | None = None,
    middle: Literal["median", "mean"] = "median",
    log_x: bool = False,
) -> Path:
    """Draw the middle over seeds of each group of curves, in a band from least to most.

    Args:
        path: The file; its suffix is the format, an old one is replaced.
        curves: For each label `[S, N]`, one curve a seed; what is not finite is left
            out, point by point.
        title: Title of the picture.
        x_label: Label of the axis of N.
        y_label: Label of the axis of values.
        x: Where the N points stand, numbers or dates `[N]`, of all labels or of each;
            0, 1, ... if not given.
        levels: Values to mark by a horizontal line, by label.
        lines: Curves `[N]` that no seed makes, such as the truth, by label; they stand
            at the `x` of all labels.
        middle: What of the seeds is drawn in the band.
        log_x: Whether the axis of N is logarithmic.

    Returns:
        The path.

    Raises:
        ValueError: If there are more curves than `STYLES`.
    """
    figure, axes = _new_figure()
    ends = []
    for (label, values), style in zip(curves.items(), _styles(curves), strict=True):
        places = x[label] if isinstance(x, Mapping) else x
        places = np.arange(values.shape[1]) if places is None else np.asarray(places)
        _draw_band(axes, label, places, values, style, middle)
        ends += [places.min(), places.max()]
    lines, levels = lines or {}, levels or {}
    _draw_lines(axes, lines, x)
    _draw_levels(axes, levels)
    every = (*curves.values(), *lines.values())
    drawn = np.concatenate([np.ravel(values) for values in every])
    drawn = np.append(drawn[np.isfinite(drawn)], list(levels.values()))
    if drawn.size and drawn.min() > 0 and drawn.max() / drawn.min() > _LINEAR_RATIO:
        axes.set_yscale("log")
    if log_x:
        axes.set_xscale("log")
    if np.issubdtype(ends[0].dtype, np.datetime64):
        _abbreviate_dates(axes)
    low, high = min(ends), max(ends)
    axes.set(title=title, xlabel=x_label, ylabel=y_label)
    axes.set_xlim(low, high if high > low else low + 1)
    axes.grid(visible=True, which="both", color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    _draw_legend(figure, axes)
    return _save(figure, path)


def _abbreviate_dates(axes: Any) -> None:
    """Label days without what they share, so that no label covers the next."""
    from matplotlib.dates import ConciseDateFormatter

    locator = axes.xaxis.get_major_locator()
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))


def plot_intervals(
    path: Path,
    groups: Mapping[str, Mapping[str, Interval]],
    *,
    title: str,
    y_label: str,
    levels: Mapping[str, float] | None = None,
) -> Path:
    """Draw a point with its interval for each label, side by side for each group.

    Args:
        path: The file; its suffix is the format.
        groups: For each group on the horizontal axis, an interval for each label.
        title: Title of the picture.
        y_label: Label of the axis of values.
        levels: Values to mark by a horizontal line, by label.

    Returns:
        The path.

    Raises:
        ValueError: If there are more labels than `STYLES`.
    """
    figure, axes = _new_figure()
    labels = list(dict.fromkeys(label for group in groups.values() for label in group))
    width = _GROUP_WIDTH / max(1, len(labels))
    for number, (label, style) in enumerate(zip(labels, _styles(labels), strict=True)):
        shift = (number - (len(labels) - 1) / 2) * width
        found = [
            (at, group[label])
            for at, group in enumerate(groups.values())
            if label in group
        ]
        middles = np.array([one.estimate for _, one in found])
        ends = np.array([(one.low, one.high) for _, one in found]).T
        axes.errorbar(
            [at + shift for at, _ in found],
            middles,
            yerr=np.nan_to_num(np.abs(ends - middles)),
            color=style.colour,
            marker=style.marker,
            linestyle="none",
            capsize=3,
            label=label,
        )
    _draw_levels(axes, levels or {})
    axes.set(title=title, ylabel=y_label)
    axes.set_xticks(range(len(groups)), list(groups), **_fit_labels(groups))
    axes.set_xlim(-0.5, len(groups) - 0.5)
    axes.grid(visible=True, axis="y", color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    _draw_legend(figure, axes)
    return _save(figure, path)


def plot_heat_maps(
    path: Path,
    maps: Mapping[str, np.ndarray],
    *,
    title: str,
    x_labels: Sequence[str] | None = None,
    x_label: str = "step",
    y_label: str = "unit",
    limits: tuple[float, float] = (0.0, 1.0),
) -> Path:
    """Draw matrices one above the other, over one horizontal axis.

    Args:
        path: The file; its suffix is the format.
        maps: For each label `[rows, columns]`, columns the same for all.
        title: Title of the picture.
        x_labels: A text for each column, such as words; numbers if not given.
        x_label: Label of the axis of columns.
        y_label: Label of the axis of rows.
        limits: Values of the darkest and the lightest colour.

    Returns:
        The path.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    num_columns = max(1, max(values.shape[1] for values in maps.values()))
    width = min(_MAX_WIDTH, max(CURVES_SIZE[0], _COLUMN_WIDTH * num_columns))
    figure = Figure(
        figsize=(width, 1.0 + _MAP_HEIGHT * len(maps)), layout="constrained"
    )
    FigureCanvasAgg(figure)
    rows = figure.subplots(len(maps), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (label, values) in zip(rows, maps.items(), strict=True):
        image = axes.imshow(
            values,
            aspect="auto",
            interpolation="nearest",
            cmap="viridis",
            vmin=limits[0],
            vmax=limits[1],
        )
        axes.set(ylabel=y_label)
        axes.set_title(label, loc="left", fontsize="medium")
    figure.colorbar(image, ax=list(rows))
    if x_labels is not None:
        rows[-1].set_xticks(range(num_columns), x_labels, rotation=60, ha="right")
    rows[-1].set(xlabel=x_label)
    figure.suptitle(title)
    return _save(figure, path)


def _new_figure() -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=CURVES_SIZE, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots()


def _fit_labels(labels: Collection[str]) -> dict[str, Any]:
    """Turn labels that would cover each other if they stood side by side."""
    longest = max(
        (len(line) for label in labels for line in label.split("\n")), default=0
    )
    if longest * len(labels) <= _AXIS_LETTERS:
        return {}
    return {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}


def _draw_legend(figure: Any, axes: Any) -> None:
    """Explain the styles below the axes, where nothing is covered."""
    handles, labels = axes.get_legend_handles_labels()
    if labels:
        columns = _LEGEND_LETTERS // max(map(len, labels))
        figure.legend(
            handles,
            labels,
            loc="outside lower center",
            ncols=max(1, min(columns, len(labels))),
            fontsize="small",
        )


def _styles(labels: Collection[str]) -> tuple[Style, ...]:
    """Give each label a style of its own."""
    if len(labels) > len(STYLES):
        expected = f"at most {len(STYLES)} labels, which can be told apart"
        raise invalid("labels", expected, len(labels))
    return STYLES[: len(labels)]


def _draw_levels(axes: Any, levels: Mapping[str, float]) -> None:
    lines = zip(levels.items(), itertools.cycle(_LEVEL_LINES), strict=False)
    for (label, value), pattern in lines:
        axes.axhline(value, color="0.35", linewidth=1.0, linestyle=pattern, label=label)


def _draw_lines(axes: Any, lines: Mapping[str, np.ndarray], x: Any) -> None:
    if lines and isinstance(x, Mapping):
        raise invalid("x", "one array for all, beside lines", "one for each label")
    patterns = itertools.cycle(("-", *_LEVEL_LINES))
    for (label, values), pattern in zip(lines.items(), patterns, strict=False):
        places = np.arange(len(values)) if x is None else np.asarray(x)
        axes.plot(
            places, values, color="black", linewidth=1.2, linestyle=pattern, label=label
        )


def _save(figure: Any, path: Path) -> Path:
    picture = io.BytesIO()
    figure.savefig(picture, format=path.suffix[1:], dpi=DOTS_PER_INCH)
    return write_file(path, picture.getvalue())


def _draw_band(
    axes: Any,
    label: str,
    x: np.ndarray,
    values: np.ndarray,
    style: Style,
    middle: Literal["median", "mean"],
) -> None:
    num_seeds, num_points = values.shape
    # Masked arrays leave gaps, and no warning, where no seed has a finite value.
    finite = np.ma.masked_invalid(values)
    seeds = "1 seed" if num_seeds == 1 else f"{middle}, range of {num_seeds} seeds"
    axes.plot(
        x,
        getattr(np.ma, middle)(finite, axis=0),
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
            x,
            finite.min(axis=0),
            finite.max(axis=0),
            facecolor=(style.colour, 0.18),
            edgecolor=(style.colour, 0.6),
            hatch=style.hatch,
            linewidth=0.5,
        )
