import dataclasses
import errno
import io
import json

import numpy as np
import pytest
from rich.console import Console

from experiments.command import UsageError
from experiments.plots import plot_curves
from experiments.reporting import write_results
from experiments.run_config import RunConfig
from experiments.tables import Table

CURVES = np.array([[3.0, 2.0, np.nan], [3.5, 2.5, 1.5]])


def draw(path):
    plot_curves(path, {"GRU": CURVES}, title="t", x_label="epoch", y_label="loss")


def write(config, pictures, console=None):
    write_results(
        config,
        console or Console(file=io.StringIO(), width=200),
        experiment="some_name",
        title="What came out",
        cells={"gru": {"seeds": np.array([0, 4]), "loss": CURVES}},
        summary={"num_epochs": 3},
        tables=[Table("Loss", ("cell", "end"), [("GRU", "1.5")])],
        notes=["A note."],
        pictures=pictures,
        seconds=12.4,
        scale="2 seeds, 3 epochs",
    )


def test_results_are_a_record_pictures_and_a_summary_of_them(tmp_path):
    config = RunConfig(output_dir=tmp_path, picture_format="svg", seed=5)
    console = Console(file=io.StringIO(), width=200)
    write(config, {"loss_curves": draw, "again": draw}, console)
    record = json.loads((tmp_path / "results.json").read_text())
    assert record["experiment"] == "some_name"
    assert record["config"]["seed"] == 5
    assert record["cells"]["gru"] == {
        "seeds": [0, 4],
        "loss": [[3.0, 2.0, None], [3.5, 2.5, 1.5]],
    }
    assert record["summary"]["num_epochs"] == 3
    assert record["summary"]["total_seconds"] == 12.4
    assert record["summary"]["peak_memory_bytes"] > 2**20
    for name in ("loss_curves", "again"):
        assert b"<svg" in (tmp_path / f"{name}.svg").read_bytes()
    summary, shown = (tmp_path / "summary.md").read_text(), console.file.getvalue()
    assert summary.startswith("# What came out\n\n**Loss**\n\n| cell | end |")
    assert "![Loss curves](loss_curves.svg)" in summary
    for text in (summary, shown):
        assert "A note." in text
        assert "2 seeds, 3 epochs; 12 s in all, at most" in text
    assert "Wrote results.json, loss_curves.svg, again.svg, summary.md to" in shown
    assert len(list(tmp_path.iterdir())) == 4


def test_picture_that_cannot_be_written_leaves_the_record(tmp_path):
    def fail(path):
        raise OSError(errno.ENOSPC, "No space left on device")

    config = RunConfig(output_dir=tmp_path)
    with pytest.raises(UsageError, match="No space left on device") as error:
        write(config, {"losses": fail})
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


def test_folder_that_is_gone_is_one_line(tmp_path):
    config = dataclasses.replace(RunConfig(), output_dir=tmp_path / "gone")
    with pytest.raises(UsageError, match="Cannot write the results"):
        write(config, {})
