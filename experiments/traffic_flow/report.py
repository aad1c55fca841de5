"""What the runs say, in numbers and tables.

Margins and measures were written down before any full run.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.arms import Tuning
from experiments.data.reports import Report
from experiments.data.traffic import PUBLISHED_TEST, PUBLISHED_TRAIN
from experiments.tables import Table, show_interval, show_number
from experiments.traffic_flow.forecasts import Errors
from experiments.verdicts import Comparison, compare, comparisons_table
from gated_rnn.statistics import Interval, mean_interval

#: A difference of mean absolute errors that does not matter, in vehicles: one per cent
#: of the published 7.2, a fifth of what the published networks gain over a line.
MAE_MARGIN = 0.07
#: The same of epochs.
EPOCHS_MARGIN = 2.0
#: Tested by one run of each, without seeds; of the GRU that resets before its matmul.
PUBLISHED = {
    "lstm": Errors(mae=7.21, rmse=9.90, mape=16.56, r2=0.9396),
    "gru": Errors(mae=7.20, rmse=9.97, mape=16.78, r2=0.9389),
    "gru_reset_before": Errors(mae=7.20, rmse=9.97, mape=16.78, r2=0.9389),
}
#: First less second, where both were trained.
PAIRS = (
    *(("gru", "lstm"), ("gru_matched", "lstm"), ("gru_reset_before", "lstm")),
    *(("elman", "lstm"), ("elman", "gru"), ("elman_matched", "lstm")),
    *(("gru_no_dropout", "gru"), ("lstm_no_dropout", "lstm")),
    *(("gru_time_of_day", "gru"), ("lstm_time_of_day", "lstm")),
)
LINEAR, ARIMA = "linear", "arima"
SEEDS_VARY = "initialisation, order of the training windows, dropout"
_MAE = "test MAE, vehicles"


class Measured(NamedTuple):
    """What was measured; arms and baselines by name.

    Attributes:
        errors: Of the test, `[S]` each; not finite for a seed that diverged.
        daily: Mean absolute error of every day of the test, `[S, D]`.
        validation: Scaled mean squared error after each epoch, `[S, E]`.
        rates: The learning rate of each arm.
        parameters: How many each arm has.
        tunings: How the rates were chosen; empty if they were not.
        baselines: Errors of the test, a number each.
        daily_baselines: Mean absolute error of every day, `[D]`.
        linear_valid: What the linear autoregression reaches on the validation part.
        arima_order: In words.
        labels: Of arms and baselines.
        reports: What became of the files.
    """

    errors: Mapping[str, Errors]
    daily: Mapping[str, np.ndarray]
    validation: Mapping[str, np.ndarray]
    rates: Mapping[str, float]
    parameters: Mapping[str, int]
    tunings: Mapping[str, Tuning]
    baselines: Mapping[str, Errors]
    daily_baselines: Mapping[str, np.ndarray]
    linear_valid: float
    arima_valid: Mapping[str, float]
    labels: Mapping[str, str]
    reports: tuple[Report, ...]


def summarise(measured: Measured, key: jax.Array) -> dict[str, Any]:
    """Turn measurements into what is reported.

    Args:
        measured: The measurements.
        key: For the resamples.

    Returns:
        Errors of arms and baselines, and the comparisons.
    """
    arms = {
        name: {
            "learning_rate": measured.rates[name],
            "parameters": measured.parameters[name],
            "published": PUBLISHED.get(name) if _are_published(measured) else None,
            **{f"test_{kind}": interval(values) for kind, values in of_arm.items()},
            "epochs_to_linear": interval(reached(measured, name)),
            "seeds_never_there": int(np.isinf(reached(measured, name)).sum()),
            "diverged_seeds": np.flatnonzero(~np.isfinite(of_arm["mae"])),
        }
        for name, of_arm in (
            (name, errors._asdict()) for name, errors in measured.errors.items()
        )
    }
    return {
        "seeds_vary": SEEDS_VARY,
        "arms": arms,
        "baselines": measured.baselines,
        "tuning": measured.tunings,
        "linear_validation": measured.linear_valid,
        "arima_validation_mse": measured.arima_valid,
        "comparisons": _compare_arms(measured, key),
        "against_baselines": _compare_with_baselines(measured, key),
        "over_days": _compare_days(measured, key),
        "epochs_to_linear": _compare_epochs(measured, key),
        "data": measured.reports,
    }


def _are_published(measured: Measured) -> bool:
    files = (PUBLISHED_TRAIN, PUBLISHED_TEST)
    return [report.sha256 for report in measured.reports] == [
        file.sha256 for file in files
    ]


def interval(values: np.ndarray) -> Interval | None:
    """Take the mean over seeds of what is finite, None if nothing is."""
    finite = values[np.isfinite(values)]
    return mean_interval(finite) if finite.size else None


def epochs_to(validation: np.ndarray, target: float) -> np.ndarray:
    """Count the epochs until a curve is first at a target or below.

    Args:
        validation: `[S, E]`, after each epoch.
        target: What is to be reached.

    Returns:
        `[S]`, from 1; infinite where it never is.

    Examples:
        >>> epochs_to(np.array([[3.0, 1.0, 2.0], [3.0, 2.5, 2.1]]), 2.0)
        array([ 2., inf])
    """
    there = validation <= target
    return np.where(there.any(axis=1), 1.0 + there.argmax(axis=1), np.inf)


def reached(measured: Measured, name: str) -> np.ndarray:
    """Count the epochs in which an arm has reached the linear autoregression."""
    return epochs_to(measured.validation[name], measured.linear_valid)


def report_tables(summary: Mapping[str, Any], measured: Measured) -> list[Table]:
    """Lay out what was found.

    Args:
        summary: From `summarise`.
        measured: What it was made of.

    Returns:
        Tables of errors, comparisons, epochs and learning rates.
    """
    labels = measured.labels
    days = comparisons_table(
        summary["over_days"],
        labels,
        title="Is it so on every day? Mean over seeds, day by day of the test",
    )
    tables = [
        _errors_table(summary, labels),
        comparisons_table(
            [*summary["comparisons"], *summary["against_baselines"]],
            labels,
            title="Seed by seed",
        ),
        days._replace(columns=[{"seeds": "days"}.get(c, c) for c in days.columns]),
        comparisons_table(
            summary["epochs_to_linear"],
            labels,
            title="Epochs until the validation error is that of the linear "
            "autoregression; a seed that never gets there is left out",
        ),
        _tuning_table(summary, labels),
    ]
    return [table for table in tables if table.rows]


def report_notes(summary: Mapping[str, Any], measured: Measured) -> list[str]:
    """Say what the tables do not.

    Args:
        summary: From `summarise`.
        measured: What it was made of.

    Returns:
        Sentences.
    """
    notes = [f"Data: {report}." for report in measured.reports]
    notes.append(
        "Errors are in vehicles per step, MAPE over steps with traffic; the test is "
        f"the same for all. Seeds vary {SEEDS_VARY}; the interval is over them."
    )
    for name, of_arm in summary["arms"].items():
        label = measured.labels[name]
        if of_arm["diverged_seeds"].size:
            seeds = ", ".join(map(str, of_arm["diverged_seeds"]))
            notes.append(f"{label} diverged on seeds {seeds}; they are left out.")
        if of_arm["seeds_never_there"]:
            notes.append(
                f"{label}: of the seeds {of_arm['seeds_never_there']} never reached "
                "the validation error of the linear autoregression."
            )
        tuning = summary["tuning"].get(name)
        if tuning is not None and tuning.at_edge:
            notes.append(
                f"{label}: its best learning rate, {tuning.rate:g}, is the first or "
                "last of those tried."
            )
    return notes


def _compare_arms(measured: Measured, key: jax.Array) -> list[Comparison]:
    scores = {name: errors.mae for name, errors in measured.errors.items()}
    return [
        compare(_MAE, scores, *pair, key, margin=MAE_MARGIN)
        for pair in PAIRS
        if scores.keys() >= set(pair)
    ]


def _compare_with_baselines(measured: Measured, key: jax.Array) -> list[Comparison]:
    return [
        compare(
            _MAE,
            {name: errors.mae, base: np.full_like(errors.mae, of_base.mae)},
            name,
            base,
            key,
            margin=MAE_MARGIN,
        )
        for name, errors in measured.errors.items()
        for base, of_base in measured.baselines.items()
        if base in (LINEAR, ARIMA)
    ]


def _compare_days(measured: Measured, key: jax.Array) -> list[Comparison]:
    """Compare day by day what the seeds have in the mean."""
    scores = dict(measured.daily_baselines)
    for name, daily in measured.daily.items():
        kept = daily[np.isfinite(daily).all(axis=1)]
        if len(kept):
            scores[name] = kept.mean(axis=0)
    pairs = [pair for pair in PAIRS if scores.keys() >= set(pair)]
    pairs += [(name, LINEAR) for name in measured.daily if name in scores]
    measure = "MAE of a day, vehicles"
    return [compare(measure, scores, *pair, key, margin=MAE_MARGIN) for pair in pairs]


def _compare_epochs(measured: Measured, key: jax.Array) -> list[Comparison]:
    scores = {name: reached(measured, name) for name in measured.validation}
    return [
        compare("epochs", scores, *pair, key, margin=EPOCHS_MARGIN)
        for pair in PAIRS
        if scores.keys() >= set(pair)
    ]


def _errors_table(summary: Mapping[str, Any], labels: Mapping[str, str]) -> Table:
    rows = []
    for name, one in summary["arms"].items():
        published = one["published"]
        rows.append(
            (
                labels[name],
                show_interval(one["test_mae"], 4),
                show_interval(one["test_rmse"], 4),
                show_interval(one["test_mape"]),
                show_interval(one["test_r2"], 4),
                "" if published is None else f"{published.mae:.2f}",
                show_interval(one["epochs_to_linear"]),
                f"{one['parameters']:,}",
                f"{one['learning_rate']:g}",
            )
        )
    for name, errors in summary["baselines"].items():
        digits = zip(errors, (4, 4, 3, 4), strict=True)
        shown = [show_number(float(value), count) for value, count in digits]
        rows.append((labels[name], *shown, *[""] * 4))
    columns = ("", "MAE", "RMSE", "MAPE, %", "R2", "published MAE", "epochs to linear")
    title = "Errors on the test, mean over seeds [95 % interval]"
    return Table(title, (*columns, "parameters", "learning rate"), rows)


def _tuning_table(summary: Mapping[str, Any], labels: Mapping[str, str]) -> Table:
    tunings = summary["tuning"]
    if not tunings:
        return Table("", (), ())
    first = next(iter(tunings.values()))
    title = (
        "Learning rates: scaled mean squared error of validation, times 1000, best of "
        f"each seed, mean of {first.seeds}, which tune alone"
    )
    rows = [
        (labels[name], *(show_number(1e3 * value, 4) for value in tuning.values))
        for name, tuning in tunings.items()
    ]
    return Table(title, ("", *(f"{rate:g}" for rate in first.rates)), rows)
