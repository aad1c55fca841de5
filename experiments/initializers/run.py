"""Tune each cell as Keras starts it, train all starts in one program, and report."""

import functools
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from experiments.arms import FIRST_TUNING_SEED, diverged, score_seeds
from experiments.cells import count_cell_parameters, make_cell, match_units
from experiments.command import UsageError
from experiments.initializers import report
from experiments.initializers.config import Config, TaskName
from experiments.initializers.report import LABELS, MATCHED, Effect, Outcome
from experiments.initializers.starts import (
    KERAS,
    Start,
    make_start_cell,
    make_starts,
)
from experiments.initializers.subjects import (
    Subject,
    build_optimizer,
    make_network,
    make_problem,
    make_subject,
)
from experiments.plots import plot_intervals
from experiments.reporting import write_results
from experiments.training import (
    running,
    save_models,
    stop_if_asked,
    train,
    writing_results,
)
from gated_rnn.statistics import Interval
from gated_rnn.training import SeedResult

EXPERIMENT = "initializers"
TITLE = "Initialisers of LSTM and GRU"
SEEDS_VARY = (
    "initial parameters and training data, alike for all starts of a task; of prices "
    "validation and test too, of adding these are shared"
)
#: Seed s of start number n has the id n * this + s.
IDS_OF_A_START = 10_000
_TASK_NUMBERS = {"prices": 0, "adding": 1}


class _Keys(NamedTuple):
    """Roots of all that is random in the experiment."""

    data: jax.Array
    initial: jax.Array
    training: jax.Array
    statistics: jax.Array


class _Study(NamedTuple):
    """One cell on one task."""

    task: TaskName
    cell: str
    units: int
    subject: Subject
    starts: dict[str, Start]

    @property
    def kind(self) -> str:
        """Name of the cell, however many units it has."""
        return self.cell.removesuffix("_matched")


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
    keys = _Keys(*jax.random.split(jax.random.key(config.seed), 4))
    outcomes: list[Outcome] = []
    tuning: dict[str, Any] = {}
    baselines: dict[str, np.ndarray] = {}
    for study in _list_studies(config, keys):
        name = f"{study.task}_{study.kind}"
        if name not in tuning:
            tuning[name] = _tune(config, console, study, keys)
        outcomes += _compare_starts(config, console, study, keys, tuning[name]["rate"])
        if study.task not in baselines:
            baselines[study.task] = _measure_baseline(config, study.subject)
    effects = report.find_effects(config, outcomes, keys.statistics)
    write_results(
        config,
        console,
        experiment=EXPERIMENT,
        title=TITLE,
        cells={
            f"{one.task}_{one.cell}_{one.start}": {
                "test_loss": one.test_loss,
                "validation": _short(one.validation),
            }
            for one in outcomes
        },
        summary={
            "seeds_vary": SEEDS_VARY,
            "tuning": tuning,
            "baselines": baselines,
            "margins": report.MARGINS,
            "arms": {
                f"{one.task}_{one.cell}_{one.start}": {
                    "units": one.units,
                    "parameters": one.parameters,
                    "learning_rate": one.rate,
                }
                for one in outcomes
            },
            "effects": effects,
            "spread": report.spread_of_starts(effects),
        },
        tables=report.tables(config, outcomes, effects, baselines),
        notes=report.notes(effects),
        pictures={
            f"starts_{task}": functools.partial(_draw, config, task, effects)
            for task in config.tasks
        },
        seconds=time.perf_counter() - began,
        scale=f"{config.num_seeds} seeds and {config.tuning_seeds} more of each of "
        f"{len(config.learning_rates)} rates, {len(outcomes)} arms",
    )


def _list_studies(config: Config, keys: _Keys) -> list[_Study]:
    studies = []
    for task in config.tasks:
        key = jax.random.fold_in(keys.data, _TASK_NUMBERS[task])
        subject, sizes = make_subject(config, task, key), config.sizes(task)
        for cell in config.cells:
            starts = make_starts(cell, sizes["longest"], config.keep_biases)
            studies.append(_Study(task, cell, sizes["units"], subject, starts))
        if {"lstm", "gru"} <= set(config.cells):
            lstm = make_cell("lstm", sizes["units"])
            wanted = count_cell_parameters(lstm, subject.in_features)
            units = match_units("gru", subject.in_features, wanted)
            only = {KERAS: make_starts("gru", sizes["longest"], ())[KERAS]}
            studies.append(_Study(task, MATCHED, units, subject, only))
    return studies


def _tune(
    config: Config, console: Console, study: _Study, keys: _Keys
) -> dict[str, Any]:
    """Choose the learning rate under Keras' start, by validation, on other seeds."""
    rates = np.asarray(config.learning_rates)
    seeds = FIRST_TUNING_SEED + np.arange(rates.size * config.tuning_seeds)
    result = _train(
        config,
        console,
        study,
        "_tuning",
        keys,
        seeds,
        {KERAS: seeds},
        np.repeat(rates, config.tuning_seeds),
    )
    best = np.where(diverged(result), np.inf, result.best.value)
    values = best.reshape(rates.size, -1).mean(axis=1)
    if not np.isfinite(values).any():
        raise UsageError(
            f"{LABELS[study.cell]} on {study.task}: no learning rate of "
            f"{rates.tolist()} trained all its seeds to a finite validation. "
            "Give others with --learning-rates."
        )
    chosen = int(values.argmin())
    return {
        "rates": rates,
        "values": values,
        "rate": float(rates[chosen]),
        "at_edge": rates.size > 1 and chosen in (0, rates.size - 1),
    }


