import datetime
import itertools

import numpy as np
import pytest

from experiments.data import bitcoin
from experiments.data.splits import split_by_time, walk_forward_splits
from tests.cases import assert_says
from tests.experiments.data.mangling import MANGLINGS, outcome, refusal, written

NUM_DAYS = 90
DAYS = np.datetime64("2020-02-01") + np.arange(NUM_DAYS)
CLOSES = np.round(9000 * np.exp(np.random.default_rng(1).normal(0, 0.03, NUM_DAYS)), 2)
EPOCHS = DAYS.astype("datetime64[s]").astype(int)


def table(header, rows):
    return "\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n"


def daily(days=DAYS, closes=CLOSES, header="Date,Open,High,Low,Close,Volume"):
    return table(
        header, [(d, 1, 2, 3, c, 5) for d, c in zip(days, closes, strict=True)]
    )


def formatted(form):
    return [day.astype(datetime.date).strftime(form) for day in DAYS]


def kaggle(scale=1):
    """By the day, as the Kaggle file is by the minute."""
    header = (
        "Timestamp,Open,High,Low,Close,Volume_(BTC),Volume_(Currency),Weighted_Price"
    )
    pairs = zip(EPOCHS * scale, CLOSES, strict=True)
    return table(header, [(time, 1, 2, 3, close, 4, 5, 6) for time, close in pairs])


def crypto_data_download():
    header = "unix,date,symbol,open,high,low,close,Volume BTC,Volume USD"
    rows = zip(EPOCHS * 1000, DAYS, CLOSES, strict=True)
    lines = [(u, f"{d} 00:00:00", "BTC/USD", 1, 2, 3, c, 4, 5) for u, d, c in rows]
    return "https://www.CryptoDataDownload.com\n" + table(header, lines[::-1])


def investing():
    rows = zip(formatted("%b %d, %Y"), CLOSES, strict=True)
    lines = [f'"{day}","{close:,.2f}","1","2","3","4.5K","-1%"' for day, close in rows]
    header = '"Date","Price","Open","High","Low","Vol.","Change %"'
    return "\r\n".join([header, *lines[::-1]])


FORMS = {
    "daily": daily(),
    "newest first": daily(DAYS[::-1], CLOSES[::-1]),
    "shuffled": daily(*(column[np.argsort(CLOSES)] for column in (DAYS, CLOSES))),
    "bitcoincharts": daily(header="Date,Open,High,Low,Close,Volume (BTC)"),
    "yahoo": daily(header="Date,Open,High,Low,Close,Adj Close"),
    "kaggle": kaggle(),
    "milliseconds": kaggle(scale=1000),
    "crypto data download": crypto_data_download(),
    "investing": investing(),
    "day first": daily(formatted("%d/%m/%Y")),
    "month first": daily(formatted("%m/%d/%Y")),
    "byte order mark": "\ufeff" + daily(),
    "CRLF": daily().replace("\n", "\r\n"),
    "UTF-16": daily().encode("utf-16"),
    "semicolons": daily().replace(",", ";"),
    "no last line feed": daily().rstrip(),
    "blank lines": daily().replace("\n", "\n\n"),
}


def read(tmp_path, content, **options):
    return bitcoin.read_prices(written(tmp_path / "prices.csv", content), **options)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_days_and_closes(form, tmp_path):
    prices = read(tmp_path, FORMS[form])
    np.testing.assert_array_equal(prices.days, DAYS)
    np.testing.assert_array_equal(prices.closes, CLOSES)
    assert not prices.filled.any()
    assert prices.report[2:6] == ("rows", NUM_DAYS, NUM_DAYS, ())


def minutes(prices_of_days):
    """Rows of the Kaggle file: a list of minutes for each day, None without trades."""
    header = "Timestamp,Open,High,Low,Close,Volume_(BTC)"
    rows = [
        (EPOCHS[day] + 60 * minute, 1, 2, 3, "NaN" if price is None else price, 0.5)
        for day, prices in enumerate(prices_of_days)
        for minute, price in enumerate(prices)
    ]
    return table(header, rows[::-1])


@pytest.mark.parametrize(
    ("daily", "closes"), [("last", [12.0, 21.0]), ("mean", [11.0, 20.5])]
)
def test_minutes_become_days(daily, closes, tmp_path):
    content = minutes([[10.0, None, 12.0, None], [20.0, 21.0, None]])
    prices = read(tmp_path, content, daily=daily)
    np.testing.assert_array_equal(prices.closes, closes)
    assert prices.report.rows == 7
    assert prices.report.dropped == (("without a price", 3, "line 2"),)


