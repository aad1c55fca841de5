"""What needs no network: the commoner label, and a bag of tokens."""

from typing import NamedTuple

import numpy as np

from experiments.data.review_batches import Encoded

#: Added to the count of every token; what is best is chosen on validation data.
SMOOTHINGS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)


class Bag(NamedTuple):
    """A linear classifier of the tokens of a review, whatever their order.

    Attributes:
        weights: float64 `[V]`, added for every token that comes.
        bias: Added once; a positive sum means a positive review.
    """

    weights: np.ndarray
    bias: float

    def judge(self, reviews: Encoded) -> np.ndarray:
        """Return the sum for each review, float64 `[N]`."""
        values = np.where(is_real(reviews), self.weights[reviews.tokens], 0.0)
        return values.sum(axis=0) + self.bias

    def accuracy(self, reviews: Encoded) -> float:
        """Return the share of reviews that are judged rightly."""
        return float(np.mean((self.judge(reviews) > 0) == (reviews.labels == 1)))


def is_real(reviews: Encoded) -> np.ndarray:
    """Tell which tokens `[T, N]` stand before a review's end."""
    return np.arange(len(reviews.tokens))[:, None] < reviews.lengths


def fit_naive_bayes(train: Encoded, vocabulary_size: int, smoothing: float) -> Bag:
    """Fit a multinomial naive Bayes classifier.

        weight_w = log (n_w,1 + a) / sum_v (n_v,1 + a)  -  the same of label 0

    with n_w,c how often token w comes in reviews of label c, and a the smoothing.

    Args:
        train: Reviews of both labels.
        vocabulary_size: V.
        smoothing: a, above 0.

    Returns:
        The classifier; its bias is the log ratio of the numbers of reviews.
    """
    logs, real = [], is_real(train)
    for label in (0, 1):
        tokens = train.tokens[real & (train.labels == label)]
        counts = np.bincount(tokens, minlength=vocabulary_size) + smoothing
        logs.append(np.log(counts / counts.sum()))
    sizes = np.bincount(train.labels, minlength=2)
    return Bag(logs[1] - logs[0], float(np.log(sizes[1] / sizes[0])))


def choose_naive_bayes(train: Encoded, valid: Encoded, vocabulary_size: int) -> Bag:
    """Fit with every one of `SMOOTHINGS`; return the best on validation data."""
    bags = [fit_naive_bayes(train, vocabulary_size, one) for one in SMOOTHINGS]
    return max(bags, key=lambda bag: bag.accuracy(valid))


def majority_accuracy(train: Encoded, test: Encoded) -> float:
    """Score the label that most training reviews have; positive if none does."""
    commoner = int(2 * train.labels.sum() >= train.labels.size)
    return float(np.mean(test.labels == commoner))
