"""Train every variant, forecast the test days once, and report what came out."""

import dataclasses
import functools
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from rich.console import Console

from experiments.arms import Tuning, time_arms, tune_arms
from experiments.bitcoin import report
from experiments.bitcoin.config import Config
from experiments.bitcoin.forecasts import Task
from experiments.bitcoin.problem import batches_per_epoch, keras_rmsprop, match_layers
from experiments.bitcoin.tables import report_notes, report_tables
from experiments.bitcoin.variants import (
    Outcome,
    Variant,
    make_arm,
    train_options,
    train_variants,
)
from experiments.cells import LABELS
from experiments.command import UsageError
from experiments.data import bitcoin
from experiments.data.bitcoin import Prices, Target
from experiments.data.scaling import Scaling
from experiments.data.splits import Split, split_by_time, walk_forward_splits
from experiments.plots import plot_curves, plot_intervals
from experiments.reporting import write_results
from experiments.training import running

EXPERIMENT = "bitcoin"
TITLE = "Elman, GRU and LSTM on the price of Bitcoin"
TIMED_UPDATES = 2  # of each cell in a round
TARGET_LABELS: dict[Target, str] = {"close": "prices", "log_return": "log returns"}


class Tasks(NamedTuple):
    """All data that is trained on.

    Attributes:
        main: Of the comparison.
        other_target: The same days with the target that the comparison does not have.
        other_scaling: The same days and target, scaled otherwise.
        folds: Earlier days, in the order of time.
    """

    main: Task
    other_target: Task
    other_scaling: Task
    folds: list[Task]


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
    prices = bitcoin.load_prices(
        config.data_dir,
        daily=config.daily,
        missing_days=config.missing_days,
        start_date=config.start_date,
        end_date=config.end_date,
    )
    try:
        tasks = make_tasks(config, prices)
    except ValueError as error:  # too few days for what is asked for
        raise UsageError(str(error)) from error
    with running(config, console):
        console.print(str(prices.report), highlight=False)
        _run(config, console, tasks)


def make_tasks(config: Config, prices: Prices) -> Tasks:
    """Cut the prices into all that is trained on.

    Args:
        config: Says how.
        prices: Daily prices.

    Returns:
        The tasks.

    Raises:
        ValueError: If there are too few days.
    """
    num_days = prices.days.size
    split = split_by_time(
        num_days, num_valid=config.valid_days, num_test=config.test_days
    )
    make = functools.partial(_make_task, config, prices)
    folds = []
    if config.num_folds:
        folds = walk_forward_splits(
            num_days,
            config.num_folds,
            num_test=config.fold_days,
            num_valid=config.valid_days,
            max_train=config.fold_train_days,
        )
    other_target = "log_return" if config.target == "close" else "close"
    other_scaling = "standard" if config.scaling == "min_max" else "min_max"
    return Tasks(
        main=make(split),
        other_target=make(split, target=other_target),
        other_scaling=make(split, scaling=other_scaling),
        folds=[make(fold) for fold in folds],
    )


def _make_task(
    config: Config,
    prices: Prices,
    split: Split,
    *,
    target: Target | None = None,
    scaling: Scaling | None = None,
) -> Task:
    data = bitcoin.make_dataset(
        prices,
        split,
        window=config.window_days,
        target=target or config.target,
        scaling=scaling or config.scaling,
    )
    return Task(prices, split, target or config.target, data)


def side_variants(config: Config, tasks: Tasks) -> list[Variant]:
    """List what stands beside the comparison, but for folds and tuned cells.

    Args:
        config: The settings.
        tasks: The data.

    Returns:
        Cells with the LSTM's parameters; all cells with the other target; one cell
        without dropout, and scaled otherwise.
    """
    task, other = tasks.main, tasks.other_target
    sizes, dropout = config.hidden_features, config.dropout
    matched = [
        Variant(
            f"{cell}_matched",
            f"{LABELS[cell]}, the LSTM's parameters",
            cell,
            task,
            match_layers(cell, sizes),
            dropout,
        )
        for cell in config.cells
        if cell != "lstm"
    ]
    retargeted = [
        Variant(
            f"{cell}_{other.target}",
            f"{LABELS[cell]}, {TARGET_LABELS[other.target]}",
            cell,
            other,
            sizes,
            dropout,
        )
        for cell in config.cells
    ]
    cell = report.choice_cell(config.cells)
    label = LABELS[cell]
    choices = [
        Variant(
            f"{cell}_other_scaling",
            f"{label}, other scaling",
            cell,
            tasks.other_scaling,
            sizes,
            dropout,
        )
    ]
    if dropout:
        choices.append(
            Variant(
                f"{cell}_no_dropout", f"{label}, no dropout", cell, task, sizes, 0.0
            )
        )
    return [*matched, *retargeted, *choices]


