"""What is trained: one recurrent layer that values every action at every step."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.baselines import linear_loss, mean_loss
from experiments.data import price_process
from experiments.data.price_process import Dataset, Series
from experiments.long_sequences.config import Config
from gated_rnn import GRU, LSTM, RNN, Dense, FusedScan, Stack, initializers, losses
from gated_rnn.training import Problem, make_optimizer

CELLS = {"lstm": LSTM, "gru": GRU}


class Preset(NamedTuple):
    """What a preset sets; all else is the same.

    Attributes:
        initialisers: Arguments of the cell; those that are not given are its own.
        adam_eps: What Adam adds to the square root.
        words: What a person reads of the initialisers.
    """

    initialisers: Mapping[str, Any]
    adam_eps: float
    words: str


#: By the value of --preset. Both draw kernels from Glorot's uniform distribution and
#: start the LSTM's forget bias at 1, all other biases at 0.
PRESETS = {
    "cudnn": Preset(
        initializers.CUDNN,
        1e-7,
        "of Keras' CuDNN layers: kernels drawn for all gates at once, the recurrent "
        "kernel [H, gates * H] orthogonal as a whole",
    ),
    "ours": Preset(
        {},
        1e-8,
        "of this library: kernels drawn gate by gate, each recurrent block [H, H] "
        "orthogonal",
    ),
}


def make_network(config: Config, cell: str) -> Stack:
    """Build the network: a cell, and a linear readout of the seven values.

    The cell starts as the preset says; the GRU resets after the matmul, as cuDNN does.

    Args:
        config: Preset, sizes and chunking.
        cell: "lstm" or "gru".

    Returns:
        The network.
    """
    initialisers = PRESETS[config.preset].initialisers
    layer = CELLS[cell](config.hidden_features, **initialisers)
    engine = FusedScan(chunk_size=config.chunk_size or None)
    return Stack(RNN(layer, engine=engine), Dense(price_process.NUM_ACTIONS))


def describe_start(config: Config) -> dict[str, Any]:
    """Say what the preset came to, for the record.

    Args:
        config: Says which preset.

    Returns:
        Its name and words, Adam's epsilon, and every initialiser of each cell.
    """
    preset = PRESETS[config.preset]
    layers = {cell: make_network(config, cell).layers[0].cell for cell in config.cells}
    return {
        "preset": config.preset,
        "words": preset.words,
        "adam_eps": preset.adam_eps,
        "initialisers": {
            cell: {name: repr(getattr(layer, name)) for name in initializers.CUDNN}
            for cell, layer in layers.items()
        },
    }


def choose_optimizer(config: Config) -> optax.GradientTransformation:
    """Build Adam on clipped gradients, with the preset's epsilon.

    Args:
        config: Preset, learning rate and clip norm.

    Returns:
        The optimiser.
    """
    eps = PRESETS[config.preset].adam_eps
    return make_optimizer(config.learning_rate, config.max_grad_norm, eps=eps)


def make_problem(config: Config, cell: str, data_key: jax.Array) -> Problem:
    """State the problem for `train_seeds`; `hyper` is the seed ids.

    Args:
        config: The settings.
        cell: "lstm" or "gru".
        data_key: Root of the data; the same for both cells.

    Returns:
        The problem: one batch, the whole data set, at every update.
    """
    network = make_network(config, cell)

    def init(key: jax.Array, seed_id: jax.Array) -> Any:
        return network.init(key, config.input_window)

    def loss(params: Any, batch: Dataset, key: jax.Array) -> tuple[jax.Array, dict]:
        _, predictions = network.apply(params, batch.inputs)
        return objective(config, predictions, batch.targets), {}

    if config.shared_data:
        shared = jax.jit(draw_data, static_argnums=0)(config, data_key, 0)
        return Problem(init, loss, jax.tree_util.Partial(_give_shared, shared))

    def dataset(key: jax.Array, seed_id: jax.Array) -> Dataset:
        return draw_data(config, data_key, seed_id)

    return Problem(init, loss, _give_own, dataset)


def _give_shared(shared: Dataset, key: jax.Array, step: jax.Array) -> Dataset:
    return shared


def _give_own(key: jax.Array, step: jax.Array, own: Dataset) -> Dataset:
    return own


def draw_data(config: Config, data_key: jax.Array, data_id: Any) -> Dataset:
    """Draw a data set, its targets scaled by themselves.

    Args:
        config: The settings of the data.
        data_key: Root of the data.
        data_id: Which draw: the seed's id, or 0 where the seeds share one.

    Returns:
        The data set.
    """
    return price_process.make_dataset(
        jax.random.fold_in(data_key, data_id),
        config.process,
        target_scaling=config.target_scaling,
        num_sequences=config.num_sequences,
        **_settings(config),
    )


def draw_series(
    config: Config, data_key: jax.Array, data_id: Any, num_sequences: int
) -> Series:
    """Draw series in price units; with the arguments of `draw_data`, those it scales.

    Args:
        config: The settings of the data.
        data_key: Root of the data.
        data_id: Which draw.
        num_sequences: B.

    Returns:
        The series.
    """
    return price_process.draw_series(
        jax.random.fold_in(data_key, data_id),
        config.process,
        num_sequences=num_sequences,
        **_settings(config),
    )


def _settings(config: Config) -> dict[str, Any]:
    names = ("num_steps", "input_window", "discount", "cost")
    return {name: getattr(config, name) for name in names}


def objective(config: Config, predictions: jax.Array, targets: jax.Array) -> jax.Array:
    """Score predictions by the squared errors of all steps.

    Args:
        config: Says whether the heads are summed.
        predictions: `[T, B, 7]`.
        targets: `[T, B, 7]`.

    Returns:
        The sum over the heads of each head's mean squared error, or the mean over all.
    """
    if config.loss == "mean":
        return losses.mean_squared_error(predictions, targets)
    heads = zip(
        price_process.split_heads(predictions),
        price_process.split_heads(targets),
        strict=True,
    )
    return jnp.stack([losses.mean_squared_error(*head) for head in heads]).sum()


def measure_baselines(
    config: Config, data_key: jax.Array, data_ids: list[int]
) -> dict[str, list[float]]:
    """Score what needs no network, on the data of each seed.

    Args:
        config: The settings.
        data_key: Root of the data.
        data_ids: As in `draw_data`.

    Returns:
        For each baseline its losses, one a data set.
    """

    @jax.jit
    def measure(data_id: jax.Array) -> tuple[jax.Array, jax.Array]:
        inputs, targets = draw_data(config, data_key, data_id)

        def score(predictions: jax.Array, targets: jax.Array) -> jax.Array:
            return objective(config, predictions, targets)

        return mean_loss(targets, score), linear_loss(inputs, targets, score)

    losses_of_data = [jax.device_get(measure(data_id)) for data_id in data_ids]
    means, linears = np.array(losses_of_data, np.float64).T.tolist()
    return {"mean of the targets": means, "linear readout": linears}


def count_parameters(config: Config, cell: str) -> dict[str, int]:
    """Count the numbers that are trained.

    Args:
        config: Sizes.
        cell: "lstm" or "gru".

    Returns:
        Counts of the recurrent layer and of the whole network.
    """
    network = make_network(config, cell)
    layers = jax.eval_shape(
        lambda key: network.init(key, config.input_window), jax.random.key(0)
    )
    sizes = [sum(leaf.size for leaf in jax.tree.leaves(layer)) for layer in layers]
    return {"recurrent": sizes[0], "total": sum(sizes)}
