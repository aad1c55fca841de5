"""Tune and train every cell on every task, test once, and report."""

import functools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from rich.console import Console

from experiments.arms import Arm, diverged, score_seeds, train_arms, tune_arms
from experiments.cell_variants import report
from experiments.cell_variants.config import Config, arm_name, label_of
from experiments.cell_variants.problem import Ground, make_grounds
from experiments.cell_variants.report import Entry
from experiments.cell_variants.tables import report_notes, report_tables
from experiments.cells import count_cell_parameters, make_cell
from experiments.plots import plot_intervals
from experiments.reporting import write_results
from experiments.tasks import stretch_means
from experiments.training import running
from gated_rnn.statistics import Interval, mean_interval
from gated_rnn.training import SeedResult, make_optimizer

EXPERIMENT = "cell_variants"
TITLE = "Do fewer gates explain it? Eight cells on three tasks"
PICTURE_NAME = "test_loss"
#: A curve is recorded as so many means at most.
CURVE_POINTS = 20
SEEDS_VARY = (
    "initial parameters, and the training data of the synthetic tasks; of traffic the "
    "order of the windows"
)


def run(config: Config, console: Console) -> None:
    """Run the experiment and write its results.

    Args:
        config: The settings.
        console: Where progress and the tables go.

    Raises:
        UsageError: If data are missing or cannot be used, the output directory cannot
            be written, or its run not be gone on with; nothing is trained then.
        Stopped: If a signal asked for it; all is saved.
    """
    data_key, train_key, statistics_key = jax.random.split(
        jax.random.key(config.seed), 3
    )
    grounds = make_grounds(config, data_key)
    with running(config, console):
        _run(config, console, grounds, train_key, statistics_key)


def _run(config, console, grounds: list[Ground], train_key, statistics_key) -> None:
    began = time.perf_counter()
    optimizer = functools.partial(_optimizer, config.max_grad_norm)
    options = {
        "optimizer": optimizer,
        "updates_per_piece": min(100, config.num_updates),
        "validate_every": config.validate_every,
    }
    entries, series, rates = [], {}, {}
    for ground in grounds:
        for arm, cell, matchings in _arms_of(config, ground):
            of_arm = (config, console, [arm], train_key, config.num_updates)
            tuned = tune_arms(*of_arm, **options)
            rate = tuned[arm.name].rate if tuned else config.learning_rates[0]
            rates[arm.name] = tuned.get(arm.name, {"rate": rate})
            result = train_arms(*of_arm, rates={arm.name: rate}, **options)[arm.name]
            tested = np.asarray(score_seeds(result, ground.test(arm)), np.float64)
            series[arm.name] = _series(result, tested)
            entries += [
                _entry(config, ground, cell, matching, rate, result, tested)
                for matching in matchings
            ]
    summary = report.summarise(config, entries, statistics_key)
    summary["tuning"] = rates
    summary["baselines"] = {
        ground.name: {ground.baseline_label: ground.baseline} for ground in grounds
    }
    summary["seeds_vary"] = SEEDS_VARY
    write_results(
        config,
        console,
        experiment=EXPERIMENT,
        title=TITLE,
        cells=series,
        summary=summary,
        tables=report_tables(config, grounds, entries, summary),
        notes=report_notes(config, summary),
        pictures={PICTURE_NAME: functools.partial(_draw, config, grounds, entries)},
        seconds=time.perf_counter() - began,
        scale=f"{config.num_seeds} seeds, {config.num_updates} updates of "
        f"{config.batch_size} sequences",
    )


def _arms_of(config: Config, ground: Ground) -> list[tuple[Arm, Any, list[Any]]]:
    """List the arms of a task: each with its cell and the matchings it belongs to."""
    found: dict[str, tuple[Arm, Any, list[Any]]] = {}
    for matching in config.matchings(ground.name):
        for cell in config.cells:
            name = arm_name(ground.name, cell, matching)
            if name not in found:
                found[name] = (ground.make_arm(cell, matching), cell, [])
            found[name][2].append(matching)
    return list(found.values())


def _optimizer(max_grad_norm: float, rate: Any) -> optax.GradientTransformation:
    return make_optimizer(rate, max_grad_norm)


def _series(result: SeedResult, tested: np.ndarray) -> dict[str, Any]:
    return {
        "seeds": result.seed_ids,
        "ended_at": result.status.step,
        "best_validation": result.best.value,
        "test_loss": tested,
        "loss": _short(stretch_means(result.metrics["loss"], CURVE_POINTS)),
        "validation": _short(stretch_means(result.metrics["validation"], CURVE_POINTS)),
    }


def _short(values: np.ndarray) -> list[list[float]]:
    # Four digits: a picture's worth.
    return [[float(f"{value:.4g}") for value in row] for row in values]


def _entry(config, ground, cell, matching, rate, result, tested) -> Entry:
    lost = diverged(result)
    units = config.units(cell, matching, ground.in_features)

    def of_healthy(values: np.ndarray) -> np.ndarray:
        return np.where(lost, np.nan, values)

    losses = np.asarray(result.metrics["loss"], np.float64)
    return Entry(
        task=ground.name,
        cell=cell,
        matching=matching,
        units=units,
        parameters=count_cell_parameters(make_cell(cell, units), ground.in_features),
        rate=rate,
        test=of_healthy(tested / ground.baseline),
        fit=of_healthy(report.end_of_training(losses) / ground.baseline),
        rough=of_healthy(report.curve_roughness(result.metrics["validation"])),
        diverged=lost,
    )


def _draw(
    config: Config, grounds: Sequence[Ground], entries: Sequence[Entry], path: Path
) -> None:
    groups: dict[str, dict[str, Interval]] = {}
    for ground in grounds:
        for matching in config.matchings(ground.name):
            group = groups.setdefault(f"{ground.label}\nsame {matching}", {})
            cells = report.of_tasks(entries, matching)[ground.name]
            for cell in config.cells:
                finite = cells[cell].test[np.isfinite(cells[cell].test)]
                if finite.size:
                    group[label_of(cell)] = mean_interval(finite)
    plot_intervals(
        path,
        groups,
        title=f"Mean of {config.num_seeds} seeds, 95 % intervals",
        y_label="test loss over the baseline's",
        levels={"baseline": 1.0},
    )
