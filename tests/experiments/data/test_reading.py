import math

import pytest

from experiments.data.reading import parse_number, read_table, read_text
from experiments.data.reports import Tally
from tests.experiments.data.mangling import refusal, written

REQUIRED = {"a date": "date", "a price": "close|price"}


@pytest.mark.parametrize(
    ("text", "number"),
    [("5", 5.0), (" -5.5 ", -5.5), ("1e3", 1000.0), ("35,911.2", 35911.2), ("$7", 7.0)],
)
def test_numbers_are_read(text, number):
    assert parse_number(text) == number


@pytest.mark.parametrize("text", ["", "NaN", "null", "N/A", "-", " None "])
def test_no_value_is_nan(text):
    assert math.isnan(parse_number(text))


@pytest.mark.parametrize("text", ["abc", "1_000", "35,91", "5 USD", "1.2.3", "0x10"])
def test_other_text_is_refused(text):
    with pytest.raises(ValueError):
        parse_number(text)


def test_comma_that_may_be_a_decimal_one_is_refused():
    with pytest.raises(ValueError):
        parse_number("35,911", thousands=False)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_table_is_read_whatever_its_line_ends_encoding_and_delimiter(
    end, encoding, delimiter, tmp_path
):
    lines = ["https://www.example.org", "Date,Close", "a,1", "", '"b",2', ""]
    content = end.join(lines).replace(",", delimiter).encode(encoding)
    table = read_table(written(tmp_path / "a.csv", content), REQUIRED)
    assert table.columns == ["Date", "Close"]
    assert table.delimiter == delimiter
    assert list(table.rows) == [(3, ["a", "1"]), (5, ["b", "2"])]


def test_lost_quotation_mark_costs_one_row(tmp_path):
    path = written(tmp_path / "a.csv", 'Date,Close\na,1\n"b,2\nc,3\n')
    rows = [fields for _, fields in read_table(path, REQUIRED).rows]
    assert rows[0] == ["a", "1"]
    assert rows[2] == ["c", "3"]
    assert len(rows[1]) == 1


def test_table_without_header_is_known_by_its_numbers(tmp_path):
    headless = ("date", "price", "amount")
    path = written(tmp_path / "a.csv", "1315922016,5.8,1.0\n1315922024,5.83,3.0\n")
    table = read_table(path, REQUIRED, headless)
    assert [fields[1] for _, fields in table.rows] == ["5.8", "5.83"]
    refusal(lambda: read_table(path, REQUIRED), "no header", "a date and a price")


def test_missing_file_and_folder_are_one_line(tmp_path):
    refusal(lambda: read_text(tmp_path / "none.txt"), "none.txt", "No such file")
    refusal(lambda: read_text(tmp_path), "directory", "--data-dir")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"PK\x03\x04abc", "zip archive"),
        (b"\x1f\x8babc", "gzip archive"),
        (b"abc\x00def", "not a text file"),
        ("caf\u00e9".encode("latin-1"), "not text in UTF-8 (byte 3)"),
        (b"\xff\xfea", "not text in UTF-8"),
    ],
    ids=["empty", "zip", "gzip", "zeros", "latin-1", "half UTF-16"],
)
def test_what_is_no_text_is_one_line(content, words, tmp_path):
    refusal(lambda: read_text(written(tmp_path / "a.txt", content)), "a.txt", words)


def test_text_comes_without_mark_and_with_line_feeds(tmp_path):
    path = written(tmp_path / "a.txt", "\ufeffcaf\u00e9\r\nb\rc\n")
    assert read_text(path) == "caf\u00e9\nb\nc\n"
    old = written(tmp_path / "b.txt", "caf\u00e9".encode("latin-1"))
    assert read_text(old, fallback="latin-1") == "caf\u00e9"


def test_tally_refuses_more_than_a_tenth_unreadable(tmp_path):
    path = written(tmp_path / "a.csv", "x")
    for bad, refused in ((10, False), (11, True)):
        tally = Tally(path, "a file of sheep", rows=100)
        for line in range(bad):
            tally.unreadable("without wool", f"line {line + 2}")
        if refused:
            refusal(lambda: tally.finish(89), "not a file of sheep", "11 without wool")  # noqa: B023 - called at once
        else:
            report = tally.finish(90)
            assert report.dropped == (("without wool", 10, "line 2"),)


def test_tally_refuses_a_file_of_which_nothing_is_left(tmp_path):
    tally = Tally(written(tmp_path / "a.csv", "x"), "a file of sheep", rows=5)
    tally.drop("shorn", "line 2", 5)
    refusal(lambda: tally.finish(0), "nothing to use", "5 shorn (first: line 2)")
