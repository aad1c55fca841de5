import hashlib
import http.server
import threading
from typing import NamedTuple

import pytest

from experiments.command import UsageError, run_command
from experiments.data import bitcoin, polyphonic_music, reviews, text, traffic
from experiments.data.downloads import PublicFile, find_file
from tests.experiments.data.mangling import refusal, written
from tests.experiments.test_command import Config

CONTENT = b"Date,Close\n2020-01-01,7200.5\n" * 50
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Answer(NamedTuple):
    """What the server says to one request."""

    status: int = 200
    content: bytes = CONTENT
    length: int = len(CONTENT)


class Server:
    """A server on the loopback that gives its answers in turn, the last one again."""

    def __init__(self, *answers):
        self.answers, self.num_requests = list(answers), 0
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                answer = outer.answers[min(outer.num_requests, len(outer.answers) - 1)]
                outer.num_requests += 1
                self.send_response(answer.status)
                self.send_header("Content-Length", str(answer.length))
                self.end_headers()
                self.wfile.write(answer.content)

            def log_message(self, *arguments):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/prices.csv"
        self._thread = threading.Thread(target=self._server.serve_forever)

    @property
    def file(self):
        return PublicFile("prices", "prices.csv", self.url, SHA256)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Give each test a cache of its own, no proxy, and no waiting between tries."""
    directory = tmp_path / "cache"
    monkeypatch.setattr("experiments.data.downloads.cache_directory", lambda: directory)
    monkeypatch.setattr("pooch.core.time.sleep", lambda seconds: None)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("GATED_RNN_DATA", raising=False)
    return directory


def test_file_is_fetched_once_and_then_taken_from_the_cache(cache):
    with Server(Answer()) as server:
        first, again = find_file(server.file), find_file(server.file)
        assert server.num_requests == 1
    assert first == again == cache / "prices" / "prices.csv"
    assert first.read_bytes() == CONTENT
    assert find_file(server.file) == first  # with the server gone


def test_damaged_copy_in_the_cache_is_fetched_again(cache):
    with Server(Answer()) as server:
        find_file(server.file).write_bytes(CONTENT[:-10])
        assert find_file(server.file).read_bytes() == CONTENT
        assert server.num_requests == 2


@pytest.mark.parametrize(
    "bad",
    [
        Answer(status=503, content=b"", length=0),
        Answer(content=CONTENT[:99]),
        Answer(content=CONTENT[:99], length=99),
    ],
    ids=["error", "broken off", "shorter"],
)
def test_one_bad_answer_is_tried_again(bad):
    with Server(bad, Answer()) as server:
        assert find_file(server.file).read_bytes() == CONTENT
        assert server.num_requests == 2


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Answer(status=404, content=b"", length=0), "answered 404"),
        (Answer(content=CONTENT[:99]), "broke off"),
        (Answer(content=b"x" * len(CONTENT)), "another sha256"),
    ],
    ids=["gone", "broken off", "another file"],
)
def test_bad_answers_end_in_one_line_and_leave_nothing(answer, words, cache):
    with Server(answer) as server:
        refusal(lambda: find_file(server.file), server.url, words, "--data-dir")
        assert server.num_requests == 3
    assert [path for path in cache.rglob("*") if path.is_file()] == []


def test_without_a_network_one_line_says_what_to_do(capsys):
    with Server(Answer()) as server:
        pass  # closed: nobody listens there now

    def run(config, console):
        find_file(server.file)

    assert run_command(run, Config, module="sheep", arguments=[]) == 2
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1
    for word in ("no connection", server.url, "prices.csv", "--data-dir"):
        assert word in errors


def test_cache_that_cannot_be_written_is_one_line(cache):
    written(cache, b"a file where the folder should be")
    with Server(Answer()) as server:
        refusal(lambda: find_file(server.file), "Cannot write", cache)


@pytest.mark.parametrize("folder", ["", "prices"])
def test_data_dir_is_used_as_it_is_and_nothing_is_fetched(folder, tmp_path):
    file = PublicFile("prices", "prices.csv", "http://127.0.0.1:9/", SHA256)
    own = written(tmp_path / "own" / folder / "prices.csv", "another file of the kind")
    assert find_file(file, tmp_path / "own") == own
    assert find_file(file, own) == own


def test_environment_names_the_data_dir_and_the_argument_wins(tmp_path, monkeypatch):
    file = PublicFile("prices", "prices.csv", "http://127.0.0.1:9/", SHA256)
    one = written(tmp_path / "one" / "prices.csv", "1")
    two = written(tmp_path / "two" / "prices.csv", "2")
    monkeypatch.setenv("GATED_RNN_DATA", str(one.parent))
    assert find_file(file) == one
    assert find_file(file, two.parent) == two


@pytest.mark.parametrize("exists", [True, False])
def test_data_dir_without_the_file_is_one_line(exists, tmp_path):
    file = PublicFile("prices", "prices.csv", "http://127.0.0.1:9/there", SHA256)
    directory = tmp_path / "own"
    if exists:
        directory.mkdir()
    words = "has no prices.csv" if exists else "does not exist"
    refusal(lambda: find_file(file, directory), directory, words, file.url)


def test_error_is_the_one_that_a_command_shows():
    assert issubclass(UsageError, Exception)
    with pytest.raises(UsageError):
        find_file(PublicFile("a", "b", "http://127.0.0.1:9/", SHA256))


PUBLISHED = [
    *(bitcoin.PUBLISHED, text.PUBLISHED, reviews.IMDB_FILE),
    *(traffic.PUBLISHED_TRAIN, traffic.PUBLISHED_TEST),
    *(*reviews.POLARITY_FILES, *reviews.SENTENCE_FILES),
    *polyphonic_music.PUBLISHED.values(),
]


@pytest.mark.parametrize("file", PUBLISHED, ids=lambda file: file.name)
def test_published_address_is_fixed_by_a_commit_or_a_version(file):
    assert file.url.startswith("https://")
    assert file.url.endswith(file.name)
    assert len(file.sha256) == 64
    int(file.sha256, 16)
    if "github" in file.url:
        commit = file.url.split("/")[5]
        assert len(commit) == 40
        int(commit, 16)
