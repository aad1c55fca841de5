"""What the rounds say about the texts' claims on cost: ratios, tables, pictures.

The margin is that of this file, written down before any full run.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.benchmarks.cases import Sizes
from experiments.cost.config import Config
from experiments.cost.programs import ARMS, MODES
from experiments.plots import plot_intervals
from experiments.tables import Table, show_interval, show_number
from experiments.verdicts import compare
from gated_rnn.statistics import Interval
from gated_rnn.types import invalid

#: Of the log of a ratio of times: below 3 % nobody notices, and the smallest difference
#: that a text speaks of is 3.84 %.
MARGIN = math.log(1.03)
#: What the texts say of the GRU's time, over the LSTM's.
PUBLISHED = {
    "Muccino: 3.84 % faster": 0.9616,
    "Bansal: 2.4 h for 3.2 h": 0.75,
}
_MIN_ROUNDS = 10
_WORDS = {
    "lower": "faster",
    "higher": "slower",
    "equivalent": "within 3 %",
    "inconclusive": "inconclusive",
}


class Ratio(NamedTuple):
    """The time of an arm over that of another, round by round.

    Attributes:
        point: Name of the size.
        mode: What was timed.
        first: Name of an arm.
        second: Name of the other.
        ratio: Geometric mean over the rounds, with its interval.
        verdict: Whether the first is faster by more than the margin, slower, neither,
            or one cannot tell.
    """

    point: str
    mode: str
    first: str
    second: str
    ratio: Interval
    verdict: str


def compare_times(
    point: str,
    mode: str,
    seconds: Mapping[str, Sequence[float]],
    first: str,
    second: str,
    key: jax.Array,
) -> Ratio:
    """Compare two arms that took turns.

    Args:
        point: Name of the size.
        mode: What was timed.
        seconds: For each arm a number a round.
        first: Name of an arm.
        second: Name of the arm that is divided by.
        key: For the statistics.

    Returns:
        The ratio.
    """
    logs = {name: np.log(seconds[name]) for name in (first, second)}
    found = compare(mode, logs, first, second, key, margin=MARGIN)
    if found.difference is None:  # never: a time is finite
        raise invalid("seconds", "finite numbers", f"those of {first} and {second}")
    log_ratio = found.difference.mean
    estimate, low, high = (math.exp(value) for value in log_ratio[:3])
    ratio = log_ratio._replace(estimate=estimate, low=low, high=high)
    word = _WORDS[found.verdict.partition(",")[0]]
    if found.num_seeds < _MIN_ROUNDS:
        word += f", provisionally ({found.num_seeds} rounds of {_MIN_ROUNDS})"
    return Ratio(point, mode, first, second, ratio, word)


def summarise(points: Sequence[Mapping[str, Any]], key: jax.Array) -> dict[str, Any]:
    """Turn rounds into what is reported.

    Args:
        points: What was measured, size by size.
        key: For the statistics.

    Returns:
        The sizes, what was counted, medians, and every arm over the LSTM.
    """
    ratios = [
        compare_times(
            point["name"],
            mode,
            {arm: facts[mode]["seconds"] for arm, facts in point["arms"].items()},
            arm,
            "lstm",
            key,
        )
        for point in points
        for mode in MODES
        for arm in point["arms"]
        if arm != "lstm"
    ]
    return {
        "margin": math.exp(MARGIN) - 1,
        "published_gru_over_lstm": PUBLISHED,
        "points": [_count_point(point) for point in points],
        "ratios": ratios,
    }


def by_arm(points: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Order what was measured by arm, size and mode, for the record.

    Args:
        points: What was measured.

    Returns:
        The series of each arm; rounds stand where other experiments have seeds.
    """
    found: dict[str, dict[str, Any]] = {}
    for point in points:
        for arm, facts in point["arms"].items():
            for mode in MODES:
                name = f"{point['name']}, {mode}"
                found.setdefault(arm, {})[name] = facts[mode]["seconds"]
    return found


def describe(point: Mapping[str, Any]) -> str:
    """Say in a line what came out at a size.

    Args:
        point: What was measured.

    Returns:
        The name and the medians of an update.
    """
    times = ", ".join(
        f"{ARMS[arm]} {show_number(1e3 * _median(facts['update']))} ms"
        for arm, facts in point["arms"].items()
    )
    return f"{_name_point(point)}: {times}"


def list_tables(summary: Mapping[str, Any]) -> list[Table]:
    """Lay out the summary.

    Args:
        summary: From `summarise`.

    Returns:
        Ratios of times, times, counts.
    """
    return [
        _ratio_table(summary),
        _arm_table(summary),
        _time_table(summary),
        _count_table(summary),
    ]


def list_notes(summary: Mapping[str, Any], config: Config) -> list[str]:
    """Say what the tables leave out.

    Args:
        summary: From `summarise`.
        config: The settings.

    Returns:
        Sentences.
    """
    notes = [
        "An update is forward pass, gradient, clipping and Adam, on one device (on a "
        "CPU, a core); compiling is apart. B, T, F and H are batch, steps, features "
        f"and units. A stream is {config.stream_steps} steps at batch 1 in one call. "
        "Bytes are XLA's plan: scratch and outputs, without parameters and data.",
        "The texts: 3.84 % faster (Muccino, cuDNN), 20 to 30 % faster and 2.4 h for "
        "3.2 h (Bansal), that is 0.96, 0.70 to 0.83, and 0.75 of the LSTM's time.",
    ]
    named = [
        f"{_name_point(point)}, {point['note']}"
        for point in summary["points"]
        if point["note"] != "grid"
    ]
    return [*notes, *([f"Sizes: {'; '.join(named)}."] if named else [])]


