"""Statistics over seeds, against hand numbers, SciPy, enumeration and simulation."""

import itertools
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from gated_rnn import statistics

ROUNDING = 1e-12  # float64 sums of a few dozen numbers of order one
STATISTICS = ("median", "iqm")


def key(seed=0):
    return jax.random.key(seed)


def sample(seed, *shape):
    """Skewed positive numbers without ties."""
    return np.random.default_rng(seed).gamma(1.5, size=shape)


def replicated_iqm(values, axis=-1):
    """The middle half by brute force: with every seed four times, cut S at each end."""
    values = np.moveaxis(np.asarray(values), axis, -1)
    num_seeds = values.shape[-1]
    fourfold = np.sort(np.repeat(values, 4, axis=-1), axis=-1)
    return fourfold[..., num_seeds : 3 * num_seeds].mean(axis=-1)


REFERENCES = {
    "median": lambda values, axis=-1: np.median(values, axis=axis),
    "iqm": replicated_iqm,
}


# Estimates and intervals


def test_mean_interval_equals_the_numbers_of_the_table():
    # t table: 3.182446 at 3 degrees of freedom; sd = sqrt(5/3), S = 4.
    interval = statistics.mean_interval([4.0, 1.0, 3.0, 2.0])
    half_width = 3.182446305 * np.sqrt(5 / 3) / 2
    assert interval.estimate == 2.5
    np.testing.assert_allclose(
        (interval.low, interval.high), (2.5 - half_width, 2.5 + half_width), rtol=1e-9
    )
    assert interval[3:] == (0.95, "mean", "t", 4, 0)


