"""Reviews in numbers, cut once into parts, and what a seed draws of the training part.

A draw is a pure function of a key: which reviews a seed has, in which order, and which
tokens it therefore knows.
"""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.data import review_batches
from experiments.data.review_batches import Encoded
from experiments.data.reviews import Collected
from experiments.data.vocabulary import Vocabulary
from gated_rnn import lengths_to_mask

Unit = Literal["words", "characters"]
TOKENIZERS = {"words": review_batches.words, "characters": review_batches.characters}


class Corpus(NamedTuple):
    """A collection in tokens of one kind.

    Attributes:
        vocabulary: That of the training part.
        train: What seeds draw from.
        valid: What choices are made on.
        test: What is reported.
    """

    vocabulary: Vocabulary
    train: Encoded
    valid: Encoded
    test: Encoded


class Draw(NamedTuple):
    """What a seed draws of the training part.

    Attributes:
        chosen: bool `[N]`, the reviews that the seed has.
        order: int32 `[E, N]`, for each epoch the numbers of those reviews in an order
            of its own; the others follow, and are not used.
        num_chosen: int32, how many they are.
        known: bool `[V]`, the tokens that come often enough among the chosen; any other
            is `<unk>`.
    """

    chosen: Any
    order: Any
    num_chosen: Any
    known: Any


def make_corpus(
    collected: Collected,
    unit: Unit,
    *,
    num_steps: int,
    split_seed: int,
    valid_share: float = 0.1,
    test_share: float = 0.2,
    min_count: int = 2,
    max_vocabulary: int | None = None,
    keep: Literal["start", "end"] = "start",
) -> Corpus:
    """Cut a collection into parts and number its tokens.

    Args:
        collected: From `load_reviews`; its own test part is used where there is one.
        unit: What a token is.
        num_steps: Tokens of a review at most.
        split_seed: The draw of the parts.
        valid_share: Share to validate on.
        test_share: Share to test on, without a test part of its own.
        min_count: A token that comes less often in the training part is `<unk>`.
        max_vocabulary: Number of tokens at most; None: no limit.
        keep: Which end of a longer review is kept.

    Returns:
        The corpus; the vocabulary has seen the training part alone.
    """
    own = collected.test
    parts = review_batches.split_reviews(
        collected.reviews,
        split_seed,
        valid_share=valid_share,
        test_share=test_share if own is None else 0.0,
    )
    if own is not None:
        parts = parts._replace(test=own)
    tokenizer = TOKENIZERS[unit]
    vocabulary = review_batches.make_vocabulary(
        parts.train, tokenizer, min_count=min_count, max_size=max_vocabulary
    )
    encoded = (
        review_batches.encode(
            part, vocabulary, tokenizer, num_steps=num_steps, keep=keep
        )
        for part in parts
    )
    return Corpus(vocabulary, *encoded)


def count_chosen(labels: np.ndarray, amount: float) -> np.ndarray:
    """Count the reviews of each label in a share of the training part.

    Args:
        labels: int32 `[N]`, 0 or 1.
        amount: The share, in (0, 1].

    Returns:
        int32 `[2]`, each at least 1.
    """
    counts = np.bincount(labels, minlength=2)
    return np.maximum(1, np.round(counts * amount)).astype(np.int32)


def draw_reviews(
    train: Encoded,
    counts: jax.Array,
    key: jax.Array,
    *,
    num_epochs: int,
    vocabulary_size: int,
    min_count: int,
) -> Draw:
    """Draw some reviews of each label, and the order in which they are learned.

    With one key, the draw with smaller counts is a part of that with larger ones.

    Args:
        train: The training part.
        counts: int32 `[2]`, from `count_chosen`; traced, so that all amounts share one
            program.
        key: The seed's own.
        num_epochs: E.
        vocabulary_size: V.
        min_count: A token that comes less often among the chosen is not known.

    Returns:
        The draw.
    """
    subset_key, order_key = jax.random.split(key)
    labels = jnp.asarray(train.labels)
    numbers = jnp.arange(labels.size)
    shuffled = jnp.lexsort((jax.random.uniform(subset_key, labels.shape), labels))
    place = jnp.zeros_like(numbers).at[shuffled].set(numbers)
    first = jnp.stack([0, jnp.sum(labels == 0)])  # negative ones stand before positive
    chosen = place - first[labels] < counts[labels]

    def order(epoch: jax.Array) -> jax.Array:
        noise = jax.random.uniform(jax.random.fold_in(order_key, epoch), labels.shape)
        return jnp.argsort(jnp.where(chosen, noise, jnp.inf)).astype(jnp.int32)

    real = lengths_to_mask(jnp.asarray(train.lengths), len(train.tokens)) & chosen
    occurs = jnp.zeros(vocabulary_size, jnp.int32).at[train.tokens].add(real)
    return Draw(
        chosen,
        jax.vmap(order)(jnp.arange(num_epochs)),
        chosen.sum(),
        occurs >= min_count,
    )


def take_batch(
    train: Encoded,
    unknown_id: int,
    batch_size: int,
    step: jax.Array,
    draw: Draw,
) -> Encoded:
    """Take the batch of an update; epochs follow each other without a short batch.

    Args:
        train: The training part.
        unknown_id: Stands for tokens that are not known.
        batch_size: B.
        step: Number of the update, from 0.
        draw: The seed's own; it must have the epochs that are asked for.

    Returns:
        B reviews.
    """
    position = step * batch_size + jnp.arange(batch_size)
    rows = draw.order[position // draw.num_chosen, position % draw.num_chosen]
    return hide_unknown(take_reviews(train, rows), unknown_id, draw.known)


def take_reviews(reviews: Encoded, rows: jax.Array) -> Encoded:
    """Take the reviews of the given numbers, in that order."""
    return Encoded(reviews.tokens[:, rows], reviews.lengths[rows], reviews.labels[rows])


def hide_unknown(reviews: Encoded, unknown_id: int, known: jax.Array) -> Encoded:
    """Replace the tokens that a seed does not know.

    Args:
        reviews: Any part.
        unknown_id: What stands for them.
        known: bool `[V]`, of the seed's draw.

    Returns:
        The reviews.
    """
    tokens = jnp.where(known[reviews.tokens], reviews.tokens, unknown_id)
    return reviews._replace(tokens=tokens)
