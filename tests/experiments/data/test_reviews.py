import io
import tarfile

import numpy as np
import pytest

from experiments.data import review_batches, reviews
from experiments.data.padding import pad, row_batches
from experiments.data.reviews import Reviews
from experiments.data.vocabulary import Vocabulary, words_by_frequency
from tests.cases import assert_says
from tests.experiments.data.mangling import MANGLINGS, outcome, refusal, written

GENERATOR = np.random.default_rng(8)
WORDS = ["film", "plot", "caf\u00e9", "never", "was", "good", "bad", "bright", "it's"]


def sentences(label, count, start=0):
    """Texts with a word of the label's own and a number that tells them apart."""
    own = ("awful", "lovely")[label]
    chosen = GENERATOR.choice(WORDS, (count, 4))
    texts = [" ".join(row) for row in chosen]
    return [f"{text} {own} no{start + at} ." for at, text in enumerate(texts)]


NEGATIVE, POSITIVE = sentences(0, 40), sentences(1, 60)


def write_polarity(folder, negative=NEGATIVE, positive=POSITIVE, encoding="latin-1"):
    for name, texts in (("neg", negative), ("pos", positive)):
        content = "".join(f"{text} \n" for text in texts).encode(encoding)
        written(folder / f"rt-polarity.{name}", content)
    return folder


def labelled(negative=NEGATIVE, positive=POSITIVE):
    rows = [f"{text}\t0" for text in negative] + [f"{text}\t1" for text in positive]
    return "\n".join(rows) + "\n"


IMDB = {
    f"{part}/{label}/{number}_{7 if label == 'pos' else 2}.txt": text
    for start, part in enumerate(("train", "test"))
    for at, label in enumerate(("neg", "pos"))
    for number, text in enumerate(sentences(at, 12, 1000 * start))
}


def write_imdb(folder, texts=IMDB):
    for name, text in texts.items():
        written(folder / name, text)
    written(folder / "train" / "unsup" / "0_0.txt", "no label")
    written(folder / "README", "x")
    return folder


def write_archive(path, texts=IMDB):
    members = {**texts, "train/unsup/0_0.txt": "no label", "train/urls_pos.txt": "x"}
    with tarfile.open(path, "w:gz") as archive:
        for name, text in members.items():
            content = text.encode() if isinstance(text, str) else text
            member = tarfile.TarInfo(f"aclImdb/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def pairs(found):
    return set(zip(found.texts, found.labels.tolist(), strict=True))


EXPECTED = {(t, 0) for t in NEGATIVE} | {(t, 1) for t in POSITIVE}


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8", "utf-8-sig"])
def test_snippets_are_labelled_by_their_file(encoding, tmp_path):
    found = reviews.load_reviews(
        "polarity", write_polarity(tmp_path, encoding=encoding)
    )
    assert pairs(found.reviews) == EXPECTED
    assert found.test is None
    assert [report.kept for report in found.reports] == [40, 60]
    assert found.reviews.labels.dtype == np.int32


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_sentences_are_labelled_by_their_last_field(end, tmp_path):
    content = ("a tab\tinside\t1\n" + labelled()).replace("\n", end)
    path = written(tmp_path / "own.txt", content)
    found = reviews.load_reviews("sentences", path)
    assert pairs(found.reviews) == EXPECTED | {("a tab\tinside", 1)}
    assert len(found.reports) == 1


def test_sentences_of_three_files_are_joined(tmp_path):
    for at, file in enumerate(reviews.SENTENCE_FILES):
        part = labelled(NEGATIVE[at::3], POSITIVE[at::3])
        written(tmp_path / "sentiment_uci_sentences" / file.name, part)
    found = reviews.load_reviews("sentences", tmp_path)
    assert pairs(found.reviews) == EXPECTED
    assert sum(report.kept for report in found.reports) == 100


@pytest.mark.parametrize("form", ["folder", "parent", "archive"])
def test_imdb_is_read_unpacked_or_packed(form, tmp_path):
    if form == "archive":
        write_archive(tmp_path / "aclImdb_v1.tar.gz")
        data_dir = tmp_path
    else:
        folder = write_imdb(tmp_path / "aclImdb")
        data_dir = folder if form == "folder" else tmp_path
    found = reviews.load_reviews("imdb", data_dir)
    for part, texts in (("train", found.reviews), ("test", found.test)):
        expected = {
            (text, int("/pos/" in name))
            for name, text in IMDB.items()
            if name.startswith(part)
        }
        assert pairs(texts) == expected
    assert [report.kept for report in found.reports] == [24, 24]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "aclImdb_v1.tar.gz" if form == "archive" else "aclImdb"
    ]


