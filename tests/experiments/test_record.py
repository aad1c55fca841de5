import dataclasses
import datetime
import json
import re
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.files import write_file
from experiments.record import (
    RECORD_NAME,
    environment,
    make_record,
    peak_memory_bytes,
    to_json,
    write_record,
)


@dataclasses.dataclass(frozen=True)
class Config:
    num_seeds: int = 2
    cells: tuple[str, ...] = ("lstm", "gru")
    output_dir: Path = Path("there")


class Pair(NamedTuple):
    low: float
    high: float


def record():
    losses = jnp.array([[3.0, 2.5, jnp.nan], [2.0, jnp.inf, 1.5]])
    cells = {"lstm": {"loss": losses, "seeds": np.arange(2)}}
    return make_record("trial", Config(), cells, {"ends": Pair(1.0, float("-inf"))})


def test_written_record_has_the_schema_and_every_seed(tmp_path):
    path = write_record(tmp_path, record())
    assert path == tmp_path / RECORD_NAME
    read = json.loads(path.read_text())
    assert list(read) == [
        *("schema", "experiment", "config", "environment", "cells", "summary"),
    ]
    assert read["schema"] == 1
    assert read["experiment"] == "trial"
    assert read["config"] == {
        "num_seeds": 2,
        "cells": ["lstm", "gru"],
        "output_dir": "there",
    }
    assert read["cells"]["lstm"]["seeds"] == [0, 1]
    assert np.shape(read["cells"]["lstm"]["loss"]) == (2, 3)


def test_what_is_not_finite_is_null_in_its_place():
    losses = record()["cells"]["lstm"]["loss"]
    assert losses == [[3.0, 2.5, None], [2.0, None, 1.5]]
    assert record()["summary"] == {"ends": {"low": 1.0, "high": None}}


def test_numbers_survive_exactly():
    values = np.array([0.1, 1 / 3, 1e-300, 2**53 + 0.0])
    assert json.loads(json.dumps(to_json(values))) == values.tolist()
    single = np.float32(0.1)
    assert np.float32(to_json(single)) == single


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.bool_(True), True),
        (np.int64(3), 3),
        (np.float32("nan"), None),
        (jnp.int32(4), 4),
        ({1: (2.0, None)}, {"1": [2.0, None]}),
        (Path("a/b"), "a/b"),
        (datetime.date(2020, 9, 8), "2020-09-08"),
    ],
    ids=["bool", "int", "nan", "jax", "mapping", "path", "date"],
)
def test_value_becomes_a_json_type(value, expected):
    converted = to_json(value)
    assert converted == expected
    assert type(converted) is type(expected)


def test_unknown_types_are_refused():
    with pytest.raises(TypeError, match="set has no place"):
        to_json({"cells": {1, 2}})


def test_environment_names_versions_machine_and_commit():
    place = environment()
    assert place["packages"]["jax"].count(".") >= 2
    assert place["cores"] >= 1
    assert len(place["devices"]) >= 1
    assert place["backend"] == "cpu" or place["devices"]
    assert place["commit"] is None or re.fullmatch("[0-9a-f]{40}", place["commit"])
    assert json.loads(json.dumps(place)) == place


def test_peak_memory_is_in_bytes():
    assert 2**24 < peak_memory_bytes() < 2**40  # an imported JAX takes 100 MiB


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    write_file(path, b"old")

    def fail(self, target):
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_written_file_replaces_the_old_one(tmp_path):
    path = tmp_path / "results.json"
    for content in (b"a longer content", b"short"):
        write_file(path, content)
    assert path.read_bytes() == b"short"
    assert list(tmp_path.iterdir()) == [path]
