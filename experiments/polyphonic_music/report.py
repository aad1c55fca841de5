"""What the runs say, in numbers and tables, next to the published ones.

Margins and measures are those of this file, written down before any full run.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.arms import Tuning
from experiments.tables import Table, show_interval, show_number
from experiments.verdicts import Comparison, compare
from gated_rnn.statistics import Interval, mean_interval

#: Nats per step, training and test: table 2 of the paper. Its encodings have 93 and 96
#: keys instead of 88 and differ a little from these files: indicative.
PUBLISHED = {
    "jsb_chorales": {
        "elman": (8.82, 9.10),
        "gru_reset_before": (6.94, 8.54),
        "peephole_lstm": (8.15, 8.67),
    },
    "nottingham": {
        "elman": (3.22, 3.13),
        "gru_reset_before": (2.79, 3.23),
        "peephole_lstm": (3.08, 3.20),
    },
}
#: A mean at most this share above the published number counts as reaching it.
REACH_SHARE = 0.02
#: A difference between cells below this share of the published LSTM's loss does not
#: matter: it is what the encodings may make.
EQUIVALENCE_SHARE = 0.02
PAIRS = (
    ("gru_reset_before", "peephole_lstm"),
    ("gru_reset_before", "elman"),
    ("peephole_lstm", "elman"),
)
PARTS = ("train", "valid", "test")
TITLES = {"jsb_chorales": "JSB chorales", "nottingham": "Nottingham"}
SEEDS_VARY = ("initialisation", "order of the training stretches", "noise")


class ArmResult(NamedTuple):
    """What was measured of one cell on one collection.

    Attributes:
        collection: The music.
        cell: The cell.
        label: What a person reads of the cell.
        units: How many it has.
        parameters: Of the recurrent layer, and of the whole network.
        tuning: The search for the learning rate; None: there was none.
        rate: The learning rate.
        losses: For each of `PARTS` the best parameters' loss, `[S]`; not finite where a
            seed diverged.
        best_updates: When they were found, `[S]`.
        num_updates: Of each seed.
        seconds_per_update: Of all seeds together, their validation included; one
            number for each round in which the cells took turns.
        diverged: Seeds that ended because something was no longer finite.
    """

    collection: str
    cell: str
    label: str
    units: int
    parameters: Mapping[str, int]
    tuning: Tuning | None
    rate: float
    losses: Mapping[str, np.ndarray]
    best_updates: np.ndarray
    num_updates: int
    seconds_per_update: Sequence[float]
    diverged: Sequence[int]

    @property
    def name(self) -> str:
        """The arm's name."""
        return f"{self.collection}_{self.cell}"


def summarise_arm(arm: ArmResult) -> dict[str, Any]:
    """Turn what was measured of an arm into what the record states.

    Args:
        arm: The measurements.

    Returns:
        Intervals over the seeds that did not diverge, next to the published numbers.
    """
    found = {part: _interval(arm.losses[part]) for part in PARTS}
    train, test = PUBLISHED[arm.collection][arm.cell]
    relative = _interval(np.asarray(arm.losses["test"], np.float64) / test - 1)
    return {
        "collection": arm.collection,
        "cell": arm.cell,
        "units": arm.units,
        "parameters": arm.parameters,
        "tuning": arm.tuning,
        "learning_rate": arm.rate,
        "nll": found,
        "published": {"train": train, "test": test},
        "test_over_published_less_1": relative,
        "reached": None if relative is None else bool(relative.estimate <= REACH_SHARE),
        "best_update": _interval(arm.best_updates),
        "num_updates": arm.num_updates,
        "seconds_per_update_of_all_seeds": arm.seconds_per_update,
        "diverged_seeds": list(arm.diverged),
    }


def compare_cells(arms: Sequence[ArmResult], key: jax.Array) -> list[Comparison]:
    """Compare the cells by the test loss, pair by pair, on each collection.

    Args:
        arms: The measurements.
        key: For the resamples.

    Returns:
        The comparisons of the pairs that were trained.
    """
    scores = {arm.name: arm.losses["test"] for arm in arms}
    comparisons = []
    for collection in dict.fromkeys(arm.collection for arm in arms):
        margin = EQUIVALENCE_SHARE * PUBLISHED[collection]["peephole_lstm"][1]
        for pair in PAIRS:
            first, second = (f"{collection}_{cell}" for cell in pair)
            if {first, second} <= scores.keys():
                measure = f"{TITLES[collection]}, test"
                comparisons.append(
                    compare(measure, scores, first, second, key, margin=margin)
                )
    return comparisons


