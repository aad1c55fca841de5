"""Nothing of a test part reaches training: changed at will, it changes nothing there.

Every value of the test part is replaced in the file itself, which is then read again.
"""

import json

import jax
import numpy as np
import pytest

from experiments.data import bitcoin, polyphonic_music, review_batches, reviews, traffic
from experiments.data import text as texts
from experiments.data.splits import split_by_share, split_by_time, walk_forward_splits
from tests.experiments.data import test_bitcoin as prices
from tests.experiments.data import test_polyphonic_music as music
from tests.experiments.data import test_reviews as opinions
from tests.experiments.data import test_text as characters
from tests.experiments.data import test_traffic as flows
from tests.experiments.data.mangling import written

SPLITS = [
    split_by_time(prices.NUM_DAYS, num_valid=5, num_test=10),
    *walk_forward_splits(prices.NUM_DAYS, 2, num_test=10, num_valid=5, max_train=50),
]


def bits(tree):
    """Give the bytes of every array, and everything else as it is."""
    return [
        leaf.tobytes() if isinstance(leaf, np.ndarray | np.generic) else leaf
        for leaf in jax.tree.leaves(tree)
    ]


@pytest.mark.parametrize("target", ["close", "log_return"])
@pytest.mark.parametrize("scaling", ["min_max", "standard", "none"])
@pytest.mark.parametrize("split", SPLITS, ids=["time", "first fold", "second fold"])
@pytest.mark.parametrize("factor", [1e-3, 50.0])
def test_prices(target, scaling, split, factor, tmp_path):
    def learnt(closes, start):
        path = written(tmp_path / "prices.csv", prices.daily(closes=closes))
        read = bitcoin.read_prices(path)
        options = {"window": 20, "target": target, "scaling": scaling}
        data = bitcoin.make_dataset(read, split, **options)
        parts = {"test": data.test, "valid": data.valid, "train": data.train}
        return bits((data.train, data.scaler)), bits(data.valid), bits(parts[start])

    for part, start in (("test", split.test.start), ("valid", split.valid.start)):
        changed = prices.CLOSES.copy()
        changed[start:] = np.round(changed[start:] * factor + 3, 2)[::-1]
        before, after = learnt(prices.CLOSES, part), learnt(changed, part)
        assert before[0] == after[0]
        assert before[2] != after[2]  # the change is there
        if part == "test":
            assert before[1] == after[1]


@pytest.mark.parametrize("across_gaps", [True, False])
@pytest.mark.parametrize("scaling", ["min_max", "standard"])
def test_flows(across_gaps, scaling, tmp_path):
    def learnt(train, test):
        written(tmp_path / "train.csv", flows.content_of(flows.TIMES, train))
        written(tmp_path / "test.csv", flows.content_of(flows.TEST_TIMES, test))
        read = traffic.load_flows(tmp_path)
        options = {"valid_share": 0.2, "scaling": scaling, "across_gaps": across_gaps}
        data = traffic.make_dataset(*read, **options)
        return bits((data.train, data.scaler)), bits(data.valid), bits(data.test)

    before = learnt(flows.FLOWS, flows.TEST_FLOWS)
    after = learnt(flows.FLOWS, flows.TEST_FLOWS * 9 + 1)
    assert before[:2] == after[:2]
    assert before[2] != after[2]
    train = flows.FLOWS.copy()
    train[train.size - train.size // 5 :] += 700
    after = learnt(train, flows.TEST_FLOWS)
    assert before[0] == after[0]
    assert before[1] != after[1]


@pytest.mark.parametrize("fraction", [1.0, 0.3])
def test_characters(fraction, tmp_path):
    def learnt(text):
        read = texts.read_characters(written(tmp_path / "input.txt", text))
        return texts.make_dataset(read.text, fraction=fraction)

    split = split_by_share(len(characters.TEXT))
    before = learnt(characters.TEXT)
    for start in (split.test.start, split.valid.start):
        held_out = "\u00e9Q" * (len(characters.TEXT) // 2)
        after = learnt((characters.TEXT[:start] + held_out)[: len(characters.TEXT)])
        assert bits((before.train, before.vocabulary.tokens)) == bits(
            (after.train, after.vocabulary.tokens)
        )
        assert (after.test == 0).all()
        streams = [bits(texts.make_streams(d.train, 4, 9)) for d in (before, after)]
        assert streams[0] == streams[1]


@pytest.mark.parametrize("tokenizer", [review_batches.words, review_batches.characters])
def test_reviews_of_one_collection(tokenizer, tmp_path):
    def learnt(negative, positive):
        folder = opinions.write_polarity(tmp_path, negative, positive)
        found = reviews.load_reviews("polarity", folder)
        parts = review_batches.split_reviews(found.reviews, 4)
        train = review_batches.take_fraction(parts.train, 0.5, 4)
        vocabulary = review_batches.make_vocabulary(train, tokenizer, max_size=30)
        encoded = review_batches.encode(train, vocabulary, tokenizer)
        return parts, bits((parts.train, vocabulary.tokens, encoded))

    parts, before = learnt(opinions.NEGATIVE, opinions.POSITIVE)
    held_out = {*parts.test.texts, *parts.valid.texts}
    assert len(held_out) == 20

    def changed(lines):
        return [
            f"ZZ{at} unheard \u00df" if line in held_out else line
            for at, line in enumerate(lines)
        ]

    # The two files share no text, so neither do their replacements.
    negative = [
        f"{line} down" if "ZZ" in line else line for line in changed(opinions.NEGATIVE)
    ]
    after_parts, after = learnt(negative, changed(opinions.POSITIVE))
    assert before == after
    assert all("unheard" in text for text in after_parts.test.texts)


def test_reviews_with_a_test_part(tmp_path):
    def learnt(test_texts, name):
        collected = {**opinions.IMDB, **test_texts}
        found = reviews.load_reviews(
            "imdb", opinions.write_imdb(tmp_path / name, collected)
        )
        parts = review_batches.split_reviews(found.reviews, 4, test_share=0.0)
        vocabulary = review_batches.make_vocabulary(parts.train)
        return bits((found.reviews, parts, vocabulary.tokens)), found.test

    test_names = [name for name in opinions.IMDB if name.startswith("test")]
    before, _ = learnt({}, "a")
    after, test = learnt({name: f"unheard {name}" for name in test_names}, "b")
    assert before == after
    assert all("unheard" in text for text in test.texts)
    # Even where a test review repeats one that is trained on.
    repeated = dict.fromkeys(test_names[:1], opinions.IMDB["train/neg/0_2.txt"])
    assert learnt(repeated, "c")[0] == before


@pytest.mark.parametrize("suffix", ["mat", "json"])
def test_piano_rolls(suffix, tmp_path):
    def learnt(rolls):
        path = tmp_path / f"music.{suffix}"
        if suffix == "mat":
            music.write_mat(path, rolls)
        else:
            written(path, json.dumps(music.as_json(rolls)))
        read = polyphonic_music.read_music(path)
        return (
            bits((read.train, polyphonic_music.make_next_step(read.train))),
            bits(read.test),
        )

    changed = {
        **music.ROLLS,
        "test": [~np.vstack([roll] * 3) for roll in music.ROLLS["test"]],
    }
    before, after = learnt(music.ROLLS), learnt(changed)
    assert before[0] == after[0]
    assert before[1] != after[1]
