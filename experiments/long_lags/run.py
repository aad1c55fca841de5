"""Tune and train every cell on every task at all lengths, test once, and report."""

import functools
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from rich.console import Console

from experiments import tasks
from experiments.arms import FIRST_TUNING_SEED, diverged, score_seeds
from experiments.cells import count_cell_parameters, make_cell
from experiments.long_lags import report
from experiments.long_lags.config import Config, cell_of, label_of
from experiments.long_lags.report import Setting
from experiments.long_lags.tables import report_notes, report_tables
from experiments.plots import plot_intervals
from experiments.reporting import write_results
from experiments.tasks import SOLVED_WRONG, Score, stretch_means
from experiments.training import (
    running,
    save_models,
    stop_if_asked,
    train,
    writing_results,
)
from gated_rnn.networks import Stack
from gated_rnn.statistics import Interval
from gated_rnn.training import Problem, SeedResult, StopReason, make_optimizer

EXPERIMENT = "long_lags"
TITLE = "Long lags: Elman network, GRU and LSTM"
PICTURE_NAME = "share_solved"
#: Seed s at length number n has the id n * this + s: no two share a draw.
IDS_OF_A_LENGTH = 10_000
#: A curve is recorded as so many means at most.
CURVE_POINTS = 20
_SHORT = {
    **{"adding": "adding", "copy": "copy"},
    **{"temporal_order": "order", "selective_recall": "recall"},
}
SEEDS_VARY = "initial parameters and all training data; validation and test are shared"


class Runs(NamedTuple):
    """Seeds to train: what tells them apart, `[N]` each.

    Attributes:
        ids: Ids of the seeds, distinct.
        length: Number of the length.
        rate: Learning rate.
    """

    ids: np.ndarray
    length: np.ndarray
    rate: np.ndarray


class _Arm(NamedTuple):
    """One cell on one task, at all lengths."""

    name: str
    network: Stack
    problem: Problem


def run(config: Config, console: Console) -> None:
    """Run the experiment and write its results.

    Args:
        config: The settings.
        console: Where progress and the tables go.

    Raises:
        UsageError: If the output directory cannot be written, or its run not be gone on
            with; nothing is trained then.
        Stopped: If a signal asked for it; all is saved.
    """
    with running(config, console):
        _run(config, console)


def _run(config: Config, console: Console) -> None:
    began = time.perf_counter()
    data_key, train_key, statistics_key = jax.random.split(
        jax.random.key(config.seed), 3
    )
    settings, series, seconds = [], {}, 0.0
    for task_name in config.tasks:
        task = config.task(task_name)
        valid_key, test_key = jax.random.split(
            jax.random.fold_in(data_key, config.task_number(task_name))
        )
        draw = functools.partial(tasks.draw_parts, task, lengths=config.lengths)
        valid = draw(valid_key, num_sequences=config.num_validation)
        test = draw(test_key, num_sequences=config.num_test)
        chosen = {}
        for cell in config.cells:
            arm = _make_arm(config, task_name, task, cell, valid)
            tuned = None
            if cell_of(cell) not in chosen:
                rows = tuning_runs(config)
                result = _train(config, console, arm, "_tuning", train_key, rows)
                seconds += float(result.seconds.pieces.sum())
                tuned = report.describe_tuning(config, rows, result)
                chosen[cell_of(cell)] = [one["rate"] for one in tuned]
            rows = compared_runs(config, chosen[cell_of(cell)])
            result = _train(config, console, arm, "", train_key, rows)
            seconds += float(result.seconds.pieces.sum())
            with writing_results(config):
                save_models(config, arm.name, arm.network, result)
            score = tasks.make_score(task, arm.network, test)
            scores = _score(result, rows, score)
            series[arm.name] = _series(rows, result, scores)
            settings += _settings(
                config, task_name, cell, task, tuned, rows, result, scores
            )
    summary = report.summarise(config, settings, statistics_key)
    summary["seeds_vary"] = SEEDS_VARY
    summary["training_seconds"] = seconds  # of all parts of a run that was resumed
    write_results(
        config,
        console,
        experiment=EXPERIMENT,
        title=TITLE,
        cells=series,
        summary=summary,
        tables=report_tables(config, settings, summary),
        notes=report_notes(config),
        pictures={PICTURE_NAME: functools.partial(_draw, config, settings)},
        seconds=time.perf_counter() - began,
        scale=f"{config.num_seeds} seeds and {config.tuning_seeds} more of each of "
        f"{len(config.learning_rates)} rates, {len(config.tasks)} tasks at lengths "
        f"{', '.join(map(str, config.lengths))}, at most {config.num_updates} updates",
    )


