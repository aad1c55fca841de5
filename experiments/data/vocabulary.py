"""The tokens that a training text has, and their numbers. Layer: experiments (data)."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple, Self

import numpy as np

from gated_rnn.types import check_positive, invalid

PAD = "<pad>"
UNKNOWN = "<unk>"


class Vocabulary(NamedTuple):
    """Tokens by number.

    Attributes:
        tokens: Every token, its place is its number; among them `<unk>`.
        ids: The number of each token.
    """

    tokens: tuple[str, ...]
    ids: Mapping[str, int]

    @classmethod
    def of(cls, tokens: Iterable[str]) -> Self:
        """Number tokens in the order given.

        Raises:
            ValueError: If a token comes twice or `<unk>` is not among them.
        """
        tokens = tuple(tokens)
        ids = {token: at for at, token in enumerate(tokens)}
        if len(ids) < len(tokens) or UNKNOWN not in ids:
            raise invalid("tokens", f"each token once, {UNKNOWN} too", str(tokens[:9]))
        return cls(tokens, ids)

    @property
    def unknown_id(self) -> int:
        """Number of what is not in the vocabulary."""
        return self.ids[UNKNOWN]

    def encode(self, tokens: Iterable[str]) -> np.ndarray:
        """Number the tokens of a text.

        Args:
            tokens: Words, or a string for its characters.

        Returns:
            int32 `[N]`; `unknown_id` for a token that is not in the vocabulary. The
            names of the special tokens, should a text contain them, are unknown too.

        Examples:
            >>> Vocabulary.of(["<unk>", "a", "b"]).encode("abxa")
            array([1, 2, 0, 1], dtype=int32)
        """
        unknown = self.unknown_id
        special = {PAD: unknown, UNKNOWN: unknown}
        ids = {**self.ids, **special}
        return np.fromiter((ids.get(token, unknown) for token in tokens), np.int32)


def words_by_frequency(
    texts: Iterable[Iterable[str]], *, max_size: int | None = None, min_count: int = 1
) -> Vocabulary:
    """Make a vocabulary of the commonest tokens: `<pad>` is 0, `<unk>` is 1.

    Args:
        texts: Tokens of each text of the training part, and of no other.
        max_size: Number of tokens at most, the two special ones included; None for all.
        min_count: Leave out tokens that come less often.

    Returns:
        The vocabulary, the commonest token first; equally common ones by alphabet.

    Raises:
        ValueError: If an option is not positive.

    Examples:
        >>> words_by_frequency([["so", "good"], ["good"]]).tokens
        ('<pad>', '<unk>', 'good', 'so')
    """
    check_positive("min_count", min_count)
    if max_size is not None:
        check_positive("max_size", max_size)
    counts = Counter()
    for tokens in texts:
        counts.update(tokens)
    special = (PAD, UNKNOWN)
    common = [
        token
        for token, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        if count >= min_count and token not in special
    ]
    room = None if max_size is None else max(max_size - len(special), 0)
    return Vocabulary.of([*special, *common[:room]])
