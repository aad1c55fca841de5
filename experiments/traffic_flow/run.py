"""Train the arms, forecast the test once, and report what came out."""

import dataclasses
import functools
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from experiments.arms import diverged, score_seeds, train_arms, tune_arms
from experiments.plots import plot_curves, plot_intervals
from experiments.reporting import write_results
from experiments.traffic_flow import report
from experiments.traffic_flow.config import Config
from experiments.traffic_flow.forecasts import (
    Errors,
    arima_forecasts,
    baseline_forecasts,
    errors_by_day,
    linear_valid_mse,
    measure_errors,
)
from experiments.traffic_flow.problem import (
    Task,
    count_arm_parameters,
    forecaster,
    load_task,
    make_arm,
    optimizer_of_rate,
    seconds_of_day,
    updates_per_epoch,
)
from experiments.training import running, save_models, writing_results
from gated_rnn.training import SeedResult

EXPERIMENT = "traffic_flow"
TITLE = "An hour of traffic to the next five minutes"
BASELINE_LABELS = {
    "persistence": "persistence",
    "day before": "same time of the day before",
    "daily profile": "daily profile",
    "linear": "linear autoregression",
    "linear, profile": "linear autoregression around the daily profile",
}
EPOCHS_PER_PIECE = 2  # some seconds
MAX_POINTS = 200  # of a curve in the record


def run(config: Config, console: Console) -> None:
    """Run the experiment and write its files.

    Args:
        config: The settings.
        console: Where progress and the tables go.

    Raises:
        UsageError: If the data cannot be used, the output directory cannot be written,
            or its run not be gone on with; nothing is trained then.
        Stopped: If a signal asked for it; all is saved.
    """
    task = load_task(config)
    with running(config, console):
        _run(config, console, task)


