import datetime

import numpy as np
import pytest

from experiments.data.dates import Times, parse_time

NOON = int(datetime.datetime(2021, 6, 20, 12, tzinfo=datetime.UTC).timestamp())


@pytest.mark.parametrize(
    "text",
    [
        "2021-06-20 12:00:00",
        "2021-06-20T12:00Z",
        "2021-06-20 14:00:00+02:00",
        "2021-06-20 12:00:00 UTC",
        "2021/6/20 12:00",
        "20/06/2021 12:00",
        "06/20/2021 12:00:00",
        "6/20/2021 12:00 PM",
        "2021-06-20 12-PM",
        "20.06.2021 12:00",
        f"{NOON}",
        f"{NOON}.0",
        f"{NOON}000",
        f"{NOON}000000",
        f"{NOON}000000000",
        f" {NOON:.6e}" if NOON % 1000 == 0 else f" {NOON} ",
    ],
)
def test_same_moment_in_many_forms(text):
    assert set(parse_time(text)) - {None} == {NOON}


@pytest.mark.parametrize(
    "text", ["2021-06-20", "20210620", "Jun 20, 2021", "20 Jun 2021", "2021/06/20"]
)
def test_day_is_its_midnight(text):
    assert parse_time(text).day_first == NOON - 12 * 3600


@pytest.mark.parametrize(
    "text",
    [
        *("", "yesterday", "nan", "2021-13-01", "31/31/2021", "20/06/21", "-5"),
        *("2021-02-30", "6/20/2021 25:00", "6/20/2021 13:00 PM", "1e400", "1850-01-01"),
    ],
)
def test_what_is_no_time_is_refused(text):
    with pytest.raises(ValueError):
        parse_time(text)


def resolved(*texts):
    times = Times()
    for text in texts:
        times.add(text)
    return [str(day) for day in times.resolve().astype("datetime64[s]").astype("M8[D]")]


def test_one_day_above_12_tells_for_the_whole_file():
    assert resolved("04/03/2016", "13/03/2016") == ["2016-03-04", "2016-03-13"]
    assert resolved("04/03/2016", "03/13/2016") == ["2016-04-03", "2016-03-13"]


def test_otherwise_the_reading_that_spans_less_time():
    days = [f"{day:02}/01/2016" for day in range(1, 13)]
    assert resolved(*days)[-1] == "2016-01-12"
    months_first = [f"01/{day:02}/2016" for day in range(1, 13)]
    assert resolved(*months_first)[-1] == "2016-01-12"
    assert resolved("04/03/2016") == ["2016-03-04"]


def test_contradicting_days_and_months_are_refused():
    with pytest.raises(ValueError, match="change places"):
        resolved("13/03/2016", "03/13/2016")


def test_no_time_at_all_is_an_empty_array():
    assert Times().resolve().dtype == np.int64
    assert Times().resolve().size == 0
