import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.data.price_process import PriceProcess, draw_series
from experiments.long_sequences.trader import buy_and_hold, follow_values

COST = 0.3
PROCESS = PriceProcess((60.0, 13.0), 0.05, 0.02)
follow = jax.jit(follow_values)
RNG = np.random.default_rng(6)

# Written apart from the code under test: by position, where the actions lead to.
LEADS = {0: (0, 1, -1), 1: (1, 0), -1: (-1, 0)}
FIRST = {0: 0, 1: 3, -1: 5}  # place of a position's first action among the seven


def loop_trader(values, changes, cost):
    """Trade one sequence in plain Python; return what each step earned, and moves."""
    position, earned, moves = 0, [], 0
    for row, change in zip(values.tolist(), changes.tolist(), strict=True):
        actions = row[FIRST[position] :][: len(LEADS[position])]
        after = LEADS[position][actions.index(max(actions))]
        earned.append(after * change - cost * abs(after - position))
        moves += abs(after - position)
        position = after
    return np.mean(earned), moves / len(earned)


def test_trader_equals_a_slow_loop():
    values = RNG.normal(size=(300, 5, 7)).astype(np.float32)
    changes = RNG.normal(size=(300, 5)).astype(np.float32)
    traded = follow(values, changes, COST)
    for series in range(5):
        earned, moves = loop_trader(values[:, series], changes[:, series], COST)
        np.testing.assert_allclose(traded.earned[series], earned, atol=1e-5)
        np.testing.assert_allclose(traded.moves[series], moves, rtol=1e-5)
    assert np.unique(traded.moves).size > 1


def test_trader_buys_closes_and_sells_as_it_is_told():
    # Prices 10, 12, 11, 11, 8: buy, close, stay, sell.
    changes = np.array([[2.0], [-1.0], [0.0], [-3.0]], np.float32)
    values = np.full((4, 1, 7), -9.0, np.float32)
    for step, action in enumerate((1, 4, 0, 2)):
        values[step, 0, action] = 1.0
    traded = follow(values, changes, 0.5)
    np.testing.assert_allclose(traded.earned, [(2.0 + 3.0 - 3 * 0.5) / 4])
    np.testing.assert_allclose(traded.moves, [3 / 4])


def test_trader_holds_a_short_and_sees_only_the_head_of_its_position():
    changes = np.array([[-1.0], [-2.0], [4.0]], np.float32)
    # Heads: flat says sell; long would close; short says hold, hold, close.
    values = np.tile(np.float32([0, 1, 2, 0, 9, 5, 4]), (3, 1, 1))
    values[2, 0, 5:] = 4, 5
    traded = follow(values, changes, 0.25)
    np.testing.assert_allclose(traded.earned, [(1 + 2 + 0 - 2 * 0.25) / 3])
    np.testing.assert_allclose(traded.moves, [2 / 3])


def test_of_equal_values_staying_and_holding_are_taken():
    changes = np.ones((3, 2), np.float32)
    values = np.zeros((3, 2, 7), np.float32)
    values[0, 1, 1] = 1.0  # the second buys, then is indifferent
    traded = follow(values, changes, 0.5)
    np.testing.assert_allclose(traded.earned, [0.0, (3 - 0.5) / 3], rtol=1e-6)


def test_last_position_is_marked_to_market_and_not_closed():
    traded = follow(np.float32([[[0, 1, 0, 0, 0, 0, 0]]]), np.float32([[2.0]]), 0.5)
    np.testing.assert_allclose(traded.earned, [1.5])


@pytest.mark.parametrize("cost", [0.1, 0.5])
def test_true_values_earn_more_than_any_others(cost):
    series = draw_series(
        jax.random.key(2),
        PROCESS,
        num_steps=400,
        num_sequences=20,
        input_window=2,
        discount=0.99,
        cost=cost,
    )
    best = follow(series.values, series.changes, cost).earned.mean()
    hold = buy_and_hold(series.changes, cost).earned.mean()
    noisy = series.values + 0.5 * jax.random.normal(
        jax.random.key(3), series.values.shape
    )
    other = follow(noisy, series.changes, cost).earned.mean()
    late = follow(jnp.roll(series.values, 5, axis=0), series.changes, cost)
    assert best > max(0.0, hold, other, late.earned.mean())


def test_trader_without_cost_who_knows_the_future_earns_every_move():
    series = draw_series(
        jax.random.key(4),
        PROCESS,
        num_steps=200,
        num_sequences=3,
        input_window=1,
        discount=0.0,
        cost=0.0,
    )
    # From long it cannot sell at once: it is flat for the first step of a fall.
    position, total = np.zeros(3, int), np.zeros(3)
    for change in np.asarray(series.changes):
        wish = np.sign(change).astype(int)
        position = np.where(position * wish < 0, 0, wish)
        total += position * change
    traded = follow(series.values, series.changes, 0.0)
    np.testing.assert_allclose(traded.earned, total / 200, rtol=1e-4)


def test_buy_and_hold_earns_the_rise_less_one_cost():
    changes = RNG.normal(size=(50, 4)).astype(np.float32)
    traded = buy_and_hold(changes, COST)
    np.testing.assert_allclose(traded.earned, (changes.sum(0) - COST) / 50, atol=1e-6)
    np.testing.assert_allclose(traded.moves, [1 / 50] * 4)