def _run(config: Config, console: Console, task: Task) -> None:
    began = time.perf_counter()
    train_key, statistics_key = jax.random.split(jax.random.key(config.seed))
    arms = [make_arm(config, task, name) for name in config.arms]
    per_epoch = updates_per_epoch(config, task)
    num_updates = config.num_epochs * per_epoch
    options = {
        "optimizer": optimizer_of_rate(config, num_updates),
        "updates_per_piece": EPOCHS_PER_PIECE * per_epoch,
        "validate_every": per_epoch,
    }
    tunings = tune_arms(config, console, arms, train_key, num_updates, **options)
    rates = {
        arm.name: tunings[arm.name].rate if tunings else config.learning_rate
        for arm in arms
    }
    # The models are written below: `parameters` says which.
    unsaved = dataclasses.replace(config, save_models=False)
    trained = train_arms(
        unsaved, console, arms, train_key, num_updates, rates=rates, **options
    )
    results = {name: _choose_params(config, one) for name, one in trained.items()}
    with writing_results(config):
        for arm in arms:
            save_models(config, arm.name, arm.network, results[arm.name])

    forecasts = {}
    for arm in arms:
        scaled = score_seeds(results[arm.name], forecaster(arm, task))
        told = task.data.scaler.inverse(scaled)
        told[diverged(results[arm.name])] = np.nan
        forecasts[arm.name] = told
    arima = arima_forecasts(task)
    baselines = {**baseline_forecasts(task), report.ARIMA: arima.forecasts}
    times = task.test.times[task.data.test.positions]

    def errors_of(told: Mapping[str, np.ndarray]) -> dict[str, Errors]:
        return {name: measure_errors(rows, task.truth) for name, rows in told.items()}

    def days_of(told: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {
            name: errors_by_day(rows, task.truth, times) for name, rows in told.items()
        }

    measured = report.Measured(
        errors=errors_of(forecasts),
        daily=days_of(forecasts),
        validation={
            name: one.metrics["validation"][:, per_epoch - 1 :: per_epoch]
            for name, one in results.items()
        },
        rates=rates,
        parameters={arm.name: count_arm_parameters(config, arm.name) for arm in arms},
        tunings=tunings,
        baselines=errors_of(baselines),
        daily_baselines=days_of(baselines),
        linear_valid=linear_valid_mse(task),
        arima_valid=arima.valid_mse,
        labels={
            **{arm.name: arm.label for arm in arms},
            **BASELINE_LABELS,
            report.ARIMA: f"ARIMA{arima.order}",
        },
        reports=(task.train.report, task.test.report),
    )
    summary = report.summarise(measured, statistics_key)
    write_results(
        config,
        console,
        experiment=EXPERIMENT,
        title=TITLE,
        cells=_record_seeds(measured, results, per_epoch),
        summary=summary,
        tables=report.report_tables(summary, measured),
        notes=report.report_notes(summary, measured),
        pictures={
            "a_day": functools.partial(_draw_day, task, measured, forecasts, baselines),
            "test_errors": functools.partial(_draw_errors, summary, measured),
            "validation": functools.partial(_draw_validation, measured),
        },
        seconds=time.perf_counter() - began,
        scale=f"{config.num_seeds} seeds, {config.num_epochs} epochs of "
        f"{per_epoch} updates",
    )


def _choose_params(config: Config, result: SeedResult) -> SeedResult:
    """Take the best parameters away where the last ones are asked for."""
    return result if config.parameters == "best" else result._replace(best=None)


def _record_seeds(
    measured: report.Measured, results: Mapping[str, SeedResult], per_epoch: int
) -> dict[str, dict[str, Any]]:
    """Give for each arm the curves, one point an epoch, and what each seed reached."""
    cells = {}
    for name, result in results.items():
        losses = result.metrics["loss"]
        curves = {
            "training": losses.reshape(len(losses), -1, per_epoch).mean(axis=2),
            "validation": measured.validation[name],
        }
        errors = measured.errors[name]._asdict()
        num_epochs = measured.validation[name].shape[1]
        stride = math.ceil(num_epochs / MAX_POINTS)
        cells[name] = {
            "seeds": result.seed_ids,
            "epochs": np.arange(stride, num_epochs + 1, stride),
            **{kind: curve[:, stride - 1 :: stride] for kind, curve in curves.items()},
            **{f"test_{kind}": values for kind, values in errors.items()},
            "epochs_to_linear": report.reached(measured, name),
        }
        if result.best is not None:
            cells[name]["best_epoch"] = result.best.step // per_epoch
    return cells


def _draw_day(
    task: Task,
    measured: report.Measured,
    forecasts: Mapping[str, np.ndarray],
    baselines: Mapping[str, np.ndarray],
    path: Path,
) -> None:
    """Draw the last day of the test."""
    times = task.test.times[task.data.test.positions]
    last = times.astype("datetime64[D]") == times[-1].astype("datetime64[D]")
    shown = list(forecasts)[:2]
    plot_curves(
        path,
        {measured.labels[name]: forecasts[name][:, last] for name in shown},
        x=seconds_of_day(times[last]) / 3600,
        lines={
            "truth": task.truth[last],
            measured.labels[report.LINEAR]: baselines[report.LINEAR][last],
        },
        middle="mean",
        title=f"One step ahead, {times[-1].astype('datetime64[D]')}",
        x_label="hour of the day",
        y_label=f"vehicles in {task.test.step_minutes:g} minutes",
    )


def _draw_errors(
    summary: Mapping[str, Any], measured: report.Measured, path: Path
) -> None:
    labels = measured.labels
    intervals = {
        labels[name]: one["test_mae"]
        for name, one in summary["arms"].items()
        if one["test_mae"] is not None
    }
    levels = {
        labels[name]: float(measured.baselines[name].mae)
        for name in (report.LINEAR, report.ARIMA, "linear, profile")
    }
    plot_intervals(
        path,
        {"": intervals},
        title="Error on the test, mean over seeds and 95 % interval",
        y_label="mean absolute error, vehicles",
        levels=levels,
    )


def _draw_validation(measured: report.Measured, path: Path) -> None:
    curves = measured.validation
    num_epochs = next(iter(curves.values())).shape[1]
    plot_curves(
        path,
        {measured.labels[name]: curve for name, curve in curves.items()},
        x=np.arange(1, num_epochs + 1),
        levels={measured.labels[report.LINEAR]: measured.linear_valid},
        title="Error on the validation part",
        x_label="epoch",
        y_label="mean squared error, scaled",
    )