def losses_table(
    arms: Sequence[ArmResult], baselines: Mapping[str, Mapping[str, float]]
) -> Table:
    """Lay out the losses of all arms next to the published ones, and the baselines.

    Args:
        arms: The measurements.
        baselines: For each collection the test loss of each baseline.

    Returns:
        The table.
    """
    rows = []
    for collection, scores in baselines.items():
        for name, loss in scores.items():
            rows.append((f"{TITLES[collection]}: {name}", "", "", show_number(loss)))
        for arm in arms:
            if arm.collection == collection:
                rows.append(_row(arm))
    columns = ("", "parameters", "training", "test", "published", "test / published")
    rows = [(*row, *[""] * (len(columns) - len(row))) for row in rows]
    return Table("Negative log-likelihood, nats per step [95 %]", columns, rows)


def training_table(arms: Sequence[ArmResult]) -> Table:
    """Lay out how the arms were trained.

    Args:
        arms: The measurements.

    Returns:
        The table.
    """
    rows = [
        (
            f"{TITLES[arm.collection]}: {arm.label}",
            f"{arm.rate:.2g}"
            + (" (edge)" if arm.tuning and arm.tuning.at_edge else ""),
            str(arm.num_updates),
            show_interval(_interval(arm.best_updates), 4),
            _show_milliseconds(arm),
            ", ".join(map(str, arm.diverged)) or "none",
        )
        for arm in arms
    ]
    columns = (
        *("", "learning rate", "updates", "best update"),
        *("ms an update, all seeds", "diverged seeds"),
    )
    return Table("Training", columns, rows)


def notes(arms: Sequence[ArmResult]) -> list[str]:
    """Say in sentences how the gated cells stand to the published table.

    Args:
        arms: The measurements.

    Returns:
        A sentence for each arm that the criterion is about, and one on its limits.
    """
    lines = []
    for arm in arms:
        summary = summarise_arm(arm)
        relative = summary["test_over_published_less_1"]
        if arm.cell == "elman" or relative is None:
            continue
        word = "reached" if summary["reached"] else "not reached"
        lines.append(
            f"{TITLES[arm.collection]}, {arm.label}: {100 * relative.estimate:+.1f} % "
            f"from the published {summary['published']['test']:.2f}; within "
            f"{100 * REACH_SHARE:.0f} % or better: {word}."
        )
    lines.append(
        "The published numbers are of one network each and of slightly different "
        "encodings: indicative."
    )
    return lines


def relative_losses(
    arms: Sequence[ArmResult],
) -> dict[str, dict[str, Interval]]:
    """Give what the picture of the test shows: percent above the published losses.

    Args:
        arms: The measurements.

    Returns:
        For each collection an interval for each cell; none where all seeds diverged.
    """
    groups: dict[str, dict[str, Interval]] = {}
    for arm in arms:
        relative = summarise_arm(arm)["test_over_published_less_1"]
        if relative is not None:
            percent = [100 * value for value in relative[:3]]
            groups.setdefault(TITLES[arm.collection], {})[arm.label] = (
                relative._replace(estimate=percent[0], low=percent[1], high=percent[2])
            )
    return groups


def _row(arm: ArmResult) -> tuple[str, ...]:
    summary = summarise_arm(arm)
    train, test = PUBLISHED[arm.collection][arm.cell]
    relative = summary["test_over_published_less_1"]
    return (
        f"{TITLES[arm.collection]}: {arm.label}, {arm.units} units",
        f"{arm.parameters['recurrent']:,} + {arm.parameters['readout']:,}",
        show_interval(summary["nll"]["train"]),
        show_interval(summary["nll"]["test"]),
        f"{train:.2f} / {test:.2f}",
        "none" if relative is None else f"{100 * relative.estimate:+.1f} %",
    )


def _show_rate(arm: ArmResult) -> str:
    at_edge = arm.tuning is not None and arm.tuning.at_edge
    return f"{arm.rate:.2g}" + (" (the last that was tried)" if at_edge else "")


def _show_milliseconds(arm: ArmResult) -> str:
    if not arm.seconds_per_update:
        return "none"
    return show_number(1000 * float(np.median(arm.seconds_per_update)))


def _interval(values: Any) -> Interval | None:
    values = np.asarray(values, np.float64)
    finite = values[np.isfinite(values)]
    return mean_interval(finite) if finite.size else None
