"""From labelled texts to padded numbers: tokens, stratified parts, subsets.

Layer: experiments (data).
"""

import re
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np

from experiments.data.padding import pad
from experiments.data.reviews import Reviews
from experiments.data.splits import check_share
from experiments.data.vocabulary import Vocabulary, words_by_frequency
from gated_rnn.types import invalid

#: A word with its apostrophes, or one sign.
_TOKEN = re.compile(r"\w+(?:['\u2019]\w+)*|[^\w\s]")
_LINE_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)  # IMDb has them

Tokenizer = Callable[[str], list[str]]


class Parts(NamedTuple):
    """Reviews to train on, to validate on and to test on."""

    train: Reviews
    valid: Reviews
    test: Reviews


class Encoded(NamedTuple):
    """Reviews in numbers, side by side.

    Attributes:
        tokens: int32 `[T, B]`; 0, `<pad>`, after a review's end.
        lengths: int32 `[B]`, tokens of each review, at least 1.
        labels: int32 `[B]`, 1 for positive.
    """

    tokens: np.ndarray
    lengths: np.ndarray
    labels: np.ndarray


def words(text: str) -> list[str]:
    """Cut a text into lower-case words and single signs.

    Args:
        text: The text; HTML line breaks count as spaces.

    Returns:
        The tokens; at least one unless the text is blank or all line breaks.

    Examples:
        >>> words("It's GOOD.<br />Isn't it?")
        ["it's", 'good', '.', "isn't", 'it', '?']
    """
    return _TOKEN.findall(_LINE_BREAK.sub(" ", text).lower())


def characters(text: str) -> list[str]:
    """Cut a text into its characters, in lower case.

    Examples:
        >>> characters("So!")
        ['s', 'o', '!']
    """
    return list(text.lower())


def make_vocabulary(
    train: Reviews,
    tokenizer: Tokenizer = words,
    *,
    max_size: int | None = None,
    min_count: int = 1,
) -> Vocabulary:
    """Make the vocabulary of the training part: `<pad>` 0, `<unk>` 1, then by count.

    Args:
        train: The training part, and no other.
        tokenizer: `words` or `characters`.
        max_size: As in `words_by_frequency`.
        min_count: As in `words_by_frequency`.

    Returns:
        The vocabulary.
    """
    texts = map(tokenizer, train.texts)
    return words_by_frequency(texts, max_size=max_size, min_count=min_count)


def split_reviews(
    reviews: Reviews, seed: int, *, valid_share: float = 0.1, test_share: float = 0.1
) -> Parts:
    """Draw parts that have the labels in the same proportion.

    Args:
        reviews: All reviews.
        seed: The draw; the same seed gives the same parts.
        valid_share: Share to validate on, of each label, rounded down.
        test_share: Share to test on, of each label, rounded down; 0 where the
            collection has a test part of its own.

    Returns:
        The parts, each shuffled.

    Raises:
        ValueError: If a share is out of range or leaves nothing to train on.
    """
    check_share("valid_share", valid_share)
    check_share("test_share", test_share)
    generator = np.random.default_rng(seed)
    rows: tuple[list, list, list] = ([], [], [])
    for label in np.unique(reviews.labels):
        mine = generator.permutation(np.flatnonzero(reviews.labels == label))
        num_test, num_valid = int(mine.size * test_share), int(mine.size * valid_share)
        cuts = (mine.size - num_valid - num_test, mine.size - num_test)
        for part, taken in zip(rows, np.split(mine, cuts), strict=True):
            part.append(taken)
        if cuts[0] < 1:
            expected = "shares that leave something of each label to train on"
            got = f"{valid_share} and {test_share} of {mine.size}"
            raise invalid("valid_share and test_share", expected, got)
    parts = [generator.permutation(np.concatenate(part)) for part in rows]
    return Parts(*(reviews.take(part) for part in parts))


def take_fraction(reviews: Reviews, fraction: float, seed: int) -> Reviews:
    """Draw a subset that has the labels in the same proportion.

    The subsets of one seed are nested: a larger fraction has all of a smaller one.

    Args:
        reviews: The training part.
        fraction: Share of each label, in (0, 1], at least one text of each.
        seed: The draw.

    Returns:
        The subset, in the order of `reviews`.

    Raises:
        ValueError: If the fraction is out of range.
    """
    check_share("fraction", fraction, whole=True)
    generator = np.random.default_rng(seed)
    kept = []
    for label in np.unique(reviews.labels):
        mine = generator.permutation(np.flatnonzero(reviews.labels == label))
        kept.append(mine[: max(1, round(mine.size * fraction))])
    return reviews.take(np.sort(np.concatenate(kept)))


def encode(
    reviews: Reviews,
    vocabulary: Vocabulary,
    tokenizer: Tokenizer = words,
    *,
    num_steps: int | None = None,
    keep: Literal["start", "end"] = "start",
) -> Encoded:
    """Number the tokens of reviews and put them side by side.

    Args:
        reviews: The reviews of one part.
        vocabulary: That of the training part.
        tokenizer: The one that the vocabulary was made with.
        num_steps: T; longer reviews are cut. None for the longest.
        keep: Which part of a review that is cut.

    Returns:
        Time-major numbers, lengths and labels. A text of no token is one `<unk>`.

    Raises:
        ValueError: If there is no review, or an option is out of range.
    """
    ids = [vocabulary.encode(tokenizer(text) or [""]) for text in reviews.texts]
    tokens, lengths = pad(ids, num_steps=num_steps, keep=keep)
    return Encoded(tokens, lengths, reviews.labels)
