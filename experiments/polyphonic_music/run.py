"""Train every cell on every collection, score the test once, and report."""

import functools
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from rich.console import Console

from experiments.arms import (
    Arm,
    Tuning,
    diverged,
    score_seeds,
    time_arms,
    train_arms,
    tune_arms,
)
from experiments.cells import LABELS
from experiments.command import UsageError
from experiments.data.polyphonic_music import NUM_KEYS, PianoRolls, load_music
from experiments.plots import plot_curves, plot_intervals
from experiments.polyphonic_music import report
from experiments.polyphonic_music.baselines import MEMORYLESS, measure_baselines
from experiments.polyphonic_music.config import Config
from experiments.polyphonic_music.problem import (
    Steps,
    join_pieces,
    make_network,
    make_optimizer_of_rate,
    make_problem,
    nll,
    pack_pieces,
)
from experiments.polyphonic_music.report import ArmResult
from experiments.reporting import write_results
from experiments.training import running
from experiments.verdicts import comparisons_table
from gated_rnn.networks import count_parameters
from gated_rnn.training import SeedResult
from gated_rnn.types import invalid

EXPERIMENT = "polyphonic_music"
TITLE = "Elman, GRU and LSTM on polyphonic music"
#: Rows into which whole pieces are packed to be scored: narrow enough that the longest
#: piece of the folk tunes (1,793 steps) is no longer than the others' rows.
NUM_ROWS = 24
#: Updates between two looks at the host, at most.
MAX_UPDATES_PER_PIECE = 200
_CURVE_DIGITS = 4


class Parts(NamedTuple):
    """A collection as it is trained on and scored.

    Attributes:
        stream: The training pieces, one after the other.
        train: The same, in rows.
        valid: The validation pieces, in rows.
        test: The test pieces, in rows.
    """

    stream: Steps
    train: Steps
    valid: Steps
    test: Steps


def run(config: Config, console: Console) -> None:
    """Run the experiment and write its files.

    Args:
        config: The settings.
        console: Where progress and the tables go.

    Raises:
        UsageError: If there is no data that can be used, the output directory cannot be
            written, or its run not be gone on with; nothing is trained then.
        Stopped: If a signal asked for it; all is saved.
    """
    music = {name: load_music(name, config.data_dir) for name in config.collections}
    parts = {name: make_parts(config, rolls) for name, rolls in music.items()}
    with running(config, console):
        for rolls in music.values():
            console.print(str(rolls.report), highlight=False)
        _run(config, console, music, parts)


def make_parts(config: Config, rolls: PianoRolls) -> Parts:
    """Lay out a collection.

    Args:
        config: Says how long a stretch is.
        rolls: The pieces.

    Returns:
        The parts.

    Raises:
        UsageError: If the training pieces are shorter than one stretch.
    """
    stream = join_pieces(rolls.train)
    if len(stream.mask) < config.num_steps:
        expected = f"at most the {len(stream.mask)} steps of the training pieces"
        raise UsageError(str(invalid("num_steps", expected, config.num_steps)))
    packed = (pack_pieces(getattr(rolls, part), NUM_ROWS) for part in report.PARTS)
    return Parts(stream, *packed)


def _run(
    config: Config,
    console: Console,
    music: Mapping[str, PianoRolls],
    parts: Mapping[str, Parts],
) -> None:
    began = time.perf_counter()
    training_key, statistics_key = jax.random.split(jax.random.key(config.seed))
    baselines = {
        name: measure_baselines(rolls.train, rolls.valid, rolls.test)
        for name, rolls in music.items()
    }
    arms: list[ArmResult] = []
    curves: dict[str, dict[str, np.ndarray]] = {}
    for number, (name, collection) in enumerate(parts.items()):
        key = jax.random.fold_in(training_key, number)
        for arm, series in _train_collection(config, console, name, collection, key):
            arms.append(arm)
            curves[arm.name] = series
    comparisons = report.compare_cells(arms, statistics_key)
    labels = {arm.name: arm.label for arm in arms}
    write_results(
        config,
        console,
        experiment=EXPERIMENT,
        title=TITLE,
        cells={arm.name: _series_of(arm, curves[arm.name]) for arm in arms},
        summary={
            "seeds_vary": report.SEEDS_VARY,
            "reports": {name: rolls.report for name, rolls in music.items()},
            "baselines": baselines,
            "arms": {arm.name: report.summarise_arm(arm) for arm in arms},
            "comparisons": comparisons,
        },
        tables=[
            report.losses_table(arms, baselines),
            comparisons_table(comparisons, labels, title="Cells, nats per step"),
            report.training_table(arms),
        ],
        notes=report.notes(arms),
        pictures=_pictures(arms, curves, baselines),
        seconds=time.perf_counter() - began,
        scale=f"{config.num_seeds} seeds, "
        + ", ".join(
            f"{report.TITLES[name]} {config.epochs(name)} epochs" for name in parts
        ),
    )


