"""Train both cells, measure, and report what came out."""

import functools
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import numpy as np
from rich.console import Console

from experiments.arms import diverged
from experiments.long_sequences import held_out, report
from experiments.long_sequences.config import Config
from experiments.long_sequences.curriculum_run import EXPERIMENT, Keys, run_curriculum
from experiments.long_sequences.held_out_tables import held_out_tables
from experiments.long_sequences.problem import (
    choose_optimizer,
    count_parameters,
    describe_start,
    make_network,
    make_problem,
    measure_baselines,
)
from experiments.long_sequences.tables import report_notes, report_tables
from experiments.plots import plot_curves
from experiments.reporting import write_results
from experiments.training import (
    plan_blocks,
    running,
    save_models,
    stop_if_asked,
    writing_results,
)
from experiments.training import train as train_resumable
from gated_rnn.training import SeedPlan, SeedResult, train_seeds

TITLE = "LSTM against GRU on long sequences"
PICTURE_NAME = "loss_curves"
#: An update lasts seconds at full size: one a piece shows every loss and times it.
UPDATES_PER_PIECE = 1


def run(config: Config, console: Console) -> None:
    """Run the experiment and write its three files.

    Args:
        config: The settings.
        console: Where progress and the tables go.

    Raises:
        UsageError: If the output directory cannot be written, or its run not be gone on
            with; nothing is trained then.
        Stopped: If a signal asked for it; all is saved.
    """
    keys = Keys(*jax.random.split(jax.random.key(config.seed), 4))
    with running(config, console):
        (run_curriculum if config.curriculum else _compare_cells)(config, console, keys)


def _compare_cells(config: Config, console: Console, keys: Keys) -> None:
    began = time.perf_counter()
    data_ids = [0] if config.shared_data else list(range(config.num_seeds))
    baselines = measure_baselines(config, keys.data, data_ids)
    results, measured, plans = _train_cells(config, console, keys, baselines)
    data_keys = held_out.DataKeys(keys.data, keys.held_out)
    scores = {
        cell: held_out.score_networks(
            *(config, cell, data_keys, result.params),
            *(result.seed_ids, diverged(result)),
        )
        for cell, result in results.items()
    }
    traders = held_out.score_baselines(config, data_keys, data_ids)
    start = describe_start(config)
    summary = {
        **report.summarise(measured, keys.statistics),
        "held_out": held_out.summarise(scores, traders, keys.statistics),
        "start": start,
        "seeds_vary": ["initialisation"] + ["data"] * (not config.shared_data),
        "memory_plans": plans,
    }
    with writing_results(config):
        for cell, result in results.items():
            save_models(config, cell, make_network(config, cell), result)
    write_results(
        config,
        console,
        experiment=EXPERIMENT,
        title=TITLE,
        cells={
            cell: {
                "seeds": result.seed_ids,
                **result.metrics,
                **scores[cell]._asdict(),
            }
            for cell, result in results.items()
        },
        summary=summary,
        tables=[
            *report_tables(summary, config.num_seeds),
            *held_out_tables(summary["held_out"]),
        ],
        notes=[
            *report_notes(summary),
            f"Initialisers {start['words']}; Adam's epsilon is {start['adam_eps']:g}.",
        ],
        pictures={PICTURE_NAME: functools.partial(_draw, config, results, baselines)},
        seconds=time.perf_counter() - began,
        scale=f"{config.num_seeds} seeds, {config.num_epochs} epochs, "
        f"{config.num_sequences} sequences of {config.num_steps:,} steps",
    )


def _train_cells(
    config: Config,
    console: Console,
    keys: Keys,
    baselines: dict[str, list[float]],
) -> tuple[dict[str, SeedResult], report.Measured, dict[str, SeedPlan]]:
    """Train every cell, then take the time of an epoch of each in turn."""
    problems = {cell: make_problem(config, cell, keys.data) for cell in config.cells}
    seed_ids = np.arange(config.num_seeds)
    options = {
        "optimizer": choose_optimizer(config),
        "hyper": seed_ids,
        "updates_per_piece": UPDATES_PER_PIECE,
    }
    plans, compiling = plan_blocks(
        config,
        console,
        problems,
        config.num_seeds,
        seed_block=config.seed_block,
        **options,
    )
    options["seed_block"] = min(plan.seed_block for plan in plans.values())
    results = {
        cell: train_resumable(
            config,
            console,
            cell,
            problems[cell],
            keys.training,
            seed_ids,
            config.num_epochs,
            **options,
        )
        for cell in config.cells
    }

    def time_epoch(cell: str) -> float:
        stop_if_asked(config.num_epochs)
        result = train_seeds(
            problems[cell], keys.training, seed_ids, UPDATES_PER_PIECE, **options
        )
        return float(result.seconds.pieces.sum())

    measured = report.Measured(
        losses={cell: result.metrics["loss"] for cell, result in results.items()},
        seconds={
            cell: result.seconds._replace(
                compile=compiling[cell] + result.seconds.compile
            )
            for cell, result in results.items()
        },
        rounds=_time_rounds(config, time_epoch),
        baselines=baselines,
        parameters={cell: count_parameters(config, cell) for cell in config.cells},
    )
    return results, measured, plans


def _time_rounds(
    config: Config, time_epoch: Callable[[str], float]
) -> dict[str, list[float]]:
    """Train one epoch of each cell in turn; return the seconds that each took.

    What else the machine does meets both cells alike, and every other round runs in the
    opposite order. The programs are compiled already.
    """
    rounds = {cell: [] for cell in config.cells}
    if len(config.cells) > 1:
        for number in range(config.timing_rounds):
            for cell in config.cells[:: 1 if number % 2 == 0 else -1]:
                rounds[cell].append(time_epoch(cell))
    return rounds


def _draw(
    config: Config,
    results: Mapping[str, SeedResult],
    baselines: Mapping[str, list[float]],
    path: Path,
) -> None:
    plot_curves(
        path,
        {cell.upper(): result.metrics["loss"] for cell, result in results.items()},
        title=f"{config.num_sequences} sequences of {config.num_steps:,} steps, "
        f"one layer of {config.hidden_features} units",
        x_label="epoch (one update each)",
        y_label="loss",
        levels={name: float(np.mean(values)) for name, values in baselines.items()},
    )