def test_trades_without_a_header_become_days(tmp_path):
    times = [EPOCHS[0] + 5, EPOCHS[0] + 70, EPOCHS[1] + 1]
    content = "".join(
        f"{t},{p},0.3\n" for t, p in zip(times, (5.5, 6.5, 7.5), strict=True)
    )
    np.testing.assert_array_equal(read(tmp_path, content).closes, [6.5, 7.5])


def test_days_without_a_price_have_that_of_the_day_before(tmp_path):
    closes = [*CLOSES]
    closes[3], closes[4], closes[20], closes[21] = 0, "null", "", -1
    content = daily(closes=closes).splitlines()
    del content[31:33]  # days 30 and 31 are not there at all
    prices = read(tmp_path, "\n".join(content))
    np.testing.assert_array_equal(prices.days, DAYS)
    missing = [3, 4, 20, 21, 30, 31]
    assert list(np.flatnonzero(prices.filled)) == missing
    sources = [2, 2, 19, 19, 29, 29]
    np.testing.assert_array_equal(prices.closes[missing], CLOSES[sources])
    rest = ~prices.filled
    np.testing.assert_array_equal(prices.closes[rest], CLOSES[rest])
    assert prices.report.dropped == (
        ("with a price of zero or less", 2, "line 5"),
        ("without a price", 2, "line 6"),
    )
    assert "6 days filled with the price before" in str(prices.report)
    dropped = read(tmp_path, "\n".join(content), missing_days="drop")
    np.testing.assert_array_equal(dropped.closes, CLOSES[rest])
    assert "3 gaps between days" in str(dropped.report)


def test_last_of_repeated_days_counts_and_is_reported(tmp_path):
    prices = read(
        tmp_path, daily() + f"{DAYS[7]},1,2,3,123.5,5\n{DAYS[9]},1,2,3,7.5,5\n"
    )
    expected = CLOSES.copy()
    expected[[7, 9]] = 123.5, 7.5
    np.testing.assert_array_equal(prices.closes, expected)
    first = f"{DAYS[7]}T00:00:00"
    assert prices.report.dropped == (("with a time that comes again", 2, first),)


def test_rows_that_cannot_be_read_are_left_out_and_reported(tmp_path):
    lines = daily().splitlines()
    lines[11] = "10/xx,1,2,3,9000,5"
    lines[12] = lines[12].replace(str(CLOSES[11]), "nine thousand")
    lines[13] = lines[13][:15]
    prices = read(tmp_path, "\n".join(lines), missing_days="drop")
    np.testing.assert_array_equal(prices.closes, np.delete(CLOSES, [10, 11, 12]))
    reasons = [(drop.reason, drop.first) for drop in prices.report.dropped]
    assert reasons == [
        ("without a time", "line 12"),
        ("with text for a price", "line 13"),
        ("with a wrong number of fields", "line 14"),
    ]


def test_dates_cut_the_series(tmp_path):
    options = {"start_date": DAYS[5].item(), "end_date": DAYS[60].item()}
    prices = read(tmp_path, daily(), **options)
    np.testing.assert_array_equal(prices.days, DAYS[5:61])
    assert prices.report.dropped[0][:2] == ("outside the dates asked for", 34)
    late = {"start_date": datetime.date(2031, 1, 1)}
    refusal(
        lambda: read(tmp_path, daily(), **late), "nothing to use", "outside the dates"
    )


def test_long_hole_is_not_filled(tmp_path):
    kept = np.r_[0:30, 63:NUM_DAYS]
    content = daily(DAYS[kept], CLOSES[kept])
    refusal(lambda: read(tmp_path, content), DAYS[29], DAYS[63])
    assert read(tmp_path, content, missing_days="drop").days.size == kept.size
    kept = np.r_[0:30, 61:NUM_DAYS]  # 31 days
    assert read(tmp_path, daily(DAYS[kept], CLOSES[kept])).filled.sum() == 31


@pytest.mark.parametrize("option", ["daily", "missing_days"])
def test_unknown_option_names_the_known_ones(option, tmp_path):
    with pytest.raises(ValueError) as error:
        read(tmp_path, daily(), **{option: "first"})
    assert_says(error, option, "'first'")


