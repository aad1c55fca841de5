import json
from pathlib import Path

import numpy as np
import pytest

from gated_rnn.training import Piece
from gated_rnn.training.checkpoints import CheckpointError
from gated_rnn.training.metrics_log import MetricsLog

IDS = np.array([7, 2])


def curves(first, count, ids=IDS):
    """Numbers that name their seed and step; one is not finite."""
    loss = np.float32([[i + s / 8 for s in range(first, first + count)] for i in ids])
    loss[loss == 2.5] = np.nan  # seed 2, step 4
    return {
        "loss": loss,
        "errors": np.stack([loss, -loss], axis=2),
        "count": np.int32([[s] * len(ids) for s in range(first, first + count)]).T,
    }


def piece(first, count, ids=IDS):
    return Piece(first + count, 9, ids, curves(first, count, ids), 0.1, lambda: None)


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_seed_and_update_has_a_line_with_its_metrics(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path)
    log.rewrite([(IDS, curves(0, 2))])
    log.append(piece(2, 3))
    lines = read(path)
    assert [(line["seed"], line["step"]) for line in lines] == [
        (seed, step) for step in range(5) for seed in (7, 2)
    ]
    assert lines[3] == {
        **{"seed": 2, "step": 1, "loss": 2.125, "errors": [2.125, -2.125], "count": 1}
    }
    assert lines[9] == {
        **{"seed": 2, "step": 4, "loss": None, "errors": [None, None], "count": 4}
    }


def test_float32_is_read_back_to_the_bit(tmp_path):
    loss = np.random.default_rng(0).normal(size=(2, 50)).astype(np.float32)
    MetricsLog(tmp_path / "m").rewrite([(IDS, {"loss": loss})])
    again = np.float32([line["loss"] for line in read(tmp_path / "m")])
    np.testing.assert_array_equal(again.reshape(50, 2).T, loss)


def test_rewriting_leaves_what_is_given_and_nothing_beside(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"seed": 1}\n{"se')
    MetricsLog(path).rewrite([(IDS[:1], curves(0, 3, IDS[:1])), (IDS, curves(0, 0))])
    assert [line["seed"] for line in read(path)] == [7, 7, 7]
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_yet_is_an_empty_file(tmp_path):
    MetricsLog(tmp_path / "m").rewrite([])
    assert (tmp_path / "m").read_bytes() == b""


def test_disk_that_is_full_is_one_line_and_the_old_file_stays(tmp_path, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    path.write_text("old\n")
    real_open = Path.open

    def open_(path, mode="r", **options):
        if mode != "w":
            return real_open(path, mode, **options)
        real_open(path, mode, **options).close()
        return real_open(Path("/dev/full"), mode, **options)

    monkeypatch.setattr(Path, "open", open_)
    with pytest.raises(CheckpointError) as error:
        MetricsLog(path).rewrite([(IDS, curves(0, 2))])
    assert str(error.value) == (
        f"Cannot write the metrics to {path}: No space left on device. "
        "Checkpoints are as they were."
    )
    assert path.read_text() == "old\n"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("write", ["rewrite", "append"])
def test_file_that_cannot_be_written_is_one_line(write, tmp_path):
    log = MetricsLog(tmp_path / "missing" / "metrics.jsonl")
    arguments = {"rewrite": [(IDS, curves(0, 2))], "append": piece(0, 2)}
    with pytest.raises(CheckpointError, match=r"^Cannot write the metrics to .*: No"):
        getattr(log, write)(arguments[write])
