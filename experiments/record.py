"""The result record that every experiment writes: one schema, one function.

    {"schema": 1, "experiment": ..., "config": {...}, "environment": {...},
     "cells": {"lstm": {"loss": [[S x N]], ...}, ...}, "summary": {...}}

Every seed is kept; a number that is not finite is null.
"""

import dataclasses
import datetime
import functools
import importlib.metadata
import json
import math
import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.files import write_file

SCHEMA = 1
RECORD_NAME = "results.json"
_PACKAGES = ("gated_rnn", "jax", "jaxlib", "optax", "flax", "numpy", "scipy")
_GIT_SECONDS = 10


def make_record(
    experiment: str,
    config: Any,
    cells: Mapping[str, Mapping[str, Any]],
    summary: Mapping[str, Any],
) -> dict[str, Any]:
    """Assemble a record in JSON's types.

    Args:
        experiment: Name of the experiment, that of its module.
        config: Its frozen dataclass.
        cells: For each cell its series by name; a series has the seeds on axis 0.
        summary: What the report states: intervals, baselines, timing.

    Returns:
        The record.
    """
    return to_json(
        {
            "schema": SCHEMA,
            "experiment": experiment,
            "config": config,
            "environment": environment(),
            "cells": cells,
            "summary": summary,
        }
    )


def write_record(directory: Path, record: Mapping[str, Any]) -> Path:
    """Write a record as `results.json`, whole or not at all.

    Args:
        directory: Where to; exists.
        record: From `make_record`.

    Returns:
        The path of the file.
    """
    text = json.dumps(record, indent=1, allow_nan=False)
    return write_file(directory / RECORD_NAME, f"{text}\n".encode())


def to_json(value: Any) -> Any:
    """Turn a value into JSON's types, `None` for every number that is not finite.

    Args:
        value: Numbers, strings, paths, dates, arrays, dataclasses, NamedTuples,
            mappings and sequences of them.

    Returns:
        The value in dicts, lists, strings, numbers, booleans and None.

    Raises:
        TypeError: If the value is of another type.

    Examples:
        >>> to_json({"loss": np.array([[1.5, float("nan")]]), "lengths": (3, 4)})
        {'loss': [[1.5, None]], 'lengths': [3, 4]}
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Path | datetime.date):
        return str(value)
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        return to_json(np.asarray(value).tolist())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        return {name: to_json(getattr(value, name)) for name in names}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, Mapping):
        return {str(name): to_json(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    raise TypeError(f"A {type(value).__name__} has no place in a result record.")


def environment() -> dict[str, Any]:
    """Say on what a result was made: versions, machine, devices and commit.

    Returns:
        A dict in JSON's types; what cannot be had is None.
    """
    return {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": num_cores(),
        "backend": jax.default_backend(),
        "devices": [device.device_kind for device in jax.devices()],
        **_commit(),
    }


def num_cores() -> int:
    """Count the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def peak_memory_bytes() -> int | None:
    """Give the largest resident size of this process so far, None off Unix."""
    status = Path("/proc/self/status")
    if status.is_file():  # getrusage counts what the parent had before it started this
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * 1024


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str | None:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or None


@functools.cache
def _commit() -> dict[str, Any]:
    """Name the commit this file stands in, and whether tracked files differ from it."""
    commit = _git("rev-parse", "HEAD")
    if not commit:
        return {"commit": None, "modified": None}
    status = _git("status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "modified": None if status is None else bool(status)}


def _git(*arguments: str) -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    try:
        answer = subprocess.run(
            command, capture_output=True, text=True, timeout=_GIT_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
