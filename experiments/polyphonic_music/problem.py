"""What is trained: one recurrent layer that gives each key's chance to sound next."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.cells import make_cell
from experiments.data.polyphonic_music import NUM_KEYS
from experiments.polyphonic_music.config import Config
from gated_rnn import RNN, Dense, Stack, losses
from gated_rnn.networks import Network
from gated_rnn.training import Problem, make_optimizer

#: Added to how often a key sounds and is silent, so that no chance is 0 or 1.
PSEUDO_COUNT = 0.5
#: Of RMSProp, which the paper does not give: Tieleman and Hinton's decay.
RMS_DECAY, RMS_EPS = 0.9, 1e-8


class Steps(NamedTuple):
    """Steps of music, each with the one that follows.

    Attributes:
        inputs: bool `[T, *batch, 88]`.
        targets: bool `[T, *batch, 88]`, the keys of the next step.
        resets: bool `[T, *batch]`, true where a piece begins.
        mask: bool `[T, *batch]`, true where a step is real.
    """

    inputs: Any
    targets: Any
    resets: Any
    mask: Any


def join_pieces(rolls: Sequence[np.ndarray]) -> Steps:
    """Put pieces one after the other; no pair of steps spans two of them.

    Args:
        rolls: Pieces, bool `[T_i, 88]`, T_i at least 2.

    Returns:
        The steps, without a batch axis, as many as the pieces have less one each.
    """
    resets = [np.arange(len(roll) - 1) == 0 for roll in rolls]
    return Steps(
        inputs=np.concatenate([roll[:-1] for roll in rolls]),
        targets=np.concatenate([roll[1:] for roll in rolls]),
        resets=np.concatenate(resets),
        mask=np.ones(sum(map(len, resets)), bool),
    )


def pack_pieces(rolls: Sequence[np.ndarray], num_rows: int) -> Steps:
    """Put whole pieces into rows, one after the other, with little padding.

    A reset gives each piece the zero carry that it would have in a row of its own, so
    what is computed of the rows is what is computed of the pieces.

    Args:
        rolls: Pieces, bool `[T_i, 88]`, T_i at least 2.
        num_rows: How many rows at most; the longest piece sets how few are filled.

    Returns:
        The steps `[T, rows]`, every one of every piece once.
    """
    longest = sorted(rolls, key=len, reverse=True)
    rows: list[list[np.ndarray]] = [[] for _ in range(min(num_rows, len(rolls)))]
    for roll in longest:
        min(rows, key=lambda row: sum(len(piece) - 1 for piece in row)).append(roll)
    joined = [join_pieces(row) for row in rows]
    num_steps = max(len(row.mask) for row in joined)

    def pad(leaf: np.ndarray) -> np.ndarray:
        missing = [(0, num_steps - len(leaf)), *[(0, 0)] * (leaf.ndim - 1)]
        return np.pad(leaf, missing)

    return jax.tree.map(
        lambda *leaves: np.stack([pad(leaf) for leaf in leaves], axis=1), *joined
    )


def make_network(config: Config, cell: str) -> Stack:
    """Build the network: a cell, and a logit for each key.

    Args:
        config: Says how many units, and the dropout between the two.
        cell: One of `config.cells`.

    Returns:
        The network.
    """
    layer = RNN(make_cell(cell, config.units[cell]))
    return Stack(layer, Dense(NUM_KEYS), dropout=config.dropout)


def init_params(
    network: Stack,
    key: jax.Array,
    kernel_deviation: float = 0.0,
    bias: np.ndarray | None = None,
) -> Any:
    """Draw the parameters.

    Args:
        network: From `make_network`.
        key: Of all draws.
        kernel_deviation: Standard deviation of the input kernel; 0: the network's own.
        bias: The readout's, `[88]`; None: the network's own.

    Returns:
        The parameters.
    """
    init_key, kernel_key = jax.random.split(key)
    layer, readout = network.init(init_key, NUM_KEYS)
    if kernel_deviation:
        noise = jax.random.normal(kernel_key, layer.kernel.shape, layer.kernel.dtype)
        layer = layer._replace(kernel=kernel_deviation * noise)
    if bias is not None:
        readout = readout._replace(bias=jnp.asarray(bias, readout.bias.dtype))
    return layer, readout


def frequency_bias(steps: Steps) -> np.ndarray:
    """Compute the log odds of each key, whatever came before.

    Args:
        steps: Without a batch axis, all of them real.

    Returns:
        float64 `[88]`.
    """
    return log_odds(steps.targets.sum(axis=0), len(steps.targets))


def nll(
    network: Network, params: Any, steps: Steps, key: jax.Array | None = None
) -> jax.Array:
    """Compute the negative log-likelihood of the next steps, in nats per step.

    Args:
        network: Gives a logit for each key.
        params: Its parameters.
        steps: `[T, *batch]`.
        key: Of dropout; None: without.

    Returns:
        The sum over the keys, averaged over all real steps.
    """
    inputs = steps.inputs.astype(jnp.float32)
    _, logits = network.apply(params, inputs, resets=steps.resets, key=key)
    return losses.bernoulli_nll(logits, steps.targets, steps.mask)


def make_problem(
    config: Config, network: Stack, collection: str, stream: Steps, valid: Steps
) -> Problem:
    """State the problem for `train_seeds`.

    A batch is stretches of the stream that begin anywhere, with a zero carry; a reset
    makes one at each beginning of a piece. Validation is of whole pieces.

    Args:
        config: Sizes and noise.
        network: From `make_network`.
        collection: Decides how the parameters start.
        stream: The training pieces, from `join_pieces`.
        valid: The validation pieces, from `pack_pieces`.

    Returns:
        The problem.
    """
    deviation = config.kernel_deviation(collection)
    starts_there = collection in config.frequency_biases
    bias = frequency_bias(stream) if starts_there else None

    def init(key: jax.Array, hyper: Any) -> Any:
        return init_params(network, key, deviation, bias)

    def loss(params: Any, batch: Steps, key: jax.Array) -> tuple[jax.Array, dict]:
        noise_key, dropout_key = jax.random.split(key)
        params = add_noise(params, config.weight_noise, noise_key)
        return nll(network, params, batch, dropout_key if config.dropout else None), {}

    def draw(stream: Steps, key: jax.Array, step: jax.Array) -> Steps:
        key = jax.random.fold_in(key, step)
        return draw_stretches(stream, key, config.num_steps, config.batch_size)

    def validate(valid: Steps, params: Any) -> jax.Array:
        return nll(network, params, valid)

    return Problem(
        init,
        loss,
        jax.tree_util.Partial(draw, stream),
        validate=jax.tree_util.Partial(validate, valid),
    )


def log_odds(sounds: np.ndarray, times: np.ndarray | float) -> np.ndarray:
    """Compute the log odds of keys that sounded at so many of so many times.

    Args:
        sounds: How often each sounded.
        times: How often each could have.

    Returns:
        float64, finite; `PSEUDO_COUNT` is added to both cases.
    """
    return np.log(sounds + PSEUDO_COUNT) - np.log(times - sounds + PSEUDO_COUNT)


def draw_stretches(
    stream: Steps, key: jax.Array, num_steps: int, batch_size: int
) -> Steps:
    """Draw stretches of a stream, each as likely as any other.

    Args:
        stream: Steps without a batch axis, at least `num_steps`.
        key: Decides where they begin.
        num_steps: T.
        batch_size: B.

    Returns:
        Steps `[T, B]`.
    """
    last = stream.mask.shape[0] - num_steps
    begins = jax.random.randint(key, (batch_size,), 0, last + 1)
    places = begins + jnp.arange(num_steps)[:, None]
    return jax.tree.map(lambda leaf: jnp.asarray(leaf)[places], stream)


def add_noise(params: Any, deviation: float, key: jax.Array) -> Any:
    """Add independent normal noise to every parameter.

    Args:
        params: A pytree of arrays.
        deviation: Standard deviation of the noise; 0: none is drawn.
        key: Of the noise.

    Returns:
        The noisy parameters; their gradient is that of `params`.

    References:
        A. Graves: Practical variational inference for neural networks, 2011.
    """
    if not deviation:
        return params
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))
    return structure.unflatten(
        leaf + deviation * jax.random.normal(leaf_key, leaf.shape, leaf.dtype)
        for leaf, leaf_key in zip(leaves, keys, strict=True)
    )


def make_optimizer_of_rate(
    config: Config, num_updates: int
) -> Callable[[Any], optax.GradientTransformation]:
    """Choose the optimiser, as a function of the learning rate.

    Args:
        config: Says which one.
        num_updates: When a schedule ends.

    Returns:
        From a learning rate, which may be traced, to the transformation.
    """

    def build(rate: Any) -> optax.GradientTransformation:
        def schedule(count: jax.Array) -> jax.Array:
            return rate * 0.5 * (1 + jnp.cos(jnp.pi * count / num_updates))

        chosen = schedule if config.schedule == "cosine" else rate
        if config.optimizer == "adam":
            return make_optimizer(chosen, config.max_grad_norm)
        return optax.chain(
            optax.clip_by_global_norm(config.max_grad_norm),
            optax.scale_by_rms(decay=RMS_DECAY, eps=RMS_EPS),
            optax.scale_by_learning_rate(chosen),
        )

    return build
