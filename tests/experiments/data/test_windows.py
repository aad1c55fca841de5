import numpy as np
import pytest

from experiments.data.splits import Split, split_by_time
from experiments.data.windows import make_series_data, sliding_windows, time_major
from tests.cases import assert_says

SERIES = np.random.default_rng(0).normal(size=23).cumsum() + 50
WIDE = np.stack([SERIES, -3 * SERIES], axis=-1)


@pytest.mark.parametrize("series", [SERIES, WIDE], ids=["one", "two features"])
@pytest.mark.parametrize(("start", "stop"), [(0, None), (2, 9), (12, 20)])
def test_every_window_is_followed_by_its_target(series, start, stop):
    windows = sliding_windows(series, 5, start=start, stop=stop)
    positions = range(max(start, 5), stop or 23)
    assert list(windows.positions) == list(positions)
    for row, at in enumerate(positions):
        np.testing.assert_array_equal(windows.inputs[row], series[at - 5 : at])
        np.testing.assert_array_equal(windows.targets[row], series[at])


def test_windows_are_views_of_the_series():
    windows = sliding_windows(SERIES, 5)
    assert np.shares_memory(windows.inputs, SERIES)
    assert not windows.inputs.flags.writeable


def test_window_across_a_gap_is_left_out():
    segments = np.repeat([0, 1, 2], (9, 4, 10))
    windows = sliding_windows(SERIES, 5, segments=segments)
    assert list(windows.positions) == [5, 6, 7, 8, 18, 19, 20, 21, 22]
    np.testing.assert_array_equal(windows.inputs[4], SERIES[13:18])
    one = sliding_windows(SERIES, 5, segments=np.zeros(23, int))
    assert np.shares_memory(one.inputs, SERIES)


@pytest.mark.parametrize("length", [0, 3, 5])
def test_series_without_room_for_a_window_has_none(length):
    windows = sliding_windows(WIDE[:length], 5)
    assert windows.inputs.shape == (0, 5, 2)
    assert windows.targets.shape == (0, 2)
    assert windows.positions.shape == (0,)


@pytest.mark.parametrize("window", [0, -1, 2.0])
def test_window_is_a_positive_integer(window):
    with pytest.raises(ValueError) as error:
        sliding_windows(SERIES, window)
    assert_says(error, "window", repr(window))


def test_parts_outside_the_series_are_refused():
    with pytest.raises(ValueError) as error:
        sliding_windows(SERIES, 5, start=9, stop=24)
    assert_says(error, "start and stop", "23 steps", "24")


@pytest.mark.parametrize("scaling", ["min_max", "standard"])
def test_scaling_is_that_of_the_training_part(scaling):
    split = split_by_time(23, num_valid=3, num_test=4)
    data = make_series_data(SERIES, split, window=5, scaling=scaling)
    train = SERIES[:16]
    if scaling == "min_max":
        expected = (SERIES - train.min()) / (train.max() - train.min())
    else:
        expected = (SERIES - train.mean()) / train.std()
    starts = {"train": 5, "valid": 16, "test": 19}
    for name, part in (
        ("train", data.train),
        ("valid", data.valid),
        ("test", data.test),
    ):
        assert part.positions[0] == starts[name]
        for row, at in enumerate(part.positions):
            np.testing.assert_allclose(part.inputs[row], expected[at - 5 : at])
            np.testing.assert_allclose(part.targets[row], expected[at])
    assert [part.positions.size for part in data[:3]] == [11, 3, 4]
    np.testing.assert_allclose(data.scaler.inverse(data.test.targets), SERIES[19:])


def test_nothing_before_the_training_part_is_seen():
    split = Split(slice(6, 15), slice(15, 15), slice(15, 18))
    data = make_series_data(SERIES, split, window=5, scaling="none")
    assert list(data.train.positions) == [11, 12, 13, 14]
    np.testing.assert_array_equal(data.train.inputs[0], SERIES[6:11])
    assert data.valid.positions.size == 0
    earlier = SERIES.copy()
    earlier[:6] = 1e9
    other = make_series_data(earlier, split, window=5, scaling="min_max")
    same = make_series_data(SERIES, split, window=5, scaling="min_max")
    np.testing.assert_array_equal(other.train.inputs, same.train.inputs)


def test_training_part_shorter_than_a_window_is_refused():
    split = split_by_time(23, num_valid=0, num_test=18)
    with pytest.raises(ValueError) as error:
        make_series_data(SERIES, split, window=5, scaling="none")
    assert_says(error, "window", "5 steps to train on")


def test_time_major_moves_time_to_the_front_and_adds_a_feature():
    inputs = np.arange(12.0).reshape(4, 3)  # 4 windows of 3 steps
    moved = time_major(inputs)
    assert moved.shape == (3, 4, 1)
    assert moved.dtype == np.float32
    np.testing.assert_array_equal(moved[2, 1], [5.0])
    np.testing.assert_array_equal(time_major(np.ones((4, 3, 2))).shape, (3, 4, 2))
