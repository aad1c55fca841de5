"""What the readings say about the text's sentences, in numbers.

Margins and measures are those of this file, written down before any full run.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.gates_in_action.measures import (
    OFFSETS,
    mean_where,
    profile,
    share_of_other,
)
from experiments.gates_in_action.readings import (
    GATES,
    KEEPS,
    NEAR_ONE,
    NEAR_ZERO,
    Reading,
    Spread,
)
from experiments.verdicts import Comparison, compare
from gated_rnn.statistics import Interval, mean_interval

#: Of a gate's mean over units: what a heat map would not show.
GATE_MARGIN = 0.02
#: Of a share in which the part that should be ignored counts: less is ignored.
IGNORED = 0.1
#: What the text says that a cell does.
NEGLECTS, IGNORES = "neglects what came before", "ignores what comes after"
CHOOSES, CARRIES = "chooses words", "carries gradients"


class Readings(NamedTuple):
    """Of every seed, on axis 0 of every array."""

    test: Reading
    untrained: Reading
    decisive: Reading
    neutral: Reading
    decisive_first: Reading
    decisive_last: Reading


class Places(NamedTuple):
    """Which words are which.

    Attributes:
        labels: `[B]`, of the test part.
        real: bool `[T, B]`, words of the test part.
        decisive: bool `[T, B]`, the decisive ones among them.
        halves: Its first and its last half, bool `[T, B]` each.
        pair_labels: `[P]`.
        real_pairs: bool `[T, P]`, words of both parts.
        first_of_decisive: bool `[T, P]`, words of the first part where that is the
            decisive one.
        first_of_neutral: The same where the neutral one is first.
    """

    labels: np.ndarray
    real: np.ndarray
    decisive: np.ndarray
    halves: tuple[np.ndarray, np.ndarray]
    pair_labels: np.ndarray
    real_pairs: np.ndarray
    first_of_decisive: np.ndarray
    first_of_neutral: np.ndarray


class ReviewSeries(NamedTuple):
    """What is kept of a cell, seeds on axis 0; gates in the order of `GATES`.

    Attributes:
        seeds: Numbers of the seeds.
        accuracy: On the test part.
        trained: What values the gates take on it.
        untrained: The same of networks that nobody trained.
        at_decisive: Mean of each gate at decisive words, `[S, G]`.
        elsewhere: At the others.
        around: Before and after decisive words, `[S, G, K]`.
        untrained_at_decisive: As `at_decisive`, nobody having trained.
        untrained_elsewhere: As `elsewhere`.
        gradient_at_decisive: Mean norm of the gradient at decisive words, `[S]`.
        gradient_elsewhere: At the others.
        gradient_first_half: In the first half of a review.
        gradient_last_half: In the last.
        decisive_end: Pairs with the decisive part last: each gate in that part.
        neutral_start: The same pairs: in the part before.
        decisive_start: Pairs with the decisive part first: in that part.
        neutral_end: The same pairs: in the part after.
        neutral_share_first: How much of what two parts do is done by the neutral one,
            where it stands first.
        neutral_share_last: The same where it stands last.
        accuracy_decisive_last: Of the decisive part's label where that stands last.
        accuracy_decisive_first: Where it stands first.
    """

    seeds: np.ndarray
    accuracy: np.ndarray
    trained: Spread
    untrained: Spread
    at_decisive: np.ndarray
    elsewhere: np.ndarray
    around: np.ndarray
    untrained_at_decisive: np.ndarray
    untrained_elsewhere: np.ndarray
    gradient_at_decisive: np.ndarray
    gradient_elsewhere: np.ndarray
    gradient_first_half: np.ndarray
    gradient_last_half: np.ndarray
    decisive_end: np.ndarray
    neutral_start: np.ndarray
    decisive_start: np.ndarray
    neutral_end: np.ndarray
    neutral_share_first: np.ndarray
    neutral_share_last: np.ndarray
    accuracy_decisive_last: np.ndarray
    accuracy_decisive_first: np.ndarray


class PriceSeries(NamedTuple):
    """What is kept of a cell on prices, seeds on axis 0.

    Attributes:
        seeds: Numbers of the seeds.
        error: Mean squared error of the forecasts, in variances of a price change.
        trained: What values the gates take.
        untrained: The same of networks that nobody trained.
    """

    seeds: np.ndarray
    error: np.ndarray
    trained: Spread
    untrained: Spread


class ShownText(NamedTuple):
    """A text and what networks do with it.

    Attributes:
        words: Its words, those that are not known marked.
        weights: `[T]`, of the linear classifier.
        gates: For each cell all gates of one seed, `[G, T, H]`.
        means: For each cell the mean over units, of every seed, `[S, G, T]`.
        chances: For each cell the chance that it is positive, `[S]`.
    """

    words: list[str]
    weights: np.ndarray
    gates: dict[str, np.ndarray]
    means: dict[str, np.ndarray]
    chances: dict[str, np.ndarray]

    def for_record(self) -> dict[str, Any]:
        """Return what the record keeps, with four decimals; no single units."""
        return {
            "words": self.words,
            "weights": np.round(self.weights, 4),
            "gates": {cell: np.round(means, 4) for cell, means in self.means.items()},
            "chances": {cell: np.round(p, 4) for cell, p in self.chances.items()},
        }


def make_review_series(readings: Readings, places: Places) -> ReviewSeries:
    """Average what was read.

    Args:
        readings: Of every seed.
        places: Which words are which.

    Returns:
        The series.
    """
    test, first, last = readings.test, readings.decisive_first, readings.decisive_last
    others = places.real & ~places.decisive
    end_of_neutral = places.real_pairs & ~places.first_of_decisive
    end_of_decisive = places.real_pairs & ~places.first_of_neutral
    return ReviewSeries(
        seeds=np.arange(len(test.logits)),
        accuracy=_accuracy(test.logits, places.labels),
        trained=test.spread,
        untrained=readings.untrained.spread,
        at_decisive=mean_where(test.gates, places.decisive),
        elsewhere=mean_where(test.gates, others),
        around=profile(test.gates, places.decisive, places.real),
        untrained_at_decisive=mean_where(readings.untrained.gates, places.decisive),
        untrained_elsewhere=mean_where(readings.untrained.gates, others),
        gradient_at_decisive=mean_where(test.gradients, places.decisive),
        gradient_elsewhere=mean_where(test.gradients, others),
        gradient_first_half=mean_where(test.gradients, places.halves[0]),
        gradient_last_half=mean_where(test.gradients, places.halves[1]),
        decisive_end=mean_where(last.gates, end_of_decisive),
        neutral_start=mean_where(last.gates, places.first_of_neutral),
        decisive_start=mean_where(first.gates, places.first_of_decisive),
        neutral_end=mean_where(first.gates, end_of_neutral),
        neutral_share_first=share_of_other(
            last.logits, readings.decisive.logits, readings.neutral.logits
        ),
        neutral_share_last=share_of_other(
            first.logits, readings.decisive.logits, readings.neutral.logits
        ),
        accuracy_decisive_last=_accuracy(last.logits, places.pair_labels),
        accuracy_decisive_first=_accuracy(first.logits, places.pair_labels),
    )


def without_diverged(series: Any, diverged: np.ndarray) -> Any:
    """Put NaN in the place of all that a seed which diverged has shown.

    Args:
        series: A NamedTuple whose leaves have the seeds on axis 0.
        diverged: bool `[S]`.

    Returns:
        The series.
    """

    def hide(leaf: Any) -> np.ndarray:
        values = np.array(leaf, np.float64)
        values[diverged] = np.nan
        return values

    hidden = jax.tree.map(hide, series._replace(seeds=None))
    return hidden._replace(seeds=series.seeds)


class Statement(NamedTuple):
    """A sentence of the text, or what it should imply, as a difference.

    Attributes:
        claim: What the text says the cell does.
        words: What is compared.
        cell: Which network.
        expected: The verdict that would bear the sentence out.
        found: The comparison.
    """

    claim: str
    words: str
    cell: str
    expected: str
    found: Comparison


def list_statements(
    measured: Mapping[str, ReviewSeries], key: jax.Array
) -> list[Statement]:
    """Compare what the text's sentences speak of.

    Args:
        measured: By cell.
        key: For the statistics.

    Returns:
        The statements.
    """
    statements = []

    def add(claim, cell, expected, words, first, second, margin) -> None:
        scores = {"first": first, "second": np.broadcast_to(second, np.shape(first))}
        found = compare(words, scores, "first", "second", key, margin=margin)
        statements.append(Statement(claim, words, cell, expected, found))

    for cell, series in measured.items():
        keeps = list(GATES[cell]).index(KEEPS[cell])
        keeper = GATES[cell][KEEPS[cell]].partition(" (")[0]

        def of(values: np.ndarray, gate: int) -> np.ndarray:
            return np.asarray(values)[:, gate]

        if cell == "gru":
            end = of(series.decisive_end, 0)
            words = f"decisive part last, reset gate there: less {NEAR_ZERO}"
            add(NEGLECTS, cell, "lower", words, end, NEAR_ZERO, 0.0)
            words = "reset gate in the decisive part: last less first"
            add(
                NEGLECTS,
                cell,
                "lower",
                words,
                end,
                of(series.decisive_start, 0),
                GATE_MARGIN,
            )
        words = f"decisive part last, share of the part before: less {IGNORED}"
        add(NEGLECTS, cell, "lower", words, series.neutral_share_first, IGNORED, 0.0)
        ending = of(series.neutral_end, keeps)
        words = f"decisive part first, {keeper} in the ending: less {NEAR_ONE}"
        add(IGNORES, cell, "higher", words, ending, NEAR_ONE, 0.0)
        words = f"decisive part first, {keeper}: ending less beginning"
        start = of(series.decisive_start, keeps)
        add(IGNORES, cell, "higher", words, ending, start, GATE_MARGIN)
        words = f"decisive part first, share of the ending: less {IGNORED}"
        add(IGNORES, cell, "lower", words, series.neutral_share_last, IGNORED, 0.0)
        for gate, name in enumerate(GATES[cell].values()):
            plain = name.partition(" (")[0]
            words = f"{plain}: decisive words less others"
            at, elsewhere = of(series.at_decisive, gate), of(series.elsewhere, gate)
            expected = {"i": "higher", "o": ""}.get(list(GATES[cell])[gate], "lower")
            add(CHOOSES, cell, expected, words, at, elsewhere, GATE_MARGIN)
            words = f"{plain}, decisive less others: trained less untrained"
            before = of(series.untrained_at_decisive, gate) - of(
                series.untrained_elsewhere, gate
            )
            add(CHOOSES, cell, expected, words, at - elsewhere, before, GATE_MARGIN)
        words = "log gradient of a word: decisive less others"
        logs = np.log(series.gradient_at_decisive), np.log(series.gradient_elsewhere)
        add(CHOOSES, cell, "higher", words, *logs, 0.05)
        words = "log gradient of a word: last half less first half"
        logs = np.log(series.gradient_last_half), np.log(series.gradient_first_half)
        add(CARRIES, cell, "", words, *logs, 0.05)
    return statements


def summarise(
    measured: Mapping[str, ReviewSeries],
    prices: Mapping[str, PriceSeries],
    key: jax.Array,
) -> dict[str, Any]:
    """Turn series into what is reported.

    Args:
        measured: On reviews, by cell.
        prices: On prices, by cell.
        key: For the statistics.

    Returns:
        Intervals and statements.
    """
    return {
        "margin_gate": GATE_MARGIN,
        "near_zero": NEAR_ZERO,
        "near_one": NEAR_ONE,
        "ignored": IGNORED,
        "gates": GATES,
        "offsets": OFFSETS,
        "accuracy": {
            cell: mean_of_finite(one.accuracy) for cell, one in measured.items()
        },
        "price_error": {
            cell: mean_of_finite(one.error) for cell, one in prices.items()
        },
        "diverged": {
            "reviews": {
                cell: np.flatnonzero(np.isnan(one.accuracy))
                for cell, one in measured.items()
            },
            "prices": {
                cell: np.flatnonzero(np.isnan(one.error))
                for cell, one in prices.items()
            },
        },
        "statements": list_statements(measured, key),
    }


def mean_of_finite(values: np.ndarray) -> Interval | None:
    """Return the mean over the seeds that have a finite value; None for no seed."""
    finite = np.asarray(values)[np.isfinite(values)]
    return mean_interval(finite) if finite.size else None


def _accuracy(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return ((np.asarray(logits) > 0) == (labels == 1)).mean(axis=-1)
