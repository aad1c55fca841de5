"""Train the cells, measure gradients before and after, and report."""

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich.console import Console

from experiments import tasks
from experiments.arms import Arm, diverged, score_seeds, train_arms, tune_arms
from experiments.cells import count_cell_parameters
from experiments.data.synthetic import Task
from experiments.gradient_flow import report
from experiments.gradient_flow.config import Config
from experiments.gradient_flow.flow import draw_probe, gate_half_life, gradient_sizes
from experiments.gradient_flow.report import Found
from experiments.gradient_flow.setups import (
    GATED,
    TRAINED,
    biased_cell,
    cell_of,
    initial_starts,
    start_cell,
    without_initializers,
)
from experiments.plots import plot_curves
from experiments.reporting import write_results
from experiments.tasks import SyntheticTask
from experiments.training import running, stop_if_asked
from gated_rnn.networks import Stack
from gated_rnn.training import SeedResult, make_optimizer, train
from gated_rnn.types import Cell

EXPERIMENT = "gradient_flow"
TITLE = "Gradient against lag: Elman network, GRU and LSTM"
SEEDS_VARY = (
    "initial parameters and all training data; the sequences and the combinations of "
    "answers at which gradients are measured are shared"
)


class _Keys(NamedTuple):
    """Roots of all that is random in the experiment."""

    validation: jax.Array
    test: jax.Array
    probe: jax.Array
    training: jax.Array
    initial: jax.Array
    statistics: jax.Array


class _Ruler(NamedTuple):
    """What gradients are measured by: sequences, and combinations of their answers."""

    part: Task
    probe: jax.Array
    num_lags: int

    def measure(
        self, network: Stack, params: Mapping[str, Any]
    ) -> dict[str, np.ndarray]:
        """Give the log2 sizes `[S, L]` of parameters `[S, ...]`, by their names.

        All in one program, which is compiled once.
        """
        rows = jax.tree.map(lambda *of: jnp.concatenate(of), *params.values())
        curves = _measure_rows(network, self.num_lags, self.part, self.probe, rows)
        parts = np.split(np.asarray(curves), len(params))
        return dict(zip(params, parts, strict=True))


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
    keys = _Keys(*jax.random.split(jax.random.key(config.seed), len(_Keys._fields)))
    task = config.synthetic_task
    (validation,) = tasks.draw_parts(
        task, keys.validation, [config.length], config.num_validation
    )
    (test,) = tasks.draw_parts(task, keys.test, [config.length], config.num_test)
    probe = draw_probe(keys.probe, config.num_test, task.out_features)
    ruler = _Ruler(test, probe, config.length)

    arms = [_make_arm(config, task, name, validation) for name in config.cells]
    options = {
        "optimizer": functools.partial(_optimizer, config.max_grad_norm),
        "validate_every": config.validate_every,
        "updates_per_piece": 2 * config.validate_every,
    }
    tuned = tune_arms(
        config, console, arms, keys.training, config.num_updates, **options
    )
    rates = {name: tuning.rate for name, tuning in tuned.items()}
    results = train_arms(
        config,
        console,
        arms,
        keys.training,
        config.num_updates,
        rates=rates,
        **options,
    )
    found = _measure_all(config, keys, task, arms, results, ruler)
    summary = report.summarise(config, found, keys.statistics)
    write_results(
        config,
        console,
        experiment=EXPERIMENT,
        title=TITLE,
        cells={
            **{name: _round(series) for name, series in found.trained.items()},
            **{
                name: _round({"before": curves})
                for name, curves in found.starts.items()
            },
            **{
                f"{name}_bias_{bias:g}": _round({"before": curves})
                for name, of_bias in found.biased.items()
                for bias, curves in of_bias.items()
            },
        },
        summary={
            **summary,
            "seeds_vary": SEEDS_VARY,
            "tuning": tuned,
            "parameters": {
                name: count_cell_parameters(
                    cell_of(config, name, task.in_features), task.in_features
                )
                for name in config.cells
            },
        },
        tables=report.tables(config, found, summary, rates),
        notes=report.notes(config),
        pictures={
            "gradient": functools.partial(_draw_gradients, config, found),
            "gate_bias": functools.partial(_draw_biases, config, summary),
        },
        seconds=time.perf_counter() - began,
        scale=f"{config.num_seeds} seeds and {config.tuning_seeds} more of each of "
        f"{len(config.learning_rates)} rates, {config.num_updates} updates of "
        f"{config.batch_size} sequences of {config.length} steps",
    )


def _make_arm(config: Config, task: SyntheticTask, name: str, validation: Task) -> Arm:
    network = tasks.make_network(task, cell_of(config, name, task.in_features))
    problem = tasks.make_problem(
        *(task, network, [config.length], config.batch_size, [validation]),
        measure="loss",
    )
    return Arm(name, TRAINED[name], network, problem)


def _optimizer(max_grad_norm: float, rate: Any) -> optax.GradientTransformation:
    return make_optimizer(rate, max_grad_norm)


