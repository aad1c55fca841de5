"""Characters counted: what a table of n-grams knows of a text. NumPy, float64."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

#: What is tried for the strength, in characters; a context seen more often than this is
#: believed more than the shorter one.
STRENGTHS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)

_LIMIT = 2**63


class Matches(NamedTuple):
    """How often each character of a text, and its past, stood in a training text.

    Entry n - 1 is of n-grams; before the n-th character of the text there is none, and
    both counts are 0.

    Attributes:
        hits: int64 `[N, T]`, the n - 1 characters before and the character itself.
        contexts: int64 `[N, T]`, the n - 1 characters before, followed by any.
        num_tokens: How many different characters there may be.
    """

    hits: np.ndarray
    contexts: np.ndarray
    num_tokens: int


class Choice(NamedTuple):
    """The n-gram that was best on validation, and its bits a character there."""

    order: int
    strength: float
    bits: float


def longest_order(num_tokens: int) -> int:
    """Return the longest n-grams that int64 can number.

    Examples:
        >>> longest_order(66)
        10
    """
    order = 1
    while num_tokens ** (order + 1) < _LIMIT:
        order += 1
    return order


def match(
    train: np.ndarray, ids: np.ndarray, max_order: int, num_tokens: int
) -> Matches:
    """Look up every character but the first of a text in a training text.

    Args:
        train: int `[M]`, what is counted; at least one.
        ids: int `[T + 1]`, the text.
        max_order: The longest n-gram, N; at most `longest_order(num_tokens)`.
        num_tokens: Tokens are 0 to this less 1.

    Returns:
        The counts for the orders 1 to N.
    """
    num_targets = ids.size - 1
    hits = np.zeros((max_order, num_targets), np.int64)
    contexts = np.zeros_like(hits)
    for order in range(1, max_order + 1):
        # Target t is character t + 1, so that its n-gram ends there.
        first = max(0, order - 2)
        wanted = _codes(ids[1:] if order == 1 else ids, order, num_tokens)
        hits[order - 1, first:] = _count(_codes(train, order, num_tokens), wanted)
        contexts[order - 1, first:] = _count(
            _codes(train[:-1], order - 1, num_tokens)
            if order > 1
            else np.zeros(train.size, np.int64),
            wanted // num_tokens if order > 1 else np.zeros_like(wanted),
        )
    return Matches(hits, contexts, num_tokens)


def bits_per_character(matches: Matches, order: int, strength: float) -> float:
    r"""Score an interpolated n-gram: mean of -log2 of what it gave each character.

        p_0(c) = 1 / V
        p_n(c | h) = (count(h c) + strength p_{n-1}(c | h')) / (count(h) + strength)

    with h the last n - 1 characters and h' the last n - 2: a Dirichlet prior around the
    shorter context.

    Args:
        matches: Of the text to score.
        order: Length n, at most that of the matches.
        strength: Above 0.

    Returns:
        Bits a character.

    References:
        D. MacKay, L. Peto: A hierarchical Dirichlet language model, 1995,
        doi 10.1017/S1351324900000218.
    """
    probability = np.full(matches.hits.shape[1], 1 / matches.num_tokens)
    for hits, contexts in zip(
        matches.hits[:order], matches.contexts[:order], strict=True
    ):
        probability = (hits + strength * probability) / (contexts + strength)
    return float(-np.log2(probability).mean())


def choose(matches: Matches, orders: Sequence[int]) -> Choice:
    """Choose order and strength.

    Args:
        matches: Of the validation text.
        orders: What may be chosen.

    Returns:
        The best of all pairs.
    """
    return min(
        (
            Choice(order, strength, bits_per_character(matches, order, strength))
            for order in orders
            for strength in STRENGTHS
        ),
        key=lambda choice: choice.bits,
    )


def _codes(ids: np.ndarray, order: int, num_tokens: int) -> np.ndarray:
    """Number the n-grams of a text, `[T - n + 1]`."""
    length = max(0, ids.size - order + 1)
    codes = np.zeros(length, np.int64)
    for offset in range(order):
        codes = codes * num_tokens + ids[offset : offset + length]
    return codes


def _count(train: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Count how often each code stands among those of a training text."""
    codes, counts = np.unique(train, return_counts=True)
    if not codes.size:
        return np.zeros(wanted.size, np.int64)
    places = np.minimum(np.searchsorted(codes, wanted), codes.size - 1)
    return np.where(codes[places] == wanted, counts[places], 0)
