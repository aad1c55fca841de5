"""The published files themselves, where a folder has them; nothing is fetched."""

import os
from pathlib import Path

import numpy as np
import pytest

from experiments.data import bitcoin, polyphonic_music, reviews, traffic
from experiments.data import text as texts
from experiments.data.splits import split_by_time

FOLDER = os.environ.get("GATED_RNN_DATA")
pytestmark = pytest.mark.skipif(not FOLDER, reason="GATED_RNN_DATA names no folder")
DATA = Path(FOLDER or ".")


def test_bitcoin():
    prices = bitcoin.load_prices(DATA)
    assert prices.report.sha256 == bitcoin.PUBLISHED.sha256
    assert prices.report[3:5] == (3560, 3539)
    assert prices.report.dropped[0][:2] == ("with a price of zero or less", 21)
    assert prices.filled.sum() == 30  # 21 rows of zeros and 9 days without a row
    ends = [str(day) for day in prices.days[[0, -1]]]
    assert ends == ["2011-09-13", "2021-06-20"]
    split = split_by_time(prices.days.size, num_valid=0, num_test=60)
    data = bitcoin.make_dataset(prices, split)
    assert data.train.inputs.shape == (3449, 60)
    assert data.test.inputs.shape == (60, 60)


def test_traffic_and_its_linear_baselines():
    train, test = traffic.load_flows(DATA)
    assert train.report.sha256 == traffic.PUBLISHED_TRAIN.sha256
    assert test.report.sha256 == traffic.PUBLISHED_TEST.sha256
    assert (train.flows.size, test.flows.size) == (7776, 4320)
    data = traffic.make_dataset(train, test, valid_share=0)
    assert data.test.inputs.shape == (4308, 12)
    inputs, due, past, target = map(
        data.scaler.inverse,
        (data.test.inputs, data.test.targets, data.train.inputs, data.train.targets),
    )
    errors = due - inputs[:, -1]
    np.testing.assert_allclose(np.abs(errors).mean(), 8.335, atol=5e-4)
    np.testing.assert_allclose((errors**2).mean(), 127.9, atol=0.05)

    def with_constant(rows):
        return np.c_[rows, np.ones(len(rows))]

    weights, *_ = np.linalg.lstsq(with_constant(past), target, rcond=None)
    errors = due - with_constant(inputs) @ weights
    np.testing.assert_allclose(np.abs(errors).mean(), 7.534, atol=5e-4)
    np.testing.assert_allclose((errors**2).mean(), 105.27, atol=5e-3)


@pytest.mark.parametrize(
    ("collection", "pieces", "steps"),
    [
        ("jsb_chorales", (229, 76, 77), (13_807, 4_602, 4_725)),
        ("nottingham", (694, 173, 170), (176_561, 45_513, 44_463)),
    ],
)
def test_music(collection, pieces, steps):
    music = polyphonic_music.load_music(collection, DATA)
    parts = (music.train, music.valid, music.test)
    assert tuple(map(len, parts)) == pieces
    assert tuple(sum(map(len, part)) for part in parts) == steps
    assert music.report.sha256 == polyphonic_music.PUBLISHED[collection].sha256


def test_both_formats_of_the_chorales_say_the_same():
    one = polyphonic_music.load_music("jsb_chorales", DATA)
    path = DATA / "polymusic" / "jsb-chorales-quarter.json"
    other = polyphonic_music.read_music(path)
    for part, same in zip(one[:3], other[:3], strict=True):
        for roll, again in zip(part, same, strict=True):
            np.testing.assert_array_equal(roll, again)


def test_text():
    read = texts.load_text(DATA)
    assert read.report.sha256 == texts.PUBLISHED.sha256
    data = texts.make_dataset(read.text)
    assert [part.size for part in data[:3]] == [1_003_856, 55_769, 55_769]
    assert len(data.vocabulary.tokens) == 66
    assert data.num_unknown == (0, 0)


@pytest.mark.parametrize(
    ("collection", "kept"), [("polarity", (5331, 5331)), ("sentences", (990, 996, 996))]
)
def test_reviews(collection, kept):
    found = reviews.load_reviews(collection, DATA)
    assert tuple(report.kept for report in found.reports) == kept
    assert len(found.reviews.texts) == sum(kept)