@pytest.mark.parametrize("level", [0.5, 0.8, 0.99])
def test_mean_interval_equals_scipy_at_any_level_and_shape(level):
    values = sample(1, 7, 3, 2)
    interval = statistics.mean_interval(values, level=level)
    expected = scipy.stats.ttest_1samp(values, 0.0).confidence_interval(level)
    np.testing.assert_allclose(interval.estimate, values.mean(axis=0), rtol=ROUNDING)
    np.testing.assert_allclose(interval.low, expected.low, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(interval.high, expected.high, rtol=1e-9, atol=1e-9)


def test_iqm_weights_the_cut_seeds_by_the_part_inside():
    # Of six seeds the outer one and a half are cut at each end.
    interval = statistics.bootstrap_interval([100.0, 3.0, 1.0, 2.0, 7.0, 0.0], key())
    assert interval.estimate == pytest.approx((0.5 * 1 + 2 + 3 + 0.5 * 7) / 3)


@pytest.mark.parametrize("num_seeds", range(1, 14))
@pytest.mark.parametrize("statistic", STATISTICS)
def test_estimate_equals_brute_force_for_every_number_of_seeds(statistic, num_seeds):
    values = sample(num_seeds, num_seeds, 3)
    interval = statistics.bootstrap_interval(values, key(), statistic=statistic)
    expected = REFERENCES[statistic](values, axis=0)
    np.testing.assert_allclose(interval.estimate, expected, rtol=ROUNDING)


def test_iqm_is_the_trimmed_mean_only_for_multiples_of_four():
    for num_seeds, same in ((8, True), (10, False), (12, True)):
        values = sample(3, num_seeds)
        estimate = statistics.bootstrap_interval(values, key()).estimate
        trimmed = scipy.stats.trim_mean(values, 0.25)
        assert (abs(estimate - trimmed) < ROUNDING) == same


@pytest.mark.parametrize("level", [0.8, 0.95])
@pytest.mark.parametrize("num_seeds", [9, 14])
@pytest.mark.parametrize("statistic", STATISTICS)
def test_bca_interval_equals_scipy(statistic, num_seeds, level):
    # Both draw; the end of one draw of 20 000 wanders by about 1 % of the width.
    tolerance = 0.04
    values = sample(5, num_seeds)
    ours = statistics.bootstrap_interval(
        values, key(), statistic=statistic, level=level, num_resamples=20_000
    )
    theirs = scipy.stats.bootstrap(
        (values,),
        REFERENCES[statistic],
        n_resamples=20_000,
        confidence_level=level,
        method="BCa",
        rng=np.random.default_rng(0),
    ).confidence_interval
    allowed = tolerance * (theirs.high - theirs.low)
    assert ours.low == pytest.approx(theirs.low, abs=allowed)
    assert ours.high == pytest.approx(theirs.high, abs=allowed)
    assert ours[3:] == (level, statistic, "bca", num_seeds, 20_000)


def test_bca_ends_equal_the_formula_of_the_paper():
    # One column: five jackknife values with skew, resamples with known quantiles.
    resampled = np.arange(101.0)[None]
    jackknife = np.array([50.0, 52.0, 47.0, 60.0, 51.0])[:, None]
    low, high = statistics._bca_ends(np.array([60.0]), resampled, jackknife, 0.9)
    normal = scipy.stats.norm
    bias = normal.ppf((60 + 0.5) / 101)  # sixty lie below, one is equal
    slopes = 52.0 - jackknife
    acceleration = (slopes**3).sum() / (6 * (slopes**2).sum() ** 1.5)
    assert acceleration < -0.02
    for end, tail in ((low, 0.05), (high, 0.95)):
        shifted = bias + normal.ppf(tail)
        expected = 100 * normal.cdf(bias + shifted / (1 - acceleration * shifted))
        np.testing.assert_allclose(end, expected, rtol=1e-9)


@pytest.mark.parametrize("statistic", STATISTICS)
def test_every_trailing_entry_equals_its_column_alone(statistic):
    values = sample(6, 10, 4, 3)
    band = statistics.bootstrap_interval(values, key(), statistic=statistic)
    assert band.low.shape == (4, 3)
    for index in np.ndindex(4, 3):
        alone = statistics.bootstrap_interval(
            values[:, *index], key(), statistic=statistic
        )
        for name in ("estimate", "low", "high"):
            np.testing.assert_allclose(
                getattr(band, name)[index], getattr(alone, name), rtol=ROUNDING
            )


def test_band_over_no_entries_is_empty():
    assert statistics.mean_interval(np.zeros((4, 0))).low.shape == (0,)
    assert statistics.bootstrap_interval(np.zeros((4, 0)), key()).low.shape == (0,)


# Simulated coverage


@pytest.mark.parametrize("num_seeds", [3, 10])
def test_t_interval_covers_at_its_level_on_normal_seeds(num_seeds):
    repeats = 10_000
    rng = np.random.default_rng(7)
    interval = statistics.mean_interval(1.0 + rng.normal(size=(num_seeds, repeats)))
    covered = np.mean((interval.low <= 1.0) & (interval.high >= 1.0))
    four_binomial_errors = 4 * np.sqrt(0.95 * 0.05 / repeats)  # 0.009
    assert abs(covered - 0.95) < four_binomial_errors


@pytest.mark.parametrize("num_seeds", [10, 20])
@pytest.mark.parametrize("statistic", STATISTICS)
@pytest.mark.parametrize("seeds", ["normal", "exponential"])
def test_bca_interval_covers_near_its_level(seeds, statistic, num_seeds):
    # BCa is second-order accurate: 4 000 repeats of 10 to 20 seeds measured 0.923 to
    # 0.944. Four binomial errors of 1 500 repeats are 0.022 more on either side.
    rng = np.random.default_rng(num_seeds)
    shape = (num_seeds, 1500)
    values = {"normal": rng.normal, "exponential": rng.exponential}[seeds](size=shape)
    truth = {
        ("normal", "median"): 0.0,
        ("normal", "iqm"): 0.0,
        ("exponential", "median"): np.log(2),
        # 2 * integral of -log(1 - u) over u from 1/4 to 3/4
        ("exponential", "iqm"): 1 + np.log(4) - 1.5 * np.log(3),
    }[seeds, statistic]
    interval = statistics.bootstrap_interval(
        values, key(num_seeds), statistic=statistic, num_resamples=1000
    )
    covered = np.mean((interval.low <= truth) & (interval.high >= truth))
    assert 0.90 < covered < 0.97


# Relations


def test_key_decides_the_interval():
    values = sample(8, 11)
    first = statistics.bootstrap_interval(values, key(3))
    again = statistics.bootstrap_interval(values, key(3))
    other = statistics.bootstrap_interval(values, key(4))
    assert first == again
    assert (first.low, first.high) != (other.low, other.high)
    width = first.high - first.low
    assert first.low == pytest.approx(other.low, abs=0.05 * width)


@pytest.mark.usefixtures("no_key_reuse")
def test_key_may_serve_several_intervals():
    values = sample(8, 11)
    same = key(3)
    paired = statistics.paired_difference(values, 0 * values, same)
    assert paired.iqm == statistics.bootstrap_interval(values, same)


@pytest.mark.parametrize("statistic", STATISTICS)
def test_order_of_seeds_does_not_matter(statistic):
    values = sample(9, 13, 2)
    shuffled = np.random.default_rng(0).permutation(values)
    for ours, theirs in zip(
        statistics.bootstrap_interval(values, key(), statistic=statistic)[:3],
        statistics.bootstrap_interval(shuffled, key(), statistic=statistic)[:3],
        strict=True,
    ):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("statistic", ["mean", *STATISTICS])
def test_intervals_move_and_stretch_with_the_values(statistic):
    values = sample(10, 12)

    def interval(numbers):
        if statistic == "mean":
            return np.array(statistics.mean_interval(numbers)[:3])
        found = statistics.bootstrap_interval(numbers, key(), statistic=statistic)
        return np.array(found[:3])

    estimate, low, high = interval(values)
    np.testing.assert_allclose(
        interval(3 * values - 7), 3 * interval(values) - 7, rtol=1e-9
    )
    # Turned over, the sorted seeds meet other draws: equal up to these.
    turned, allowed = interval(-values), 0.05 * (high - low)
    assert turned[0] == pytest.approx(-estimate)
    np.testing.assert_allclose(turned[1:], (-high, -low), atol=allowed)


@pytest.mark.parametrize("statistic", STATISTICS)
def test_higher_level_gives_a_wider_interval(statistic):
    values = sample(11, 12)
    ends = [
        statistics.bootstrap_interval(values, key(), statistic=statistic, level=level)[
            1:3
        ]
        for level in (0.5, 0.9, 0.99)
    ]
    lows, highs = np.transpose(ends)
    assert (np.diff(lows) < 0).all()
    assert (np.diff(highs) > 0).all()


def test_intervals_compute_in_float64_from_float32_arrays():
    values = sample(12, 9).astype(np.float32)
    from_jax = statistics.mean_interval(jnp.asarray(values))
    assert from_jax == statistics.mean_interval(values.astype(np.float64))


# Few seeds, equal seeds


@pytest.mark.parametrize("shape", [(1,), (1, 3)], ids=["scalar", "curve"])
def test_one_seed_has_an_estimate_and_no_interval(shape):
    values = sample(13, *shape)
    for interval in (
        statistics.mean_interval(values),
        statistics.bootstrap_interval(values, key()),
        statistics.bootstrap_interval(values, key(), statistic="median"),
    ):
        np.testing.assert_array_equal(interval.estimate, values[0])
        assert np.isnan([interval.low, interval.high]).all()
        assert (interval.method, interval.num_resamples) == ("none", 0)


def test_two_seeds_have_a_t_interval_and_no_bootstrap():
    # t table: 12.706205 at 1 degree of freedom; sd = 1 / sqrt(2), S = 2.
    mean = statistics.mean_interval([0.0, 1.0])
    assert mean.high == pytest.approx(0.5 + 12.706204736 / 2)
    median = statistics.bootstrap_interval([0.0, 1.0], key(), statistic="median")
    assert median[0] == 0.5
    assert median.method == "none"
    assert statistics.bootstrap_interval([0.0, 1.0, 5.0], key()).method == "bca"


def test_equal_seeds_give_intervals_of_width_zero():
    equal = [0.1] * 7  # a sum of 0.1 rounds
    for interval in (
        statistics.mean_interval(equal),
        statistics.bootstrap_interval(equal, key()),
        statistics.bootstrap_interval(equal, key(), statistic="median"),
    ):
        assert interval[:3] == (0.1, 0.1, 0.1)


@pytest.mark.parametrize("statistic", STATISTICS)
def test_seeds_that_mostly_agree_give_a_finite_interval(statistic):
    values = np.array([0.1] * 12 + [0.3, 0.7, 0.9])
    interval = statistics.bootstrap_interval(values, key(), statistic=statistic)
    shifted = statistics.bootstrap_interval(values + 5, key(), statistic=statistic)
    assert interval.estimate == 0.1
    assert 0.1 == interval.low <= interval.high < 0.9
    # Which resamples tie with the estimate does not hang on the rounding.
    np.testing.assert_allclose(shifted[:3], np.array(interval[:3]) + 5, rtol=1e-9)


def test_estimate_beyond_every_resample_gives_a_finite_interval():
    # Of three resamples all lie on one side in about a quarter of the columns.
    values = sample(19, 9, 50)
    interval = statistics.bootstrap_interval(values, key(), num_resamples=3)
    assert np.isfinite([interval.low, interval.high]).all()
    assert (interval.low <= interval.high).all()
    single = statistics.bootstrap_interval(values, key(), num_resamples=1)
    np.testing.assert_array_equal(single.low, single.high)


# Paired differences


def test_paired_interval_is_narrower_than_unpaired_on_correlated_seeds():
    rng = np.random.default_rng(14)
    difficulty = rng.normal(size=15)
    a = difficulty + 0.1 * rng.normal(size=15)
    b = difficulty + 0.1 * rng.normal(size=15) + 0.5
    paired = statistics.paired_difference(a, b, key())
    unpaired = scipy.stats.ttest_ind(a, b, equal_var=False).confidence_interval()
    for interval in (paired.mean, paired.median, paired.iqm):
        assert interval.high - interval.low < (unpaired.high - unpaired.low) / 3
        assert statistics.verdict(interval, 0.1) == "lower"
    assert unpaired.high > 0


def test_paired_difference_is_the_interval_of_the_differences():
    a, b = sample(15, 10), sample(16, 10)
    paired = statistics.paired_difference(a, b, key(), level=0.9, num_resamples=500)
    options = {"level": 0.9, "num_resamples": 500}
    assert paired.mean == statistics.mean_interval(a - b, level=0.9)
    assert paired.iqm == statistics.bootstrap_interval(a - b, key(), **options)
    assert paired.median == statistics.bootstrap_interval(
        a - b, key(), statistic="median", **options
    )


def test_share_lower_counts_a_tie_half():
    a, b = [1.0, 2.0, 3.0, 4.0, 5.0], [2.0, 2.0, 4.0, 1.0, 7.0]
    assert statistics.paired_difference(a, b, key()).share_lower == 3.5 / 5


def p_value(differences, seed=0, **options):
    differences = np.asarray(differences)
    return statistics.paired_difference(
        differences, np.zeros_like(differences), key(seed), **options
    ).p_value


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        ([1.0, 2.0, -0.5], 4 / 8),  # sums 2.5 and 3.5 and their negatives
        ([-1.0, -2.0, -3.0, -4.0, -5.0], 2 / 32),
        ([0.1, 0.2, 0.3, -0.2], 8 / 16),  # at most 0.2 turned, or at most 0.2 not
        ([0.0, 0.0, 0.0], 1.0),
        ([2.0], 1.0),
    ],
    ids=["mixed", "one sign", "rounding ties", "zero", "one seed"],
)
def test_sign_flip_p_value_equals_hand_counts(differences, expected):
    assert p_value(differences) == expected


