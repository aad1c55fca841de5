"""Cutting a series into training, validation and test parts, always by time.

A part is a `slice` of positions, so that it cuts the values, their dates and anything
else that stands beside them. Layer: experiments (data).
"""

from typing import NamedTuple

from gated_rnn.types import check_positive, invalid


class Split(NamedTuple):
    """Three neighbouring parts of a series, in the order of time.

    Attributes:
        train: What is fitted, scaling included.
        valid: What choices are made on; may be empty.
        test: What is reported.
    """

    train: slice
    valid: slice
    test: slice


def split_by_time(num_steps: int, *, num_valid: int, num_test: int) -> Split:
    """Take the last steps for the test, those before for validation.

    Args:
        num_steps: Length of the series.
        num_valid: Steps for validation, 0 or more.
        num_test: Steps for the test, 0 or more.

    Returns:
        The parts, which together are the series.

    Raises:
        ValueError: If nothing is left to train on.

    Examples:
        >>> split_by_time(10, num_valid=2, num_test=3).train
        slice(0, 5, None)
    """
    _check_count("num_valid", num_valid)
    _check_count("num_test", num_test)
    stop = num_steps - num_valid - num_test
    if stop < 1:
        raise invalid(
            "num_valid + num_test",
            f"fewer than the {num_steps} steps there are",
            f"{num_valid} + {num_test}",
        )
    return _split(0, stop, num_valid, num_test)


def split_by_share(
    num_steps: int, *, valid_share: float = 0.05, test_share: float = 0.05
) -> Split:
    """Cut by shares of the length, rounded down.

    Args:
        num_steps: Length of the series.
        valid_share: Share for validation, in [0, 1).
        test_share: Share for the test, in [0, 1).

    Returns:
        The parts, which together are the series.

    Raises:
        ValueError: If a share is outside [0, 1) or nothing is left to train on.

    Examples:
        >>> split_by_share(1000).valid
        slice(900, 950, None)
    """
    check_share("valid_share", valid_share)
    check_share("test_share", test_share)
    return split_by_time(
        num_steps,
        num_valid=int(num_steps * valid_share),
        num_test=int(num_steps * test_share),
    )


def walk_forward_splits(
    num_steps: int,
    num_folds: int,
    *,
    num_test: int,
    num_valid: int = 0,
    max_train: int | None = None,
) -> list[Split]:
    """Cut a series several times, each time with a later test part.

    The test parts are neighbours, do not overlap and end with the series; each fold
    trains on what came before its validation part, and on nothing after it.

    Args:
        num_steps: Length of the series.
        num_folds: Number of splits.
        num_test: Steps of each test part, 1 or more.
        num_valid: Steps of each validation part, just before the test part.
        max_train: Train on so many steps at most, the latest; None for all.

    Returns:
        The splits, in the order of time.

    Raises:
        ValueError: If the first fold has nothing to train on.

    Examples:
        >>> for split in walk_forward_splits(10, 2, num_test=3):
        ...     print(split.train.stop, split.test.start, split.test.stop)
        4 4 7
        7 7 10
    """
    check_positive("num_folds", num_folds)
    check_positive("num_test", num_test)
    _check_count("num_valid", num_valid)
    if max_train is not None:
        check_positive("max_train", max_train)
    first = num_steps - num_folds * num_test - num_valid
    if first < 1:
        raise invalid(
            "num_folds",
            f"folds that leave something of {num_steps} steps to train on",
            f"{num_folds} of {num_test} steps and {num_valid} for validation",
        )
    stops = [first + fold * num_test for fold in range(num_folds)]
    return [
        _split(max(0, stop - (max_train or stop)), stop, num_valid, num_test)
        for stop in stops
    ]


def check_share(name: str, share: float, *, whole: bool = False) -> None:
    """Raise unless a share is in [0, 1), or, where it may be `whole`, in (0, 1]."""
    if not (0 < share <= 1 if whole else 0 <= share < 1):
        expected = "a share in (0, 1]" if whole else "a share in [0, 1)"
        raise invalid(name, expected, repr(share))


def _split(start: int, stop: int, num_valid: int, num_test: int) -> Split:
    middle, end = stop + num_valid, stop + num_valid + num_test
    return Split(slice(start, stop), slice(stop, middle), slice(middle, end))


def _check_count(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise invalid(name, "an integer from 0", repr(value))
