import numpy as np
import pytest

from experiments.data import text
from tests.cases import assert_says
from tests.experiments.data.mangling import MANGLINGS, outcome, refusal, written

WORDS = "the quick brown fox, jumps.\nover lazy dogs; "
TEXT = "".join(np.random.default_rng(2).choice(list(WORDS), 2000))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_text_is_read_from_a_folder_or_a_file(encoding, end, tmp_path):
    accented = TEXT + "\u00e9\u4e2d\U0001f3b5"
    content = accented.replace("\n", end).encode(encoding)
    path = written(tmp_path / "input.txt", content)
    for data_dir in (tmp_path, path):
        read = text.load_text(data_dir)
        assert read.text == accented
        assert read.report[2:5] == ("characters", len(accented), len(accented))


def test_parts_are_90_5_5_by_position():
    data = text.make_dataset(TEXT)
    assert [part.size for part in data[:3]] == [1800, 100, 100]
    tokens = data.vocabulary.tokens
    decoded = "".join(tokens[at] for part in data[:3] for at in part)
    assert decoded == TEXT
    assert data.train.dtype == np.int32
    assert tokens == ("<unk>", *sorted(set(TEXT)))


def test_vocabulary_is_that_of_the_training_part():
    new = TEXT[:1800] + "Q" + TEXT[1801:1950] + "QZ" + TEXT[1952:]
    data = text.make_dataset(new)
    assert "Q" not in data.vocabulary.tokens
    assert data.num_unknown == (1, 2)
    assert data.valid[0] == data.vocabulary.unknown_id == 0
    np.testing.assert_array_equal(np.flatnonzero(data.test == 0), [50, 51])


def test_fraction_keeps_the_beginning_and_the_vocabulary():
    rare = "Q" + TEXT[:1799].replace("Q", "q") + TEXT[1800:]
    rare = rare[:1700] + "Z" + rare[1701:]
    whole, tenth = text.make_dataset(rare), text.make_dataset(rare, fraction=0.1)
    np.testing.assert_array_equal(tenth.train, whole.train[:180])
    assert tenth.vocabulary == whole.vocabulary
    assert "Z" in tenth.vocabulary.tokens
    np.testing.assert_array_equal(tenth.test, whole.test)


@pytest.mark.parametrize("fraction", [0.0, -1.0, 1.5, 1e-6, float("nan")])
def test_fraction_is_a_share_that_leaves_something(fraction):
    with pytest.raises(ValueError) as error:
        text.make_dataset(TEXT, fraction=fraction)
    assert_says(error, "fraction", repr(fraction))


@pytest.mark.parametrize(("size", "pieces"), [(200, 9), (106, 5), (105, 4), (22, 1)])
def test_streams_are_contiguous_and_targets_follow(size, pieces):
    ids = np.random.default_rng(0).integers(0, 50, size).astype(np.int32)
    inputs, targets = text.make_streams(ids, batch_size=3, num_steps=7)
    assert inputs.shape == targets.shape == (pieces, 7, 3)
    length = pieces * 7
    for stream in range(3):
        start = stream * length
        read = inputs[:, :, stream].reshape(-1)
        np.testing.assert_array_equal(read, ids[start : start + length])
        due = targets[:, :, stream].reshape(-1)
        np.testing.assert_array_equal(due, ids[start + 1 : start + length + 1])
    assert inputs.dtype == np.int32


def test_text_too_short_for_one_piece_is_refused():
    with pytest.raises(ValueError) as error:
        text.make_streams(np.arange(21), batch_size=3, num_steps=7)
    assert_says(error, "ids", "22 characters", "got 21")


@pytest.mark.parametrize("way", MANGLINGS)
def test_mangled_text_is_read_as_it_is_or_refused_in_one_line(way, tmp_path):
    content = MANGLINGS[way](TEXT.encode())
    path = written(tmp_path / "input.txt", content)
    read = outcome(lambda: text.read_characters(path))
    # What is valid text is a text: nobody can say what should have stood there.
    readable = {
        "one byte",
        "cut short",
        "web page",
        "white space",
        "lost quotation mark",
    }
    assert isinstance(read, str) != (way in readable)
    if way in readable:
        assert read.text == content.decode()
        assert read.report.sha256


def test_old_encoding_is_refused_with_the_byte(tmp_path):
    path = written(tmp_path / "input.txt", ("a" * 40 + "\u00e9 ").encode("latin-1"))
    refusal(lambda: text.read_characters(path), "byte 40", "Convert it to UTF-8")