def _train_collection(
    config: Config, console: Console, collection: str, parts: Parts, key: jax.Array
) -> list[tuple[ArmResult, dict[str, np.ndarray]]]:
    """Tune and train every cell on a collection."""
    arms = {}
    for cell in config.cells:
        network = make_network(config, cell)
        problem = make_problem(config, network, collection, parts.stream, parts.valid)
        arms[cell] = Arm(f"{collection}_{cell}", LABELS[cell], network, problem)
    num_steps = len(parts.stream.mask)
    epoch = num_steps / (config.num_steps * config.batch_size)
    num_updates = max(1, round(config.epochs(collection) * epoch))
    options = {
        "optimizer": make_optimizer_of_rate(config, num_updates),
        "validate_every": max(1, num_updates // config.num_validations),
    }
    every = options["validate_every"]
    options["updates_per_piece"] = min(every, MAX_UPDATES_PER_PIECE)
    every_arm = list(arms.values())
    tuned: dict[str, Tuning] = {}
    if config.tuning_seeds:
        # The first updates of a whole run: the same program, compiled once.
        num_tuning = max(every, round(config.tuning_share * num_updates))
        tuned = tune_arms(config, console, every_arm, key, num_tuning, **options)
    options["rates"] = {
        arm.name: tuned[arm.name].rate if tuned else config.learning_rates[0]
        for arm in every_arm
    }
    results = train_arms(config, console, every_arm, key, num_updates, **options)
    seconds = time_arms(config, every_arm, key, every, config.timing_rounds, **options)
    measured = []
    for cell, arm in arms.items():
        result = results[arm.name]
        measured.append(
            (
                ArmResult(
                    collection=collection,
                    cell=cell,
                    label=arm.label,
                    units=config.units[cell],
                    parameters=count_parameters_of(arm),
                    tuning=tuned.get(arm.name),
                    rate=options["rates"][arm.name],
                    losses=_score(arm, result, parts),
                    best_updates=result.best.step,
                    num_updates=num_updates,
                    seconds_per_update=seconds[arm.name],
                    diverged=result.seed_ids[diverged(result)].tolist(),
                ),
                _curves(result, every),
            )
        )
    return measured


def _score(arm: Arm, result: SeedResult, parts: Parts) -> dict[str, np.ndarray]:
    """Score each seed's best parameters on whole pieces; NaN where it diverged."""
    lost = diverged(result)

    def score(steps: Steps, params: Any) -> jax.Array:
        return nll(arm.network, params, steps)

    return {
        part: np.where(
            lost,
            np.nan,
            score_seeds(result, jax.tree_util.Partial(score, getattr(parts, part))),
        )
        for part in report.PARTS
    }


def count_parameters_of(arm: Arm) -> dict[str, int]:
    """Count the parameters of an arm.

    Args:
        arm: Its network is a recurrent layer and a readout.

    Returns:
        Counts of the "recurrent" layer and of the "readout".
    """
    layer, readout = jax.eval_shape(
        lambda key: arm.network.init(key, NUM_KEYS), jax.random.key(0)
    )
    return {"recurrent": count_parameters(layer), "readout": count_parameters(readout)}


def _curves(result: SeedResult, every: int) -> dict[str, np.ndarray]:
    """Take the validations out of the curves, and the training loss between them."""
    num_updates = result.metrics["loss"].shape[1]
    updates = np.arange(every, num_updates + 1, every)
    losses = result.metrics["loss"][:, : updates.size * every]
    means = losses.reshape(len(losses), updates.size, every).mean(axis=2)
    return {
        "updates": updates,
        "validation": result.metrics["validation"][:, updates - 1],
        "training": means,
    }


def _series_of(arm: ArmResult, curves: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Give what the record keeps of an arm, a row for each seed."""
    return {
        "seeds": np.arange(arm.best_updates.size),
        **{f"{part}_nll": values for part, values in arm.losses.items()},
        "best_update": arm.best_updates,
        "validation": curves["validation"].round(_CURVE_DIGITS),
        "training": curves["training"].round(_CURVE_DIGITS),
    }


def _pictures(
    arms: Sequence[ArmResult],
    curves: Mapping[str, Mapping[str, np.ndarray]],
    baselines: Mapping[str, Mapping[str, float]],
) -> dict[str, Any]:
    pictures = {
        "test": functools.partial(
            plot_intervals,
            groups=report.relative_losses(arms),
            title="Test loss against the published one",
            y_label="percent above Chung et al. (2014)",
            levels={"as published": 0.0, "within 2 %": 100 * report.REACH_SHARE},
        )
    }
    for collection, scores in baselines.items():
        some = [arm for arm in arms if arm.collection == collection]
        drawn = {
            "curves": {arm.label: curves[arm.name]["validation"] for arm in some},
            "title": f"{report.TITLES[collection]}: validation",
            "y_label": "nats per step",
            # Of the test: what a chord says of the next without any memory.
            "levels": {name: scores[name] for name in [MEMORYLESS]},
        }
        updates = {arm.label: curves[arm.name]["updates"] for arm in some}
        seconds = {
            arm.label: updates[arm.label] * np.median(arm.seconds_per_update)
            for arm in some
            if arm.seconds_per_update
        }
        for axis, x, label in (
            ("updates", updates, "updates"),
            ("seconds", seconds, "seconds, all seeds together"),
        ):
            name = f"{collection}_{axis}"
            if not x:
                continue
            pictures[name] = functools.partial(plot_curves, x=x, x_label=label, **drawn)
    return pictures