def _run(config: Config, console: Console, tasks: Tasks) -> None:
    began = time.perf_counter()
    key, statistics_key = jax.random.split(jax.random.key(config.seed))
    every = batches_per_epoch(tasks.main, config.batch_size)
    num_updates = every * config.num_epochs
    train = functools.partial(train_variants, num_updates=num_updates)
    variants = [_plain(config, cell, tasks.main) for cell in config.cells]
    outcomes = train(config, console, variants, key)
    tuning, side, folds = {}, {}, []
    if config.side_seeds:
        few = dataclasses.replace(
            config,
            num_seeds=config.side_seeds,
            seed_block=max(2, math.ceil(config.side_seeds / 2)),
        )
        tuning, tuned = _tune(few, console, variants, outcomes, key, num_updates)
        side = {**tuned, **train(few, console, side_variants(config, tasks), key)}
        for number, task in enumerate(tasks.folds, start=1):
            of_fold = [
                _plain(config, cell, task, f"_fold_{number}") for cell in config.cells
            ]
            folds.append(train(few, console, of_fold, key))
    rounds = time_arms(
        config,
        [make_arm(config, variant) for variant in variants],
        key,
        TIMED_UPDATES,
        config.timing_rounds if len(config.cells) > 1 else 0,
        optimizer=keras_rmsprop,
        rates={variant.name: config.learning_rate for variant in variants},
        **train_options(tasks.main, config),
    )
    measured = report.Measured(tasks.main, outcomes, side, folds, tuning, rounds)
    summary = report.summarise(measured, statistics_key)
    pictures = {
        "forecasts": functools.partial(_draw_forecasts, tasks.main, outcomes),
        "training": functools.partial(_draw_training, config, outcomes),
        "validation": functools.partial(_draw_validation, tasks.main, outcomes),
    }
    if folds:
        pictures["walk_forward"] = functools.partial(_draw_folds, summary)
    write_results(
        config,
        console,
        experiment=EXPERIMENT,
        title=TITLE,
        cells=report.series(measured),
        summary=summary,
        tables=report_tables(summary),
        notes=report_notes(summary),
        pictures=pictures,
        seconds=time.perf_counter() - began,
        scale=f"{config.num_seeds} seeds ({config.side_seeds} beside the comparison), "
        f"{config.num_epochs} epochs of {every} updates",
    )


def _plain(config: Config, cell: str, task: Task, suffix: str = "") -> Variant:
    """Return a cell in the text's layers."""
    return Variant(
        f"{cell}{suffix}",
        LABELS[cell],
        cell,
        task,
        config.hidden_features,
        config.dropout,
    )


def _tune(
    config: Config,
    console: Console,
    variants: list[Variant],
    outcomes: Mapping[str, Outcome],
    key: jax.Array,
    num_updates: int,
) -> tuple[dict[str, Tuning], dict[str, Outcome]]:
    """Choose each cell's learning rate; train it with that, unless it has been."""
    tuning = tune_arms(
        config,
        console,
        [make_arm(config, variant) for variant in variants],
        key,
        num_updates,
        optimizer=keras_rmsprop,
        **train_options(variants[0].task, config),
    )
    rates = {f"{name}_tuned": found.rate for name, found in tuning.items()}
    tuned = {}
    for variant in variants if tuning else ():
        name = f"{variant.name}_tuned"
        own = variant._replace(name=name, label=f"{variant.label}, tuned")
        if rates[name] == config.learning_rate:
            tuned[name] = outcomes[variant.name]._replace(variant=own)
        else:
            tuned |= train_variants(
                config, console, [own], key, num_updates=num_updates, rates=rates
            )
    return tuning, tuned


def _draw_forecasts(task: Task, outcomes: Mapping[str, Outcome], path: Path) -> None:
    part = task.data.test
    truth = task.truth(part)
    plot_curves(
        path,
        {one.variant.label: one.last for one in outcomes.values()},
        x=task.prices.days[part.positions],
        lines={
            "truth": truth,
            "persistence": task.prices.closes[part.positions - 1],
        },
        middle="mean",
        title="The next close, forecast from the days before",
        x_label="day",
        y_label="US dollars",
    )


def _draw_training(config: Config, outcomes: Mapping[str, Outcome], path: Path) -> None:
    plot_curves(
        path,
        {one.variant.label: one.loss for one in outcomes.values()},
        x=np.arange(1, config.num_epochs + 1),
        title="Training, with dropout",
        x_label="epoch",
        y_label="mean squared error, scaled",
    )


def _draw_validation(task: Task, outcomes: Mapping[str, Outcome], path: Path) -> None:
    part = task.data.valid
    closes = task.prices.closes[part.positions - 1]
    before = task.data.scaler.transform(closes if task.target == "close" else 0.0)
    plot_curves(
        path,
        {one.variant.label: one.validation for one in outcomes.values()},
        x=np.arange(1, next(iter(outcomes.values())).validation.shape[1] + 1),
        levels={"persistence": float(np.square(before - part.targets).mean())},
        title=f"The {len(part.targets)} days before the test",
        x_label="epoch",
        y_label="mean squared error, scaled",
    )


def _draw_folds(summary: Mapping, path: Path) -> None:
    plot_intervals(
        path,
        report.fold_intervals(summary),
        levels={"persistence": 1.0},
        title="Walk forward: after the epoch with the best validation",
        y_label="mean absolute error / persistence's",
    )
