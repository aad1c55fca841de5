"""What the networks are shown: test reviews, decisive words, and pairs of reviews."""

from typing import NamedTuple

import numpy as np

from experiments.command import UsageError
from experiments.data.padding import pad
from experiments.data.review_batches import Encoded
from experiments.reviews.baselines import Bag, is_real

#: Of the draw of who stands beside whom, the same for all seeds.
_PAIR_SEED = 3


class Pairs(NamedTuple):
    """A decisive and a neutral review, alone and one after the other.

    All are padded to one length, so that one program reads them.

    Attributes:
        decisive: `[T, P]`.
        neutral: `[T, P]`.
        decisive_first: The decisive one, then the neutral one.
        decisive_last: The neutral one, then the decisive one.
    """

    decisive: Encoded
    neutral: Encoded
    decisive_first: Encoded
    decisive_last: Encoded


def find_decisive(reviews: Encoded, bag: Bag, share: float) -> np.ndarray:
    """Mark the words that a linear classifier weighs most, of either sign.

    Args:
        reviews: B reviews.
        bag: The classifier, fitted on other reviews.
        share: Of all words, how many; ties may make it more.

    Returns:
        bool `[T, B]`; false beyond a review's end.
    """
    real = is_real(reviews)
    sizes = np.abs(bag.weights)[reviews.tokens]
    return real & (sizes >= np.quantile(sizes[real], 1 - share))


def make_pairs(reviews: Encoded, bag: Bag, num_pairs: int) -> Pairs:
    """Put decisive reviews beside neutral ones.

    Only reviews of at most half of T words take part. Decisive are, of each label, the
    `num_pairs / 2` that the classifier is surest of and right about; neutral are those
    whose sum is nearest to none.

    Args:
        reviews: `[T, B]`, of the test part.
        bag: The classifier, fitted on other reviews.
        num_pairs: P, even.

    Returns:
        The pairs; labels are those of the decisive review.

    Raises:
        UsageError: If there are too few short reviews.
    """
    num_steps, half = len(reviews.tokens), num_pairs // 2
    sums = bag.judge(reviews)
    short = 2 * reviews.lengths <= num_steps
    decisive = []
    for label, sign in ((0, -1), (1, 1)):
        mine = np.flatnonzero(short & (reviews.labels == label) & (sign * sums > 0))
        decisive.append(mine[np.argsort(-np.abs(sums[mine]), kind="stable")][:half])
    rest = np.setdiff1d(np.flatnonzero(short), np.concatenate(decisive))
    neutral = rest[np.argsort(np.abs(sums[rest]), kind="stable")][:num_pairs]
    if min(map(len, decisive)) < half or len(neutral) < num_pairs:
        raise UsageError(
            f"The test part has too few reviews of at most {num_steps // 2} words for "
            f"{num_pairs} pairs: give fewer --num-pairs, or more --num-words."
        )
    neutral = np.random.default_rng(_PAIR_SEED).permutation(neutral)
    firsts, seconds = (
        _words(reviews, np.concatenate(decisive)),
        _words(reviews, neutral),
    )
    labels = np.repeat(np.array([0, 1], np.int32), half)
    joined = [np.concatenate(both) for both in zip(firsts, seconds, strict=True)]
    swapped = [np.concatenate(both) for both in zip(seconds, firsts, strict=True)]
    return Pairs(
        *(
            Encoded(*pad(texts, num_steps=num_steps), labels)
            for texts in (firsts, seconds, joined, swapped)
        )
    )


def in_first_part(whole: Encoded, part: Encoded) -> np.ndarray:
    """Mark the words of the part that comes first.

    Args:
        whole: Of `Pairs`, both parts.
        part: The part that comes first, alone.

    Returns:
        bool `[T, P]`.
    """
    return np.arange(len(whole.tokens))[:, None] < part.lengths


def _words(reviews: Encoded, rows: np.ndarray) -> list[np.ndarray]:
    return [reviews.tokens[: reviews.lengths[row], row] for row in rows]
