"""A tradable price and what each trade would earn: the data of `long_sequences`.

Muccino (2019) trained on a price made of two sinusoids whose amplitudes turn slowly
and at random; targets were the returns of a trader who knows the future. His generator
is lost; this one follows his text and makes an option of what it leaves open.
Pure functions of a key. Layer: experiments (data).
"""

import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

#: Added to the price, as in the text. It drops out of the inputs and of the targets.
PRICE_LEVEL = 100.0
#: The horizon ends where a reward still counts for this share of itself.
HORIZON_TOLERANCE = 1e-3
#: The trader's positions, and the heads: one per position, its actions in this order.
#: In all seven: flat (stay, buy, sell), long (hold, close), short (hold, close).
HEADS = (("flat", 3), ("long", 2), ("short", 2))
NUM_ACTIONS = sum(num_actions for _, num_actions in HEADS)


class PriceProcess(NamedTuple):
    """What the text fixes in words but not in numbers.

    Attributes:
        periods: Periods of the two sinusoids, in steps.
        angle_step: Standard deviation of the angle's walk, in radians a step.
        noise_sd: Standard deviation of the noise on the price, in price units.
    """

    periods: tuple[float, float]
    angle_step: float
    noise_sd: float


def sample_prices(
    key: jax.Array, process: PriceProcess, num_steps: int, num_sequences: int
) -> jax.Array:
    r"""Draw price series.

        theta_t = theta_{t-1} + angle_step * normal
        price_t = cos(theta_t) sin(2 pi t / P_1 + phi_1)
                + sin(theta_t) sin(2 pi t / P_2 + phi_2) + noise_sd * normal + 100

    The first angle and the two phases are uniform on the circle and drawn for every
    sequence, so that the series is stationary and the step number tells nothing.

    Args:
        key: The draw; the same key gives the same prices.
        process: Frequencies, angle step and noise.
        num_steps: Length of a series, T.
        num_sequences: Number of series, B.

    Returns:
        Prices, `[T, B]`, float32, in price units.
    """
    angle_key, walk_key, phase_key, noise_key = jax.random.split(key, 4)
    turn = 2 * jnp.pi
    first_angle = turn * jax.random.uniform(angle_key, (num_sequences,))
    shape = (num_steps, num_sequences)
    walk = jnp.cumsum(jax.random.normal(walk_key, shape), axis=0)
    angle = first_angle + process.angle_step * walk
    phases = jax.random.uniform(phase_key, (2, num_sequences))
    # In float64, and less the whole turns: a float32 argument of a sine would be off by
    # more than the rounding of the price after some thousand steps.
    turns = [np.arange(num_steps) / period % 1.0 for period in process.periods]
    waves = [
        jnp.sin(turn * (jnp.asarray(part, jnp.float32)[:, None] + phase))
        for part, phase in zip(turns, phases, strict=True)
    ]
    signal = jnp.cos(angle) * waves[0] + jnp.sin(angle) * waves[1]
    noise = process.noise_sd * jax.random.normal(noise_key, shape)
    return signal + noise + PRICE_LEVEL


def change_sd(process: PriceProcess) -> float:
    r"""Give the standard deviation of one price change, from the process's constants.

    Each wave has mean square 1/2, so has its amplitude, and from one step to the next
    they correlate by cos(2 pi / P) and exp(-angle_step^2 / 2). Hence

        variance = 1 - exp(-angle_step^2 / 2) (cos(2 pi / P_1) + cos(2 pi / P_2)) / 2
                 + 2 noise_sd^2

    Args:
        process: The process.

    Returns:
        The standard deviation, in price units.

    Examples:
        >>> round(change_sd(PriceProcess((4000.0, 200.0), 0.01, 0.01)), 4)
        0.0223
    """
    waves = sum(math.cos(2 * math.pi / period) for period in process.periods)
    kept = math.exp(-(process.angle_step**2) / 2)
    return math.sqrt(1 - kept * waves / 2 + 2 * process.noise_sd**2)


def horizon_steps(discount: float) -> int:
    """Count the steps after which a reward counts for less than `HORIZON_TOLERANCE`.

    Args:
        discount: The discount a step, in [0, 1).

    Returns:
        The number of steps, at least one.

    Examples:
        >>> horizon_steps(0.99)
        688
    """
    if discount == 0:
        return 1
    return max(1, math.ceil(math.log(HORIZON_TOLERANCE) / math.log(discount)))


def past_changes(prices: jax.Array, window: int) -> jax.Array:
    """Collect the price changes known at each step: a window of the past.

    Row i belongs to the time t = i + window, the first of which `window` changes are
    known, and holds price_t - price_{t-1} first and price_{t-window+1} -
    price_{t-window} last: nothing after price_t.

    Args:
        prices: `[T, B]`, price units.
        window: Number of changes, W.

    Returns:
        Changes, `[T - W, B, W]`, price units, the newest first.
    """
    changes = jnp.diff(prices, axis=0)
    num_rows = changes.shape[0] - window + 1
    lags = [changes[window - 1 - lag :][:num_rows] for lag in range(window)]
    return jnp.stack(lags, axis=-1)


