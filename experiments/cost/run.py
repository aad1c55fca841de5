"""Measure size by size, keep what is measured, and report."""

import json
import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from rich.console import Console

from experiments.benchmarks.measure import Samples, time_rounds
from experiments.command import UsageError
from experiments.cost import report
from experiments.cost.config import Config, Point
from experiments.cost.programs import MODES, Program, build, count
from experiments.files import write_file
from experiments.record import to_json
from experiments.reporting import write_results
from experiments.training import running, stop_if_asked, writing_results

EXPERIMENT = "cost"
TITLE = "What GRU and LSTM cost"
#: What has been measured of a run; --resume goes on from it.
POINTS_NAME = "points.json"

Measured = dict[str, Any]


def run(config: Config, console: Console) -> None:
    """Run the experiment and write its files.

    Args:
        config: The settings.
        console: Where progress and the tables go.

    Raises:
        UsageError: If the output directory cannot be written, or its run not be gone on
            with.
        Stopped: If a signal asked for it; sizes that were measured are kept.
    """
    with running(config, console):
        _run(config, console)


def _run(config: Config, console: Console) -> None:
    began = time.perf_counter()
    order_key, statistics_key = jax.random.split(jax.random.key(config.seed))
    generator = np.random.default_rng(np.asarray(jax.random.key_data(order_key)))
    found = _load(config) if config.resume else {}
    for number, point in enumerate(config.points):
        if point.name not in found:
            stop_if_asked(number)
            found[point.name] = measure(config, point, generator)
            _save(config, found)
        line = report.describe(found[point.name])
        console.print(f"{number + 1}/{len(config.points)} {line}", highlight=False)
    points = [found[point.name] for point in config.points]
    summary = report.summarise(points, statistics_key)
    write_results(
        config,
        console,
        experiment=EXPERIMENT,
        title=TITLE,
        cells=report.by_arm(points),
        summary=summary,
        tables=report.list_tables(summary),
        notes=report.list_notes(summary, config),
        pictures=report.list_pictures(summary),
        seconds=time.perf_counter() - began,
        scale=f"{len(points)} sizes, {config.num_rounds} rounds in turn",
    )


def measure(config: Config, point: Point, generator: np.random.Generator) -> Measured:
    """Compile every arm at a size, and let them take turns.

    Args:
        config: How much is measured.
        point: The size.
        generator: Draws the order of every round.

    Returns:
        In JSON's types: for each arm its counts, and for each mode the seconds of what
        is counted, round by round, those of compiling, and the bytes of XLA's plan.
    """
    arms: dict[str, dict[str, Any]] = {
        arm: {"facts": count(arm, point.sizes)} for arm in point.arms
    }
    for mode in MODES:
        programs = {
            arm: build(arm, point.sizes, mode, config.stream_steps)
            for arm in point.arms
        }
        runs = {arm: program.run for arm, program in programs.items()}
        samples = time_rounds(runs, config.limits, generator)
        for arm in point.arms:
            arms[arm][mode] = _describe(programs[arm], samples[arm])
    return to_json({**point._asdict(), "arms": arms})


def _describe(program: Program, samples: Samples) -> Mapping[str, Any]:
    return {
        "seconds": [one / program.units_per_call for one in samples.seconds],
        "calls": samples.calls,
        "compile_seconds": program.compile_seconds,
        "memory": program.memory,
    }


def _save(config: Config, found: Mapping[str, Measured]) -> None:
    content = {"identity": to_json(config.identity), "points": found}
    with writing_results(config):
        write_file(config.output_dir / POINTS_NAME, json.dumps(content).encode())


def _load(config: Config) -> dict[str, Measured]:
    path = config.output_dir / POINTS_NAME
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text())
        identity, points = content["identity"], dict(content["points"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{path} cannot be read: measure anew, without --resume."
        ) from error
    if identity != to_json(config.identity):
        raise UsageError(
            f"{path} is of other settings: measure anew, without --resume, or into "
            "another --output-dir."
        )
    return points
