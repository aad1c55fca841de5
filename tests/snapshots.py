"""What a process leaves on disk if it is killed: a copy before every file operation.

What a program has not handed to the system is lost with it, so that a copy of its
folder is what SIGKILL would leave at that instant.
"""

import contextlib
import itertools
import shutil
import sys
import threading
from pathlib import Path

CHANGES = {
    *("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate"),
    *("shutil.rmtree", "shutil.move", "os.link", "os.symlink"),
}


class _Recorder:
    """Copies the folder it is given; audit hooks can never be taken away again."""

    def __init__(self):
        self.source = self.target = None
        self.lock, self.copying = threading.Lock(), threading.local()
        self.names = []

    def hook(self, event, arguments):
        if self.source is None or event not in CHANGES:
            return
        if getattr(self.copying, "now", False):
            return
        if str(self.source) not in str(arguments[0]):
            return
        if event == "open" and arguments[1] in ("r", "rb"):
            return
        self.copying.now = True
        try:
            with self.lock:
                self.copy(f"{event} {arguments[0]}")
        finally:
            self.copying.now = False

    def copy(self, name):
        folder = self.target / f"{len(self.names):03}"
        self.names.append(name)
        shutil.copytree(self.source, folder)


RECORDER = _Recorder()
_hooked = []


@contextlib.contextmanager
def recording(source, target):
    """Copy `source` before every change in it to `target`/000 and so on."""
    if not _hooked:
        sys.addaudithook(RECORDER.hook)
        _hooked.append(True)
    RECORDER.names = []
    RECORDER.target, RECORDER.source = Path(target), Path(source)
    try:
        yield RECORDER.names
    finally:
        RECORDER.source = None


def _content(folder):
    return {
        path.relative_to(folder): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def distinct(target):
    """Give the folders that differ, each as its files; and those between two of them.

    Between: of every file that is new or has grown, half of what was written.
    """
    folders = [_content(folder) for folder in sorted(Path(target).iterdir())]
    found = folders[:1]
    for before, after in itertools.pairwise(folders):
        half = dict(after)
        for path, data in after.items():
            old = before.get(path) or b""
            moved = data in before.values()
            if data and len(data) > len(old) and data.startswith(old) and not moved:
                half[path] = data[: (len(old) + len(data)) // 2]
        found += [half, after]
    different = []
    for content in found:
        if content not in different:
            different.append(content)
    return different


def restore(content, folder):
    """Write what `distinct` gave."""
    folder.mkdir(parents=True)
    for path, data in content.items():
        if data is None:
            (folder / path).mkdir()
        else:
            (folder / path).write_bytes(data)
