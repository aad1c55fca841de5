"""What is trained: an embedding, a recurrent layer, a logit of its outputs."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.arms import Arm, score_seeds
from experiments.cells import LABELS, count_cell_parameters, make_cell, match_units
from experiments.data.review_batches import Encoded
from experiments.reviews.config import MATCHED, ArmName, Config, Form, Readout
from experiments.reviews.corpus import (
    Corpus,
    Draw,
    count_chosen,
    draw_reviews,
    hide_unknown,
    take_batch,
    take_reviews,
)
from gated_rnn import (
    RNN,
    Dense,
    Embedding,
    LastStep,
    MaskedMean,
    Stack,
    lengths_to_mask,
    losses,
)
from gated_rnn.networks import Network
from gated_rnn.training import Problem, SeedResult
from gated_rnn.training.loop import start_run

Partial = jax.tree_util.Partial

#: Reviews that are judged at once: memory for a whole test part may not be there.
JUDGED_AT_ONCE = 512


def make_network(
    vocabulary_size: int,
    cell: str,
    *,
    embedding_features: int,
    hidden_features: int,
    dropout: float = 0.0,
    readout: Readout = "last",
) -> Stack:
    """Build the network.

    Args:
        vocabulary_size: How many tokens there are.
        cell: One of `experiments.cells.CellName`.
        embedding_features: Features of a token.
        hidden_features: Units of the recurrent layer.
        dropout: Probability of losing a feature of the tokens, the same ones at all
            steps of a review, and of losing a feature of what is read out.
        readout: What of the outputs is judged: the last one, or their mean.

    Returns:
        From tokens `[T, B]` to logits `[B, 1]` that a review is positive.
    """
    layer = RNN(make_cell(cell, hidden_features), input_dropout=dropout)
    reduction = LastStep() if readout == "last" else MaskedMean()
    reader = Stack(Embedding(vocabulary_size, embedding_features), layer, reduction)
    return Stack(reader, Dense(1), dropout=dropout)


def judge(
    network: Network, params: Any, reviews: Encoded, key: jax.Array | None = None
) -> jax.Array:
    """Read reviews; what is padding changes nothing.

    Args:
        network: From `make_network`.
        params: Its parameters.
        reviews: B of them.
        key: Of the dropout; None: no dropout.

    Returns:
        Logits `[B]` that they are positive.
    """
    mask = lengths_to_mask(reviews.lengths, len(reviews.tokens))
    _, logits = network.apply(params, reviews.tokens, mask=mask, key=key)
    return logits[:, 0]


def judge_many(network: Network, params: Any, reviews: Encoded) -> jax.Array:
    """Read any number of reviews, some at a time, without dropout; logits `[N]`."""
    num_reviews = len(reviews.labels)
    at_once = min(JUDGED_AT_ONCE, num_reviews)
    num_pieces = -(-num_reviews // at_once)
    pieces = np.resize(np.arange(num_reviews), (num_pieces, at_once))  # ends in repeats
    logits = jax.lax.map(
        lambda rows: judge(network, params, take_reviews(reviews, rows)), pieces
    )
    return logits.reshape(-1)[:num_reviews]


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Return the mean over reviews of -log p(label), in nats."""
    return losses.bernoulli_nll(logits[:, None], labels[:, None])


