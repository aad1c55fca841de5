"""Windows of the past and the value that follows each, as views of the series.

Shared by all series: prices, flows, temperatures. Layer: experiments (data).
"""

from typing import NamedTuple

import numpy as np

from experiments.data.scaling import Scaler, Scaling, fit_scaler
from experiments.data.splits import Split
from gated_rnn.types import check_positive, invalid


class Windows(NamedTuple):
    """Inputs and targets of one part, a row each; in the unit of the series.

    Attributes:
        inputs: `[N, W]`, or `[N, W, F]` for a series of F features; the latest value
            last. A read-only view where no window had to be left out.
        targets: `[N]` or `[N, F]`.
        positions: int64 `[N]`, where in the series each target stands.
    """

    inputs: np.ndarray
    targets: np.ndarray
    positions: np.ndarray


class SeriesData(NamedTuple):
    """The windows of all parts, scaled by what the training part says.

    Attributes:
        train: Windows whose inputs and targets lie in the training part.
        valid: Windows whose targets lie in the validation part.
        test: Windows whose targets lie in the test part.
        scaler: Undoes the scaling; fitted on the training part alone.
    """

    train: Windows
    valid: Windows
    test: Windows
    scaler: Scaler


def sliding_windows(
    series: np.ndarray,
    window: int,
    *,
    start: int = 0,
    stop: int | None = None,
    earliest: int = 0,
    segments: np.ndarray | None = None,
) -> Windows:
    """Cut a series into windows and the value that follows each.

    The targets are those at `start` to `stop`. Inputs may reach back before `start`:
    at the first step of a test part its past is known.

    Args:
        series: `[N]` or `[N, F]`, in the order of time.
        window: Number of past values, W.
        start: Position of the first target; those without W values before them are
            left out.
        stop: Position after the last target; None for the end.
        earliest: No input stands before this position.
        segments: Integers `[N]`, equal where the series has no gap, or None. A window
            that does not lie in one segment, target included, is left out.

    Returns:
        The windows; there may be none.

    Raises:
        ValueError: If the window is not positive, or the parts do not fit the series.

    Examples:
        >>> windows = sliding_windows(np.arange(6.0), 3, start=4)
        >>> windows.inputs
        array([[1., 2., 3.],
               [2., 3., 4.]])
        >>> windows.targets
        array([4., 5.])
    """
    check_positive("window", window)
    num_steps = series.shape[0]
    end = num_steps if stop is None else stop
    if not 0 <= start <= end <= num_steps:
        expected = f"start and stop in order, within {num_steps} steps"
        raise invalid("start and stop", expected, f"{start} and {end}")
    first = min(max(start, earliest + window), end)
    positions = np.arange(first, end)
    if not positions.size:
        shape = (0, window, *series.shape[1:])
        empty = np.empty(shape, series.dtype)
        return Windows(empty, series[first:end], positions)
    past = series[first - window : end - 1]
    views = np.lib.stride_tricks.sliding_window_view(past, window, axis=0)
    windows = Windows(np.moveaxis(views, -1, 1), series[first:end], positions)
    if segments is None:
        return windows
    whole = segments[positions - window] == segments[positions]
    return windows if whole.all() else Windows(*(field[whole] for field in windows))


def make_series_data(
    series: np.ndarray,
    split: Split,
    *,
    window: int,
    scaling: Scaling,
    segments: np.ndarray | None = None,
) -> SeriesData:
    """Scale a series by its training part and cut all parts into windows.

    Args:
        series: `[N]` or `[N, F]`, finite.
        split: The parts.
        window: Number of past values, W.
        scaling: What `fit_scaler` knows.
        segments: As in `sliding_windows`.

    Returns:
        Float64 windows.

    Raises:
        ValueError: If the training part is too short for one window.
    """
    train, valid, test = split
    length = train.stop - train.start
    if length <= window:
        expected = f"a window shorter than the {length} steps to train on"
        raise invalid("window", expected, repr(window))
    scaler = fit_scaler(scaling, series[train])
    scaled = scaler.transform(series)
    parts = [
        sliding_windows(
            scaled,
            window,
            start=part.start,
            stop=part.stop,
            earliest=train.start,
            segments=segments,
        )
        for part in (train, valid, test)
    ]
    return SeriesData(*parts, scaler=scaler)


def time_major(inputs: np.ndarray) -> np.ndarray:
    """Turn windows into what a recurrent layer reads.

    Args:
        inputs: `[N, W]` or `[N, W, F]`.

    Returns:
        `[W, N, F]`, float32; F is 1 for a series of numbers.

    Examples:
        >>> time_major(np.zeros((7, 60))).shape
        (60, 7, 1)
    """
    if inputs.ndim == 2:
        inputs = inputs[..., None]
    return np.ascontiguousarray(np.swapaxes(inputs, 0, 1), np.float32)