def _compare_starts(
    config: Config, console: Console, study: _Study, keys: _Keys, rate: float
) -> list[Outcome]:
    """Train all starts of a cell in one program and score them on the test."""
    seeds = np.arange(config.num_seeds)
    numbers = np.arange(len(study.starts))
    ids = np.concatenate([number * IDS_OF_A_START + seeds for number in numbers])
    result = _train(
        config,
        console,
        study,
        "",
        keys,
        ids,
        dict.fromkeys(study.starts, seeds),
        np.full(ids.size, rate),
    )
    network = make_network(study.subject, _running_cell(study))
    with writing_results(config):
        save_models(config, f"{study.task}_{study.cell}", network, result)
    test_loss = _test(study.subject, network, result, np.tile(seeds, numbers.size))
    lost = diverged(result)
    every = config.sizes(study.task)["updates"] // config.validations
    validation = np.asarray(result.metrics["validation"])[:, every - 1 :: every]
    parameters = count_cell_parameters(_running_cell(study), study.subject.in_features)
    outcomes = []
    for number, start in enumerate(study.starts):
        own = slice(number * config.num_seeds, (number + 1) * config.num_seeds)
        outcomes.append(
            Outcome(
                study.task,
                study.cell,
                start,
                study.units,
                parameters,
                rate,
                np.where(lost[own], np.nan, test_loss[own]),
                validation[own],
            )
        )
    return outcomes


def _train(
    config: Config,
    console: Console,
    study: _Study,
    suffix: str,
    keys: _Keys,
    ids: np.ndarray,
    seeds_of_starts: Mapping[str, np.ndarray],
    rates: np.ndarray,
) -> SeedResult:
    stop_if_asked(0)
    network = make_network(study.subject, _running_cell(study))
    updates = config.sizes(study.task)["updates"]
    every = updates // config.validations
    return train(
        config,
        console,
        f"{study.task}_{study.cell}{suffix}",
        make_problem(study.subject, network),
        keys.training,
        ids,
        updates,
        optimizer=jax.tree_util.Partial(build_optimizer, config.max_grad_norm),
        hyper={
            "learning_rate": rates.astype(np.float32),
            "seed": np.concatenate(list(seeds_of_starts.values())).astype(np.uint32),
            "params": _draw_params(study, keys.initial, seeds_of_starts),
        },
        seed_block=config.seed_block,
        updates_per_piece=every,
        validate_every=every,
    )


def _running_cell(study: _Study) -> Any:
    """Build the cell that runs every start: it need not know how it began."""
    return make_cell(study.kind, study.units)


def _draw_params(
    study: _Study, key: jax.Array, seeds_of_starts: Mapping[str, np.ndarray]
) -> Any:
    """Draw the parameters of each start's seeds, starts outermost, `[N, ...]`."""

    def draw(seed: jax.Array) -> list[Any]:
        seed_key = jax.random.fold_in(key, seed)
        cells = [
            make_start_cell(study.kind, study.units, study.starts[name])
            for name in seeds_of_starts
        ]
        return [
            make_network(study.subject, cell).init(seed_key, study.subject.in_features)
            for cell in cells
        ]

    (seeds,) = {tuple(seeds.tolist()) for seeds in seeds_of_starts.values()}
    # This runs once and is slow to compile: without optimisation it takes a fifth.
    options = {"xla_backend_optimization_level": 0}
    mapped = functools.partial(jax.lax.map, draw)
    drawn = jax.jit(mapped, compiler_options=options)(jnp.array(seeds, jnp.uint32))
    return jax.tree.map(lambda *rows: np.concatenate(rows), *jax.device_get(drawn))


def _test(
    subject: Subject, network: Any, result: SeedResult, seeds: np.ndarray
) -> np.ndarray:
    """Score the best parameters of every run on the test of its seed, `[N]`."""

    def score(pair: tuple[Any, jax.Array]) -> jax.Array:
        params, seed = pair
        return subject.loss(network, params, subject.test(seed))

    pairs = (result.best.params, seeds.astype(np.uint32))
    scored = result._replace(best=result.best._replace(params=pairs))
    return np.float64(score_seeds(scored, score))


def _measure_baseline(config: Config, subject: Subject) -> np.ndarray:
    """Score the answer that looks at no input on each seed's test, `[S]`."""

    def measure(seed: jax.Array) -> jax.Array:
        return subject.baseline(subject.test(seed))

    seeds = jnp.arange(config.num_seeds, dtype=jnp.uint32)
    return np.float64(jax.jit(functools.partial(jax.lax.map, measure))(seeds))


def _short(values: np.ndarray) -> list[list[float]]:
    # Four digits: a picture's worth.
    return [[float(f"{value:.4g}") for value in row] for row in values]


def _draw(
    config: Config, task: TaskName, effects: Sequence[Effect], path: Path
) -> None:
    groups: dict[str, dict[str, Interval]] = {}
    for effect in effects:
        difference = effect.comparison.difference
        if effect.task != task or difference is None:
            continue
        if effect.start:
            name, label = effect.start.replace("_", "\n"), LABELS[effect.cell]
        else:
            against = "units" if effect.cell == "gru" else "parameters"
            name, label = f"LSTM\nto GRU,\n{against}", "LSTM less GRU"
        groups.setdefault(name, {})[label] = difference.mean
    margin = report.MARGINS[task]
    plot_intervals(
        path,
        groups,
        title=f"Starts against Keras' on {task}, {config.num_seeds} seeds, "
        "95 % intervals",
        y_label="difference of log10 of the test loss",
        levels={"margin": margin, "minus the margin": -margin},
    )