def test_exact_p_value_equals_enumeration_at_its_last_size():
    differences = sample(17, 16) - 0.8
    sums = [
        np.dot(signs, differences) for signs in itertools.product((1, -1), repeat=16)
    ]
    expected = np.mean(np.abs(sums) >= abs(differences.sum()) - ROUNDING)
    assert 0.01 < expected < 0.9
    assert p_value(differences, seed=1) == p_value(differences, seed=2) == expected


def test_sampled_p_value_estimates_the_exact_one():
    differences = sample(9, 17) - 1.4
    signs = 1 - 2 * (np.arange(2**17)[:, None] >> np.arange(17) & 1)
    exact = np.mean(np.abs(signs @ differences) >= abs(differences.sum()) - ROUNDING)
    four_binomial_errors = 4 * np.sqrt(exact * (1 - exact) / 10_000)
    assert 0.05 < exact < 0.9
    assert abs(p_value(differences) - exact) < four_binomial_errors
    assert p_value(differences, seed=1) != p_value(differences, seed=2)


def test_sampled_p_value_is_never_zero():
    assert p_value(np.ones(40), num_resamples=200) == 1 / 200


# Verdicts and records


@pytest.mark.parametrize(
    ("low", "high", "margin", "expected"),
    [
        (-3.0, -1.1, 1.0, "lower"),
        (-3.0, -0.9, 1.0, "inconclusive"),
        (-1.0, 1.0, 1.0, "equivalent"),
        (0.2, 0.9, 1.0, "equivalent"),
        (0.2, 1.1, 1.0, "inconclusive"),
        (-2.0, 2.0, 1.0, "inconclusive"),
        (1.1, 9.0, 1.0, "higher"),
        (0.2, 0.9, 0.0, "higher"),
        (-0.9, -0.2, 0.0, "lower"),
        (0.0, 0.0, 0.0, "equivalent"),
        (np.nan, np.nan, 1.0, "inconclusive"),
    ],
)
def test_verdict_is_the_region_that_holds_the_interval(low, high, margin, expected):
    middle = (low + high) / 2
    interval = statistics.Interval(middle, low, high, 0.95, "mean", "t", 9, 0)
    assert statistics.verdict(interval, margin) == expected


