import jax
import numpy as np
import pytest
from scipy import stats

from experiments.verdicts import VERDICT_SEEDS, compare, comparisons_table

KEY = jax.random.key(0)
RNG = np.random.default_rng(3)
LSTM = RNG.normal(2.0, 0.5, 12)  # seeds differ much; a pair hardly does
LABELS = {"gru": "GRU", "lstm": "LSTM"}


def judge(gru, lstm=LSTM, margin=0.1):
    scores = {"gru": gru, "lstm": lstm}
    return compare("test loss", scores, "gru", "lstm", KEY, margin=margin)


@pytest.mark.parametrize(
    ("shift", "word"),
    [(-0.2, "lower"), (0.2, "higher"), (0.0, "equivalent"), (0.1, "inconclusive")],
)
def test_verdict_is_on_the_first_less_the_second(shift, word):
    gru = LSTM + shift + RNG.normal(0, 0.03, 12)
    one = judge(gru)
    assert one.verdict == word
    expected = stats.ttest_rel(gru, LSTM)
    low, high = expected.confidence_interval()
    np.testing.assert_allclose(
        one.difference.mean[:3], [(gru - LSTM).mean(), low, high]
    )
    assert (one.num_seeds, one.left_out) == (12, 0)


def test_pair_with_a_seed_that_is_not_finite_is_left_out_and_said():
    gru, lstm = LSTM - 0.5 + RNG.normal(0, 0.03, 12), LSTM.copy()
    kept = (gru - lstm)[[1, 2, 3, 4, 5, 6, 7, 8, 10, 11]]
    gru[0], lstm[9] = np.nan, np.inf
    one = judge(gru, lstm)
    assert (one.num_seeds, one.left_out) == (10, 2)
    np.testing.assert_allclose(one.difference.mean.estimate, kept.mean())
    assert one.verdict == "lower"
    row = comparisons_table([one], LABELS, title="t").rows[0]
    assert row[4] == "10, 2 left out"


def test_too_few_seeds_are_provisional_also_when_some_were_left_out():
    gru = LSTM - 0.5
    gru[:3] = np.nan
    words = f"lower, provisionally (9 seeds of {VERDICT_SEEDS})"
    assert judge(gru).verdict == words
    assert judge(gru[:1], LSTM[:1]).num_seeds == 0


def test_one_seed_says_nothing():
    one = judge(LSTM[:1] - 5, LSTM[:1])
    assert one.verdict.startswith("inconclusive, provisionally")


def test_no_pair_at_all_is_a_row_of_the_table_too():
    one = judge(np.full(12, np.nan))
    assert one.difference is None
    row = comparisons_table([one], LABELS, title="t").rows[0]
    assert row[1] == row[3] == "none"
    assert row[5] == "no seed of both is finite"


def test_table_shows_interval_margin_p_and_verdict():
    gru = LSTM - 0.25 + RNG.normal(0, 0.01, 12)
    table = comparisons_table([judge(gru)], LABELS, title="On test data")
    name, interval, margin, p, seeds, word = table.rows[0]
    assert name == "test loss: GRU - LSTM"
    assert interval.startswith("-0.2")
    assert (margin, p, seeds, word) == ("0.10", "0.00049", "12", "lower")
    assert len(table.columns) == len(table.rows[0])
