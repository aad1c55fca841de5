"""What is trained: a network that predicts each next character of a window."""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.cells import count_cell_parameters, make_cell, match_units
from experiments.command import UsageError
from experiments.data.reports import Report
from experiments.data.text import load_text, make_dataset, make_streams
from experiments.data.vocabulary import Vocabulary
from experiments.language_model.config import Config
from gated_rnn import RNN, Dense, Embedding, Stack, generate, losses
from gated_rnn.networks import Categorical
from gated_rnn.training import Problem
from gated_rnn.types import Params

#: The cells that are compared; the last has the LSTM's number of parameters.
CELLS = {
    "lstm": "LSTM",
    "gru": "GRU",
    "gru_matched": "GRU, parameters of the LSTM",
}
_NOT_SHOWN = "\ufffd"  # for <unk>, which is no character


class Corpus(NamedTuple):
    """A text in numbers.

    Attributes:
        train: int32 `[N]`, all of the training part.
        sizes: How many of its characters each amount has.
        valid: int32 `[M]`, what is validated on.
        test: int32 `[K]`, the whole test part but for what no stream has room for.
        vocabulary: The characters.
        num_unknown: Characters of validation and test part that training lacks.
        report: What was read.
    """

    train: np.ndarray
    sizes: tuple[int, ...]
    valid: np.ndarray
    test: np.ndarray
    vocabulary: Vocabulary
    num_unknown: tuple[int, int]
    report: Report


def read_corpus(config: Config) -> Corpus:
    """Read the text and cut it.

    Args:
        config: The settings.

    Returns:
        The text in numbers.

    Raises:
        UsageError: If there is no such text, or it is too short.
    """
    text = load_text(config.data_dir)
    shares = {"valid_share": config.valid_share, "test_share": config.test_share}
    try:
        data = make_dataset(text.text, **shares)
        sizes = tuple(
            make_dataset(text.text, fraction=amount, **shares).train.size
            for amount in config.amounts
        )
    except ValueError as error:
        raise UsageError(f"The text is too short. {error}") from error
    if sizes[0] <= config.num_steps:
        raise UsageError(
            f"The text is too short: {sizes[0]} characters, the least of --amounts, "
            f"hold no window of {config.num_steps} and the one that follows."
        )
    if min(data.valid.size, data.test.size) <= config.num_streams:
        raise UsageError(
            f"The text is too short: {data.valid.size} characters to validate and "
            f"{data.test.size} to test on are no {config.num_streams} streams."
        )
    valid = _whole_streams(data.valid[: config.valid_characters], config.num_streams)
    test = _whole_streams(data.test, config.num_streams)
    return Corpus(
        data.train, sizes, valid, test, data.vocabulary, data.num_unknown, text.report
    )


def make_network(config: Config, cell: str, num_tokens: int) -> Stack:
    """Build an embedding, recurrent layers and a readout of every token.

    Args:
        config: Sizes.
        cell: One of `CELLS`.
        num_tokens: Size of the vocabulary.

    Returns:
        The network.
    """
    layers = [
        RNN(make_cell("lstm" if cell == "lstm" else "gru", units))
        for units in count_units(config, cell)
    ]
    embedding = Embedding(num_tokens, config.embedding_features)
    return Stack(embedding, *layers, Dense(num_tokens))


def count_units(config: Config, cell: str) -> list[int]:
    """Count the units of each layer: those of the config, or as parameters match.

    Args:
        config: Sizes.
        cell: One of `CELLS`.

    Returns:
        Units from the first layer to the last.
    """
    units, below = [], config.embedding_features
    below_lstm = config.embedding_features
    for _ in range(config.num_layers):
        width = config.hidden_features
        if cell == "gru_matched":
            lstm = count_cell_parameters(make_cell("lstm", width), below_lstm)
            width = match_units("gru", below, lstm)
        units.append(width)
        below, below_lstm = width, config.hidden_features
    return units