def test_texts_that_come_again_are_used_once_or_not_at_all(tmp_path):
    negative = [*NEGATIVE, NEGATIVE[3], "both", "twice wrong"]
    positive = [*POSITIVE, "both", f"  {POSITIVE[5]}", "both", "twice wrong"]
    write_polarity(tmp_path, negative, positive)
    found = reviews.load_reviews("polarity", tmp_path)
    assert pairs(found.reviews) == EXPECTED
    for report, again, both in zip(found.reports, (1, 1), (2, 3), strict=True):
        numbers = {drop.reason: drop.number for drop in report.dropped}
        assert numbers == {"that come again": again, "that come with both labels": both}
        assert report.rows - report.kept == again + both


def test_test_review_that_is_trained_on_is_left_out_of_the_test(tmp_path):
    texts = {**IMDB, "test/neg/3_2.txt": IMDB["train/neg/5_2.txt"]}
    found = reviews.load_reviews("imdb", write_imdb(tmp_path / "aclImdb", texts))
    assert len(found.reviews.texts) == 24
    assert len(found.test.texts) == 23
    assert not pairs(found.reviews) & pairs(found.test)
    assert found.reports[1].dropped[0][:2] == ("that are in the training part", 1)


def test_imdb_text_in_another_encoding_is_reported(tmp_path):
    texts = {**IMDB, "train/neg/5_2.txt": b"caf\xe9"}
    found = reviews.load_reviews("imdb", write_archive(tmp_path / "a.tar.gz", texts))
    dropped = ("not in UTF-8", 1, "aclImdb/train/neg/5_2.txt")
    assert found.reports[0].dropped == (dropped,)


def test_sentence_without_a_label_is_reported_and_too_many_are_refused(tmp_path):
    path = written(tmp_path / "own.txt", labelled() + "no label here\nworse\t7\n")
    report = reviews.load_reviews("sentences", path).reports[0]
    assert report.dropped == (("without a label", 2, "line 101"),)
    written(path, labelled().replace("\t", " "))
    refusal(lambda: reviews.load_reviews("sentences", path), "without a label")


def test_wrong_places_are_one_line(tmp_path):
    path = written(tmp_path / "own.txt", labelled())
    refusal(lambda: reviews.load_reviews("polarity", path), "Give a folder")
    refusal(lambda: reviews.load_reviews("polarity", tmp_path), "rt-polarity.neg")
    refusal(lambda: reviews.load_reviews("imdb", tmp_path), "aclImdb_v1.tar.gz")
    refusal(lambda: reviews.load_reviews("imdb", path), "no archive of aclImdb")
    empty = write_archive(tmp_path / "a.tar.gz", {})
    refusal(lambda: reviews.load_reviews("imdb", empty), "nothing to use")
    with pytest.raises(ValueError) as error:
        reviews.load_reviews("yelp", tmp_path)
    assert_says(error, "collection", "polarity", "'yelp'")


@pytest.mark.parametrize("way", MANGLINGS)
@pytest.mark.parametrize("collection", ["polarity", "sentences", "imdb"])
def test_mangled_file_is_read_with_a_report_or_refused_in_one_line(
    way, collection, tmp_path
):
    if collection == "polarity":
        path = write_polarity(tmp_path) / "rt-polarity.pos"
        data_dir = tmp_path
    elif collection == "sentences":
        path = data_dir = written(tmp_path / "own.txt", labelled())
    else:
        path = data_dir = write_archive(tmp_path / "a.tar.gz")
    written(path, MANGLINGS[way](path.read_bytes()))
    found = outcome(lambda: reviews.load_reviews(collection, data_dir))
    if isinstance(found, str):
        assert path.name in found
        return
    assert collection != "imdb"  # its archive has a checksum of its own
    if collection == "sentences":
        assert len(pairs(found.reviews) & EXPECTED) > 60
    assert found.reports[-1].sha256


def collected(seed=0):
    labels = np.array([0] * 40 + [1] * 60, np.int32)
    order = np.random.default_rng(seed).permutation(100)
    return Reviews((*NEGATIVE, *POSITIVE), labels).take(order)


def test_parts_are_stratified_disjoint_and_drawn_by_seed():
    everything = collected()
    parts = review_batches.split_reviews(everything, 1, valid_share=0.2, test_share=0.1)
    sizes = [(len(p.texts), int(p.labels.sum())) for p in parts]
    assert sizes == [(70, 42), (20, 12), (10, 6)]
    assert set.union(*map(pairs, parts)) == EXPECTED
    again = review_batches.split_reviews(everything, 1, valid_share=0.2, test_share=0.1)
    other = review_batches.split_reviews(everything, 2, valid_share=0.2, test_share=0.1)
    assert [p.texts for p in parts] == [p.texts for p in again]
    assert parts.test.texts != other.test.texts
    assert 0 < parts.train.labels[:35].mean() < 1  # shuffled, not label by label


def test_shares_that_leave_a_label_without_training_texts_are_refused():
    with pytest.raises(ValueError) as error:
        review_batches.split_reviews(collected(), 1, valid_share=0.6, test_share=0.4)
    assert_says(error, "valid_share and test_share", "of 40")


