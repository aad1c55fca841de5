"""What one seed's network does while it reads: gates, logits, gradients."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from experiments.data.review_batches import Encoded
from gated_rnn import LSTM, Stack, gate_values, lengths_to_mask
from gated_rnn.types import Params

#: Gates by cell, in the order of their axis, and what a person reads. Candidates are
#: none: they are not between 0 and 1.
GATES = {
    "gru": {"r": "reset gate", "z": "update gate (keeps the past)"},
    "lstm": {
        "i": "input gate",
        "f": "forget gate (keeps the past)",
        "o": "output gate",
    },
}
#: The gate that multiplies what was remembered.
KEEPS = {"gru": "z", "lstm": "f"}
#: "Close to 0" and "close to 1" of the text.
NEAR_ZERO, NEAR_ONE = 0.1, 0.9


class Spread(NamedTuple):
    """What values a gate takes, over all real steps and units.

    Attributes:
        mean: `[G]`.
        near_zero: `[G]`, share below `NEAR_ZERO`.
        near_one: `[G]`, share above `NEAR_ONE`.
        over_time: `[G]`, share of the variance that is within a unit, from step to
            step; the rest is between units, which a gate without inputs would have.
    """

    mean: Any
    near_zero: Any
    near_one: Any
    over_time: Any


class Reading(NamedTuple):
    """What a network does with B reviews.

    Attributes:
        gates: `[G, T, B]`, each gate's mean over the units.
        spread: Over all of them.
        logits: `[B]`.
        gradients: `[T, B]`, norm of the logit's gradient with respect to the vector of
            each word.
    """

    gates: Any
    spread: Spread
    logits: Any
    gradients: Any


def read_reviews(network: Stack, reviews: Encoded, params: Params) -> Reading:
    """Read reviews with one seed's network, without dropout.

    Args:
        network: From `experiments.reviews.problem.make_network`.
        reviews: B of them.
        params: The seed's.

    Returns:
        The reading.
    """
    mask = lengths_to_mask(reviews.lengths, len(reviews.tokens))
    vectors, gates = gates_of_words(network, params, reviews.tokens, mask)
    reader, readout = network.layers

    def judge(vectors: jax.Array) -> tuple[jax.Array, jax.Array]:
        hidden = vectors
        for layer, layer_params in zip(reader.layers[1:], params[0][1:], strict=True):
            _, hidden = layer.apply(layer_params, hidden, mask=mask)
        _, logits = readout.apply(params[1], hidden[None])
        return logits.sum(), logits[0, :, 0]

    gradients, logits = jax.grad(judge, has_aux=True)(vectors)
    return Reading(
        gates.mean(axis=-1),
        measure_spread(gates, mask),
        logits,
        jnp.linalg.norm(gradients, axis=-1),
    )


def gates_of_words(
    network: Stack, params: Params, tokens: jax.Array, mask: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Return the vectors of words `[T, B, E]` and all gates `[G, T, B, H]`."""
    embedding, layer = network.layers[0].layers[:2]
    _, vectors = embedding.apply(params[0][0], tokens, mask=mask)
    named = gate_values(layer.cell, params[0][1], vectors, mask=mask)
    return vectors, _stack(layer.cell, named)


def gates_of_prices(
    network: Stack, changes: jax.Array, params: Params
) -> tuple[jax.Array, Spread]:
    """Return the gates of one series `[G, T, H]`, and the spread over all of them.

    Args:
        network: A recurrent layer and its readout.
        changes: `[T + 1, N, 1]`.
        params: The seed's.

    Returns:
        Those of the first series, and of all.
    """
    inputs = changes[:-1]
    cell = network.layers[0].cell
    gates = _stack(cell, gate_values(cell, params[0], inputs))
    return gates[:, :, 0], measure_spread(gates, jnp.ones(inputs.shape[:2], bool))


def measure_spread(gates: jax.Array, mask: jax.Array) -> Spread:
    """Measure what values gates take.

    Args:
        gates: `[G, T, B, H]`.
        mask: bool `[T, B]`.

    Returns:
        The spread.
    """
    real = mask[None, :, :, None]
    count = mask.sum()

    def mean(values: jax.Array) -> jax.Array:  # of every unit, [G, H]
        return jnp.where(real, values, 0.0).sum(axis=(1, 2)) / count

    of_unit = mean(gates)
    within = mean((gates - of_unit[:, None, None, :]) ** 2).mean(axis=-1)
    between = of_unit.var(axis=-1)
    return Spread(
        of_unit.mean(axis=-1),
        mean(gates < NEAR_ZERO).mean(axis=-1),
        mean(gates > NEAR_ONE).mean(axis=-1),
        within / (within + between),
    )


def _stack(cell: Any, named: dict[str, jax.Array]) -> jax.Array:
    names = GATES["lstm" if isinstance(cell, LSTM) else "gru"]
    return jnp.stack([named[name] for name in names])
