"""What the runs say, in numbers; measures and margins are those of this file."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.cell_variants.config import NUM_GATES, Config, Matching
from experiments.curves import roughness
from experiments.verdicts import Comparison, compare
from gated_rnn.statistics import mean_interval, verdict

#: Fixed before the first full run. Of a synthetic task's loss over that without memory:
#: a twentieth does not matter. Of the traffic's over that of persistence: a hundredth,
#: the difference of the two cells in the reimplementation.
LOSS_MARGINS = {"adding": 0.05, "selective_recall": 0.05, "traffic_flow": 0.01}
#: Of the mean over tasks.
LOSS_MARGIN = 0.05
#: A tenth rougher or smoother does not matter, nor does a twentieth for each gate.
ROUGHNESS_MARGIN = math.log(1.1)
PER_GATE_MARGIN = math.log(1.05)
#: The training loss at the end is the mean over this share of the updates.
FIT_SHARE = 0.1
#: Each takes one thing away; what the pair tells.
PAIRS = {
    ("cifg", "lstm"): "separate input and forget gates",
    ("lstm_no_output_gate", "lstm"): "the output gate",
    ("lstm_no_output_tanh", "lstm"): "the tanh of the output",
    ("gru", "lstm"): "the GRU beside the LSTM",
    ("mgu", "gru"): "separate reset and update gates",
    ("janet", "lstm"): "all gates but the forget gate",
    ("elman", "lstm"): "all gates",
}
_SMOOTHEST = np.finfo(np.float32).eps  # what rounding of the losses leaves


class Entry(NamedTuple):
    """One cell on one task in one matching; `[S]` where seeds differ.

    Attributes:
        task: Name of the task.
        cell: Name of the cell.
        matching: "parameters" or "units".
        units: H.
        parameters: Of the cell.
        rate: Learning rate.
        test: Test loss with the best parameters, over the baseline; NaN of a seed that
            diverged.
        fit: Training loss at the end, over the baseline; the same.
        rough: Roughness of the validation's curve; the same.
        diverged: bool.
    """

    task: str
    cell: str
    matching: Matching
    units: int
    parameters: int
    rate: float
    test: np.ndarray
    fit: np.ndarray
    rough: np.ndarray
    diverged: np.ndarray

    @property
    def log_rough(self) -> np.ndarray:
        """Logarithm of the roughness."""
        return np.log(np.maximum(self.rough, _SMOOTHEST))


def end_of_training(losses: np.ndarray) -> np.ndarray:
    """Average the training loss over the last updates.

    Args:
        losses: `[S, N]`.

    Returns:
        `[S]`.

    Examples:
        >>> end_of_training(np.arange(20.0)[None]).tolist()
        [18.5]
    """
    last = max(1, round(FIT_SHARE * losses.shape[1]))
    return losses[:, -last:].mean(axis=1)


def curve_roughness(validation: np.ndarray) -> np.ndarray:
    """Measure how rough the curve of validations is, which are NaN where there is none.

    Args:
        validation: `[S, N]`, a value every so many updates.

    Returns:
        `[S]`; NaN of a seed that ended early.
    """
    seen = np.isfinite(validation).any(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return roughness(np.asarray(validation[:, seen], np.float64))


def ranks(values: np.ndarray) -> np.ndarray:
    """Rank what is compared, seed by seed.

    Args:
        values: `[cells, S]`; lower is better, what is not finite comes last.

    Returns:
        The same shape, 1 for the best; ties share the mean of their ranks.

    Examples:
        >>> ranks(np.array([[3.0], [1.0], [3.0], [np.nan]]))[:, 0].tolist()
        [2.5, 1.0, 2.5, 4.0]
    """
    values = np.where(np.isfinite(values), values, np.inf)
    below = (values[:, None] > values[None]).sum(axis=1)
    equal = (values[:, None] == values[None]).sum(axis=1)
    return below + (equal + 1) / 2


def summarise(
    config: Config, entries: Sequence[Entry], key: jax.Array
) -> dict[str, Any]:
    """Turn what came out into what is reported.

    Args:
        config: The settings.
        entries: Every cell on every task in every matching.
        key: For the resamples.

    Returns:
        Entries, ranks, comparisons of pairs, and roughness for each gate.
    """
    matchings = ("parameters", "units") if config.units_tasks else ("parameters",)
    pairs = [pair for pair in PAIRS if set(pair) <= set(config.cells)]
    return {
        "entries": [describe(one) for one in entries],
        "ranks": {
            matching: {
                cell: mean_interval(values)
                for cell, values in _mean_ranks(entries, matching).items()
            }
            for matching in matchings
        },
        "tests": [
            _compare_entries(config, entries, task, matching, pair, key)
            for task in config.tasks
            for matching in config.matchings(task)
            for pair in pairs
        ],
        "together": [
            found for pair in pairs for found in _compare_together(entries, pair, key)
        ],
        "roughness_per_gate": _per_gate(entries),
    }


def of_tasks(
    entries: Sequence[Entry], matching: Matching
) -> dict[str, dict[str, Entry]]:
    """Group entries by task, and by cell.

    Args:
        entries: All.
        matching: Those of one matching; the LSTM belongs to both.

    Returns:
        By task, then by cell.
    """
    found: dict[str, dict[str, Entry]] = {}
    for one in entries:
        if one.matching == matching:
            found.setdefault(one.task, {})[one.cell] = one
    return found


def describe(one: Entry) -> dict[str, Any]:
    """Summarise an entry.

    Args:
        one: The entry.

    Returns:
        Sizes, rate, and intervals over the seeds that are finite.
    """

    def interval(values: np.ndarray) -> Any:
        finite = values[np.isfinite(values)]
        return mean_interval(finite) if finite.size else None

    return {
        **{name: getattr(one, name) for name in ("task", "cell", "matching", "units")},
        "parameters": one.parameters,
        "gates": NUM_GATES[one.cell],
        "learning_rate": one.rate,
        "test": interval(one.test),
        "fit": interval(one.fit),
        "roughness": interval(one.rough),
        "diverged_seeds": int(one.diverged.sum()),
    }


def _mean_ranks(entries: Sequence[Entry], matching: Matching) -> dict[str, np.ndarray]:
    """Average each seed's rank over the tasks, `[S]` for each cell."""
    found: dict[str, list[np.ndarray]] = {}
    for cells in of_tasks(entries, matching).values():
        ranked = ranks(np.stack([one.test for one in cells.values()]))
        for cell, row in zip(cells, ranked, strict=True):
            found.setdefault(cell, []).append(row)
    return {cell: np.mean(rows, axis=0) for cell, rows in found.items()}