def make_problem(config: Config, network: Stack, corpus: Corpus, size: int) -> Problem:
    """State the problem for `train_seeds`.

    The amount of text is a number beside the whole text, so that one compiled program
    serves all amounts.

    Args:
        config: The settings.
        network: What is trained.
        corpus: The text.
        size: How many characters of it are trained on.

    Returns:
        The problem; a batch is windows of it at places of its own.
    """
    text = (jnp.asarray(corpus.train), jnp.int32(size))
    streams = arrange_streams(corpus.valid, config.num_streams)
    share = jax.tree_util.Partial
    return Problem(
        share(_init, network),
        share(_loss, network),
        share(_draw_windows, *text, config.num_steps, config.batch_size),
        validate=share(bits_of_streams, network, *streams),
    )


def arrange_streams(ids: np.ndarray, num_streams: int) -> tuple[jax.Array, jax.Array]:
    """Cut a text into streams, each one piece.

    Args:
        ids: `[N]`.
        num_streams: B.

    Returns:
        Inputs and targets, int32 `[(N - 1) // B, B]`.
    """
    streams = make_streams(ids, num_streams, (ids.size - 1) // num_streams)
    return jnp.asarray(streams.inputs[0]), jnp.asarray(streams.targets[0])


def bits_of_streams(
    network: Stack, inputs: jax.Array, targets: jax.Array, params: Params
) -> jax.Array:
    """Score a network on streams, each read with one carry from its first character on.

    Args:
        network: The network.
        inputs: int32 `[T, B]`.
        targets: int32 `[T, B]`.
        params: Its parameters.

    Returns:
        Bits a character.
    """
    _, logits = network.apply(params, inputs)
    return losses.cross_entropy(logits, targets) / math.log(2)


def write_text(
    config: Config,
    network: Stack,
    params: Params,
    vocabulary: Vocabulary,
    key: jax.Array,
) -> str:
    """Let a network go on from the prompt.

    Args:
        config: Says how long and at which temperature.
        network: The network.
        params: Its parameters.
        vocabulary: The characters.
        key: Of the draws.

    Returns:
        What it wrote, without the prompt.
    """
    tokens = _generate(
        network,
        params,
        key,
        jnp.asarray(vocabulary.encode(config.prompt)),
        config.sample_characters,
        jnp.float32(config.temperature),
    )
    shown = list(vocabulary.tokens)
    shown[vocabulary.unknown_id] = _NOT_SHOWN
    return "".join(shown[token] for token in tokens.tolist())


@functools.partial(jax.jit, static_argnames="num_steps")
def _generate(
    network: Stack,
    params: Params,
    key: jax.Array,
    prompt: jax.Array,
    num_steps: int,
    temperature: jax.Array,
) -> jax.Array:
    sampler = Categorical(temperature)
    return generate(network, params, key, prompt, num_steps, sample=sampler)[1]


def _whole_streams(ids: np.ndarray, num_streams: int) -> np.ndarray:
    """Leave out what is no step of all streams: fewer characters than streams."""
    return ids[: (ids.size - 1) // num_streams * num_streams + 1]


def _init(network: Stack, key: jax.Array, hyper: Any) -> Params:
    return network.init(key)


def _loss(
    network: Stack, params: Params, windows: jax.Array, key: jax.Array
) -> tuple[jax.Array, dict[str, Any]]:
    _, logits = network.apply(params, windows[:-1])
    return losses.cross_entropy(logits, windows[1:]), {}


def _draw_windows(
    ids: jax.Array,
    size: jax.Array,
    num_steps: int,
    batch_size: int,
    key: jax.Array,
    step: jax.Array,
) -> jax.Array:
    """Draw windows of the first `size` characters, `[num_steps + 1, batch_size]`."""
    drawn = jax.random.fold_in(key, step)
    starts = jax.random.randint(drawn, (batch_size,), 0, size - num_steps)
    return jax.vmap(
        lambda start: jax.lax.dynamic_slice(ids, (start,), (num_steps + 1,)),
        out_axes=1,
    )(starts)
