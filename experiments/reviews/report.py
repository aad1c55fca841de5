"""What the runs say about the texts' claims, in numbers; `tables.py` shows them.

Margins and measures are those of this file, written down before any full run.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from experiments.reviews.outcomes import Outcome, epochs_to, log_reviews_to
from experiments.verdicts import Comparison, compare

#: One point of accuracy, of some 75, does not matter: another test part of 2,000
#: reviews would move each of the two by as much.
ACCURACY_MARGIN = 0.01
#: The gap is a difference of two accuracies; the same point.
GAP_MARGIN = 0.01
#: A third of an epoch lies between two validations; what is within one does not count.
EPOCHS_MARGIN = 0.5
#: A tenth more reviews, or time: half of the smallest saving that the texts claim.
NEED_MARGIN = TIME_MARGIN = math.log2(1.1)

#: What the texts compare, with as many units and with as many parameters.
PAIRS = [("gru", "lstm"), ("gru_matched", "lstm")]
#: What they say a plain network cannot do.
PLAIN_PAIRS = [("lstm", "elman"), ("gru", "elman"), ("elman_matched", "lstm")]

#: By arm and amount.
Outcomes = dict[tuple[str, float], Outcome]


class Results(NamedTuple):
    """All that was trained on one form of the reviews.

    Attributes:
        plain: With the learning rate of the texts, by arm and amount.
        tuned: With tuned rates, the same.
        bags: Test accuracy of naive Bayes for each seed, by amount, `[S]`.
        majority: Test accuracy of the commoner label.
        groups: From `length_groups`, of the test part.
    """

    plain: Outcomes
    tuned: Outcomes
    bags: dict[float, np.ndarray]
    majority: float
    groups: dict[str, np.ndarray]


def compare_all(
    words: Results,
    characters: Results | None,
    rounds: Mapping[str, Sequence[float]],
    target: float,
    key: jax.Array,
) -> dict[str, list[Comparison]]:
    """Compare the arms by every measure that a text has a claim on.

    Args:
        words: The reviews as words.
        characters: As characters, if they were read so.
        rounds: Seconds of each arm, a number a round.
        target: Accuracy that is to be reached.
        key: For the resamples.

    Returns:
        Comparisons by what they are about; without what there is nothing to compare.
    """
    judge = _Judge(key)
    found = {
        "accuracy": _compare_accuracies(judge, words.plain, PAIRS + PLAIN_PAIRS),
        "tuned": _compare_accuracies(judge, words.tuned, PAIRS + PLAIN_PAIRS),
        "gap": _compare_gaps(judge, words.plain),
        "need": _compare_needs(judge, words.plain, target),
        "interaction": _compare_advantages(judge, words),
        "length": _compare_lengths(judge, words, "words"),
        "baseline": _compare_with_bags(judge, words),
        "time": [
            judge(
                "log2 of the time of an update",
                {arm: np.log2(rounds[arm]) for arm in pair},
                *pair,
                margin=TIME_MARGIN,
            )
            for pair in _pairs_of(rounds, PAIRS)
        ],
    }
    if characters is not None:
        found["length"] += _compare_lengths(judge, characters, "characters")
    return {name: rows for name, rows in found.items() if rows}


class _Judge:
    """Compares, with resamples of its own each time."""

    def __init__(self, key: jax.Array):
        self._key, self._number = key, 0

    def __call__(
        self, measure, scores, first, second, *, margin=ACCURACY_MARGIN
    ) -> Comparison:
        self._number += 1
        key = jax.random.fold_in(self._key, self._number)
        return compare(measure, scores, first, second, key, margin=margin)


def _accuracy(outcome: Outcome) -> np.ndarray:
    return outcome.accuracy


def _gap(outcome: Outcome) -> np.ndarray:
    return outcome.gap


def _pairs_of(arms, pairs) -> list[tuple[str, str]]:
    return [pair for pair in pairs if set(pair) <= set(arms)]


def _amounts(outcomes: Outcomes) -> list[float]:
    return sorted({amount for _, amount in outcomes})


def _by_arm(outcomes: Outcomes, amount: float, take) -> dict[str, np.ndarray]:
    """Take something of the outcome of each arm on an amount, `[S]`."""
    return {arm: take(one) for (arm, at), one in outcomes.items() if at == amount}


def _compare_accuracies(judge, outcomes, pairs) -> list[Comparison]:
    rows = []
    for amount in _amounts(outcomes):
        scores = _by_arm(outcomes, amount, _accuracy)
        name = f"accuracy, {amount:.0%}"
        rows += [judge(name, scores, *pair) for pair in _pairs_of(scores, pairs)]
    return rows


def _compare_gaps(judge, outcomes) -> list[Comparison]:
    rows = []
    for amount in _amounts(outcomes):
        scores = _by_arm(outcomes, amount, _gap)
        name = f"train less test accuracy at the end, {amount:.0%}"
        rows += [
            judge(name, scores, *pair, margin=GAP_MARGIN)
            for pair in _pairs_of(scores, PAIRS)
        ]
    return rows


def _compare_needs(judge, outcomes, target) -> list[Comparison]:
    """Compare the epochs on all data, and the reviews, that a target takes."""
    amounts = _amounts(outcomes)
    epochs = _by_arm(outcomes, amounts[-1], lambda one: epochs_to(one, target))
    pairs = _pairs_of(epochs, PAIRS)
    name = f"epochs to validation accuracy {target:g}"
    rows = [judge(name, epochs, *pair, margin=EPOCHS_MARGIN) for pair in pairs]
    if len(amounts) == 1:
        return rows
    reviews = {}
    for arm in epochs:
        row = [outcomes[arm, amount] for amount in amounts]
        accuracy = np.stack([one.accuracy for one in row], axis=1)
        sizes = [one.num_reviews for one in row]
        reviews[arm] = log_reviews_to(sizes, accuracy, target)
    name = f"log2 of the reviews to test accuracy {target:g}"
    return rows + [judge(name, reviews, *pair, margin=NEED_MARGIN) for pair in pairs]


def _compare_advantages(judge, words) -> list[Comparison]:
    """Ask whether what the GRU has over the LSTM depends on the amount of data."""
    rows = []
    for measure, outcomes, take in (
        ("accuracy", words.plain, _accuracy),
        ("accuracy, tuned", words.tuned, _accuracy),
        ("train less test accuracy", words.plain, _gap),
    ):
        amounts = [at for at in _amounts(outcomes) if _has_both(outcomes, at)]
        if len(amounts) > 1:
            scores = {}
            for name, amount in (("little", amounts[0]), ("all", amounts[-1])):
                values = _by_arm(outcomes, amount, take)
                scores[name] = values["gru"] - values["lstm"]
            rows.append(judge(f"GRU less LSTM in {measure}", scores, "little", "all"))
    return rows


def _has_both(outcomes: Outcomes, amount: float) -> bool:
    return {("gru", amount), ("lstm", amount)} <= outcomes.keys()


def _compare_lengths(judge, results, unit) -> list[Comparison]:
    """Compare on short and on long reviews, and ask whether that makes a difference."""
    amount = _amounts(results.plain)[-1]
    if not _has_both(results.plain, amount):
        return []
    rows, advantages = [], []
    for name, group in results.groups.items():
        scores = {}
        for arm in ("gru", "lstm"):
            one = results.plain[arm, amount]
            scores[arm] = one.finite(one.score.right[:, group].mean(axis=1))
        rows.append(judge(f"accuracy, {name} {unit}", scores, "gru", "lstm"))
        advantages.append(scores["gru"] - scores["lstm"])
    if len(advantages) > 1:
        scores = {"short": advantages[0], "long": advantages[-1]}
        name = f"GRU less LSTM in accuracy, {unit}"
        rows.append(judge(name, scores, "short", "long"))
    return rows


def _compare_with_bags(judge, words) -> list[Comparison]:
    amounts = _amounts(words.plain)
    rows = []
    for amount in sorted({amounts[0], amounts[-1]}):
        scores = _by_arm(words.plain, amount, _accuracy)
        scores["bag"] = words.bags[amount]
        name = f"accuracy, {amount:.0%}"
        pairs = _pairs_of(scores, [("lstm", "bag"), ("gru", "bag")])
        rows += [judge(name, scores, *pair) for pair in pairs]
    return rows
