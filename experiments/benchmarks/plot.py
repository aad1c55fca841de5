"""A picture of the times: every implementation over the fastest JAX peer."""

import io
from collections.abc import Sequence
from pathlib import Path

from experiments.benchmarks.cases import Case
from experiments.benchmarks.implementations import IMPLEMENTATIONS
from experiments.benchmarks.rows import Row
from experiments.files import write_file
from experiments.plots import DOTS_PER_INCH, STYLES

PICTURE_NAME = "ratios.png"
_WIDTH, _LINE_HEIGHT, _MARGIN = 9.0, 0.22, 1.6  # inches


def plot_ratios(path: Path, rows: Sequence[Row]) -> Path:
    """Draw a line a case and a marker an implementation, ours filled.

    Args:
        path: The png file; an old one is replaced.
        rows: All rows.

    Returns:
        The path.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    timed = [row for row in rows if row.status == "timed"]
    lines = list(dict.fromkeys((row.suite, row.case) for row in timed))
    height = _MARGIN + _LINE_HEIGHT * len(lines)
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    units = {
        (suite, case): _unit(
            [row for row in timed if (row.suite, row.case) == (suite, case)]
        )
        for suite, case in lines
    }
    for index, (name, entry) in enumerate(IMPLEMENTATIONS.items()):
        own = [row for row in timed if row.implementation == name]
        if not own:
            continue
        style = STYLES[index % len(STYLES)]
        axes.plot(
            [row.seconds_median / units[row.suite, row.case] for row in own],
            [lines.index((row.suite, row.case)) for row in own],
            linestyle="none",
            marker=style.marker if index < len(STYLES) else "x",
            markersize=7,
            color=style.colour,
            markerfacecolor=style.colour if entry.is_ours else "none",
            label=entry.title,
        )
    axes.axvline(1.0, color="0.35", linewidth=1.0)
    axes.set_xscale("log")
    axes.set_yticks(range(len(lines)), [_label(case) for _, case in lines])
    axes.invert_yaxis()
    axes.set_xlabel("time over that of the fastest JAX peer")
    axes.grid(visible=True, which="both", color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    if timed:
        figure.legend(loc="outside upper center", ncols=4, frameon=False)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=DOTS_PER_INCH)
    return write_file(path, picture.getvalue())


def _unit(group: Sequence[Row]) -> float:
    """Return the time of the fastest JAX peer, or else of the fastest."""
    peers = [
        row.seconds_median
        for row in group
        if IMPLEMENTATIONS[row.implementation].is_jax
        and not IMPLEMENTATIONS[row.implementation].is_ours
    ]
    return min(peers or [row.seconds_median for row in group])


def _label(case: Case) -> str:
    return case.label
