"""How much an initialiser matters, beside how much the cell does.

Margins and measures are those of this file, written down before any full run.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.initializers.config import Config
from experiments.initializers.starts import KERAS, make_starts
from experiments.tables import Table, show_interval, show_number
from experiments.verdicts import Comparison, compare
from gated_rnn.statistics import Interval, mean_interval

#: Of log10 of the test loss, what does not matter: on prices 5 %, the margin of
#: long_sequences; on adding, whose losses spread over powers of ten, a quarter.
MARGINS = {"prices": 0.02, "adding": 0.1}
MATCHED = "gru_matched"
LABELS = {"lstm": "LSTM", "gru": "GRU", MATCHED: "GRU, matched parameters"}


class Outcome(NamedTuple):
    """What one cell came to on one task, under one start.

    Attributes:
        task: Its name.
        cell: "lstm", "gru" or "gru_matched".
        start: Name of the start.
        units: H.
        parameters: Of the recurrent layer.
        rate: Learning rate.
        test_loss: `[S]`; NaN for a seed that diverged.
        validation: `[S, V]`, the losses on the way.
    """

    task: str
    cell: str
    start: str
    units: int
    parameters: int
    rate: float
    test_loss: np.ndarray
    validation: np.ndarray


class Effect(NamedTuple):
    """A comparison, and of what."""

    task: str
    cell: str
    start: str
    comparison: Comparison


def find_effects(
    config: Config, outcomes: Sequence[Outcome], key: jax.Array
) -> list[Effect]:
    """Compare every start with Keras', and as Keras starts them the LSTM with the GRU.

    Args:
        config: Tasks and cells.
        outcomes: All of them.
        key: For the resamples.

    Returns:
        Differences of log10 of the test loss, seed by seed; `start` is "" where cells
        are compared.
    """
    losses = {
        (one.task, one.cell, one.start): np.log10(one.test_loss) for one in outcomes
    }
    effects = []
    for task, cell, start in losses:
        if start == KERAS:
            continue
        scores = {"other": losses[task, cell, start], KERAS: losses[task, cell, KERAS]}
        measure = f"log10 test loss, {task}, {LABELS[cell]}"
        found = compare(measure, scores, "other", KERAS, key, margin=MARGINS[task])
        effects.append(Effect(task, cell, start, found))
    for task in config.tasks:
        of_cell = {
            cell: losses[task, cell, KERAS]
            for cell in LABELS
            if (task, cell, KERAS) in losses
        }
        for second in ("gru", MATCHED):
            if {"lstm", second} <= of_cell.keys():
                measure = f"log10 test loss, {task}, as Keras starts"
                found = compare(
                    measure, of_cell, "lstm", second, key, margin=MARGINS[task]
                )
                effects.append(Effect(task, second, "", found))
    return effects


def spread_of_starts(effects: Sequence[Effect]) -> dict[str, dict[str, Any]]:
    """Set the effects of starts beside that of the cell.

    Args:
        effects: From `find_effects`.

    Returns:
        For each task, the absolute effect of the cell at matched units, and for each
        cell the median and largest of its starts; in log10.
    """

    def size(effect: Effect) -> float:
        difference = effect.comparison.difference
        return np.nan if difference is None else abs(difference.mean.estimate)

    found: dict[str, dict[str, Any]] = {}
    for task in dict.fromkeys(effect.task for effect in effects):
        own = [effect for effect in effects if effect.task == task]
        of_cells = {one.cell: size(one) for one in own if not one.start}
        found[task] = {"lstm_less_gru": of_cells.get("gru", np.nan)}
        for cell in dict.fromkeys(one.cell for one in own if one.start):
            sizes = {
                one.start: size(one) for one in own if one.cell == cell and one.start
            }
            known = {start: value for start, value in sizes.items() if value == value}
            if known:
                largest = max(known, key=known.__getitem__)
                found[task][cell] = {
                    "median": float(np.median(list(known.values()))),
                    "largest": known[largest],
                    "largest_start": largest,
                }
    return found


def tables(
    config: Config,
    outcomes: Sequence[Outcome],
    effects: Sequence[Effect],
    baselines: Mapping[str, np.ndarray],
) -> list[Table]:
    """Lay out the results.

    Args:
        config: The settings.
        outcomes: All of them.
        effects: From `find_effects`.
        baselines: Losses without inputs, `[S]` by task.

    Returns:
        A table of starts for each task, one of the cells, one of the sizes of effects.
    """
    return [
        *(_starts_table(config, task, outcomes, effects) for task in config.tasks),
        _cells_table(config, outcomes, effects, baselines),
        _spread_table(spread_of_starts(effects)),
    ]


def notes(effects: Sequence[Effect]) -> list[str]:
    """Say what the tables leave out.

    Args:
        effects: From `find_effects`.

    Returns:
        Sentences.
    """
    return [
        f"{len(effects)} comparisons at 95 %: of those without any effect, one in "
        "twenty has an interval that leaves zero out. A verdict takes more, an "
        "interval beyond the margin.",
        "Learning rates were chosen for each cell and task under Keras' start; a start "
        "that would want another one is at a disadvantage.",
    ]


def _starts_table(config, task, outcomes, effects) -> Table:
    rows = []
    for one in outcomes:
        if one.task != task or one.cell == MATCHED:
            continue
        starts = make_starts(
            one.cell, config.sizes(task)["longest"], config.keep_biases
        )
        finite = one.test_loss[np.isfinite(one.test_loss)]
        found = [
            effect.comparison
            for effect in effects
            if (effect.task, effect.cell, effect.start) == (task, one.cell, one.start)
        ]
        difference = found[0].difference if found else None
        lost = one.test_loss.size - finite.size
        rows.append(
            (
                f"{LABELS[one.cell]}, {starts[one.start].label}",
                show_interval(mean_interval(finite) if finite.size else None)
                + (f", {lost} diverged" if lost else ""),
                show_interval(_as_ratio(difference.mean)) if difference else "",
                show_number(difference.p_value, 2) if difference else "",
                found[0].verdict if found else "",
            )
        )
    columns = ("", "test loss", "ratio to Keras'", "p", "its loss is")
    margin = 10 ** MARGINS[task] - 1
    title = f"Starts on {task}: mean over {config.num_seeds} seeds [95 %]"
    return Table(f"{title}; ratios within {margin:.0%} do not matter", columns, rows)


def _cells_table(config, outcomes, effects, baselines) -> Table:
    rows = []
    for one in outcomes:
        if one.start == KERAS:
            finite = one.test_loss[np.isfinite(one.test_loss)]
            rows.append(
                (
                    f"{one.task}: {LABELS[one.cell]}",
                    f"{one.units} units, {one.parameters} parameters",
                    show_number(one.rate, 2),
                    show_interval(mean_interval(finite) if finite.size else None),
                    "",
                )
            )
    for task, values in baselines.items():
        label = f"{task}: the best answer without inputs"
        rows.append((label, "", "", show_number(float(np.mean(values))), ""))
    for effect in effects:
        if not effect.start:
            difference = effect.comparison.difference
            rows.append(
                (
                    f"{effect.task}: LSTM / {LABELS[effect.cell]}",
                    "",
                    "",
                    show_interval(_as_ratio(difference.mean)) if difference else "none",
                    effect.comparison.verdict,
                )
            )
    columns = ("", "", "learning rate", "test loss, or its ratio", "the first is")
    return Table("The cells as Keras starts them", columns, rows)


def _spread_table(spread: Mapping[str, Mapping[str, Any]]) -> Table:
    rows = []
    for task, of_task in spread.items():
        cell = 10 ** of_task["lstm_less_gru"]
        for name, sizes in of_task.items():
            if name == "lstm_less_gru":
                continue
            rows.append(
                (
                    f"{task}: {LABELS[name]}",
                    show_number(10 ** sizes["median"]),
                    show_number(10 ** sizes["largest"]),
                    sizes["largest_start"],
                    show_number(cell),
                )
            )
    columns = (
        "factor of the test loss",
        "median of the starts",
        "largest",
        "of the start",
        "LSTM to GRU",
    )
    return Table("Effects of starts beside that of the cell", columns, rows)


def _as_ratio(interval: Interval) -> Interval:
    estimate, low, high = (10**value for value in interval[:3])
    return interval._replace(estimate=estimate, low=low, high=high)