def test_results_become_json():
    paired = statistics.paired_difference([1.0, 2.0], [3.0, 5.0], key())
    record = json.loads(json.dumps(statistics.as_record(paired), allow_nan=False))
    assert record["mean"]["estimate"] == -2.5
    assert record["iqm"]["low"] is None
    assert record["iqm"]["method"] == "none"
    assert json.loads(json.dumps(paired.mean._asdict())) == record["mean"]
    band = statistics.as_record(statistics.mean_interval(np.arange(6.0).reshape(1, 6)))
    assert band["estimate"] == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert band["high"] == [None] * 6
    json.dumps(band, allow_nan=False)


# Errors

FIVE = np.arange(5.0)
MODE: Any = "mode"
SEED: Any = 0
DIVERGED = np.array([[1.0, 2.0], [np.nan, 2.0], [1.0, 1.0], [1.0, np.inf]])


@pytest.mark.parametrize(
    ("call", "name", "got"),
    [
        (lambda: statistics.mean_interval(3.0), "values", r"shape \(\)"),
        (lambda: statistics.mean_interval(np.zeros((0, 4))), "values", r"\(0, 4\)"),
        (lambda: statistics.mean_interval(DIVERGED), "values", r"seeds \[1, 3\]"),
        (lambda: statistics.bootstrap_interval(DIVERGED, key()), "values", "1, 3"),
        (lambda: statistics.mean_interval(FIVE, level=1.0), "level", "1.0"),
        (lambda: statistics.mean_interval(FIVE, level=95), "level", "95"),
        (lambda: statistics.bootstrap_interval(FIVE, key(), level=0), "level", "0"),
        (
            lambda: statistics.bootstrap_interval(FIVE, key(), num_resamples=0),
            "num_resamples",
            "0",
        ),
        (
            lambda: statistics.bootstrap_interval(FIVE, key(), statistic=MODE),
            "statistic",
            "'mode'",
        ),
        (lambda: statistics.bootstrap_interval(FIVE, SEED), "key", "0"),
        (lambda: statistics.bootstrap_interval(FIVE, jnp.zeros(2)), "key", "Array"),
        (
            lambda: statistics.bootstrap_interval(FIVE, jax.random.split(key(), 2)),
            "key",
            "Array",
        ),
        (
            lambda: statistics.paired_difference(FIVE, FIVE[1:], key()),
            "a and b",
            r"\(5,\) and \(4,\)",
        ),
        (
            lambda: statistics.paired_difference(DIVERGED[2:3], DIVERGED[2:3], key()),
            "a and b",
            r"\(1, 2\)",
        ),
        (
            lambda: statistics.paired_difference(FIVE, FIVE, SEED),
            "key",
            "0",
        ),
        (
            lambda: statistics.paired_difference(FIVE, DIVERGED[:, 1], key()),
            "b",
            r"seeds \[3\]",
        ),
        (
            lambda: statistics.verdict(statistics.mean_interval(FIVE), -0.1),
            "margin",
            "-0.1",
        ),
        (
            lambda: statistics.verdict(statistics.mean_interval(FIVE), np.nan),
            "margin",
            "nan",
        ),
        (
            lambda: statistics.verdict(statistics.mean_interval(np.ones((3, 2))), 0.1),
            "interval",
            r"\(2,\)",
        ),
    ],
)
def test_errors_name_the_argument_and_say_what_came(call, name, got):
    message = f"^Received an invalid value for {name}: expected .*, got .*{got}"
    with pytest.raises(ValueError, match=message):
        call()
