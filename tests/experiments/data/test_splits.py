import hypothesis
import hypothesis.strategies as st
import pytest

from experiments.data.splits import split_by_share, split_by_time, walk_forward_splits
from tests.cases import assert_says


def test_parts_follow_each_other_and_are_the_series():
    series = list(range(11))
    split = split_by_time(11, num_valid=2, num_test=3)
    parts = [series[part] for part in split]
    assert parts == [[0, 1, 2, 3, 4, 5], [6, 7], [8, 9, 10]]


def test_shares_are_of_the_whole_and_rounded_down():
    split = split_by_share(999, valid_share=0.1, test_share=0.2)
    assert split == (slice(0, 701), slice(701, 800), slice(800, 999))


@pytest.mark.parametrize(("num_valid", "num_test"), [(5, 5), (0, 10), (12, 0)])
def test_nothing_left_to_train_on_is_refused(num_valid, num_test):
    with pytest.raises(ValueError) as error:
        split_by_time(10, num_valid=num_valid, num_test=num_test)
    assert_says(error, "num_valid + num_test", "10 steps")


@pytest.mark.parametrize("count", [-1, 1.5, True])
def test_counts_are_integers_from_0(count):
    with pytest.raises(ValueError) as error:
        split_by_time(10, num_valid=count, num_test=2)
    assert_says(error, "num_valid", repr(count))


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_shares_are_in_range(share):
    with pytest.raises(ValueError) as error:
        split_by_share(10, test_share=share)
    assert_says(error, "test_share", repr(share))


@hypothesis.given(
    st.integers(20, 60),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(0, 3),
    st.none() | st.integers(1, 9),
)
def test_walk_forward_trains_on_the_past_alone(
    num_steps, num_folds, num_test, num_valid, max_train
):
    splits = walk_forward_splits(
        num_steps,
        num_folds,
        num_test=num_test,
        num_valid=num_valid,
        max_train=max_train,
    )
    assert len(splits) == num_folds
    tested = []
    for train, valid, test in splits:
        assert train.stop == valid.start
        assert valid.stop == test.start
        assert valid.stop - valid.start == num_valid
        assert train.stop - train.start >= 1
        expected = train.stop if max_train is None else min(max_train, train.stop)
        assert train.stop - train.start == expected
        tested += range(test.start, test.stop)
    assert tested == list(range(num_steps - num_folds * num_test, num_steps))


def test_too_many_folds_are_refused():
    with pytest.raises(ValueError) as error:
        walk_forward_splits(10, 3, num_test=3, num_valid=1)
    assert_says(error, "num_folds", "10 steps", "3 of 3")
