"""How fast gradients fall, before and after training, and who keeps them longer.

Margins and measures are those of this file, written down before any full run.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.gradient_flow.config import Config
from experiments.gradient_flow.flow import gate_half_life, half_life, halvings_per_step
from experiments.gradient_flow.setups import GATED, TRAINED, initial_starts
from experiments.tables import Table, show_interval, show_number
from experiments.tasks import SOLVED_WRONG
from experiments.verdicts import Comparison, compare, comparisons_table
from gated_rnn.statistics import Interval, mean_interval

#: Halvings a step that do not matter: over 50 steps they make a factor of 5.
MARGIN = 0.05
#: Whose gradients are compared, first less second, at the same time.
_PAIRS = (
    ("elman", "gru"),
    ("elman", "lstm"),
    ("lstm", "gru"),
    ("lstm", "gru_matched"),
)
_WHENS = ("before", "after")


class Found(NamedTuple):
    """What was measured: log2 of gradient sizes, `[S, L]` each.

    Attributes:
        trained: By cell, the series "before" and "after" training, `test_loss`,
            `test_wrong` and `diverged`, `[S]`.
        starts: By initialiser.
        biased: By cell and bias.
    """

    trained: dict[str, dict[str, np.ndarray]]
    starts: dict[str, np.ndarray]
    biased: dict[str, dict[float, np.ndarray]]


def summarise(config: Config, found: Found, key: jax.Array) -> dict[str, Any]:
    """Turn measurements into what is reported.

    Args:
        config: The settings.
        found: The measurements.
        key: For the resamples.

    Returns:
        Halvings a step, half-lives, shares solved and comparisons.
    """
    rates = {
        name: {
            "before": halvings_per_step(series["before"]),
            "after": np.where(
                series["diverged"], np.nan, halvings_per_step(series["after"])
            ),
        }
        for name, series in found.trained.items()
    }
    by_bias = {
        name: {bias: halvings_per_step(curves) for bias, curves in of_bias.items()}
        for name, of_bias in found.biased.items()
    }
    starts = {name: halvings_per_step(curves) for name, curves in found.starts.items()}
    return {
        "rates": rates,
        "rates_of_starts": starts,
        "rates_by_bias": by_bias,
        "half_lives": {
            name: {when: _spread(half_life(rates[name][when])) for when in _WHENS}
            for name in rates
        },
        "solved": {
            name: (series["test_wrong"] <= SOLVED_WRONG) & ~series["diverged"]
            for name, series in found.trained.items()
        },
        "comparisons": _compare(config, rates, by_bias, key),
    }


def _spread(values: np.ndarray) -> dict[str, float]:
    """Give median and range over seeds; half-lives may be infinite."""
    known = values[~np.isnan(values)]
    if not known.size:
        return {"median": np.nan, "least": np.nan, "most": np.nan}
    return {
        # Of an even number the middle two may be a number and infinity.
        "median": float(np.sort(known)[(known.size - 1) // 2]),
        "least": float(known.min()),
        "most": float(known.max()),
    }


def _compare(config: Config, rates, by_bias, key: jax.Array) -> list[Comparison]:
    comparisons = []
    for when in _WHENS:
        scores = {name: rates[name][when] for name in rates}
        for first, second in _PAIRS:
            if not {first, second} <= scores.keys():
                continue
            measure = f"halvings a step {when} training"
            comparisons.append(
                compare(measure, scores, first, second, key, margin=MARGIN)
            )
    for name in rates:
        measure = f"halvings a step, {TRAINED[name]}"
        comparisons.append(
            compare(measure, rates[name], "after", "before", key, margin=MARGIN)
        )
    low, high = config.gate_biases[0], config.gate_biases[-1]
    if low < high:
        for name in GATED:
            scores = {"high": by_bias[name][high], "low": by_bias[name][low]}
            measure = (
                f"halvings a step, untrained {TRAINED[name]}, bias {high:g} or {low:g}"
            )
            comparisons.append(
                compare(measure, scores, "high", "low", key, margin=MARGIN)
            )
    return comparisons


_LABELS = {
    **TRAINED,
    "before": "before training",
    "after": "after",
    "high": "the higher",
    "low": "the lower",
}


def tables(
    config: Config,
    found: Found,
    summary: Mapping[str, Any],
    rates: Mapping[str, float],
) -> list[Table]:
    """Lay out the summary.

    Args:
        config: The settings.
        found: The measurements.
        summary: From `summarise`.
        rates: The learning rate of each cell.

    Returns:
        Trained cells, initialisers, biases, comparisons.
    """
    return [
        _trained_table(config, found, summary, rates),
        _starts_table(config, summary),
        _bias_table(config, summary),
        comparisons_table(
            summary["comparisons"], _LABELS, title="Whose gradient falls faster"
        ),
    ]


def notes(config: Config) -> list[str]:
    """Say what the numbers are.

    Args:
        config: The settings.

    Returns:
        Sentences.
    """
    return [
        "The gradient is that of a random combination of the answer with respect to "
        "the input so many steps before, the geometric mean over the sequences of the "
        f"test; it is fitted over lags 0 to {config.length - 1}. A half-life of "
        "infinity: it does not fall.",
    ]


def _trained_table(config, found, summary, rates) -> Table:
    rows = []
    for name in found.trained:
        lives = summary["half_lives"][name]
        solved = summary["solved"][name]
        series = found.trained[name]
        finite = series["test_loss"][np.isfinite(series["test_loss"])]
        rows.append(
            (
                TRAINED[name],
                show_interval(_interval(summary["rates"][name]["before"])),
                _show_spread(lives["before"]),
                show_interval(_interval(summary["rates"][name]["after"])),
                _show_spread(lives["after"]),
                show_interval(mean_interval(finite) if finite.size else None),
                f"{int(solved.sum())} of {solved.size}",
                show_number(rates[name], 2),
            )
        )
    columns = (
        "",
        "halvings a step, before",
        "half-life: median (range)",
        "halvings a step, after",
        "half-life: median (range)",
        "test loss",
        "solved",
        "learning rate",
    )
    title = f"Gradient before and after training on {config.synthetic_task.label}"
    return Table(f"{title}: mean [95 %]", columns, rows)


def _starts_table(config, summary) -> Table:
    labels = {name: start.label for name, start in initial_starts(config).items()}
    rates = {
        **{TRAINED[name]: of["before"] for name, of in summary["rates"].items()},
        **{labels[name]: of for name, of in summary["rates_of_starts"].items()},
    }
    rows = [
        (
            label,
            show_interval(_interval(values)),
            _show_spread(_spread(half_life(values))),
        )
        for label, values in rates.items()
    ]
    columns = ("", "halvings a step", "half-life: median (range)")
    title = "Gradient of cells as they start; those without a word as Keras' do"
    return Table(title, columns, rows)


def _bias_table(config, summary) -> Table:
    rows = []
    for bias in config.gate_biases:
        shown = [
            _show_spread(_spread(half_life(summary["rates_by_bias"][name][bias])))
            for name in GATED
        ]
        rows.append((f"{bias:g}", show_number(gate_half_life(bias)), *shown))
    columns = ("bias", "the gate alone", "GRU, update gate", "LSTM, forget gate")
    title = "Half-life by the bias of the gate that keeps the past: median (range)"
    return Table(title, columns, rows)


def _interval(values: np.ndarray) -> Interval | None:
    finite = values[np.isfinite(values)]
    return mean_interval(finite) if finite.size else None


def _show_spread(spread: Mapping[str, float]) -> str:
    middle, least, most = (
        "infinite" if np.isinf(spread[name]) else show_number(spread[name])
        for name in ("median", "least", "most")
    )
    return f"{middle} ({least} to {most})"
