"""What became of an arm on an amount of data, and what is read off it."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.reviews.problem import Score
from gated_rnn.statistics import mean_interval

#: A text's "short" sequences end at 100 tokens, its "long" ones begin there.
LONG_TOKENS = 100


class Outcome(NamedTuple):
    """What became of one arm on one amount.

    Attributes:
        arm: Its short name, such as "gru_matched".
        amount: Share of the training part.
        num_reviews: How many those are.
        rate: The learning rate.
        epochs: Epochs before each validation, `[N]`.
        validation: Accuracy, `[S, N]`.
        train_loss: Mean loss of the updates between two validations, `[S, N]`.
        diverged: bool `[S]`.
        score: On test and training reviews.
    """

    arm: str
    amount: float
    num_reviews: int
    rate: float
    epochs: np.ndarray
    validation: np.ndarray
    train_loss: np.ndarray
    diverged: np.ndarray
    score: Score

    @property
    def accuracy(self) -> np.ndarray:
        """Test accuracy of each seed after its best validation, NaN if it diverged."""
        return self.finite(self.score.right.mean(axis=1))

    @property
    def gap(self) -> np.ndarray:
        """Training less test accuracy of each seed after the last update."""
        return self.finite(self.score.train_accuracy - self.score.last_accuracy)

    def finite(self, values: np.ndarray) -> np.ndarray:
        """Put NaN where a seed diverged, `[S]`."""
        return np.where(self.diverged, np.nan, np.asarray(values, np.float64))


def epochs_to(outcome: Outcome, target: float) -> np.ndarray:
    """Count the epochs to the first validation that reaches a target.

    Args:
        outcome: Of an arm.
        target: Validation accuracy.

    Returns:
        float64 `[S]`; infinite for a seed that never reached it.
    """
    reached = outcome.validation >= target
    first = outcome.epochs[reached.argmax(axis=1)]
    return outcome.finite(np.where(reached.any(axis=1), first, np.inf))


def log_reviews_to(
    num_reviews: Sequence[int], accuracy: np.ndarray, target: float
) -> np.ndarray:
    """Read off how many training reviews give a test accuracy, on a straight line.

    Args:
        num_reviews: Of each amount, rising, `[A]`.
        accuracy: Of each seed with each amount, `[S, A]`.
        target: The accuracy.

    Returns:
        float64 `[S]`, log2 of the number where the line between neighbouring amounts,
        over the log of the number, first reaches the target; the smallest amount if
        that does, infinite if none does.

    Examples:
        >>> log_reviews_to([256, 1024], np.array([[0.6, 0.8], [0.5, 0.6]]), 0.7)
        array([ 9., inf])
    """
    places = np.log2(np.asarray(num_reviews, np.float64))
    found = np.full(len(accuracy), np.inf)
    for seed, values in enumerate(np.asarray(accuracy, np.float64)):
        above = np.flatnonzero(values >= target)
        if above.size and above[0] == 0:
            found[seed] = places[0]
        elif above.size:
            low, high = above[0] - 1, above[0]
            share = (target - values[low]) / (values[high] - values[low])
            found[seed] = places[low] + share * (places[high] - places[low])
    return found


def error_of_test_part(first: Outcome, second: Outcome) -> float:
    """Estimate how a mean difference of accuracies would vary with the test part.

    Args:
        first: Of an arm.
        second: Of another, on the same test part.

    Returns:
        The standard error over test reviews of the difference, averaged over seeds.
        Intervals over seeds do not have it: all seeds are tested on the same reviews.
    """
    difference = first.score.right.mean(axis=0) - second.score.right.mean(axis=0)
    return float(difference.std(ddof=1) / math.sqrt(difference.size))


def length_groups(lengths: np.ndarray, unit: str) -> dict[str, np.ndarray]:
    """Group test reviews by their length.

    Args:
        lengths: Tokens of each, `[N]`.
        unit: "words", in thirds, or "characters", below and above 100.

    Returns:
        bool `[N]` for each group that has reviews, the shortest first.
    """
    if unit == "characters":
        edges = [LONG_TOKENS]
    else:
        edges = [int(edge) for edge in np.quantile(lengths, [1 / 3, 2 / 3])]
    ends = [0, *dict.fromkeys(edges), int(max(lengths.max(), edges[-1]))]
    groups = {
        f"{low + 1} to {high}": (lengths > low) & (lengths <= high)
        for low, high in itertools.pairwise(ends)
    }
    return {name: group for name, group in groups.items() if group.any()}


def describe(outcome: Outcome, target: float) -> dict[str, Any]:
    """Summarise an outcome: means over the seeds that did not diverge.

    Args:
        outcome: Of an arm.
        target: Validation accuracy whose epochs are counted.

    Returns:
        Intervals and counts.
    """
    score, healthy = outcome.score, ~outcome.diverged
    epochs = epochs_to(outcome, target)

    def interval(values):
        values = np.asarray(values, np.float64)
        kept = values[np.isfinite(values) & healthy]
        return mean_interval(kept) if kept.size else None

    return {
        "num_reviews": outcome.num_reviews,
        "learning_rate": outcome.rate,
        "test_accuracy": interval(outcome.accuracy),
        "test_loss": interval(score.loss),
        "last_test_accuracy": interval(score.last_accuracy),
        "last_test_loss": interval(score.last_loss),
        "last_train_accuracy": interval(score.train_accuracy),
        "last_train_loss": interval(score.train_loss),
        "gap": interval(outcome.gap),
        "best_validation": interval(outcome.validation.max(axis=1)),
        "epochs_to_target": interval(epochs),
        "share_reaching_target": float(np.isfinite(epochs).mean()),
        "diverged_seeds": np.flatnonzero(outcome.diverged),
    }


def series(outcome: Outcome, groups: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Give what the record keeps of every seed.

    Args:
        outcome: Of an arm.
        groups: Of the test part, by length.

    Returns:
        Arrays, seeds on axis 0; rounded, for the record is read by people too.
    """
    score = outcome.score
    kept = {
        "validation_accuracy": outcome.validation,
        "train_loss": outcome.train_loss,
        "test_accuracy": score.right.mean(axis=1),
        "test_loss": score.loss,
        "last_test_accuracy": score.last_accuracy,
        "last_test_loss": score.last_loss,
        "last_train_accuracy": score.train_accuracy,
        "last_train_loss": score.train_loss,
        "test_accuracy_by_length": np.stack(
            [score.right[:, group].mean(axis=1) for group in groups.values()], axis=1
        ),
    }
    return {
        "seeds": np.arange(len(outcome.diverged)),
        **{
            name: np.round(np.asarray(values, np.float64), 5)
            for name, values in kept.items()
        },
    }
