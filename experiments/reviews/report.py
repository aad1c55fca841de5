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


class Results(NamedTuple):
    """All that was trained on one form of the reviews.

    Attributes:
        plain: With the learning rate of the texts, by arm and amount.
        tuned: With tuned rates, the same.
        bags: Test accuracy of naive Bayes for each seed, by amount, `[S]`.
        majority: Test accuracy of the commoner label.
        groups: From `length_groups`, of the test part.
    """

    plain: dict[tuple[str, float], Outcome]
    tuned: dict[tuple[str, float], Outcome]
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
    arms = list(dict.fromkeys(arm for arm, _ in words.plain))
    amounts = list(dict.fromkeys(amount for _, amount in words.plain))
    pairs = [("gru", "lstm"), ("gru_matched", "lstm")]
    others = [*pairs, ("lstm", "elman"), ("gru", "elman"), ("elman_matched", "lstm")]

    def both(pairs):
        return [pair for pair in pairs if set(pair) <= set(arms)]

    def by(outcomes, amount, take):
        return {arm: take(one) for (arm, at), one in outcomes.items() if at == amount}

    def advantage(outcomes, amount, take):
        values = by(outcomes, amount, take)
        return values["gru"] - values["lstm"]

    def accuracy(outcome):
        return outcome.accuracy

    found = {
        "accuracy": [
            judge(f"accuracy, {amount:.0%}", by(words.plain, amount, accuracy), *pair)
            for amount in amounts
            for pair in both(others if amount == amounts[-1] else pairs)
        ],
        "tuned": [
            judge(f"accuracy, {amount:.0%}", by(words.tuned, amount, accuracy), *pair)
            for amount in dict.fromkeys(amount for _, amount in words.tuned)
            for pair in both(pairs[:1])
        ],
        "gap": [
            judge(
                f"train less test accuracy at the end, {amount:.0%}",
                by(words.plain, amount, lambda outcome: outcome.gap),
                *pair,
                margin=GAP_MARGIN,
            )
            for amount in amounts
            for pair in both(pairs)
        ],
        "baseline": [
            judge(
                f"accuracy, {amount:.0%}",
                {"bag": words.bags[amount], **by(words.plain, amount, accuracy)},
                arm,
                "bag",
            )
            for amount in dict.fromkeys((amounts[0], amounts[-1]))
            for arm in arms
            if arm in ("lstm", "gru")
        ],
    }
    sizes = [words.plain[arms[0], amount].num_reviews for amount in amounts]
    need = {
        arm: log_reviews_to(
            sizes,
            np.stack([words.plain[arm, one].accuracy for one in amounts], axis=1),
            target,
        )
        for arm in arms
    }
    needed_epochs = by(words.plain, amounts[-1], lambda o: epochs_to(o, target))
    found["need"] = [
        judge(
            f"epochs to validation accuracy {target:g}",
            needed_epochs,
            *pair,
            margin=EPOCHS_MARGIN,
        )
        for pair in both(pairs)
    ]
    if len(amounts) > 1:
        found["need"] += [
            judge(
                f"log2 of the reviews to test accuracy {target:g}",
                need,
                *pair,
                margin=NEED_MARGIN,
            )
            for pair in both(pairs)
        ]
    if both([("gru", "lstm")]):
        found["interaction"] = _interactions(judge, words, amounts, advantage)
        found["length"] = _by_length(judge, words, characters, amounts[-1])
    found["time"] = [
        judge(
            "log2 of the time of an update",
            {arm: np.log2(values) for arm, values in rounds.items()},
            *pair,
            margin=TIME_MARGIN,
        )
        for pair in both(pairs)
        if all(rounds.get(arm) for arm in pair)
    ]
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


def _interactions(judge, words, amounts, advantage) -> list[Comparison]:
    """Ask whether what the GRU has over the LSTM depends on the amount of data."""
    rows = []
    measures = {
        "accuracy": (words.plain, lambda outcome: outcome.accuracy),
        "accuracy, tuned": (words.tuned, lambda outcome: outcome.accuracy),
        "train less test accuracy": (words.plain, lambda outcome: outcome.gap),
    }
    for measure, (outcomes, take) in measures.items():
        known = [amount for amount in amounts if ("gru", amount) in outcomes]
        if len(known) > 1:
            scores = {
                "little": advantage(outcomes, known[0], take),
                "all": advantage(outcomes, known[-1], take),
            }
            name = f"GRU less LSTM in {measure}"
            rows.append(judge(name, scores, "little", "all"))
    return rows


def _by_length(judge, words, characters, amount) -> list[Comparison]:
    """Ask the same of the length of the reviews, and of words against characters."""

    def accuracies(results, at):
        return {
            name: {
                arm: results.plain[arm, at].finite(
                    results.plain[arm, at].score.right[:, group].mean(axis=1)
                )
                for arm in ("gru", "lstm")
            }
            for name, group in results.groups.items()
        }

    rows = []
    forms = {"words": (words, amount)}
    if (
        characters is not None
        and {("gru", 1.0), ("lstm", 1.0)} <= characters.plain.keys()
    ):
        forms["characters"] = (characters, 1.0)
    for unit, (results, at) in forms.items():
        by_group = accuracies(results, at)
        rows += [
            judge(f"accuracy, {name} {unit}", scores, "gru", "lstm")
            for name, scores in by_group.items()
        ]
        if len(by_group) > 1:
            ends = [list(by_group.values())[at] for at in (0, -1)]
            advantages = [one["gru"] - one["lstm"] for one in ends]
            scores = dict(zip(("short", "long"), advantages, strict=True))
            name = f"GRU less LSTM in accuracy, {unit}"
            rows.append(judge(name, scores, "short", "long"))
    return rows
