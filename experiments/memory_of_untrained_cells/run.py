"""Measure every size, compare with the published table, and report."""

import functools
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import jax
import numpy as np
from rich.console import Console

from experiments.cells import count_cell_parameters, match_units
from experiments.data import published_memory
from experiments.data.published_memory import published_mean
from experiments.memory_of_untrained_cells import report
from experiments.memory_of_untrained_cells.config import Config
from experiments.memory_of_untrained_cells.measure import (
    MEASURES,
    Size,
    measure_size,
)
from experiments.memory_of_untrained_cells.setups import MAIN, SETUPS, running_cell
from experiments.plots import plot_curves
from experiments.reporting import write_results
from experiments.training import running
from experiments.verdicts import comparisons_table

EXPERIMENT = "memory_of_untrained_cells"
TITLE = "Memory of untrained cells"
NOTES = (
    "The text counts steps until outputs are identical. Equal floats do not give its "
    "numbers: wide cells never come to them, because rounding errors of one unit make "
    "new ones in others. A cosine distance of 0 in float32 does, down to the single "
    "unit, where it asks for no more than equal signs.",
    "All 48 published means are multiples of 1/5, as means of five runs are; the text "
    "says ten. p is the share of tables dealt from our own runs that are as far from "
    "the rest of them as the published one.",
)
_MOST_THREADS = 8


def run(config: Config, console: Console) -> None:
    """Run the experiment and write its three files.

    Args:
        config: The settings.
        console: Where progress and the tables go.

    Raises:
        UsageError: If the output directory cannot be written; nothing is measured then.
        Stopped: If a signal asked for it.
    """
    with running(config, console):
        _run(config, console)


def _run(config: Config, console: Console) -> None:
    began = time.perf_counter()
    runs_key, statistics_key = jax.random.split(jax.random.key(config.seed))
    sizes = [
        Size(in_features, units)
        for in_features in config.in_features
        for units in config.hidden_features
    ]
    reference = choose_reference(config)
    matched = match_parameters(reference)
    jobs = [(size, tuple(SETUPS)) for size in sizes] + [(matched, ("gru",))]
    *found, of_matched = _measure_all(config, console, runs_key, jobs)
    steps = {
        name: {
            measure: np.stack([one[name][measure] for one in found], axis=1)
            for measure in MEASURES
        }
        for name in SETUPS
    }
    steps_matched = of_matched["gru"][report.COMPARED_BY]
    fits = report.fit_setups(sizes, steps, config.seed)
    comparisons = report.compare_cells(
        sizes, steps, steps_matched, reference, statistics_key
    )
    tables = [
        *(report.published_table(sizes, steps, name) for name in ("cosine", "equal")),
        report.fit_table(fits),
        report.memory_table(sizes, steps, reference),
        comparisons_table(comparisons, report.COMPARED_LABELS, title=_COMPARED),
    ]
    write_results(
        config,
        console,
        experiment=EXPERIMENT,
        title=TITLE,
        cells={
            **{name: _by_size(config, of) for name, of in steps.items()},
            report.MATCHED: {report.COMPARED_BY: steps_matched},
        },
        summary={
            "seeds_vary": "parameters and sequences",
            "measures": MEASURES,
            "in_features": config.in_features,
            "hidden_features": config.hidden_features,
            "reference": reference,
            "gru_with_matched_parameters": matched,
            "fits": fits,
            "comparisons": comparisons,
        },
        tables=tables,
        notes=NOTES,
        pictures={"memory": functools.partial(_draw, config, sizes, steps, reference)},
        seconds=time.perf_counter() - began,
        scale=f"{config.num_runs} runs of {len(sizes)} sizes and {len(SETUPS)} set-ups",
    )


_COMPARED = (
    f"Who remembers longer, by {report.COMPARED_BY} ({MEASURES[report.COMPARED_BY]})"
)


def choose_reference(config: Config) -> Size:
    """Choose the size at which one thing at a time is looked at.

    Args:
        config: The sizes.

    Returns:
        The middle number of features, and the largest but one of units.
    """
    units = sorted(config.hidden_features)
    features = sorted(config.in_features)
    return Size(features[len(features) // 2], units[-2:][0])


def match_parameters(size: Size) -> Size:
    """Give the GRU the units with which it has as many parameters as the LSTM.

    Args:
        size: Of the LSTM.

    Returns:
        Of the GRU.
    """
    lstm = running_cell(SETUPS["lstm"].kind, size.hidden_features)
    wanted = count_cell_parameters(lstm, size.in_features)
    return size._replace(hidden_features=match_units("gru", size.in_features, wanted))


def _measure_all(
    config: Config,
    console: Console,
    key: jax.Array,
    jobs: Sequence[tuple[Size, tuple[str, ...]]],
) -> list[dict[str, dict[str, np.ndarray]]]:
    """Measure all sizes, those that are small beside those that are large."""
    devices = jax.local_devices()

    def measure(number: int) -> dict[str, dict[str, np.ndarray]]:
        size, names = jobs[number]
        with jax.default_device(devices[order.index(number) % len(devices)]):
            return measure_size(
                names,
                size,
                jax.random.fold_in(key, size.in_features),
                num_runs=config.num_runs,
                num_before=config.num_before,
                max_after=config.max_after,
            )

    # The largest first: no core then waits long for another at the end.
    order = sorted(range(len(jobs)), key=lambda at: -np.prod(jobs[at][0]))
    found = {}
    with ThreadPoolExecutor(min(_MOST_THREADS, len(devices))) as pool:
        futures = {pool.submit(measure, number): number for number in order}
        try:
            for future in as_completed(futures):
                found[futures[future]] = future.result()
                _show_progress(console, len(found), len(jobs))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return [found[number] for number in range(len(jobs))]


def _show_progress(console: Console, done: int, total: int) -> None:
    tenths = 10
    if tenths * done // total > tenths * (done - 1) // total:
        console.print(f"{done} of {total} sizes measured.", highlight=False)


def _by_size(config: Config, of_setup: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Give the steps `[R, M]` the axes of the table, `[R, F, H]`."""
    table = (len(config.in_features), len(config.hidden_features))
    return {name: steps.reshape(-1, *table) for name, steps in of_setup.items()}


def _draw(
    config: Config,
    sizes: Sequence[Size],
    steps: report.Steps,
    reference: Size,
    path: Path,
) -> None:
    units = sorted(config.hidden_features)
    at = [sizes.index(Size(reference.in_features, one)) for one in units]
    shown = [(cell, "cosine") for cell in published_memory.MEANS]
    shown += [(cell, report.COMPARED_BY) for cell in MAIN]
    lines = {}
    for cell in published_memory.MEANS:
        means = [published_mean(cell, reference.in_features, one) for one in units]
        if None not in means:
            lines[f"{SETUPS[cell].label}, published"] = np.array(means)
    plot_curves(
        path,
        {
            f"{SETUPS[cell].label}, {measure}": steps[cell][measure][:, at]
            for cell, measure in shown
        },
        title=f"How long untrained cells remember, {reference.in_features} features",
        x_label="units",
        y_label="steps with equal inputs",
        x=np.array(units),
        lines=lines,
        middle="mean",
        log_x=True,
    )
