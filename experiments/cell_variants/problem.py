"""What is trained: one cell with a readout, on a task; and what its loss is beside."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import tasks
from experiments.arms import Arm
from experiments.cell_variants.config import (
    Config,
    Matching,
    TaskName,
    VariantName,
    arm_name,
    label_of,
)
from experiments.cells import make_cell
from experiments.command import UsageError
from experiments.data import traffic
from experiments.data.windows import SeriesData, Windows, time_major
from gated_rnn import RNN, Dense, Stack, losses
from gated_rnn.networks import LastStep
from gated_rnn.training import Problem


class Ground(NamedTuple):
    """A task with its data, the same for all cells.

    Attributes:
        name: Of the task.
        label: What a person reads.
        in_features: F.
        baseline: Test loss that needs no network: without memory, or, of traffic, that
            of the flow that was seen last.
        baseline_label: Which.
        make_arm: From a cell's name and a matching to an arm.
        test: From an arm to what scores a seed's parameters: the loss on the test.
    """

    name: TaskName
    label: str
    in_features: int
    baseline: float
    baseline_label: str
    make_arm: Callable[[VariantName, Matching], Arm]
    test: Callable[[Arm], Callable[[Any], jax.Array]]


def make_grounds(config: Config, data_key: jax.Array) -> list[Ground]:
    """Make ready every task; data that can be refused are read here.

    Args:
        config: The settings.
        data_key: Root of validation and test.

    Returns:
        The tasks.

    Raises:
        UsageError: If the traffic is missing or cannot be used.
    """
    # The files first: what they are refused for should not wait for anything.
    data = _load_traffic(config) if "traffic_flow" in config.tasks else None
    grounds = []
    for number, name in enumerate(("adding", "selective_recall")):
        if name in config.tasks:
            key = jax.random.fold_in(data_key, number)
            grounds.append(_synthetic_ground(config, name, key))
    if data is not None:
        grounds.append(_traffic_ground(config, data))
    return sorted(grounds, key=lambda one: config.tasks.index(one.name))


def _synthetic_ground(config: Config, name: Any, key: jax.Array) -> Ground:
    task = tasks.make_task(
        name, num_symbols=config.num_symbols, num_recalled=config.num_recalled
    )
    lengths = (config.num_steps,)
    valid_key, test_key = jax.random.split(key)
    valid = tasks.draw_parts(task, valid_key, lengths, config.num_validation)
    test = tasks.draw_parts(task, test_key, lengths, config.num_test)

    def make_arm(cell: VariantName, matching: Matching) -> Arm:
        units = config.units(cell, matching, task.in_features)
        network = tasks.make_network(task, make_cell(cell, units))
        problem = tasks.make_problem(
            task, network, lengths, config.batch_size, valid, measure="loss"
        )
        return Arm(arm_name(name, cell, matching), label_of(cell), network, problem)

    def score(arm: Arm) -> Callable[[Any], jax.Array]:
        of_pair = tasks.make_score(task, arm.network, test)
        return lambda params: of_pair((params, 0)).loss

    return Ground(
        name=name,
        label=task.label,
        in_features=task.in_features,
        baseline=task.baseline(config.num_steps),
        baseline_label="without memory",
        make_arm=make_arm,
        test=score,
    )


def _load_traffic(config: Config) -> SeriesData:
    train, test = traffic.load_flows(config.data_dir)
    try:
        data = traffic.make_dataset(
            train, test, window=config.window_steps, valid_share=config.valid_share
        )
    except ValueError as error:
        raise UsageError(f"{train.report.file}, {test.report.file}: {error}") from error
    for what, part in (("training", data.train), ("validation", data.valid)):
        least = config.batch_size if what == "training" else 1
        if len(part.targets) < least:
            raise UsageError(
                f"{train.report.file}: {len(part.targets)} {what} windows are fewer "
                f"than the {least} that are needed."
            )
    return data


def _traffic_ground(config: Config, data: SeriesData) -> Ground:
    train, valid, test = (_arrays(part) for part in data[:3])

    def make_arm(cell: VariantName, matching: Matching) -> Arm:
        layer = make_cell(cell, config.units(cell, matching, 1))
        network = Stack(RNN(layer), LastStep(), Dense(1))

        def init(key: jax.Array, hyper: Any) -> Any:
            return network.init(key, 1)

        def loss(params: Any, batch: Any, key: jax.Array) -> tuple[jax.Array, dict]:
            return _error(network, *batch, params), {}

        return Arm(
            arm_name("traffic_flow", cell, matching),
            label_of(cell),
            network,
            Problem(
                init,
                loss,
                batch=jax.tree_util.Partial(_draw_windows, config.batch_size, *train),
                validate=jax.tree_util.Partial(_error, network, *valid),
            ),
        )

    def score(arm: Arm) -> Callable[[Any], jax.Array]:
        return jax.tree_util.Partial(_error, arm.network, *test)

    last = data.test.inputs[:, -1]
    return Ground(
        name="traffic_flow",
        label="traffic flow",
        in_features=1,
        baseline=float(np.square(last - data.test.targets).mean()),
        baseline_label="persistence",
        make_arm=make_arm,
        test=score,
    )


def _arrays(part: Windows) -> tuple[jax.Array, jax.Array]:
    return jnp.asarray(time_major(part.inputs)), jnp.asarray(part.targets, jnp.float32)


def _draw_windows(
    batch_size: int,
    inputs: jax.Array,
    targets: jax.Array,
    key: jax.Array,
    step: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Draw windows of the training part, with replacement."""
    rows = jax.random.randint(
        jax.random.fold_in(key, step), (batch_size,), 0, targets.shape[0]
    )
    return inputs[:, rows], targets[rows]


def _error(
    network: Stack, inputs: jax.Array, targets: jax.Array, params: Any
) -> jax.Array:
    """Return the mean squared error of all windows, scaled."""
    _, forecasts = network.apply(params, inputs)
    return losses.mean_squared_error(forecasts[:, 0], targets)
