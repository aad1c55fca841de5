"""What is read off a loss curve: its end, and how rough it is."""

import math

import numpy as np

#: The end of a curve is the median of at most so many of its last epochs, and of at
#: most this share of them: a spike in the very last epoch decides nothing.
MAX_FINAL_EPOCHS = 10
FINAL_SHARE = 0.01
#: A second difference needs three epochs.
MIN_WINDOW = 3


def num_final_epochs(num_epochs: int) -> int:
    """Count the epochs at the end of a curve that `final_loss` looks at.

    Args:
        num_epochs: Length of the curve.

    Returns:
        A number from 1 to `MAX_FINAL_EPOCHS`.

    Examples:
        >>> num_final_epochs(60), num_final_epochs(1000)
        (1, 10)
    """
    return max(1, min(MAX_FINAL_EPOCHS, int(FINAL_SHARE * num_epochs)))


def final_loss(losses: np.ndarray) -> np.ndarray:
    """Take the loss at the end of each curve: the median of the last epochs.

    Args:
        losses: `[S, N]`, one curve a seed.

    Returns:
        `[S]`; not finite where the curve ends so.
    """
    last = losses[:, -num_final_epochs(losses.shape[1]) :]
    with np.errstate(invalid="ignore"):
        return np.median(last, axis=1)


def roughness(losses: np.ndarray) -> np.ndarray:
    """Measure how rough each curve is: the mean absolute second difference of its log.

        mean over t of |log l_{t+1} - 2 log l_t + log l_{t-1}|

    The logarithm makes it a relative measure, free of the loss's unit. A curve that
    falls smoothly, however steeply, scores near 0; a single spike to the double of its
    surroundings adds 4 log 2 to the sum.

    Args:
        losses: `[S, N]`, positive, N at least 3.

    Returns:
        `[S]`.

    Examples:
        >>> falling = 0.9 ** np.arange(50.0)[None]
        >>> bool(roughness(falling)[0] < 1e-12)
        True
    """
    return np.abs(np.diff(np.log(losses), n=2, axis=1)).mean(axis=1)


def epoch_windows(num_epochs: int, num_windows: int) -> list[tuple[int, int]]:
    """Cut the epochs into windows of one length, each long enough for `roughness`.

    Args:
        num_epochs: Length of the curves.
        num_windows: How many windows are wanted; fewer if they would be too short.

    Returns:
        `(start, stop)` of each window, stop excluded; the last takes the rest. Empty if
        there are fewer than `MIN_WINDOW` epochs.

    Examples:
        >>> epoch_windows(10, 4)
        [(0, 3), (3, 6), (6, 10)]
    """
    if num_epochs < MIN_WINDOW:
        return []
    length = max(MIN_WINDOW, math.ceil(num_epochs / num_windows))
    starts = list(range(0, num_epochs - num_epochs % length, length))
    stops = [*starts[1:], num_epochs]
    if stops[-1] - starts[-1] < MIN_WINDOW:
        starts.pop()
        stops.pop(-2)
    return list(zip(starts, stops, strict=True))
