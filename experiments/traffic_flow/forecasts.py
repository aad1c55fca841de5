"""Forecasts of the flow that need no network, and how forecasts are measured.

NumPy, float64, in vehicles a step. They are fitted on all that precedes the test, the
validation part included, since nothing but ARIMA's order is chosen for them.
"""

import itertools
import warnings
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from experiments.data.traffic import Flow
from experiments.data.windows import sliding_windows
from experiments.traffic_flow.problem import Task, seconds_of_day

Order = tuple[int, int, int]

#: Orders (p, d, q) that ARIMA may have; the validation chooses.
ARIMA_ORDERS = tuple(itertools.product((1, 2, 3), (0, 1), (0, 1, 2)))
_DAY = 24 * 60 * 60  # seconds


class Errors(NamedTuple):
    """How far forecasts are off, one number a row.

    Attributes:
        mae: Mean absolute error, vehicles a step.
        rmse: Root of the mean squared error, vehicles a step.
        mape: Mean of |error| / truth in per cent, where the truth is not zero.
        r2: 1 - squared errors / squared deviations of the truth from its mean.
    """

    mae: np.ndarray
    rmse: np.ndarray
    mape: np.ndarray
    r2: np.ndarray


class Arima(NamedTuple):
    """What ARIMA of the chosen order says.

    Attributes:
        order: (p, d, q), the best on the validation part.
        valid_mse: Mean squared error of each order there, squared vehicles; not finite
            where it cannot be fitted.
        forecasts: Of the test, `[N]`, vehicles.
    """

    order: Order
    valid_mse: dict[str, float]
    forecasts: np.ndarray


def measure_errors(forecasts: np.ndarray, truth: np.ndarray) -> Errors:
    """Compare forecasts with what came.

    Args:
        forecasts: `[..., N]`, vehicles.
        truth: `[N]`.

    Returns:
        Errors `[...]`; not finite where a forecast is not.

    Examples:
        >>> told, came = np.array([3.0, 1.0, 9.0]), np.array([4.0, 0.0, 8.0])
        >>> mae, rmse, mape, r2 = measure_errors(told, came)
        >>> float(mae), float(rmse), float(mape), float(r2)
        (1.0, 1.0, 18.75, 0.90625)
    """
    misses = np.asarray(forecasts, np.float64) - truth
    real = truth != 0
    shares = np.abs(misses[..., real]) / truth[real]
    variation = np.square(truth - truth.mean()).mean()
    squares = np.square(misses).mean(axis=-1)
    return Errors(
        mae=np.abs(misses).mean(axis=-1),
        rmse=np.sqrt(squares),
        mape=100 * shares.mean(axis=-1),
        r2=1 - squares / variation,
    )


def errors_by_day(
    forecasts: np.ndarray, truth: np.ndarray, times: np.ndarray
) -> np.ndarray:
    """Measure the mean absolute error of each day.

    Args:
        forecasts: `[..., N]`, vehicles.
        truth: `[N]`.
        times: datetime64 `[N]`.

    Returns:
        `[..., D]`, the days in order.
    """
    days, day = np.unique(times.astype("datetime64[D]"), return_inverse=True)
    misses = np.abs(forecasts - truth)
    return np.stack(
        [misses[..., day == number].mean(axis=-1) for number in range(len(days))],
        axis=-1,
    )


def baseline_forecasts(task: Task) -> dict[str, np.ndarray]:
    """Forecast every step of the test without a network.

    "persistence" says the latest flow; "day before" that of the same time on the last
    day before; "daily profile" the mean of the training days at that time. "linear" is
    the least-squares autoregression on the windows that the networks read; "linear,
    profile" the same of what deviates from the daily profile, so that it knows the time
    of day, which the networks do not.

    Args:
        task: The flows.

    Returns:
        Vehicles, `[N]` for each name.
    """
    train, test, data = task
    positions, num_steps = data.test.positions, data.test.inputs.shape[1]
    profile = {
        name: daily_profile(train, flow.times)
        for name, flow in (("train", train), ("test", test))
    }
    deviations = linear_forecasts(
        train.flows - profile["train"], test.flows - profile["test"], num_steps
    )
    return {
        "persistence": test.flows[positions - 1],
        "day before": same_time_before(train, test)[positions],
        "daily profile": profile["test"][positions],
        "linear": linear_forecasts(train.flows, test.flows, num_steps),
        "linear, profile": deviations + profile["test"][positions],
    }


