"""Ways in which a file gets damaged, and what every reader owes its user then."""

import numpy as np

from experiments.command import UsageError

_GARBAGE = np.random.default_rng(5).bytes(3000)
# Without line ends: what they leave of a row can be a good row of another day.
_IN_ONE_LINE = bytes(byte for byte in _GARBAGE[:60] if byte not in b"\r\n")


def _without_last_third(content: bytes) -> bytes:
    return content[: len(content) * 2 // 3]


#: For each way, the content of a file after it.
MANGLINGS = {
    "empty": lambda content: b"",
    "one byte": lambda content: content[:1],
    "cut short": _without_last_third,
    "binary garbage": lambda content: _GARBAGE,
    "garbage without zeros": lambda content: _GARBAGE.replace(b"\x00", b"\x01"),
    "garbage in the middle": lambda content: (
        content[: len(content) // 2] + _IN_ONE_LINE + content[len(content) // 2 :]
    ),
    "zip archive": lambda content: b"PK\x03\x04" + content,
    "web page": lambda content: b"<!DOCTYPE html>\n<html><body>Sign in</body></html>\n",
    "UTF-16 without a mark": lambda content: content.decode("latin-1").encode(
        "utf-16le"
    ),
    "white space": lambda content: b" \n\n\t\n  \n",
    "lost quotation mark": lambda content: content.replace(b"\n", b'\n"', 1),
}


def written(path, content):
    """Write a file and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def outcome(read):
    """Return what a reader gives, or its one line; anything else it raises is a bug."""
    try:
        return read()
    except UsageError as error:
        message = str(error)
        assert "\n" not in message
        assert message.endswith(".")
        assert len(message) < 600
        return message


def refusal(read, *words):
    """Return the line by which a file is refused; it has these words."""
    message = outcome(read)
    assert isinstance(message, str), message
    for word in words:
        assert str(word) in message, message
    return message
