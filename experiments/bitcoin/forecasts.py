"""Forecasts of the next close that need no network, and how forecasts are measured.

NumPy, float64, in the currency of the prices.
"""

from typing import NamedTuple

import numpy as np

from experiments.data.bitcoin import Prices, Target, to_closes
from experiments.data.splits import Split
from experiments.data.windows import SeriesData, Windows


class Task(NamedTuple):
    """Prices cut and scaled: what is read, what is to be told.

    Attributes:
        prices: Daily prices.
        split: Parts of the days.
        target: What a window holds and what follows it: closes or log returns.
        data: The windows, scaled by the training part.
    """

    prices: Prices
    split: Split
    target: Target
    data: SeriesData

    def truth(self, part: Windows) -> np.ndarray:
        """Return the closes of the days of a part, `[N]`."""
        return self.prices.closes[part.positions]

    def to_closes(self, part: Windows, forecasts: np.ndarray) -> np.ndarray:
        """Turn scaled forecasts `[..., N]` of the target into closes."""
        return to_closes(self.prices, self.data, part, forecasts, target=self.target)


class Errors(NamedTuple):
    """How far forecasts are off, one number a row.

    Attributes:
        mae: Mean absolute error, in the currency.
        rmse: Root of the mean squared error, in the currency.
        mape: Mean of |error| / truth, in per cent.
    """

    mae: np.ndarray
    rmse: np.ndarray
    mape: np.ndarray


def measure_errors(forecasts: np.ndarray, truth: np.ndarray) -> Errors:
    """Compare forecasts with what came.

    Args:
        forecasts: `[..., N]`.
        truth: `[N]`, positive.

    Returns:
        Errors `[...]`; not finite where a forecast is not.

    Examples:
        >>> truth = np.array([4.0, 8.0])
        >>> mae, rmse, mape = measure_errors(np.array([3.0, 11.0]), truth)
        >>> float(mae), round(float(rmse), 4), float(mape)
        (2.0, 2.2361, 31.25)
    """
    misses = np.abs(np.asarray(forecasts, np.float64) - truth)
    return Errors(
        mae=misses.mean(axis=-1),
        rmse=np.sqrt(np.square(misses).mean(axis=-1)),
        mape=100 * (misses / truth).mean(axis=-1),
    )


def baseline_forecasts(task: Task, part: Windows) -> dict[str, np.ndarray]:
    """Forecast every day of a part without a network.

    Persistence says the close of the day before. Drift adds the mean daily change of
    the training days. The linear autoregression is fitted by least squares on the
    windows and targets that the networks are trained on.

    Args:
        task: The prices.
        part: The days.

    Returns:
        Closes `[N]` for "persistence", "drift" and "linear autoregression".
    """
    closes, train = task.prices.closes, task.split.train
    before = closes[part.positions - 1]
    change = np.diff(closes[train]).mean()
    return {
        "persistence": before,
        "drift": before + change,
        "linear autoregression": task.to_closes(
            part, _autoregression(task.data.train, part.inputs)
        ),
    }


def _autoregression(train: Windows, inputs: np.ndarray) -> np.ndarray:
    """Fit the targets by the windows and a constant; apply it to inputs `[N, W]`."""
    weights, *_ = np.linalg.lstsq(_with_constant(train.inputs), train.targets)
    return _with_constant(inputs) @ weights


def _with_constant(inputs: np.ndarray) -> np.ndarray:
    return np.column_stack([inputs, np.ones(len(inputs))])