@pytest.mark.parametrize("way", MANGLINGS)
@pytest.mark.parametrize("form", ["daily", "kaggle", "crypto data download"])
def test_mangled_file_is_read_with_a_report_or_refused_in_one_line(way, form, tmp_path):
    content = MANGLINGS[way](FORMS[form].encode())
    prices = outcome(lambda: read(tmp_path, content, missing_days="drop"))
    if isinstance(prices, str):
        assert "prices.csv" in prices
        return
    assert way in {"cut short", "garbage in the middle", "lost quotation mark"}
    assert np.isin(prices.closes, CLOSES).all()
    assert prices.days.size >= NUM_DAYS // 2
    lost = prices.report.rows - prices.report.kept
    assert sum(drop.number for drop in prices.report.dropped) == lost


@pytest.mark.parametrize(
    "header", ["Date,Open,High,Low,Volume,Trades", "a,b,c,d,e,f", "1,2,3,4,5,6"]
)
def test_wrong_columns_are_refused_by_name(header, tmp_path):
    refusal(lambda: read(tmp_path, daily(header=header)), "no header", "close", header)


def test_text_for_numbers_throughout_is_refused(tmp_path):
    closes = ["dear"] * NUM_DAYS
    content = daily(closes=closes)
    refusal(lambda: read(tmp_path, content), "not a file of prices", "90 with text")


def prices_of(closes=CLOSES):
    return bitcoin.Prices(DAYS, closes, np.zeros(NUM_DAYS, bool), None)


SPLIT = split_by_time(NUM_DAYS, num_valid=4, num_test=6)


def test_sixty_days_predict_the_sixty_first():
    prices = prices_of()
    data = bitcoin.make_dataset(prices, SPLIT)
    assert data.train.inputs.shape == (NUM_DAYS - 10 - 60, 60)
    low, high = CLOSES[:80].min(), CLOSES[:80].max()
    for part, first in ((data.train, 60), (data.valid, 80), (data.test, 84)):
        assert part.positions[0] == first
        for row, at in enumerate(part.positions):
            past = (CLOSES[at - 60 : at] - low) / (high - low)
            np.testing.assert_allclose(part.inputs[row], past)
            np.testing.assert_allclose(
                part.targets[row], (CLOSES[at] - low) / (high - low)
            )
    back = bitcoin.to_closes(prices, data, data.test, data.test.targets, target="close")
    np.testing.assert_allclose(back, CLOSES[84:])


@pytest.mark.parametrize("scaling", ["none", "standard", "min_max"])
def test_returns_stand_at_their_day_and_lead_back_to_closes(scaling):
    prices = prices_of()
    options = {"window": 20, "target": "log_return", "scaling": scaling}
    data = bitcoin.make_dataset(prices, SPLIT, **options)
    returns = np.log(CLOSES[1:] / CLOSES[:-1])  # that of day t at t - 1
    starts = (21, 80, 84)
    for part, first in zip(data[:3], starts, strict=True):
        assert part.positions[0] == first
        for row, at in enumerate(part.positions):
            past = data.scaler.inverse(part.inputs[row])
            np.testing.assert_allclose(past, returns[at - 21 : at - 1], atol=1e-12)
        closes = bitcoin.to_closes(
            prices, data, part, part.targets, target="log_return"
        )
        np.testing.assert_allclose(closes, CLOSES[part.positions])
    assert data.test.positions[-1] == NUM_DAYS - 1
    train = data.scaler.transform(returns[:79])
    if scaling == "standard":
        np.testing.assert_allclose([train.mean(), train.std()], [0, 1], atol=1e-12)


@pytest.mark.parametrize("target", ["close", "log_return"])
def test_walk_forward_tests_every_day_once(target):
    splits = walk_forward_splits(NUM_DAYS, 3, num_test=5, max_train=40)
    parts = [
        bitcoin.make_dataset(prices_of(), split, window=20, target=target)
        for split in splits
    ]
    tested = itertools.chain.from_iterable(data.test.positions for data in parts)
    assert list(tested) == list(range(75, NUM_DAYS))
    assert [data.train.positions[-1] for data in parts] == [74, 79, 84]


def test_unknown_target_names_the_known_ones():
    with pytest.raises(ValueError) as error:
        bitcoin.make_dataset(prices_of(), SPLIT, target="open")
    assert_says(error, "target", "log_return", "'open'")