def list_pictures(
    summary: Mapping[str, Any],
) -> dict[str, Callable[[Path], object]]:
    """Name the pictures and what draws them.

    Args:
        summary: From `summarise`.

    Returns:
        Draws, by name.
    """
    labels = {"update": "an update", "step": "a step from Python", "stream": "a step"}
    groups: dict[str, dict[str, Interval]] = {}
    for one in summary["ratios"]:
        if one.first == "gru":
            groups.setdefault(one.point, {})[labels[one.mode]] = one.ratio
    return {
        "gru_over_lstm": functools.partial(
            plot_intervals,
            groups=groups,
            title="Time of a GRU over that of an LSTM of equal units",
            y_label="GRU / LSTM",
            levels={"equal": 1.0, **PUBLISHED},
        )
    }


def _median(measured: Mapping[str, Any]) -> float:
    return float(np.median(measured["seconds"]))


def _show_sizes(sizes: Mapping[str, int]) -> str:
    numbers = zip("BTFH", Sizes(**sizes), strict=True)
    return " ".join(f"{letter} {number}" for letter, number in numbers)


def _name_point(point: Mapping[str, Any]) -> str:
    return f"{point['name']} ({_show_sizes(point['sizes'])})"


def _count_point(point: Mapping[str, Any]) -> dict[str, Any]:
    arms = {}
    for arm, facts in point["arms"].items():
        arms[arm] = {
            **facts["facts"],
            **{
                mode: {
                    "median_seconds": _median(facts[mode]),
                    "compile_seconds": facts[mode]["compile_seconds"],
                    "bytes": _bytes(facts[mode]["memory"]),
                }
                for mode in MODES
            },
        }
    return {**{name: point[name] for name in ("name", "note", "sizes")}, "arms": arms}


def _bytes(memory: Mapping[str, int] | None) -> int | None:
    """Add scratch and outputs, without outputs that stand in donated inputs."""
    if memory is None:
        return None
    return memory["temporary"] + memory["output"] - memory["alias"]


def _ratio_table(summary: Mapping[str, Any]) -> Table:
    rows = []
    for point in summary["points"]:
        found = {
            one.mode: one
            for one in summary["ratios"]
            if (one.point, one.first) == (point["name"], "gru")
        }
        if found:
            rows.append(
                (
                    _name_point(point),
                    *(
                        f"{show_interval(found[mode].ratio)} {found[mode].verdict}"
                        for mode in MODES
                    ),
                )
            )
    title = "Time of a GRU over that of an LSTM of equal units [95 % over rounds]"
    return Table(title, ("", *MODES.values()), rows)


def _arm_table(summary: Mapping[str, Any]) -> Table:
    others = [arm for arm in ARMS if arm not in ("lstm", "gru")]
    rows = []
    for point in summary["points"]:
        found = {
            one.first: one
            for one in summary["ratios"]
            if (one.point, one.mode) == (point["name"], "update")
        }
        if all(arm in found for arm in others):
            shown = [
                f"{show_interval(found[a].ratio)} {found[a].verdict}" for a in others
            ]
            rows.append((point["name"], *shown))
    title = "Time of an update over that of the LSTM"
    return Table(title, ("", *(ARMS[arm] for arm in others)), rows)


def _time_table(summary: Mapping[str, Any]) -> Table:
    rows = []
    for point in summary["points"]:
        for arm in ("lstm", "gru"):
            facts = point["arms"][arm]
            seconds = {mode: facts[mode]["median_seconds"] for mode in MODES}
            compiling = sum(facts[mode]["compile_seconds"] for mode in MODES)
            rows.append(
                (
                    f"{point['name']}, {ARMS[arm]}",
                    show_number(1e3 * seconds["update"]),
                    f"{3600 / seconds['update']:,.0f}",
                    show_number(1e6 * seconds["step"]),
                    show_number(1e6 * seconds["stream"]),
                    show_number(facts["update"]["compile_seconds"]),
                    show_number(compiling),
                )
            )
    columns = (
        *("", "ms an update", "updates an hour", "us a step from Python"),
        *("us a step in a loop", "s to compile an update", "all three"),
    )
    return Table("Medians", columns, rows)


def _count_table(summary: Mapping[str, Any]) -> Table:
    rows = []
    for point in summary["points"]:
        lstm = point["arms"]["lstm"]
        for arm, facts in point["arms"].items():
            memory, base = facts["update"]["bytes"], lstm["update"]["bytes"]
            rows.append(
                (
                    f"{point['name']}, {ARMS[arm]} ({facts['units']})",
                    *(
                        f"{facts[name]:,} ({show_number(facts[name] / lstm[name])})"
                        for name in ("parameters", "operations")
                    ),
                    *(
                        "none"
                        if value is None or of is None
                        else f"{value / 1024:,.0f} ({show_number(value / of)})"
                        for value, of in (
                            (memory, base),
                            (facts["saved_bytes"], lstm["saved_bytes"]),
                        )
                    ),
                )
            )
    columns = (
        *("size, arm (units)", "parameters", "operations a step"),
        *("KiB of an update", "KiB saved"),
    )
    return Table("Counts, of the recurrent layer (over the LSTM's)", columns, rows)