def _measure_all(
    config: Config,
    keys: _Keys,
    task: SyntheticTask,
    arms: Sequence[Arm],
    results: Mapping[str, SeedResult],
    ruler: _Ruler,
) -> Found:
    """Measure all gradients; cells that differ in how they start are one program."""
    seeds = jnp.arange(config.num_seeds)
    starts = initial_starts(config)
    cells = {
        **{name: start_cell(config, start) for name, start in starts.items()},
        **{
            (name, bias): biased_cell(config, name, bias)
            for name in GATED
            for bias in config.gate_biases
        },
    }
    groups: dict[Cell, dict[Any, Cell]] = {}
    for name, cell in cells.items():
        groups.setdefault(without_initializers(cell), {})[name] = cell
    trained = {without_initializers(arm.network.layers[0].cell): arm for arm in arms}
    curves = {}
    for cell in {**trained, **groups}:
        stop_if_asked(0)
        members = tuple(groups.get(cell, {}).items())
        params = _draw_params(task, members, keys.initial, seeds)
        if cell in trained:
            arm = trained[cell]
            params[arm.name, "before"] = _start_seeds(arm, keys.training, seeds)
            params[arm.name, "after"] = results[arm.name].best.params
        curves |= ruler.measure(tasks.make_network(task, cell), params)
    return Found(
        {
            arm.name: {
                "before": curves[arm.name, "before"],
                "after": curves[arm.name, "after"],
                **_score(task, arm, results[arm.name], ruler.part),
            }
            for arm in arms
        },
        {name: curves[name] for name in starts},
        {
            name: {bias: curves[name, bias] for bias in config.gate_biases}
            for name in GATED
        },
    )


@functools.partial(jax.jit, static_argnums=(0, 1))
def _measure_rows(
    network: Stack, num_lags: int, part: Task, probe: jax.Array, rows: Any
) -> jax.Array:
    def measure(params: Any) -> jax.Array:
        return gradient_sizes(network, part, probe, num_lags, params)

    return jax.lax.map(measure, rows)


def _draw_params(
    task: SyntheticTask,
    members: tuple[tuple[Any, Cell], ...],
    key: jax.Array,
    seeds: jax.Array,
) -> dict[Any, Any]:
    """Draw the parameters of every seed, `[S, ...]`, for cells by their names."""

    def draw(seed: jax.Array) -> list[Any]:
        seed_key = jax.random.fold_in(key, seed)
        return [
            tasks.make_network(task, cell).init(seed_key, task.in_features)
            for _, cell in members
        ]

    names = [name for name, _ in members]
    return dict(zip(names, _map_once(draw, seeds), strict=True))


def _start_seeds(arm: Arm, key: jax.Array, seeds: jax.Array) -> Any:
    """Give the parameters with which the seeds of an arm began, `[S, ...]`."""

    def start(seed: jax.Array) -> Any:
        seed_key = jax.random.fold_in(key, seed)
        hyper = {"learning_rate": 1.0}
        return train(
            arm.problem, seed_key, 0, optimizer=make_optimizer(1.0), hyper=hyper
        ).params

    return _map_once(start, seeds)


def _map_once(function: Callable[[jax.Array], Any], seeds: jax.Array) -> Any:
    # Draws run once and are slow to compile: without optimisation they take a fifth.
    options = {"xla_backend_optimization_level": 0}
    mapped = functools.partial(jax.lax.map, function)
    return jax.jit(mapped, compiler_options=options)(seeds)


def _score(
    task: SyntheticTask, arm: Arm, result: SeedResult, test: Task
) -> dict[str, np.ndarray]:
    """Read the test: loss and share of wrong answers of every seed, `[S]`."""
    score = tasks.make_score(task, arm.network, [test])
    pairs = (result.best.params, np.zeros(len(result.seed_ids), np.int32))
    scores = score_seeds(
        result._replace(best=result.best._replace(params=pairs)), score
    )
    return {
        "test_loss": scores.loss,
        "test_wrong": scores.wrong,
        "diverged": diverged(result),
    }


def _round(series: Mapping[str, np.ndarray]) -> dict[str, Any]:
    # Log2 of sizes to a hundredth, 0.7 %: a picture's worth.
    short = {"before", "after"} & series.keys()
    return {
        name: [[round(float(value), 2) for value in row] for row in values]
        if name in short
        else values
        for name, values in series.items()
    }


def _draw_gradients(config: Config, found: Found, path: Path) -> None:
    curves = {}
    for name in found.trained:
        if name == "gru_matched":  # would hide the GRU
            continue
        for when in ("before", "after"):
            # Relative to the median of the seeds' gradient at lag 0.
            sizes = found.trained[name][when]
            level = np.nanmedian(sizes[:, 0])
            curves[f"{TRAINED[name]}, {when}"] = 2.0 ** (sizes - level)
    plot_curves(
        path,
        curves,
        title=f"{config.hidden_features} units, {config.synthetic_task.label}",
        x_label="lag in steps",
        y_label="size of the gradient, lag 0 = 1",
    )


def _draw_biases(config: Config, summary: Mapping[str, Any], path: Path) -> None:
    rates = summary["rates_by_bias"]
    plot_curves(
        path,
        {
            TRAINED[name]: np.stack([of[bias] for bias in config.gate_biases], axis=1)
            for name, of in rates.items()
        },
        title=f"{config.hidden_features} units, untrained",
        x_label="bias of the gate that keeps the past",
        y_label="halvings of the gradient in a step",
        x=np.array(config.gate_biases),
        lines={
            "the gate alone": np.array(
                [1 / gate_half_life(bias) for bias in config.gate_biases]
            )
        },
    )
