"""What is trained: two recurrent layers that read an hour and tell what follows it."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.arms import Arm, OptimizerOfRate
from experiments.cells import LABELS, count_cell_parameters, make_cell, match_units
from experiments.command import UsageError
from experiments.data import traffic
from experiments.data.traffic import Flow
from experiments.data.windows import SeriesData, Windows, time_major
from experiments.traffic_flow.config import Config
from gated_rnn import RNN, Dense, Stack, initializers, losses
from gated_rnn.activations import hard_sigmoid
from gated_rnn.networks import LastStep, Network, Nonlinearity, count_parameters
from gated_rnn.training import Problem
from gated_rnn.types import invalid

#: Of Keras' RMSprop, and its epsilon, which Adam has as well.
DECAY, EPSILON = 0.9, 1e-7
#: Of the updates, those over which a learning rate that decays first rises.
RISING_SHARE = 0.1
_DAY = 24 * 60 * 60  # seconds
_GATES = {"sigmoid": jax.nn.sigmoid, "hard_sigmoid": hard_sigmoid}


class Task(NamedTuple):
    """Both flows, and the windows cut from them.

    Attributes:
        train: Flow to train and, at its end, to validate on.
        test: Later flow.
        data: The windows, scaled by what is trained on.
    """

    train: Flow
    test: Flow
    data: SeriesData

    @property
    def truth(self) -> np.ndarray:
        """Vehicles to be told in the test, `[N]`."""
        return self.test.flows[self.data.test.positions]


class Variant(NamedTuple):
    """What makes an arm.

    Attributes:
        cell: A name of `experiments.cells`.
        matched: Whether its layers have the parameters of the LSTM's.
        dropout: Whether it has the dropout of the settings, or none.
        time_of_day: Whether it reads the time of day beside the flow.
    """

    cell: str
    matched: bool = False
    dropout: bool = True
    time_of_day: bool = False


VARIANTS: dict[str, Variant] = {
    "lstm": Variant("lstm"),
    "gru": Variant("gru"),
    "gru_matched": Variant("gru", matched=True),
    "elman": Variant("elman"),
    "elman_matched": Variant("elman", matched=True),
    "gru_reset_before": Variant("gru_reset_before"),
    "lstm_no_dropout": Variant("lstm", dropout=False),
    "gru_no_dropout": Variant("gru", dropout=False),
    "lstm_time_of_day": Variant("lstm", time_of_day=True),
    "gru_time_of_day": Variant("gru", time_of_day=True),
}


def load_task(config: Config) -> Task:
    """Read both flows and cut them into windows.

    Args:
        config: Says where they are.

    Returns:
        The task.

    Raises:
        UsageError: If a file is missing or cannot be used, if there are fewer training
            windows than a batch holds, or none to validate on.
    """
    train, test = traffic.load_flows(config.data_dir)
    try:
        data = traffic.make_dataset(
            train, test, window=config.window_steps, valid_share=config.valid_share
        )
        parts = {"training": data.train, "validation": data.valid}
        for name, least in (("training", config.batch_size), ("validation", 1)):
            if len(parts[name].targets) < least:
                found = len(parts[name].targets)
                raise invalid(f"{name} windows", f"at least {least}", found)
    except ValueError as error:
        raise UsageError(f"{train.report.file}, {test.report.file}: {error}") from error
    return Task(train, test, data)


def make_arm(config: Config, task: Task, name: str) -> Arm:
    """Build an arm.

    The published network: two layers of one cell, dropout on what the second holds
    after the last step, and a readout through a sigmoid, since flows are scaled to
    [0, 1]. Everything starts as in Keras. Each epoch goes through the training windows
    in an order of its own, which the seed draws; what is less than a batch at its end
    is left out. The loss, and the validation, is the mean squared error, scaled.

    Args:
        config: Sizes.
        task: The data.
        name: Of `VARIANTS`.

    Returns:
        The arm.
    """
    variant = VARIANTS[name]
    network = make_network(config, variant)
    train, valid = (
        (read_windows(task.train, part, variant), part.targets.astype(np.float32))
        for part in (task.data.train, task.data.valid)
    )
    num_windows, num_batches = len(train[1]), updates_per_epoch(config, task)

    def init(key: jax.Array, hyper: Any) -> Any:
        return network.init(key, train[0].shape[-1])

    def draw_orders(key: jax.Array, hyper: Any) -> jax.Array:
        # All at once: sorting anew in each update would take a sixth of its time.
        def order(epoch: jax.Array) -> jax.Array:
            epoch_key = jax.random.fold_in(key, epoch)
            rows = jax.random.permutation(epoch_key, num_windows)
            whole = rows[: num_batches * config.batch_size]
            return whole.reshape(num_batches, config.batch_size)

        return jax.lax.map(order, jnp.arange(config.num_epochs))

    def loss(params: Any, batch: Any, key: jax.Array) -> tuple[jax.Array, dict]:
        inputs, targets = batch
        _, forecasts = network.apply(params, inputs, key=key)
        return losses.mean_squared_error(forecasts[:, 0], targets), {}

    return Arm(
        name,
        label(name, config),
        network,
        Problem(
            init,
            loss,
            batch=jax.tree_util.Partial(_take_batch, *train),
            dataset=draw_orders,
            validate=jax.tree_util.Partial(_validate, network, *valid),
        ),
    )


def make_network(config: Config, variant: Variant) -> Network:
    """Build the network of a variant; see `make_arm`.

    Args:
        config: Sizes and gates.
        variant: The cell and what is special.

    Returns:
        The network: from `[T, *batch, F]` to `[*batch, 1]`.
    """
    settings = dict(initializers.KERAS)
    if variant.cell == "elman":
        settings["bias_init"] = initializers.Zeros()
    else:
        settings["gate_activation"] = _GATES[config.gates]
    layers = [
        RNN(make_cell(variant.cell, units, **settings))
        for units in layer_units(config, variant)
    ]
    dropout = config.dropout if variant.dropout else 0.0
    readout = Stack(Stack(*layers, LastStep()), Dense(1), dropout=dropout)
    return Stack(readout, Nonlinearity(jax.nn.sigmoid))


def layer_units(config: Config, variant: Variant) -> tuple[int, int]:
    """Choose the units of both layers; where matched, by the parameters of each.

    Args:
        config: The units of the LSTM.
        variant: The cell.

    Returns:
        Units of the first and of the second layer.

    Examples:
        >>> layer_units(Config(), VARIANTS["gru_matched"])
        (74, 74)
    """
    units = config.hidden_features
    if not variant.matched:
        return units, units
    first = 3 if variant.time_of_day else 1
    wanted = [
        count_cell_parameters(make_cell("lstm", units), inputs)
        for inputs in (first, units)
    ]
    below = match_units(variant.cell, first, wanted[0])
    return below, match_units(variant.cell, below, wanted[1])


def label(name: str, config: Config) -> str:
    """Say what an arm is, for a person."""
    variant = VARIANTS[name]
    words = [LABELS[variant.cell]]
    if variant.matched:
        units = layer_units(config, variant)
        words.append(f"{units[0]} and {units[1]} units")
    if not variant.dropout:
        words.append("no dropout")
    if variant.time_of_day:
        words.append("time of day")
    return ", ".join(words)


def count_arm_parameters(config: Config, name: str) -> int:
    """Count all that is trained in an arm."""
    variant = VARIANTS[name]
    network = make_network(config, variant)
    in_features = 3 if variant.time_of_day else 1
    return count_parameters(
        jax.eval_shape(lambda key: network.init(key, in_features), jax.random.key(0))
    )


def updates_per_epoch(config: Config, task: Task) -> int:
    """Count the whole batches among the training windows."""
    return len(task.data.train.targets) // config.batch_size


def read_windows(flow: Flow, part: Windows, variant: Variant) -> np.ndarray:
    """Give what a network reads of a part.

    Args:
        flow: That the part was cut from.
        part: N windows of T steps.
        variant: Says whether it reads the time of day: sine and cosine of each step's,
            as an angle.

    Returns:
        float32 `[T, N, 1]`, or `[T, N, 3]` with the time of day.
    """
    inputs = time_major(part.inputs)
    if not variant.time_of_day:
        return inputs
    num_steps = part.inputs.shape[1]
    steps = part.positions - np.arange(num_steps, 0, -1)[:, None]  # [T, N]
    angles = 2 * np.pi * seconds_of_day(flow.times[steps]) / _DAY
    clock = np.stack([np.sin(angles), np.cos(angles)], axis=-1)
    return np.concatenate([inputs, clock.astype(np.float32)], axis=-1)


def seconds_of_day(times: np.ndarray) -> np.ndarray:
    """Return the seconds since midnight, int64, of datetime64[s] of any shape."""
    return (times - times.astype("datetime64[D]")).astype(np.int64)


def forecaster(arm: Arm, task: Task) -> jax.tree_util.Partial:
    """Make the function from parameters to scaled forecasts `[N]` of the test."""
    inputs = read_windows(task.test, task.data.test, VARIANTS[arm.name])
    return jax.tree_util.Partial(_forecast, arm.network, inputs)


def optimizer_of_rate(config: Config, num_updates: int) -> OptimizerOfRate:
    """Make the function from a learning rate to the optimiser.

    Without clipping, as published. Keras 2 adds RMSprop's epsilon to the root, and
    starts its mean square at zero, which makes the first steps three times as large: a
    rate that decays rises before, over `RISING_SHARE` of the updates.

    Args:
        config: Which optimiser, and whether the rate decays.
        num_updates: Over how many it does.

    Returns:
        The function; its argument may be traced.
    """

    def optimizer(rate: Any) -> optax.GradientTransformation:
        if config.decay == "cosine":
            rising = max(1, round(RISING_SHARE * num_updates))
            falling = optax.cosine_decay_schedule(1.0, max(1, num_updates - rising))
            shape = optax.join_schedules(
                [optax.linear_schedule(0.0, 1.0, rising), falling], [rising]
            )
            peak = rate

            def rate(step: jax.Array) -> jax.Array:
                return peak * shape(step)

        if config.optimizer == "adam":
            return optax.adam(rate, eps=EPSILON)
        return optax.rmsprop(rate, decay=DECAY, eps=EPSILON, eps_in_sqrt=False)

    return optimizer


def _take_batch(
    inputs: jax.Array,
    targets: jax.Array,
    key: jax.Array,
    step: jax.Array,
    orders: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    rows = orders[jnp.divmod(step, orders.shape[1])]
    return inputs[:, rows], targets[rows]


def _validate(
    network: Network, inputs: jax.Array, targets: jax.Array, params: Any, orders: Any
) -> jax.Array:
    return losses.mean_squared_error(_forecast(network, inputs, params), targets)


def _forecast(network: Network, inputs: jax.Array, params: Any) -> jax.Array:
    _, forecasts = network.apply(params, inputs)
    return forecasts[:, 0]
