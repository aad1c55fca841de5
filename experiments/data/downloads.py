"""Getting public files: from a folder of one's own, or from where they are published.

The project ships no data. This is the one place that uses the network; what it fetches
is checked against a sha256 and kept in the user's cache. Layer: experiments (data).
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pooch
import requests
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from experiments.command import UsageError

#: A folder with the files, for those who do not want to give --data-dir every time.
DATA_VARIABLE = "GATED_RNN_DATA"
_RETRIES = 2
_TIMEOUT_SECONDS = 30.0
_MAX_REASON = 200  # characters


class PublicFile(NamedTuple):
    """A file that is published under an address.

    Attributes:
        folder: What it belongs to: a folder of the cache, and of a data directory.
        name: Its name there.
        url: Where it comes from.
        sha256: Of its content, in hexadecimal.
    """

    folder: str
    name: str
    url: str
    sha256: str


def github_file(
    folder: str, repository: str, commit: str, path: str, sha256: str
) -> PublicFile:
    """Name a file of a public GitHub repository at a commit, which never changes.

    Args:
        folder: As in `PublicFile`.
        repository: "owner/name".
        commit: All 40 digits.
        path: Of the file in the repository.
        sha256: Of its content.

    Returns:
        The file.

    Examples:
        >>> github_file("texts", "ann/books", "c0ffee", "a/b.txt", "12ab").url
        'https://raw.githubusercontent.com/ann/books/c0ffee/a/b.txt'
    """
    url = f"https://raw.githubusercontent.com/{repository}/{commit}/{path}"
    return PublicFile(folder, path.rpartition("/")[2], url, sha256)


def find_file(file: PublicFile, data_dir: Path | None = None) -> Path:
    """Find a file in a folder of the user's, or else fetch it.

    With `data_dir`, or the environment variable `GATED_RNN_DATA`, nothing is fetched
    and no sha256 is asked for: the file may be another one of the same kind. The name
    is looked for in the folder and in its sub-folder `file.folder`.

    Args:
        file: What is wanted.
        data_dir: A folder that has it, or the file itself.

    Returns:
        Where it is.

    Raises:
        UsageError: If it is not there, cannot be fetched, or is not what it should be.
    """
    directory = data_dir or _directory_of_environment()
    if directory is not None:
        return _look_up(file, directory)
    return _fetch(file)


def user_directory(data_dir: Path | None) -> Path | None:
    """Give the folder that a user named, on the command line or in the environment."""
    return data_dir or _directory_of_environment()


def cache_directory() -> Path:
    """Give the folder that fetched files are kept in."""
    return Path(pooch.os_cache("gated_rnn"))


def _directory_of_environment() -> Path | None:
    named = os.environ.get(DATA_VARIABLE)
    return Path(named) if named else None


def _look_up(file: PublicFile, directory: Path) -> Path:
    if directory.is_file():
        return directory
    for path in (directory / file.name, directory / file.folder / file.name):
        if path.is_file():
            return path
    missing = "does not exist" if not directory.exists() else f"has no {file.name}"
    raise UsageError(
        f"The data directory {directory} {missing}. Put {file.name} there (published "
        f"at {file.url}), give the file itself, or leave --data-dir and "
        f"{DATA_VARIABLE} out to download it."
    )


def _fetch(file: PublicFile) -> Path:
    """Download a file unless the cache has it; a damaged one is fetched again."""
    store = pooch.create(
        path=cache_directory() / file.folder,
        base_url="",
        registry={file.name: f"sha256:{file.sha256}"},
        urls={file.name: file.url},
        retry_if_failed=_RETRIES,
    )
    pooch.get_logger().setLevel("ERROR")  # the bar says it
    try:
        with _progress_bar(file.name) as bar:
            downloader: Any = pooch.HTTPDownloader(
                progressbar=bar, timeout=_TIMEOUT_SECONDS
            )
            return Path(store.fetch(file.name, downloader=downloader))
    except requests.RequestException as error:
        problem = f"Cannot download {file.url}: {_reason(error)}"
    except ValueError as error:  # pooch's, of a hash
        if "hash" not in str(error):
            raise
        problem = f"{file.url} is not the file it was (another sha256); it is not kept"
    except OSError as error:
        reason = error.strerror or str(error)
        problem = f"Cannot write {file.name} to {cache_directory()}: {reason}"
    raise UsageError(
        f"{problem}. Try again, or give a folder that has {file.name} with --data-dir "
        f"or {DATA_VARIABLE}."
    )


def _reason(error: requests.RequestException) -> str:
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"the server answered {error.response.status_code}"
    if isinstance(error, requests.Timeout):
        return f"no answer within {_TIMEOUT_SECONDS:.0f} s"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the transfer broke off"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    return " ".join(str(error).split())[:_MAX_REASON]


class _Bar:
    """What pooch asks of a progress bar, told to rich."""

    def __init__(self, progress: Progress, label: str):
        self._progress = progress
        self._task = progress.add_task(label, total=None)
        self.total = 0

    def update(self, num_bytes: int) -> None:
        self._progress.update(self._task, advance=num_bytes, total=self.total or None)

    def reset(self) -> None:
        self._progress.reset(self._task)

    def close(self) -> None:
        self._progress.refresh()


@contextlib.contextmanager
def _progress_bar(label: str) -> Iterator[Any]:
    """Show a bar on stderr while a file is fetched; nothing where it is a log."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        yield _Bar(bar, label)
