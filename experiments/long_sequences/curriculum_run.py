"""The comparison behind --curriculum: pieces first, or the whole from the start?"""

import functools
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from rich.console import Console

from experiments.long_sequences import held_out
from experiments.long_sequences.config import Config
from experiments.long_sequences.curriculum import Course, Trainer, describe_epoch
from experiments.long_sequences.curriculum_checkpoints import CourseCheckpoints
from experiments.long_sequences.curriculum_tables import curriculum_tables
from experiments.long_sequences.problem import describe_start, make_network
from experiments.plots import plot_curves
from experiments.progress import show_progress
from experiments.record import to_json
from experiments.reporting import write_results
from experiments.tensorboard import open_tensorboard
from experiments.training import (
    CHECKPOINTS_NAME,
    save_models,
    stop_if_asked,
    was_asked_to_stop,
    writing_results,
)
from experiments.verdicts import Comparison, compare
from gated_rnn.statistics import mean_interval
from gated_rnn.training import PieceSchedule, Stopped

EXPERIMENT = "long_sequences"
TITLE = "Long sequences in pieces first, or whole from the start"
PICTURE_NAME = "loss_curves"
#: The post compares at the same number of epochs; a difference below this share, of
#: what the whole-sequence arm reaches, does not matter.
EQUIVALENCE_SHARE = 0.05
WHOLE, PIECES = "whole", "pieces"
_LABELS = {"lstm": "LSTM", "gru": "GRU"}


class Keys(NamedTuple):
    """Roots of all that is random; those of the main run."""

    data: jax.Array
    training: jax.Array
    statistics: jax.Array
    held_out: jax.Array


class Arm(NamedTuple):
    """A cell and a schedule."""

    cell: str
    schedule: PieceSchedule
    label: str


class Trained(NamedTuple):
    """What `save_models` looks at."""

    seed_ids: np.ndarray
    params: Any
    best: None = None


def make_arms(config: Config) -> dict[str, Arm]:
    """List what is compared: every cell, whole and in pieces.

    Args:
        config: Says which cells, and the schedule.

    Returns:
        The arms by name.
    """
    schedules = {
        WHOLE: PieceSchedule(counts=(1,), patience=config.piece_patience),
        PIECES: PieceSchedule(config.piece_counts, config.piece_patience),
    }
    return {
        f"{cell}_{name}": Arm(cell, schedule, f"{_LABELS[cell]}, {name}")
        for cell in config.cells
        for name, schedule in schedules.items()
    }


def run_curriculum(config: Config, console: Console, keys: Keys) -> None:
    """Train every arm, score it on fresh sequences and write the three files.

    Args:
        config: The settings.
        console: Where progress and the tables go.
        keys: Roots of all that is random.

    Raises:
        UsageError: If a run cannot go on, or nothing can be written.
        Stopped: If a signal asked for it; all is saved.
    """
    began = time.perf_counter()
    arms = make_arms(config)
    seed_ids = np.arange(config.num_seeds)
    courses = {
        name: _train(config, console, name, arm, keys, seed_ids)
        for name, arm in arms.items()
    }
    data_keys = held_out.DataKeys(keys.data, keys.held_out)
    scores = {
        name: held_out.score_networks(
            *(config, arms[name].cell, data_keys, course.train.params),
            *(seed_ids, course.diverged),
        )
        for name, course in courses.items()
    }
    data_ids = [0] if config.shared_data else seed_ids.tolist()
    baselines = held_out.score_baselines(config, data_keys, data_ids)
    summary = {
        "arms": {
            name: _describe(courses[name], arm, scores[name])
            for name, arm in arms.items()
        },
        "baselines": {
            name: held_out.describe(score) for name, score in baselines.items()
        },
        "comparisons": _compare(config, scores, keys.statistics),
        "start": describe_start(config),
        "seeds_vary": ["initialisation"] + ["data"] * (not config.shared_data),
    }
    write_results(
        config,
        console,
        experiment=EXPERIMENT,
        title=TITLE,
        cells={
            name: {
                "seeds": seed_ids,
                "loss": course.losses,
                "updates": course.train.step,
                "first_epoch_of_count": first_epochs(course, arms[name].schedule),
                **scores[name]._asdict(),
            }
            for name, course in courses.items()
        },
        summary=summary,
        tables=curriculum_tables(summary, {n: arm.label for n, arm in arms.items()}),
        notes=[
            "An epoch is one pass over the data, so a schedule of many pieces makes "
            "more updates in it than full backpropagation, which makes one."
        ],
        pictures={PICTURE_NAME: functools.partial(_draw, config, arms, courses)},
        seconds=time.perf_counter() - began,
        scale=f"{config.num_seeds} seeds, {config.num_epochs} epochs, "
        f"{config.num_sequences} sequences of {config.num_steps:,} steps",
    )