def trader_values(prices: jax.Array, discount: float, cost: float) -> jax.Array:
    r"""Compute the exact value of every action of a trader who knows the whole series.

    At price_t the trader moves from a position p to p' in {-1, 0, +1}, pays
    cost * |p' - p|, and holds p' for one step. From long or short it can only hold or
    close. With V_T = 0, and going backwards in time:

        G_t(p')    = p' (price_{t+1} - price_t) + discount * V_{t+1}(p')
        Q_t(p, p') = G_t(p') - cost * |p' - p|
        V_t(p)     = max over the allowed p' of Q_t(p, p')

    The reward is the change in the value of what is held (mark to market). The author's
    Q-values were of order 100, so he booked cash: minus the price when buying, plus the
    price when selling. Without a discount the two differ by the value of the position
    alone. With one, cash flow charges interest on a price of 100: going short
    and never closing would earn more than any trade on moves of order one.

    Proportional costs make the seven values three functions of time, shifted by the
    cost: Q(long, hold) = Q(flat, buy) + cost, and so on.

    Args:
        prices: `[T, B]`, price units.
        discount: The discount a step, in [0, 1].
        cost: What one change of position costs, in price units, not negative.

    Returns:
        Values at the times 0 ... T - 2, `[T - 1, B, 7]`, price units, in the order of
        `HEADS`.

    References:
        E. Muccino, "Training Recurrent Neural Networks on Long Sequences", 2019.
    """

    def step(values, change):
        flat, long, short = (discount * value for value in values)
        long, short = change + long, short - change
        action_values = jnp.stack(
            [
                *(flat, long - cost, short - cost),
                *(long, flat - cost),
                *(short, flat - cost),
            ],
            axis=-1,
        )
        heads = split_heads(action_values)
        return tuple(head.max(axis=-1) for head in heads), action_values

    end = jnp.zeros_like(prices[0])
    changes = jnp.diff(prices, axis=0)
    _, action_values = jax.lax.scan(step, (end, end, end), changes, reverse=True)
    return action_values


def split_heads(action_values: jax.Array) -> list[jax.Array]:
    """Split the last axis of seven values into the heads of `HEADS`: 3, 2 and 2.

    Args:
        action_values: `[..., 7]`.

    Returns:
        Three arrays, `[..., 3]`, `[..., 2]` and `[..., 2]`.
    """
    flat, long = HEADS[0][1], HEADS[1][1]
    return jnp.split(action_values, (flat, flat + long), axis=-1)


class Series(NamedTuple):
    """What was drawn, in units of the price where not said otherwise; time-major.

    Attributes:
        inputs: `[T, B, W]`, the last W price changes in units of `change_sd`.
        values: `[T, B, 7]`, the value of each action, see `trader_values`.
        changes: `[T, B]`, the price change that follows: what a position earns that is
            held after the action.
    """

    inputs: jax.Array
    values: jax.Array
    changes: jax.Array


class TargetScaling(NamedTuple):
    """What takes values to targets and back; measured on training data alone.

    Attributes:
        mean: `[7]`, price units.
        sd: `[7]`, price units, above 0.
    """

    mean: jax.Array
    sd: jax.Array

    def scale(self, values: jax.Array) -> jax.Array:
        """Turn values `[..., 7]` in price units into targets."""
        return (values - self.mean) / self.sd

    def unscale(self, targets: jax.Array) -> jax.Array:
        """Turn targets `[..., 7]`, or predictions of them, into price units."""
        return targets * self.sd + self.mean


class Dataset(NamedTuple):
    """What is trained on; time-major.

    Attributes:
        inputs: `[T, B, W]`, the last W price changes in units of `change_sd`.
        targets: `[T, B, 7]`, the value of each action; a unit of its own when scaled.
    """

    inputs: jax.Array
    targets: jax.Array


def draw_series(
    key: jax.Array,
    process: PriceProcess,
    *,
    num_steps: int,
    num_sequences: int,
    input_window: int,
    discount: float,
    cost: float,
) -> Series:
    """Draw prices, what is known of them, and what each action is worth.

    Longer series are drawn than are returned. `input_window` steps come before, so
    that the first window is full. `horizon_steps` come after, so that the values do
    not run down to zero towards the end: no network could know that the end is near.

    Args:
        key: The draw.
        process: The price.
        num_steps: T.
        num_sequences: B.
        input_window: W.
        discount: The discount a step, in [0, 1).
        cost: Of one change of position, in price units.

    Returns:
        The series, float32.
    """
    total = input_window + num_steps + horizon_steps(discount)
    prices = sample_prices(key, process, total, num_sequences)
    inputs = past_changes(prices, input_window)[:num_steps] / change_sd(process)
    values = trader_values(prices, discount, cost)
    times = slice(input_window, input_window + num_steps)
    return Series(inputs, values[times], jnp.diff(prices, axis=0)[times])


def fit_target_scaling(
    values: jax.Array, target_scaling: Literal["zscore", "raw"]
) -> TargetScaling:
    """Measure how the values of training data are scaled.

    Args:
        values: `[T, B, 7]`, price units.
        target_scaling: "zscore": each of the seven values less its mean and over its
            standard deviation in this data set, as the author did with his ("unit
            normal"); the losses of the three heads then weigh alike and the loss of
            predicting the mean is 1 a head. "raw": price units.

    Returns:
        The scaling.
    """
    if target_scaling == "raw":
        return TargetScaling(jnp.zeros(NUM_ACTIONS), jnp.ones(NUM_ACTIONS))
    sd = values.std(axis=(0, 1))
    # At a cost no trade can earn, the value of staying flat is 0 at all times.
    return TargetScaling(values.mean(axis=(0, 1)), jnp.where(sd > 0, sd, 1.0))


def make_dataset(
    key: jax.Array,
    process: PriceProcess,
    *,
    target_scaling: Literal["zscore", "raw"],
    **sizes: Any,
) -> Dataset:
    """Draw the data of one run: a pure function of the key.

    Args:
        key: The draw.
        process: The price.
        target_scaling: See `fit_target_scaling`; it is fitted on this very data set.
        **sizes: The other arguments of `draw_series`.

    Returns:
        Inputs and targets, float32.
    """
    series = draw_series(key, process, **sizes)
    scaling = fit_target_scaling(series.values, target_scaling)
    return Dataset(series.inputs, scaling.scale(series.values))
