"""Texts labelled as positive or negative: movie reviews and single sentences.

Formats: rt-polarity (a file a label), UCI sentences (text, tab, label), and the IMDb
folders, unpacked or as the published archive. Layer: experiments (data).
"""

import re
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from experiments.command import UsageError
from experiments.data.downloads import (
    PublicFile,
    find_file,
    github_file,
    user_directory,
)
from experiments.data.reading import check_file, read_text, unusable
from experiments.data.reports import Report, Tally
from gated_rnn.types import invalid

_POLARITY = ("yoonkim/CNN_sentence", "23e0e1f7355705bb083043fda05c031b15acb38c")
_SENTENCES = (
    "rmediero/sentiment-labelled-sentences",
    "40aabbbccbd0e7609dd53f7903dcd5b924838c2b",
)
#: 5,331 snippets each: Pang and Lee (2005), "Seeing stars".
POLARITY_FILES = tuple(
    github_file("sentiment_rt_polarity", *_POLARITY, f"rt-polarity.{label}", sha256)
    for label, sha256 in (
        ("neg", "4ace77d558c3714723843f1d65b60c01e3417b208180f0728808d76ad0eeeaca"),
        ("pos", "2da124ec187a9d5a29c9f04e91c540e02baed5af8868f550a26bd6fd4dbf8bf0"),
    )
)
#: 1,000 sentences each: Kotzias et al. (2015).
SENTENCE_FILES = tuple(
    github_file("sentiment_uci_sentences", *_SENTENCES, f"data/{name}", sha256)
    for name, sha256 in (
        (
            "amazon_cells_labelled.txt",
            "47003fc0a0d4840b00e96e715b6189bad09e7443a3da41c4cbe12ffc79f86ae3",
        ),
        (
            "imdb_labelled.txt",
            "aef2e49e3da25714d61175e3a6e68eeef74a20a2f914318dc3be9947ea86512d",
        ),
        (
            "yelp_labelled.txt",
            "c76468b7b5c6e56a0804d728345c5f84aa2142ddb214420f61cc9cfd4c00d2ea",
        ),
    )
)
#: 25,000 reviews to train on and 25,000 to test on: Maas et al. (2011).
IMDB_FILE = PublicFile(
    "aclImdb",
    "aclImdb_v1.tar.gz",
    "https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz",
    "c40f74a18d3b61f90feba1e17730e0d38e8b97c05fde7008942e91923d1658fe",
)
#: Names of the labels, which are their places.
LABELS = ("neg", "pos")

Collection = Literal["polarity", "sentences", "imdb"]

_IMDB_MEMBER = re.compile(r"(?:.*/)?(train|test)/(neg|pos)/[^/]+\.txt")
_OLD_ENCODING = "latin-1"  # of rt-polarity; it has a character for every byte
_REMEDY = "Get it again, or give another one with --data-dir"


class Reviews(NamedTuple):
    """Labelled texts.

    Attributes:
        texts: The texts, stripped of white space at both ends; none is empty.
        labels: int32 `[N]`, 1 for positive, 0 for negative.
    """

    texts: tuple[str, ...]
    labels: np.ndarray

    def take(self, rows: np.ndarray) -> "Reviews":
        """Return the reviews of the given numbers, in that order."""
        texts = tuple(self.texts[row] for row in rows)
        return Reviews(texts, self.labels[rows])


class Collected(NamedTuple):
    """What was read of a collection.

    Attributes:
        reviews: All reviews, or those of the published training part.
        test: The published test part; None where there is none.
        reports: What was read, one a file or folder.
    """

    reviews: Reviews
    test: Reviews | None
    reports: tuple[Report, ...]


def load_reviews(collection: Collection, data_dir: Path | None = None) -> Collected:
    """Find a published collection, or the user's, and read it.

    A text that comes again is used once, or it would be trained on and tested with; one
    that comes with both labels is not used at all. A test review that stands in the
    training part too is left out of the test.

    Args:
        collection: "polarity", "sentences" or "imdb".
        data_dir: A folder with the files; for "sentences" a file too, for "imdb" the
            folder `aclImdb` or its archive.

    Returns:
        The reviews.

    Raises:
        UsageError: If a file is missing or cannot be used.
        ValueError: If there is no such collection.
    """
    if collection == "polarity":
        return _load_polarity(data_dir)
    if collection == "sentences":
        return _load_sentences(data_dir)
    if collection == "imdb":
        return _load_imdb(data_dir)
    known = list(Collection.__args__)
    raise invalid("collection", f"one of {known}", repr(collection))