def _compare_entries(
    config: Config,
    entries: Sequence[Entry],
    task: str,
    matching: Matching,
    pair: tuple[str, str],
    key: jax.Array,
) -> Comparison:
    cells = of_tasks(entries, matching)[task]
    scores = {cell: cells[cell].test for cell in pair}
    measure = f"{task.replace('_', ' ')}, same {matching}"
    return compare(measure, scores, *pair, key, margin=LOSS_MARGINS[task])


def _compare_together(
    entries: Sequence[Entry], pair: tuple[str, str], key: jax.Array
) -> list[Comparison]:
    """Compare the means over tasks of each seed, parameters matched."""
    by_task = of_tasks(entries, "parameters")
    measures = {
        "test loss": ("test", LOSS_MARGIN),
        "training loss at the end": ("fit", LOSS_MARGIN),
        "log roughness": ("log_rough", ROUGHNESS_MARGIN),
    }
    found = []
    for measure, (name, margin) in measures.items():
        scores: Mapping[str, np.ndarray] = {
            cell: np.mean(
                [getattr(one[cell], name) for one in by_task.values()], axis=0
            )
            for cell in pair
        }
        found.append(compare(measure, scores, *pair, key, margin=margin))
    return found


def _per_gate(entries: Sequence[Entry]) -> dict[str, Any] | None:
    """Fit a line to log roughness over the number of gates, seed by seed.

    Elman's network, which has no gate for a gradient to pass, is left out.
    """
    by_task = of_tasks(entries, "parameters")
    cells = [cell for cell in next(iter(by_task.values())) if NUM_GATES[cell] > 0]
    gates = np.array([NUM_GATES[cell] for cell in cells], float)
    if np.unique(gates).size < 2:
        return None
    rough = np.mean(
        [[one[cell].log_rough for cell in cells] for one in by_task.values()], axis=0
    )
    off = gates - gates.mean()
    slopes = off @ rough / (off @ off)
    slopes = slopes[np.isfinite(slopes)]
    if not slopes.size:
        return None
    interval = mean_interval(slopes)
    return {
        "slope": interval,
        "margin": PER_GATE_MARGIN,
        "verdict": verdict(interval, PER_GATE_MARGIN),
    }
