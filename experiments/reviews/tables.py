"""The report of a run as tables and sentences, for the terminal and for summary.md."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.reviews.config import Config
from experiments.reviews.report import ACCURACY_MARGIN
from experiments.tables import Table, show_interval, show_number
from experiments.verdicts import Comparison, comparisons_table
from gated_rnn.statistics import Interval, mean_interval

#: What a person reads of an arm.
LABELS = {
    "lstm": "LSTM",
    "gru": "GRU",
    "elman": "Elman",
    "gru_matched": "GRU, matched",
    "elman_matched": "Elman, matched",
    "bag": "naive Bayes",
    "little": "least data",
    "all": "all data",
    "short": "shortest",
    "long": "longest",
}
TITLES = {
    "accuracy": "Test accuracy, learning rate of the texts",
    "tuned": "Test accuracy, tuned learning rates",
    "gap": "Overfitting",
    "need": "Epochs and reviews to a target",
    "interaction": "Does the GRU's advantage depend on the amount of data?",
    "length": "Test accuracy by length",
    "baseline": "Against a bag of words",
    "time": "Training time (the text: 20-30 % faster, 2.4 h to 3.2 h)",
}
#: 2.4 h of 3.2 h.
PUBLISHED_TIME_RATIO = 0.75


def report_tables(
    summary: Mapping[str, Any], comparisons: Mapping[str, Sequence[Comparison]]
) -> list[Table]:
    """Lay out the results.

    Args:
        summary: What the record states.
        comparisons: From `report.compare_all`.

    Returns:
        Results of every arm, baselines, tuning, and a table for each kind of claim.
    """
    tables = [_results_table(summary), _baselines_table(summary), _arms_table(summary)]
    if summary["tuning"]:
        tables.append(_tuning_table(summary["tuning"]))
    tables += [
        comparisons_table(comparisons[name], LABELS, title=title)
        for name, title in TITLES.items()
        if name in comparisons
    ]
    return tables


def report_notes(config: Config, summary: Mapping[str, Any]) -> list[str]:
    """Say what the tables leave out.

    Args:
        config: The settings.
        summary: What the record states.

    Returns:
        Sentences.
    """
    notes = [
        f"Accuracy is that of the update with the best validation; differences below "
        f"{100 * ACCURACY_MARGIN:g} point count as none. Seeds vary "
        f"{summary['seeds_vary']}."
    ]
    for unit, error in summary["error_of_test_part"].items():
        notes.append(
            f"Intervals are over seeds. With another test part of this size the "
            f"difference GRU - LSTM on {unit} would move by {error:.4f} (standard "
            "error), which they do not hold."
        )
    ratio = time_ratio(summary["seconds_per_update"])
    if ratio is not None:
        notes.append(
            f"An update of the GRU takes {show_interval(ratio)} of the LSTM's time "
            f"on this machine; the text's hours give {PUBLISHED_TIME_RATIO}."
        )
    for name, found in summary["results"].items():
        if len(found["diverged_seeds"]):
            seeds = ", ".join(str(seed) for seed in found["diverged_seeds"])
            notes.append(f"{name} diverged on seeds {seeds}: left out above.")
    return notes


def time_ratio(rounds: Mapping[str, Sequence[float]]) -> Interval | None:
    """Give the time of the GRU over that of the LSTM, a geometric mean over rounds."""
    if not (rounds.get("gru") and rounds.get("lstm")):
        return None
    logs = np.log(np.array(rounds["gru"]) / np.array(rounds["lstm"]))
    found = mean_interval(logs)
    estimate, low, high = (math.exp(value) for value in found[:3])
    return found._replace(estimate=estimate, low=low, high=high)


def _results_table(summary: Mapping[str, Any]) -> Table:
    rows = []
    for name, found in summary["results"].items():
        reached = found["share_reaching_target"]
        rows.append(
            (
                name.replace("_", " "),
                f"{found['num_reviews']:,}",
                f"{found['learning_rate']:g}",
                show_interval(found["test_accuracy"]),
                show_number(_estimate(found["test_loss"])),
                show_number(_estimate(found["last_train_accuracy"])),
                show_number(_estimate(found["last_test_accuracy"])),
                f"{show_number(_estimate(found['epochs_to_target']))} ({reached:.0%})",
            )
        )
    columns = (
        *("", "reviews", "rate", "test accuracy [95 %]", "test loss"),
        *("train, at the end", "test, at the end", "epochs to target (seeds)"),
    )
    return Table("Results: means over seeds; names end in % of the data", columns, rows)


def _estimate(interval: Interval | None) -> float | None:
    return None if interval is None else float(interval.estimate)


def _baselines_table(summary: Mapping[str, Any]) -> Table:
    rows = []
    for unit, found in summary["baselines"].items():
        rows.append((f"{unit}: commoner label", "", show_number(found["majority"])))
        for amount, bag in found["naive_bayes"].items():
            name = f"{unit}: naive Bayes"
            rows.append((name, f"{amount} %", show_interval(bag["mean"])))
    columns = ("", "data", "test accuracy [95 %]")
    return Table("Baselines: what needs no network", columns, rows)


def _arms_table(summary: Mapping[str, Any]) -> Table:
    rows = []
    for unit, arms in summary["arms"].items():
        for name, arm in arms.items():
            rounds = summary["seconds_per_update"].get(name, [])
            rows.append(
                (
                    f"{unit}: {LABELS[name]}",
                    str(arm["units"]),
                    f"{arm['recurrent_parameters']:,}",
                    f"{arm['parameters']:,}",
                    show_number(1000 * float(np.median(rounds)) if rounds else None)
                    if unit == "words"
                    else "",
                )
            )
    columns = ("", "units", "recurrent parameters", "all", "ms per update, all seeds")
    return Table("Sizes and cost", columns, rows)


def _tuning_table(tunings: Mapping[str, Mapping[str, Any]]) -> Table:
    rows = []
    for amount, found in tunings.items():
        for name, tuning in found.items():
            errors = (f"{value:.3f}" for value in tuning.values)
            chosen = f"{tuning.rate:g}" + (" (edge)" if tuning.at_edge else "")
            rows.append((f"{LABELS[name]}, {amount} %", " ".join(errors), chosen))
    rates = next(iter(next(iter(tunings.values())).values())).rates
    tried = " ".join(f"{rate:g}" for rate in rates)
    columns = ("", f"validation error at {tried}", "chosen")
    return Table("Tuning, words", columns, rows)