class _Collector:
    """Gathers texts of one part, each once."""

    def __init__(self):
        self._labels: dict[str, int | None] = {}  # None: seen with both labels
        self._owners: dict[str, Tally] = {}

    def add(self, text: str, label: int, where: str, tally: Tally) -> None:
        """Take a text, or count why not."""
        text = text.strip()
        if not text:
            tally.drop("without text", where)
            return
        if text not in self._labels:
            self._labels[text], self._owners[text] = label, tally
        elif self._labels[text] == label:
            tally.drop("that come again", where)
        else:
            tally.drop("that come with both labels", where)
            if self._labels[text] is not None:
                self._owners[text].drop("that come with both labels", "an earlier one")
            self._labels[text] = None

    def finish(self, *tallies: Tally) -> tuple[Reviews, tuple[Report, ...]]:
        """Return what was taken, and close the counts."""
        kept = {text: at for text, at in self._labels.items() if at is not None}
        owners = [self._owners[text] for text in kept]
        reports = []
        for tally in tallies:
            mine = sum(owner is tally for owner in owners)
            reports.append(tally.finish(mine))
        labels = np.array(list(kept.values()), np.int32)
        return Reviews(tuple(kept), labels), tuple(reports)

    def without(self, other: Reviews) -> "_Collector":
        """Leave out the texts of another part; return this collector."""
        for text in other.texts:
            if self._labels.pop(text, None) is not None:
                self._owners[text].drop("that are in the training part", "one of them")
        return self


def _load_polarity(data_dir: Path | None) -> Collected:
    collector, tallies = _Collector(), []
    for label, file in enumerate(POLARITY_FILES):
        if data_dir is not None and data_dir.is_file():
            raise unusable(data_dir, "is one file", "Give a folder with .neg and .pos")
        path = find_file(file, data_dir)
        tally = Tally(path, "a file of snippets", unit="texts")
        for number, line in _lines(read_text(path, fallback=_OLD_ENCODING)):
            tally.rows += 1
            collector.add(line, label, f"line {number}", tally)
        tallies.append(tally)
    reviews, reports = collector.finish(*tallies)
    return Collected(reviews, None, reports)


def _load_sentences(data_dir: Path | None) -> Collected:
    collector, tallies = _Collector(), []
    paths = dict.fromkeys(find_file(file, data_dir) for file in SENTENCE_FILES)
    for path in paths:
        tally = Tally(path, "a file of labelled sentences", unit="texts")
        for number, line in _lines(read_text(path, fallback=_OLD_ENCODING)):
            tally.rows += 1
            text, _, label = line.rstrip().rpartition("\t")
            if label.strip() not in ("0", "1"):
                tally.unreadable("without a label", f"line {number}")
            else:
                collector.add(text, int(label), f"line {number}", tally)
        tallies.append(tally)
    reviews, reports = collector.finish(*tallies)
    return Collected(reviews, None, reports)


def _load_imdb(data_dir: Path | None) -> Collected:
    path = _find_imdb(data_dir)
    tallies = {
        part: Tally(path, f"aclImdb with {part} reviews", unit=f"{part} texts")
        for part in ("train", "test")
    }
    collectors = {part: _Collector() for part in tallies}
    members = _folder_members(path) if path.is_dir() else _archive_members(path)
    for part, label, name, content in members:
        tallies[part].rows += 1
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError:
            tallies[part].unreadable("not in UTF-8", name)
            continue
        collectors[part].add(text, LABELS.index(label), name, tallies[part])
    reviews, reports = collectors["train"].finish(tallies["train"])
    # The test gives way: what is trained on depends on no test review.
    test_part = collectors["test"].without(reviews)
    test, test_reports = test_part.finish(tallies["test"])
    return Collected(reviews, test, reports + test_reports)


def _find_imdb(data_dir: Path | None) -> Path:
    """Find the unpacked folder, or else the archive."""
    directory = user_directory(data_dir)
    if directory is not None:
        for path in (directory, directory / "aclImdb"):
            if (path / "train" / "pos").is_dir():
                return path
    return find_file(IMDB_FILE, data_dir)


def _folder_members(path: Path) -> Iterator[tuple[str, str, str, bytes]]:
    for part in ("train", "test"):
        for label in LABELS:
            for file in sorted((path / part / label).glob("*.txt")):
                name = f"{part}/{label}/{file.name}"
                try:
                    content = file.read_bytes()
                except OSError as error:
                    reason = error.strerror or str(error)
                    raise UsageError(f"Cannot read {file}: {reason}.") from error
                yield part, label, name, content


def _archive_members(path: Path) -> Iterator[tuple[str, str, str, bytes]]:
    """Read the archive as it stands; nothing is unpacked to disk.

    Always as gzip, which knows its end: tarfile takes a cut tar for a short one.
    """
    check_file(path)
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                match = _IMDB_MEMBER.fullmatch(member.name)
                file = archive.extractfile(member) if match else None
                if match and file is not None:
                    part, label = match.groups()
                    yield part, label, member.name, file.read()
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        problem = "is no archive of aclImdb, or is damaged"
        raise unusable(path, problem, _REMEDY) from error


def _lines(text: str) -> Iterable[tuple[int, str]]:
    """Number the lines that are not blank; only a line feed ends one."""
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, line