def tuning_runs(config: Config) -> Runs:
    """List the seeds that tune: every rate at every length.

    Args:
        config: The settings.

    Returns:
        The runs, lengths outermost, seeds innermost.
    """
    lengths, rates, seeds = (
        len(config.lengths),
        np.asarray(config.learning_rates),
        config.tuning_seeds,
    )
    of_one = rates.size * seeds
    return Runs(
        FIRST_TUNING_SEED + np.arange(lengths * of_one),
        np.repeat(np.arange(lengths), of_one),
        np.tile(np.repeat(rates, seeds), lengths),
    )


def compared_runs(config: Config, rates: list[float]) -> Runs:
    """List the seeds that are compared, at the rate chosen for each length.

    Args:
        config: The settings.
        rates: One for each length.

    Returns:
        The runs, lengths outermost.
    """
    seeds = np.arange(config.num_seeds)
    numbers = np.arange(len(config.lengths))
    return Runs(
        np.concatenate([number * IDS_OF_A_LENGTH + seeds for number in numbers]),
        np.repeat(numbers, seeds.size),
        np.repeat(rates, seeds.size),
    )


def _make_arm(config, task_name, task, cell, valid) -> _Arm:
    layer = make_cell(cell_of(cell), config.units(cell, task.in_features))
    network = tasks.make_network(task, layer)
    problem = tasks.make_problem(
        task, network, config.lengths, config.batch_size, valid
    )
    return _Arm(f"{task_name}_{cell}", network, problem)


def _train(config, console, arm, suffix, key, rows: Runs) -> SeedResult:
    stop_if_asked(0)
    return train(
        config,
        console,
        arm.name + suffix,
        arm.problem,
        key,
        rows.ids,
        config.num_updates,
        # Equal Partials: nothing is compiled twice.
        optimizer=jax.tree_util.Partial(_optimizer, config.max_grad_norm),
        hyper={
            "learning_rate": rows.rate.astype(np.float32),
            "length": rows.length.astype(np.int32),
        },
        seed_block=config.seed_block,
        updates_per_piece=min(config.num_updates, 2 * config.validate_every),
        validate_every=config.validate_every,
        target=SOLVED_WRONG,
    )


def _optimizer(max_grad_norm: float, hyper: Any) -> optax.GradientTransformation:
    return make_optimizer(hyper["learning_rate"], max_grad_norm)


def _score(result: SeedResult, rows: Runs, score: Any) -> Score:
    """Score the best parameters of every seed on the test of its length."""
    pairs = (result.best.params, rows.length.astype(np.int32))
    return score_seeds(result._replace(best=result.best._replace(params=pairs)), score)


def _series(rows: Runs, result: SeedResult, scores: Score) -> dict[str, Any]:
    return {
        "seeds": rows.ids,
        "length": rows.length,
        "learning_rate": rows.rate,
        "ended_at": result.status.step,
        "ended_by": [StopReason(int(why)).name for why in result.status.reason],
        **{f"test_{name}": values for name, values in scores._asdict().items()},
        "loss": _short(stretch_means(result.metrics["loss"], CURVE_POINTS)),
        "validation": _short(stretch_means(result.metrics["validation"], CURVE_POINTS)),
    }


def _short(values: np.ndarray) -> list[list[float]]:
    # Four digits: a picture's worth.
    return [[float(f"{value:.4g}") for value in row] for row in values]


def _settings(
    config, task_name, cell, task, tuned, rows, result, scores
) -> list[Setting]:
    """Cut what came out of an arm into its lengths."""
    found = []
    parameters = count_cell_parameters(
        make_cell(cell_of(cell), config.units(cell, task.in_features)),
        task.in_features,
    )
    for number, length in enumerate(config.lengths):
        own = rows.length == number
        solved = result.status.reason[own] == StopReason.TARGET_REACHED
        steps = np.where(solved, result.status.step[own], config.num_updates)
        found.append(
            Setting(
                task=task_name,
                length=length,
                cell=cell,
                units=config.units(cell, task.in_features),
                parameters=parameters,
                rate=float(rows.rate[own][0]),
                tuning=None if tuned is None else tuned[number],
                solved=solved,
                updates=steps,
                diverged=diverged(result)[own],
                scores=Score(*(np.asarray(one)[own] for one in scores)),
                baseline=task.baseline(length),
            )
        )
    return found


def _draw(config: Config, settings: list[Setting], path: Path) -> None:
    groups: dict[str, dict[str, Interval]] = {}
    for one in settings:
        group = groups.setdefault(f"{_SHORT[one.task]}\n{one.length}", {})
        group[label_of(one.cell)] = report.share_interval(one.solved)
    plot_intervals(
        path,
        groups,
        title=f"{config.num_seeds} seeds each, Wilson's 95 % intervals",
        y_label="share of the seeds that solve the task",
    )
