"""What is trained on: prices, of long_sequences, and adding, of the synthetic tasks."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from experiments import tasks
from experiments.baselines import mean_loss
from experiments.data import price_process
from experiments.data.price_process import Dataset, fit_target_scaling
from experiments.initializers.config import Config, TaskName
from experiments.long_sequences.problem import draw_series, objective
from gated_rnn import RNN, Dense, Stack
from gated_rnn.networks import Network
from gated_rnn.training import Problem, make_optimizer
from gated_rnn.types import Cell


class Subject(NamedTuple):
    """A task as pure functions; a seed is a number, alike for all that is compared.

    Attributes:
        label: What a person reads.
        in_features: F.
        out_features: K.
        dataset: From a seed to what it keeps: its data, or the key of its draws.
        batch: `(dataset, step) -> batch`.
        loss: `(network, params, batch) -> scalar`.
        validation: From a dataset to a batch that was not trained on.
        test: From a seed to a batch that nothing was chosen by.
        baseline: From a batch to the loss of the best answer that looks at no input.
    """

    label: str
    in_features: int
    out_features: int
    dataset: Callable[[jax.Array], Any]
    batch: Callable[[Any, jax.Array], Any]
    loss: Callable[[Network, Any, Any], jax.Array]
    validation: Callable[[Any], Any]
    test: Callable[[jax.Array], Any]
    baseline: Callable[[Any], jax.Array]


def make_subject(config: Config, name: TaskName, key: jax.Array) -> Subject:
    """State a task.

    Args:
        config: Sizes.
        name: "prices" or "adding".
        key: Root of all its data.

    Returns:
        The task.
    """
    keys = jax.random.split(key, 3)
    return _prices(config, *keys) if name == "prices" else _adding(config, *keys)


def make_network(subject: Subject, cell: Cell) -> Stack:
    """Put a linear readout of every step on a cell.

    Args:
        subject: Says how many outputs.
        cell: The recurrent layer.

    Returns:
        The network.
    """
    return Stack(RNN(cell), Dense(subject.out_features))


def make_problem(subject: Subject, network: Network) -> Problem:
    """State the problem for `train_seeds`.

    Args:
        subject: The task.
        network: What is trained.

    Returns:
        The problem. Of its `hyper`, `params` are the parameters to start from, `seed`
        decides the data and `learning_rate` is for the optimiser.
    """

    def init(key: jax.Array, hyper: Any) -> Any:
        return hyper["params"]

    def dataset(key: jax.Array, hyper: Any) -> Any:
        return subject.dataset(hyper["seed"])

    def batch(key: jax.Array, step: jax.Array, own: Any) -> Any:
        return subject.batch(own, step)

    def loss(params: Any, batch: Any, key: jax.Array) -> tuple[jax.Array, dict]:
        return subject.loss(network, params, batch), {}

    def validate(params: Any, own: Any) -> jax.Array:
        return subject.loss(network, params, subject.validation(own))

    return Problem(init, loss, batch, dataset, validate)


def build_optimizer(max_grad_norm: float, hyper: Any) -> optax.GradientTransformation:
    """Build Adam on clipped gradients from a seed's `hyper`."""
    return make_optimizer(hyper["learning_rate"], max_grad_norm)


def _prices(
    config: Config, train_key: jax.Array, valid_key: jax.Array, test_key: jax.Array
) -> Subject:
    long = config.long_sequences

    def scaled(key: jax.Array, seed: jax.Array) -> Dataset:
        """Draw fresh series, scaled as those that the seed trains on."""
        training = draw_series(long, train_key, seed, long.num_sequences)
        fresh = draw_series(long, key, seed, long.num_sequences)
        scaling = fit_target_scaling(training.values, long.target_scaling)
        return Dataset(fresh.inputs, scaling.scale(fresh.values))

    def loss(network: Network, params: Any, batch: Dataset) -> jax.Array:
        return objective(long, network.apply(params, batch.inputs)[1], batch.targets)

    def baseline(batch: Dataset) -> jax.Array:
        def score(predictions: jax.Array, targets: jax.Array) -> jax.Array:
            return objective(long, predictions, targets)

        return mean_loss(batch.targets, score)

    return Subject(
        label="prices",
        in_features=long.input_window,
        out_features=price_process.NUM_ACTIONS,
        # One batch, the whole data set, at every update, as in the text.
        dataset=lambda seed: (scaled(train_key, seed), scaled(valid_key, seed)),
        batch=lambda own, step: own[0],
        loss=loss,
        validation=lambda own: own[1],
        test=lambda seed: scaled(test_key, seed),
        baseline=baseline,
    )


def _adding(
    config: Config, train_key: jax.Array, valid_key: jax.Array, test_key: jax.Array
) -> Subject:
    task = tasks.make_task("adding")

    def draw(key: jax.Array, num_sequences: int) -> Any:
        return task.draw(key, config.adding_steps, num_sequences)

    def loss(network: Network, params: Any, batch: Any) -> jax.Array:
        return tasks.loss_of(task, network.apply(params, batch.inputs)[1], batch)

    return Subject(
        label="adding",
        in_features=task.in_features,
        out_features=task.out_features,
        dataset=lambda seed: jax.random.fold_in(train_key, seed),
        batch=lambda own, step: draw(
            jax.random.fold_in(own, step), config.adding_batch
        ),
        loss=loss,
        validation=lambda own: draw(valid_key, config.held_out),
        test=lambda seed: draw(test_key, config.held_out),
        baseline=lambda batch: jnp.asarray(task.baseline(config.adding_steps)),
    )
