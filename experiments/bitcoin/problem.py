"""What is trained: two recurrent layers that read a window and tell what follows it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.bitcoin.forecasts import Task
from experiments.cells import count_cell_parameters, make_cell, match_units
from experiments.data.windows import Windows, time_major
from gated_rnn import initializers, losses
from gated_rnn.networks import RNN, Dense, LastStep, Network, Stack
from gated_rnn.training import Problem

#: Of Keras' RMSprop. Its version of the text's time adds epsilon to the root; Keras 3
#: adds it under the root.
DECAY, EPSILON = 0.9, 1e-7


class Batch(NamedTuple):
    """Examples of one update.

    Attributes:
        inputs: `[T, B, 1]`.
        targets: `[B, 1]`.
        real: bool `[B]`; an epoch's last batch is filled up.
    """

    inputs: jax.Array
    targets: jax.Array
    real: jax.Array


def make_network(cell: str, hidden_features: Sequence[int], dropout: float) -> Network:
    """Build the text's network: recurrent layers, the last step of the last, Dense.

    Dropout follows every recurrent layer, behind the last only at its last step. All
    starts as in Keras.

    Args:
        cell: A name of `experiments.cells`.
        hidden_features: Units of the recurrent layers.
        dropout: Its rate.

    Returns:
        The network.
    """
    *below, top = (
        RNN(make_cell(cell, units, **initializers.KERAS)) for units in hidden_features
    )
    return Stack(*below, Stack(top, LastStep()), Dense(1), dropout=dropout)


def match_layers(cell: str, hidden_features: Sequence[int]) -> tuple[int, ...]:
    """Choose units that give each layer the parameters of the LSTM's.

    Args:
        cell: A name of `experiments.cells`.
        hidden_features: Units of the LSTM's layers.

    Returns:
        Units of the cell's layers.

    Examples:
        >>> match_layers("gru", (50, 100))
        (58, 115)
    """
    inputs, own_inputs, matched = 1, 1, []
    for units in hidden_features:
        wanted = count_cell_parameters(make_cell("lstm", units), inputs)
        matched.append(match_units(cell, own_inputs, wanted))
        inputs, own_inputs = units, matched[-1]
    return tuple(matched)


def count_recurrent_parameters(cell: str, hidden_features: Sequence[int]) -> int:
    """Count the parameters of all recurrent layers.

    Args:
        cell: A name of `experiments.cells`.
        hidden_features: Units of the layers.

    Returns:
        How many numbers they have.
    """
    widths = zip((1, *hidden_features), hidden_features, strict=False)
    return sum(
        count_cell_parameters(make_cell(cell, units), inputs)
        for inputs, units in widths
    )


def make_problem(task: Task, network: Network, batch_size: int) -> Problem:
    """State the problem: the mean squared error of the scaled target.

    Every epoch goes through all windows in an order of its own, drawn by the seed; its
    last batch may be smaller. The validation is the same loss without dropout.

    Args:
        task: The data.
        network: From `make_network`.
        batch_size: Windows of an update.

    Returns:
        The problem; `hyper` is not looked at.
    """
    partial = jax.tree_util.Partial
    places = np.arange(batch_size)  # an array: its length is known when compiling
    return Problem(
        init=partial(_init, network),
        loss=partial(_loss, network),
        batch=partial(_take_batch, *_examples(task.data.train), places),
        validate=partial(_validate, network, *_examples(task.data.valid)),
    )


def batches_per_epoch(task: Task, batch_size: int) -> int:
    """Count the updates in which every training window is seen once."""
    return -(-len(task.data.train.targets) // batch_size)


def forecaster(network: Network, part: Windows) -> jax.tree_util.Partial:
    """Make the function from parameters to scaled forecasts `[N]` of a part."""
    return jax.tree_util.Partial(_forecast, network, time_major(part.inputs))


def keras_rmsprop(learning_rate: Any) -> optax.GradientTransformation:
    """Build the RMSprop of Keras 2, without momentum.

        v = 0.9 v + 0.1 g^2,    delta = -a g / (sqrt(v) + 1e-7)

    Args:
        learning_rate: a, a number or a traced scalar.

    Returns:
        An optax transformation.
    """
    return optax.rmsprop(learning_rate, decay=DECAY, eps=EPSILON, eps_in_sqrt=False)


def _examples(part: Windows) -> tuple[np.ndarray, np.ndarray]:
    return time_major(part.inputs), part.targets[:, None].astype(np.float32)


def _init(network: Network, key: jax.Array, hyper: Any) -> Any:
    return network.init(key, 1)


def _take_batch(
    inputs: jax.Array,
    targets: jax.Array,
    places: jax.Array,
    key: jax.Array,
    step: jax.Array,
) -> Batch:
    num_windows, size = len(targets), len(places)
    num_batches = -(-num_windows // size)
    epoch_key = jax.random.fold_in(key, step // num_batches)
    order = jax.random.permutation(epoch_key, num_windows)
    places = step % num_batches * size + places
    rows = order[jnp.minimum(places, num_windows - 1)]
    return Batch(inputs[:, rows], targets[rows], places < num_windows)


def _loss(
    network: Network, params: Any, batch: Batch, key: jax.Array
) -> tuple[jax.Array, dict]:
    _, forecasts = network.apply(params, batch.inputs, key=key)
    return losses.mean_squared_error(forecasts, batch.targets, batch.real), {}


def _validate(
    network: Network, inputs: jax.Array, targets: jax.Array, params: Any
) -> jax.Array:
    _, forecasts = network.apply(params, inputs)
    return losses.mean_squared_error(forecasts, targets)


def _forecast(network: Network, inputs: jax.Array, params: Any) -> jax.Array:
    _, forecasts = network.apply(params, inputs)
    return forecasts[:, 0]