def _train(
    config: Config,
    console: Console,
    name: str,
    arm: Arm,
    keys: Keys,
    seed_ids: np.ndarray,
) -> Course:
    """Train an arm; go on from its checkpoint where there is one."""
    stop_if_asked(0)
    saved = CourseCheckpoints(
        config.output_dir / CHECKPOINTS_NAME / name,
        {**to_json(config.identity), "num_seeds": len(seed_ids)},
    )
    trainer = Trainer(
        config, arm.cell, arm.schedule, keys.data, keys.training, seed_ids
    )
    course = trainer.start()
    if config.resume:
        course = saved.load(course, config.num_epochs)
    saved_at = time.monotonic()
    with (
        show_progress(console, arm.label, config.num_epochs) as on_piece,
        open_tensorboard(config, name) as on_metrics,
    ):
        while course.num_epochs < config.num_epochs:
            course = trainer.advance(course)
            piece = describe_epoch(course, seed_ids, config.num_epochs)
            on_piece(piece)
            on_metrics(piece)
            stops = was_asked_to_stop()
            is_last = course.num_epochs == config.num_epochs
            if stops or is_last or time.monotonic() - saved_at >= config.save_seconds:
                saved.save(course)
                saved_at = time.monotonic()
            if stops:
                raise Stopped(course.num_epochs)
    for seed_id in seed_ids[course.diverged]:
        console.print(f"{arm.label}: seed {seed_id} diverged.", highlight=False)
    with writing_results(config):
        trained = Trained(seed_ids, course.train.params)
        save_models(config, name, make_network(config, arm.cell), trained)
    return course


def first_epochs(course: Course, schedule: PieceSchedule) -> np.ndarray:
    """Find the epoch in which each seed first used each number of pieces.

    Args:
        course: A finished run.
        schedule: Its numbers of pieces.

    Returns:
        `[S, number of phases]`, float; NaN where a phase was not reached.
    """
    used = course.counts[:, None, :] == np.array(schedule.counts)[None, :, None]
    return np.where(used.any(axis=2), used.argmax(axis=2), np.nan)


def _describe(course: Course, arm: Arm, score: held_out.Score) -> dict[str, Any]:
    reached = first_epochs(course, arm.schedule)
    return {
        **held_out.describe(score),
        "updates": mean_interval(course.train.step),
        "seconds_per_epoch": float(np.median(course.seconds)),
        "seconds": float(course.seconds.sum()),
        "phases": [
            {
                "pieces": count,
                "seeds": int(np.isfinite(epochs).sum()),
                "median_first_epoch": float(np.median(epochs[np.isfinite(epochs)]))
                if np.isfinite(epochs).any()
                else None,
            }
            for count, epochs in zip(arm.schedule.counts, reached.T, strict=True)
        ],
        "diverged_seeds": np.flatnonzero(course.diverged),
    }


def _compare(
    config: Config, scores: Mapping[str, held_out.Score], key: jax.Array
) -> list[Comparison]:
    comparisons = []
    for measure, field in (
        ("training loss", "training_loss"),
        ("held-out loss", "held_out_loss"),
    ):
        values = {name: getattr(score, field) for name, score in scores.items()}
        for cell in config.cells:
            whole = f"{cell}_{WHOLE}"
            finite = values[whole][np.isfinite(values[whole])]
            margin = EQUIVALENCE_SHARE * float(finite.mean()) if finite.size else 0.0
            pair = (f"{cell}_{PIECES}", whole)
            comparisons.append(compare(measure, values, *pair, key, margin=margin))
    return comparisons


def _draw(
    config: Config, arms: Mapping[str, Arm], courses: Mapping[str, Course], path: Path
) -> None:
    plot_curves(
        path,
        {arms[name].label: course.losses for name, course in courses.items()},
        title=f"{config.num_sequences} sequences of {config.num_steps:,} steps, "
        f"{config.piece_counts[0]} pieces first, or whole",
        x_label="epoch (one pass over the data)",
        y_label="loss, mean over the epoch's pieces",
    )
