import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.data.price_process import (
    HORIZON_TOLERANCE,
    NUM_ACTIONS,
    PRICE_LEVEL,
    PriceProcess,
    change_sd,
    horizon_steps,
    make_dataset,
    past_changes,
    sample_prices,
    split_heads,
    trader_values,
)

KEY = jax.random.key(7)
draw = jax.jit(sample_prices, static_argnums=(1, 2, 3))
values_of = jax.jit(trader_values)
PROCESS = PriceProcess(periods=(60.0, 13.0), angle_step=0.05, noise_sd=0.02)
#: Periods so long that the two waves stand still for the length of a test.
STILL = (1e9, 1e9)
FLOAT32 = 2e-5  # of a price near 100: a few units in the last place

# The trader as a table, written apart from the code under test: from each position the
# positions that its actions lead to, in the order of the seven values.
MOVES = {0: (0, 1, -1), 1: (1, 0), -1: (-1, 0)}


def loop_values(prices, discount, cost):
    """Bellman's recursion over plain floats, one series, times 0 ... T - 2."""
    prices = [float(price) for price in prices]
    value = dict.fromkeys(MOVES, 0.0)
    rows = []
    for now, after in reversed(list(itertools.pairwise(prices))):
        row = {
            position: [
                -cost * abs(to - position) + to * (after - now) + discount * value[to]
                for to in moves
            ]
            for position, moves in MOVES.items()
        }
        value = {position: max(row[position]) for position in MOVES}
        rows.append([*row[0], *row[1], *row[-1]])
    return np.array(rows[::-1])


def best_of_all_paths(prices, discount, cost, position, first):
    """Try every sequence of positions that begins with the move to `first`."""
    best = -math.inf
    for path in itertools.product((-1, 0, 1), repeat=len(prices) - 2):
        at, total, allowed = position, 0.0, True
        for time, to in enumerate((first, *path)):
            allowed &= to in MOVES[at]
            reward = to * (prices[time + 1] - prices[time]) - cost * abs(to - at)
            total += discount**time * reward
            at = to
        if allowed:
            best = max(best, total)
    return best


def dataset(key=KEY, **changes):
    options = {
        "num_steps": 50,
        "num_sequences": 3,
        "input_window": 4,
        "discount": 0.8,
        "cost": 0.3,
        "target_scaling": "raw",
    }
    return _make_dataset(key, PROCESS, **options | changes)


_make_dataset = jax.jit(
    make_dataset,
    static_argnames=(
        *("process", "num_steps", "num_sequences", "input_window", "discount"),
        *("cost", "target_scaling"),
    ),
)


def test_same_key_gives_same_prices_and_another_key_others():
    first, again = (draw(KEY, PROCESS, 20, 3) for _ in range(2))
    other = draw(jax.random.key(8), PROCESS, 20, 3)
    np.testing.assert_array_equal(first, again)
    assert not np.isclose(first, other).any()


def test_price_without_walk_and_noise_is_two_sinusoids_on_a_unit_vector():
    process = PriceProcess((61.0, 7.3), angle_step=0.0, noise_sd=0.0)
    prices = np.asarray(draw(KEY, process, 20_000, 4), np.float64)
    steps = np.arange(20_000)[:, None]
    arguments = 2 * np.pi * steps / process.periods
    waves = np.hstack([np.sin(arguments), np.cos(arguments)])  # sin 1 2, cos 1 2
    weights, *_ = np.linalg.lstsq(waves, prices - PRICE_LEVEL, rcond=None)
    residual = prices - PRICE_LEVEL - waves @ weights
    assert np.abs(residual).max() < 5 * FLOAT32  # at step 20,000 too
    amplitudes = np.hypot(weights[:2], weights[2:])
    np.testing.assert_allclose((amplitudes**2).sum(axis=0), 1.0, atol=1e-4)
    assert amplitudes.std() > 0.1  # each sequence starts with an angle of its own
    assert np.arctan2(weights[0], weights[2]).std() > 0.1  # and a phase


def test_angle_walks_by_its_step_and_its_steps_add_up():
    step = 0.01
    prices = draw(KEY, PriceProcess(STILL, step, 0.0), 26, 20_000)
    # The price is R cos(theta - psi) with E[R^2] = 1: a small turn by d moves it by
    # R sin(theta - psi) d, of variance d^2 / 2.
    for lag in (1, 25):
        moved = np.asarray(prices[lag:] - prices[:-lag])
        expected = step * math.sqrt(lag / 2)
        np.testing.assert_allclose(moved.std(), expected, rtol=0.03)


def test_noise_has_its_standard_deviation_and_no_memory():
    prices = np.asarray(draw(KEY, PriceProcess(STILL, 0.0, 0.3), 300, 200))
    noise = prices - prices.mean(axis=0)
    np.testing.assert_allclose(noise.std(), 0.3, rtol=0.01)
    assert abs((noise[1:] * noise[:-1]).mean()) < 0.01 * 0.3**2


@pytest.mark.parametrize(
    "process",
    [PriceProcess((60.0, 13.0), 0.01, 0.02), PriceProcess((4000.0, 200.0), 0.01, 0.01)],
    ids=["fast", "default"],
)
def test_change_sd_is_that_of_simulated_changes(process):
    changes = np.diff(draw(KEY, process, 50, 4000), axis=0)
    np.testing.assert_allclose(changes.std(), change_sd(process), rtol=0.02)