def test_fractions_are_stratified_and_nested():
    train = collected()
    taken = [review_batches.take_fraction(train, f, 5) for f in (0.05, 0.3, 1.0)]
    assert [(len(t.texts), int(t.labels.sum())) for t in taken] == [
        (5, 3),
        (30, 18),
        (100, 60),
    ]
    assert pairs(taken[0]) < pairs(taken[1]) < pairs(taken[2])
    assert taken[2].texts == train.texts
    assert review_batches.take_fraction(train, 0.3, 6).texts != taken[1].texts
    assert len(review_batches.take_fraction(train, 1e-9, 5).texts) == 2
    with pytest.raises(ValueError) as error:
        review_batches.take_fraction(train, 0.0, 5)
    assert_says(error, "fraction")


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("Don't!", ["don't", "!"]),
        ("a<br /><BR>b", ["a", "b"]),
        (
            "na\u00efve \u4e2d\u6587, 3.5",
            ["na\u00efve", "\u4e2d\u6587", ",", "3", ".", "5"],
        ),
        ("rock\u2019n\u2019roll\x85 -- 'so'", None),
        ("  ", []),
    ],
)
def test_words_are_lower_case_and_signs_alone(text, tokens):
    found = review_batches.words(text)
    if tokens is None:
        tokens = ["rock\u2019n\u2019roll", "-", "-", "'", "so", "'"]
    assert found == tokens


def test_vocabulary_is_by_count_then_alphabet_and_cut():
    texts = [["b", "a", "c", "b"], ["d", "a", "<unk>", "<pad>"]]
    every = words_by_frequency(texts)
    assert every.tokens == ("<pad>", "<unk>", "a", "b", "c", "d")
    assert words_by_frequency(texts, max_size=3).tokens == ("<pad>", "<unk>", "a")
    assert words_by_frequency(texts, min_count=2).tokens == every.tokens[:4]
    ids = every.encode(["d", "<pad>", "zebra", "a", "<unk>"])
    np.testing.assert_array_equal(ids, [5, 1, 1, 2, 1])
    for tokens in (["a"], ["<unk>", "a", "a"]):
        with pytest.raises(ValueError) as error:
            Vocabulary.of(tokens)
        assert_says(error, "tokens")


@pytest.mark.parametrize("tokenizer", [review_batches.words, review_batches.characters])
def test_numbers_say_the_texts(tokenizer):
    part = collected().take(np.arange(7))
    vocabulary = review_batches.make_vocabulary(part, tokenizer)
    tokens, lengths, labels = review_batches.encode(part, vocabulary, tokenizer)
    assert tokens.shape == (lengths.max(), 7)
    assert tokens.dtype == lengths.dtype == labels.dtype == np.int32
    np.testing.assert_array_equal(labels, part.labels)
    for row, text in enumerate(part.texts):
        ids = tokens[:, row]
        said = [vocabulary.tokens[at] for at in ids[: lengths[row]]]
        assert said == tokenizer(text)
        assert (ids[lengths[row] :] == 0).all()
        assert (ids[: lengths[row]] > 1).all()


def test_longer_reviews_are_cut_at_either_end_and_none_is_empty():
    part = Reviews(("a b c d", "<br />", "e"), np.array([0, 1, 1], np.int32))
    vocabulary = Vocabulary.of(["<pad>", "<unk>", *"abcde"])
    start = review_batches.encode(part, vocabulary, num_steps=2)
    end = review_batches.encode(part, vocabulary, num_steps=2, keep="end")
    np.testing.assert_array_equal(start.tokens.T, [[2, 3], [1, 0], [6, 0]])
    np.testing.assert_array_equal(end.tokens.T, [[4, 5], [1, 0], [6, 0]])
    np.testing.assert_array_equal(start.lengths, [2, 1, 1])


def test_padding_keeps_features_dtype_and_empty_sequences():
    sequences = [np.ones((2, 3), bool), np.ones((0, 3), bool), np.ones((4, 3), bool)]
    for keep in ("start", "end"):
        values, lengths = pad(sequences, keep=keep)
        assert values.shape == (4, 3, 3)
        assert values.dtype == bool
        assert list(lengths) == [2, 0, 4]
        assert list(values.sum(axis=(0, 2))) == [6, 0, 12]
    for options, name in (
        ({"keep": "middle"}, "keep"),
        ({"num_steps": 0}, "num_steps"),
    ):
        with pytest.raises(ValueError) as error:
            pad(sequences, **options)
        assert_says(error, name)
    with pytest.raises(ValueError) as error:
        pad([])
    assert_says(error, "sequences")


def test_batches_have_every_row_once():
    ordered = list(row_batches(10, 4))
    assert [list(rows) for rows in ordered] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    shuffled = np.concatenate(list(row_batches(10, 4, np.random.default_rng(0))))
    assert sorted(shuffled) == list(range(10))
    assert list(shuffled) != list(range(10))