def is_right(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Tell of each review whether it is judged rightly."""
    return (logits > 0) == (labels == 1)


class Score(NamedTuple):
    """What one seed's networks do on data that they were not chosen by.

    "Best" is after the update with the best validation, "last" after the last one.

    Attributes:
        right: bool `[N]`, whether the best network judges each test review rightly.
        loss: Its cross-entropy on the test part, in nats.
        last_accuracy: Accuracy of the last network on the test part.
        last_loss: Its cross-entropy there.
        train_accuracy: Its accuracy on some of the seed's own training reviews.
        train_loss: Its cross-entropy there.
    """

    right: Any
    loss: Any
    last_accuracy: Any
    last_loss: Any
    train_accuracy: Any
    train_loss: Any


class Rows(NamedTuple):
    """What is scored, by seed on axis 0.

    Attributes:
        best: Parameters after the update with the best validation.
        last: Parameters after the last update.
        known: The tokens that the seed knows, bool `[V]`.
        reviews: Numbers of some of its training reviews, `[M]`.
    """

    best: Any
    last: Any
    known: Any
    reviews: Any


def make_arm(config: Config, form: Form, corpus: Corpus, name: ArmName) -> Arm:
    """State what an arm is and what it is trained on: the whole training part.

    Args:
        config: Batches, dropout, units and how often a token must come.
        form: How the reviews are read.
        corpus: The reviews, read so.
        name: Which arm.

    Returns:
        The arm.
    """
    network = make_network(
        len(corpus.vocabulary.tokens),
        cell_of(name),
        embedding_features=form.embedding_features,
        hidden_features=units_of(config, form, name),
        dropout=config.dropout,
        readout=form.readout,
    )
    unknown_id = corpus.vocabulary.unknown_id
    num_orders = _num_orders(config, form, corpus)

    def init(key: jax.Array, hyper: Any) -> Any:
        return network.init(key)

    def loss(params: Any, reviews: Encoded, key: jax.Array) -> tuple[jax.Array, dict]:
        return cross_entropy(judge(network, params, reviews, key), reviews.labels), {}

    def dataset(train: Encoded, counts: Any, key: jax.Array, hyper: Any) -> Draw:
        return draw_reviews(
            train,
            counts,
            key,
            num_epochs=num_orders,
            vocabulary_size=len(corpus.vocabulary.tokens),
            min_count=config.min_count,
        )

    def batch(train: Encoded, key: jax.Array, step: jax.Array, draw: Draw) -> Encoded:
        return take_batch(train, unknown_id, config.batch_size, step, draw)

    def validate(valid: Encoded, params: Any, draw: Draw) -> jax.Array:
        reviews = hide_unknown(valid, unknown_id, draw.known)
        logits = judge_many(network, params, reviews)
        return 1.0 - is_right(logits, reviews.labels).mean()

    train, valid = as_arrays(corpus.train), as_arrays(corpus.valid)
    problem = Problem(
        init,
        loss,
        Partial(batch, train),
        Partial(dataset, train, count_chosen(corpus.train.labels, 1.0)),
        Partial(validate, valid),
    )
    label = LABELS[cell_of(name)]
    if name.endswith(MATCHED):
        label += ", as many parameters"
    return Arm(f"{form.unit}_{name}", label, network, problem)


def count_updates(config: Config, corpus: Corpus, amount: float, epochs: int) -> int:
    """Count the updates of some epochs on a share of the training part."""
    num_reviews = int(count_chosen(corpus.train.labels, amount).sum())
    return -(-epochs * num_reviews // config.batch_size)


def _num_orders(config: Config, form: Form, corpus: Corpus) -> int:
    """Count the orders that an update may ask for, on whatever amount."""
    orders = []
    for amount, epochs in zip(form.amounts, form.num_epochs, strict=True):
        num_reviews = int(count_chosen(corpus.train.labels, amount).sum())
        places = count_updates(config, corpus, amount, epochs) * config.batch_size
        orders.append(-(-places // num_reviews))
    return max(orders)


def on_amount(arm: Arm, corpus: Corpus, amount: float) -> Arm:
    """Give an arm a share of the training part; what is compiled for it stays so.

    Args:
        arm: From `make_arm`.
        corpus: That of the arm.
        amount: The share, in (0, 1].

    Returns:
        The arm, the amount in its name.
    """
    dataset: Any = arm.problem.dataset
    counts = count_chosen(corpus.train.labels, amount)
    problem = arm.problem._replace(
        dataset=Partial(dataset.func, dataset.args[0], counts)
    )
    return arm._replace(name=f"{arm.name}_{percent(amount)}", problem=problem)


def percent(amount: float) -> str:
    """Write a share in per cent, as it can stand in a file's name."""
    return f"{100 * amount:g}".replace(".", "p")


def cell_of(name: ArmName) -> str:
    """Name the cell of an arm."""
    return name.removesuffix(MATCHED)


def units_of(config: Config, form: Form, name: ArmName) -> int:
    """Count the units of an arm."""
    if not name.endswith(MATCHED):
        return config.hidden_features
    features = form.embedding_features
    lstm = make_cell("lstm", config.hidden_features)
    wanted = count_cell_parameters(lstm, features)
    return match_units(cell_of(name), features, wanted)


def draw_of_seeds(arm: Arm, key: jax.Array, num_seeds: int) -> Draw:
    """Return what each seed draws in a training of the arm: the same for every arm.

    Args:
        arm: From `on_amount`.
        key: Root of the training.
        num_seeds: Seeds 0 to S - 1.

    Returns:
        The draws in NumPy, seeds on axis 0.
    """
    ids = np.arange(num_seeds, dtype=np.uint32)
    return jax.device_get(_draw_of_seeds(arm.problem.dataset, key, ids))


def _nothing(*_: Any) -> Any:
    return ()


@jax.jit
def _draw_of_seeds(dataset: Any, key: jax.Array, ids: jax.Array) -> Draw:
    # As training draws it: of all that a run starts from, its data set alone.
    problem = Problem(_nothing, _nothing, _nothing, dataset)

    def draw(seed_id: jax.Array) -> Draw:
        seed_key = jax.random.fold_in(key, seed_id)
        return start_run(problem, optax.identity(), seed_key, None)[1].dataset

    return jax.lax.map(draw, ids)


def as_arrays(reviews: Encoded) -> Encoded:
    """Put reviews where a program's arguments are."""
    return Encoded(*map(jnp.asarray, reviews))


def score_arm(
    arm: Arm, corpus: Corpus, draws: Draw, result: SeedResult, num_reviews: int
) -> Score:
    """Judge the test part, and training reviews, with the networks of every seed.

    Args:
        arm: What was trained.
        corpus: That of the arm.
        draws: From `draw_of_seeds`.
        result: Of the training.
        num_reviews: Training reviews of each seed that are judged; no more than it has.

    Returns:
        The scores in NumPy, seeds on axis 0.
    """
    rows = Rows(
        result.best.params, result.params, draws.known, draws.order[:, 0, :num_reviews]
    )
    score = Partial(
        _score,
        arm.network,
        corpus.vocabulary.unknown_id,
        as_arrays(corpus.train),
        as_arrays(corpus.test),
    )
    return score_seeds(result._replace(params=rows, best=None), score)


def _score(
    network: Network, unknown_id: Any, train: Encoded, test: Encoded, row: Rows
) -> Score:
    own = take_reviews(train, row.reviews)
    both = Encoded(
        jnp.concatenate([test.tokens, own.tokens], axis=1),
        *(jnp.concatenate(parts) for parts in zip(test[1:], own[1:], strict=True)),
    )
    both = hide_unknown(both, unknown_id, row.known)
    networks = jax.tree.map(lambda *leaves: jnp.stack(leaves), row.best, row.last)
    logits = jax.lax.map(lambda params: judge_many(network, params, both), networks)
    (best, last), seen = logits[:, : test.labels.size], logits[1, test.labels.size :]
    return Score(
        right=is_right(best, test.labels),
        loss=cross_entropy(best, test.labels),
        last_accuracy=is_right(last, test.labels).mean(),
        last_loss=cross_entropy(last, test.labels),
        train_accuracy=is_right(seen, own.labels).mean(),
        train_loss=cross_entropy(seen, own.labels),
    )