def test_inputs_hold_the_latest_changes_newest_first():
    prices = jnp.array([[1.0], [2.0], [4.0], [8.0], [16.0]])
    inputs = past_changes(prices, 3)
    np.testing.assert_array_equal(inputs[:, 0], [[4, 2, 1], [8, 4, 2]])


@pytest.mark.parametrize("window", [1, 4])
def test_inputs_know_nothing_of_later_prices(window):
    prices = draw(KEY, PROCESS, 30, 2)
    now = 17
    later = prices.at[now + 1 :].add(5.0)
    row = now - window  # of the time `now`
    before, after = past_changes(prices, window), past_changes(later, window)
    np.testing.assert_array_equal(before[: row + 1], after[: row + 1])
    assert (before[row + 1, :, 0] != after[row + 1, :, 0]).all()
    np.testing.assert_array_equal(before[row, :, 0], prices[now] - prices[now - 1])


@pytest.mark.parametrize(
    ("discount", "cost"), [(0.9, 0.3), (1.0, 0.1), (0.5, 0.0), (0.9, 50.0)]
)
def test_values_equal_a_float64_loop(discount, cost):
    prices = draw(KEY, PROCESS, 200, 3)
    values = values_of(prices, discount, cost)
    assert values.shape == (199, 3, NUM_ACTIONS)
    for series in range(3):
        expected = loop_values(np.asarray(prices)[:, series], discount, cost)
        scale = np.abs(expected).max()
        np.testing.assert_allclose(values[:, series], expected, atol=1e-5 * scale)


@pytest.mark.parametrize("seed", range(3))
def test_values_equal_the_best_of_all_action_sequences(seed):
    # One series a column, so short that all 3^5 paths can be tried from the first step.
    prices = np.random.default_rng(seed).normal(size=7).round(3)
    discount, cost = 0.9, 0.4
    values = values_of(jnp.asarray(prices, jnp.float32)[:, None], discount, cost)
    expected = [
        best_of_all_paths(prices, discount, cost, position, first)
        for position in (0, 1, -1)
        for first in MOVES[position]
    ]
    np.testing.assert_allclose(values[0, 0], expected, atol=1e-5)


def test_values_are_split_into_three_two_and_two():
    flat, long, short = split_heads(jnp.arange(14.0).reshape(2, 7))
    np.testing.assert_array_equal(flat[0], [0, 1, 2])
    np.testing.assert_array_equal(long[0], [3, 4])
    np.testing.assert_array_equal(short[1], [12, 13])


@pytest.mark.parametrize("discount", [0.0, 0.5, 0.99])
def test_horizon_is_where_a_reward_has_faded(discount):
    steps = horizon_steps(discount)
    assert discount**steps <= HORIZON_TOLERANCE
    assert steps == 1 or discount ** (steps - 1) > HORIZON_TOLERANCE


@pytest.mark.parametrize("window", [1, 4])
def test_targets_stand_at_the_time_of_their_inputs(window):
    data = dataset(input_window=window)
    total = window + 50 + horizon_steps(0.8)
    prices = np.asarray(draw(KEY, PROCESS, total, 3))
    assert data.inputs.shape == (50, 3, window)
    assert data.targets.shape == (50, 3, NUM_ACTIONS)
    for row, series in ((0, 0), (31, 1), (49, 2)):
        now = window + row
        newest = prices[now, series] - prices[now - 1, series]
        inputs = data.inputs[row, series, 0] * change_sd(PROCESS)
        np.testing.assert_allclose(inputs, newest, atol=FLOAT32)
        expected = loop_values(prices[now:, series], 0.8, 0.3)[0]
        np.testing.assert_allclose(data.targets[row, series], expected, atol=1e-4)


def test_targets_do_not_run_out_before_the_last_step():
    data = dataset(num_sequences=400, cost=0.0, discount=0.9)
    staying_flat = np.asarray(data.targets[..., 0])
    error = staying_flat[-1].std() / math.sqrt(400)
    assert abs(staying_flat[-1].mean() - staying_flat.mean()) < 4 * error
    assert staying_flat.mean() > 40 * error  # so that running out would be seen


def test_zscored_targets_have_mean_zero_and_deviation_one():
    raw, scaled = dataset(), dataset(target_scaling="zscore")
    np.testing.assert_allclose(scaled.targets.mean(axis=(0, 1)), 0.0, atol=1e-5)
    np.testing.assert_allclose(scaled.targets.std(axis=(0, 1)), 1.0, rtol=1e-5)
    for action in range(NUM_ACTIONS):
        pair = raw.targets[..., action].ravel(), scaled.targets[..., action].ravel()
        np.testing.assert_allclose(np.corrcoef(*pair)[0, 1], 1.0, rtol=1e-5)


def test_targets_that_never_change_stay_finite():
    data = dataset(cost=1e6, target_scaling="zscore")
    assert np.isfinite(data.targets).all()


def test_inputs_are_of_order_one():
    inputs = dataset(num_sequences=200).inputs
    np.testing.assert_allclose(inputs.std(), 1.0, rtol=0.1)


def test_data_of_a_key_is_the_same_compiled_and_mapped():
    keys = jax.random.split(KEY, 2)
    mapped = jax.jit(jax.vmap(lambda key: dataset(key)))(keys)
    for row in range(2):
        alone = dataset(keys[row])
        np.testing.assert_allclose(mapped.inputs[row], alone.inputs, atol=2e-3)
        np.testing.assert_allclose(mapped.targets[row], alone.targets, atol=1e-4)
