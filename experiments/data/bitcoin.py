"""Daily closes of Bitcoin, from any of the usual csv files; 60 days to the 61st.

By the minute or the day: the Kaggle "Bitcoin Historical Data" schema, bitcoincharts,
Bitstamp, Yahoo, CryptoDataDownload, Investing. Layer: experiments (data).
"""

import datetime
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from experiments.data.downloads import find_file, github_file
from experiments.data.reading import read_table, unusable
from experiments.data.reports import Report, Tally
from experiments.data.scaling import Scaling
from experiments.data.splits import Split
from experiments.data.timed_values import read_timed_values
from experiments.data.windows import SeriesData, Windows, make_series_data
from gated_rnn.types import invalid

#: Daily prices of Bitstamp as bitcoincharts gave them to Quandl, 2011 to 2021. The
#: Kaggle file by the minute needs a login there: give it with --data-dir.
PUBLISHED = github_file(
    "bitcoin_bcharts_daily",
    "RiverRo/notes",
    "a731f2b2c77bbbeed95c6be157c9bf6c728156f4",
    "data/BCHARTS-BITSTAMPUSD.csv",
    "345f3ec496af3c8e1cc1b3d5558f750fa460be362a924f0151578e4c4c36a05e",
)
#: "Tracing trends for 60 days to predict the price on the 61st day."
WINDOW_DAYS = 60
#: A longer hole is not filled with one price.
MAX_FILLED_DAYS = 31

Daily = Literal["last", "mean"]
MissingDays = Literal["fill", "drop"]
Target = Literal["close", "log_return"]

_SECONDS_PER_DAY = 86_400
_TIME = r"unix|unix_timestamp|timestamp|date|time|datetime|open_time|snapped_at"
_CLOSE = r"close|close_usd|closing_price_usd|price|priceusd|last"
_TRADES = ("unix", "price", "amount")  # a bitcoincharts dump of trades has no header


class Prices(NamedTuple):
    """Daily prices in the order of time.

    Attributes:
        days: datetime64[D] `[N]`, UTC; every day once.
        closes: float64 `[N]`, in the file's currency, positive.
        filled: bool `[N]`, where the day had no price and has that of the day before.
        report: What was read and what was left out.
    """

    days: np.ndarray
    closes: np.ndarray
    filled: np.ndarray
    report: Report


def load_prices(data_dir: Path | None = None, **options) -> Prices:
    """Find the published file, or the user's, and read it.

    Args:
        data_dir: A folder with the file, or any csv file of daily or minute prices.
        **options: Of `read_prices`.

    Returns:
        The prices.

    Raises:
        UsageError: If there is no file, or none that can be used.
    """
    return read_prices(find_file(PUBLISHED, data_dir), **options)


def read_prices(
    path: Path,
    *,
    daily: Daily = "last",
    missing_days: MissingDays = "fill",
    start_date: datetime.date | None = None,
    end_date: datetime.date | None = None,
) -> Prices:
    """Read prices from a csv file, oldest or newest first, and make them daily.

    Rows without a price, or with one that is not positive (a day without trades is all
    zeros), are left out, as are rows that cannot be read; of rows with the same time
    the last in the file counts. The report says how many.

    Args:
        path: The file.
        daily: A day's price: its "last" one, or their "mean".
        missing_days: "fill" gives a day without a price that of the day before, which
            was known then; "drop" leaves it out, and a window of 60 prices may then
            span more days.
        start_date: First day used, or None.
        end_date: Last day used, or None.

    Returns:
        The prices.

    Raises:
        UsageError: If the file is not one of prices, or has a hole of more than
            `MAX_FILLED_DAYS` that would have to be filled.
        ValueError: If an option is not one of those above.
    """
    _check_choice("daily", daily, Daily)
    _check_choice("missing_days", missing_days, MissingDays)
    required = {"date (or timestamp)": _TIME, "close (or price)": _CLOSE}
    table = read_table(path, required, headless=_TRADES)
    tally = Tally(path, "a file of prices")
    seconds, prices = read_timed_values(
        table,
        tally,
        time_at=table.find(_TIME)[0],
        value_at=table.find(_CLOSE)[0],
        noun="price",
        refuse=lambda price: None if price > 0 else "with a price of zero or less",
    )
    numbers = seconds // _SECONDS_PER_DAY
    first = -np.inf if start_date is None else _day_number(start_date)
    last = np.inf if end_date is None else _day_number(end_date)
    inside = (numbers >= first) & (numbers <= last)
    tally.drop("outside the dates asked for", "by date", int((~inside).sum()))
    numbers, prices = numbers[inside], prices[inside]
    if not numbers.size:
        tally.finish(0)  # raises
    kept = numbers.size
    numbers, prices = _by_day(numbers, prices, daily)
    filled = np.zeros(numbers.shape, bool)
    if missing_days == "fill":
        numbers, prices, filled = _fill(path, numbers, prices)
    gaps = int((np.diff(numbers) > 1).sum())
    report = tally.finish(
        kept,
        f"{numbers.size:,} days, {_day_name(numbers[0])} to {_day_name(numbers[-1])}",
        f"{filled.sum():,} days filled with the price before" if filled.any() else "",
        f"{gaps:,} gaps between days" if gaps else "",
    )
    return Prices(numbers.astype("datetime64[D]"), prices, filled, report)