def linear_forecasts(
    series: np.ndarray, later: np.ndarray, num_steps: int
) -> np.ndarray:
    """Fit a linear autoregression with a constant, and forecast a later series by it.

    Args:
        series: To fit, `[N]`.
        later: To forecast, `[M]`.
        num_steps: Steps that are read.

    Returns:
        `[M - num_steps]`, of the steps that have so many before them.
    """
    fitted, told = sliding_windows(series, num_steps), sliding_windows(later, num_steps)
    weights, *_ = np.linalg.lstsq(
        _with_constant(fitted.inputs), fitted.targets, rcond=None
    )
    return _with_constant(told.inputs) @ weights


def linear_valid_mse(task: Task) -> float:
    """Measure the linear autoregression on the validation part, scaled.

    It is fitted on the windows that the networks are trained on: what they have to
    reach.
    """
    train, valid = task.data.train, task.data.valid
    weights, *_ = np.linalg.lstsq(
        _with_constant(train.inputs), train.targets, rcond=None
    )
    misses = _with_constant(valid.inputs) @ weights - valid.targets
    return float(np.square(misses).mean())


def daily_profile(train: Flow, times: np.ndarray) -> np.ndarray:
    """Take the training flow's mean at a time of day.

    Args:
        train: The flow.
        times: datetime64[s] `[N]`.

    Returns:
        `[N]`, vehicles; linear between the times of day that the flow has.
    """
    known, at = np.unique(seconds_of_day(train.times), return_inverse=True)
    means = np.bincount(at, train.flows) / np.bincount(at)
    return np.interp(seconds_of_day(times), known, means, period=_DAY)


def same_time_before(train: Flow, test: Flow) -> np.ndarray:
    """Take the flow at the same time of the last day that is there, earlier.

    Args:
        train: The flow before.
        test: The flow whose days are asked for.

    Returns:
        `[N]` for the N steps of the test, vehicles; the daily profile where no day has
        that time.
    """
    times = np.concatenate([train.times, test.times])
    flows = np.concatenate([train.flows, test.flows])
    seconds = seconds_of_day(times)
    order = np.lexsort((times, seconds))
    before = np.append(-1, order[:-1])
    same = np.append(False, seconds[order][1:] == seconds[order][:-1])
    found = np.where(same, flows[before], daily_profile(train, times[order]))
    result = np.empty_like(found)
    result[order] = found
    return result[train.times.size :]


def arima_forecasts(task: Task, orders: Iterable[Order] | None = None) -> Arima:
    """Choose ARIMA's order by validation, fit it again, forecast one step ahead.

    Days are joined, as for the networks. Parameters are those of the flow before the
    test; in the test, the filter sees everything up to the step before.

    Args:
        task: The flows.
        orders: Orders (p, d, q) to choose from; None: `ARIMA_ORDERS`.

    Returns:
        The forecasts and how the order was chosen; not finite if none can be fitted.
    """
    flows = task.train.flows
    told = task.data.valid.positions
    tried = {}
    for order in ARIMA_ORDERS if orders is None else orders:
        told_flows = _one_step_ahead(order, flows[: told[0]], flows)
        misses = (told_flows - flows)[told]
        tried[order] = float(np.square(misses).mean())
    best = min(tried, key=lambda order: (not np.isfinite(tried[order]), tried[order]))
    forecasts = _one_step_ahead(best, flows, task.test.flows)
    valid_mse = {str(order): value for order, value in tried.items()}
    return Arima(best, valid_mse, forecasts[task.data.test.positions])


def _one_step_ahead(order: Order, fitted: np.ndarray, series: np.ndarray) -> np.ndarray:
    """Fit one series, forecast each step of another from those before it, `[N]`."""
    # Here: of the experiments, this alone needs it, and it takes long to import.
    from statsmodels.tools.sm_exceptions import ConvergenceWarning
    from statsmodels.tsa.arima.model import ARIMA

    with warnings.catch_warnings():
        # That a search starts from zeros, and that it ended before it converged: the
        # validation judges what came out.
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("ignore", UserWarning)
        try:
            # Exact likelihood by innovations: a tenth of the default's time.
            result = ARIMA(fitted, order=order).fit(method="innovations_mle")
            return np.asarray(result.apply(series).fittedvalues)
        except (ValueError, np.linalg.LinAlgError):
            return np.full(series.size, np.nan)


def _with_constant(inputs: np.ndarray) -> np.ndarray:
    return np.column_stack([inputs, np.ones(len(inputs))])
