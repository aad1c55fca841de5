"""Writing files so that a reader finds the old one or the new one, never half of it."""

import os
from pathlib import Path


def write_file(path: Path, content: bytes) -> Path:
    """Write a file beside its place, then move it there in one step.

    Args:
        path: The file; an old one is replaced.
        content: All of it.

    Returns:
        The path.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