def make_dataset(
    prices: Prices,
    split: Split,
    *,
    window: int = WINDOW_DAYS,
    target: Target = "close",
    scaling: Scaling = "min_max",
) -> SeriesData:
    """Cut prices into windows of the past and the value of the next day.

    Args:
        prices: Daily prices.
        split: Parts of the days, from `experiments.data.splits`.
        window: Days in a window.
        target: "close": windows of closes, to the next close. "log_return": windows of
            log(close / close of the day before), to the next of them.
        scaling: Fitted on the training part alone: "min_max" as in the text, "standard"
            or "none".

    Returns:
        Scaled windows; `positions` are those of the target's day in `prices`.

    Raises:
        ValueError: If the training part is too short, or an option is unknown.
    """
    _check_choice("target", target, Target)
    if target == "close":
        return make_series_data(prices.closes, split, window=window, scaling=scaling)
    # The return of day t stands at t - 1: there is none of the first day.
    earlier = Split(*(_one_earlier(part) for part in split))
    returns = np.diff(np.log(prices.closes))
    data = make_series_data(returns, earlier, window=window, scaling=scaling)
    parts = [
        part._replace(positions=part.positions + 1)
        for part in (data.train, data.valid, data.test)
    ]
    return SeriesData(*parts, scaler=data.scaler)


def to_closes(
    prices: Prices,
    data: SeriesData,
    part: Windows,
    predictions: np.ndarray,
    *,
    target: Target,
) -> np.ndarray:
    """Turn predictions of scaled targets into closes.

    Args:
        prices: As given to `make_dataset`.
        data: Its result.
        part: The part that was predicted.
        predictions: `[N]`, scaled as `part.targets`.
        target: As given to `make_dataset`.

    Returns:
        float64 `[N]`, in the file's currency; a return is applied to the close before.
    """
    values = data.scaler.inverse(predictions)
    if target == "close":
        return values
    return prices.closes[part.positions - 1] * np.exp(values)


def _by_day(
    numbers: np.ndarray, prices: np.ndarray, daily: Daily
) -> tuple[np.ndarray, np.ndarray]:
    """Join the prices of each day, in the order of time."""
    days, first, counts = np.unique(numbers, return_index=True, return_counts=True)
    if daily == "last":
        return days, prices[first + counts - 1]
    return days, np.add.reduceat(prices, first) / counts


def _fill(
    path: Path, numbers: np.ndarray, prices: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Give every day between the first and the last a price."""
    steps = np.diff(numbers)
    if steps.size and steps.max() > MAX_FILLED_DAYS + 1:
        at = int(steps.argmax())
        raise unusable(
            path,
            f"has no price between {_day_name(numbers[at])} and "
            f"{_day_name(numbers[at + 1])}",
            "Cut it with a start or end date, or leave missing days out",
        )
    every = np.arange(numbers[0], numbers[-1] + 1)
    before = np.searchsorted(numbers, every, side="right") - 1
    return every, prices[before], numbers[before] != every


def _one_earlier(part: slice) -> slice:
    return slice(max(part.start - 1, 0), max(part.stop - 1, 0))


def _day_number(date: datetime.date) -> int:
    return int(np.datetime64(date, "D").astype(np.int64))


def _day_name(number: int) -> str:
    return str(np.datetime64(int(number), "D"))


def _check_choice(name: str, value: str, choices) -> None:
    if value not in choices.__args__:
        raise invalid(name, f"one of {list(choices.__args__)}", repr(value))
