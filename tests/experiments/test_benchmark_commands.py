import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.benchmarks import against_peers, seeds
from experiments.benchmarks.rows import read_rows

ROOT = Path(__file__).parents[2]
PNG = b"\x89PNG\r\n"
# Most of XLA's passes only cost time on data this small.
FAST = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}


def start(module, arguments, directory):
    return subprocess.run(
        [
            *(sys.executable, "-W", "error", "-m", module),
            *(*arguments.split(), "--output-dir", str(directory)),
        ],
        cwd=ROOT,
        env={**os.environ, **FAST},
        capture_output=True,
        text=True,
        check=False,
    )


def test_against_peers_measures_and_writes_record_and_picture(tmp_path):
    directory = tmp_path / "out"
    options = (
        "--implementations scan linen cudnn --shapes 3x5x2x4 --suites shapes"
        " --cells gru --modes gradient --num-rounds 2 --min-sample-ms 0.1 --memory"
    )
    done = start(against_peers.MODULE, options, directory)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    record = json.loads((directory / "results.json").read_text())
    assert record["schema"] == 1
    assert record["experiment"] == "benchmarks.against_peers"
    rows = read_rows(record)
    assert [(row.implementation, row.status) for row in rows] == [
        *(("scan", "timed"), ("linen", "timed"), ("cudnn", "skipped")),
    ]
    for row in rows:
        if row.status == "timed":
            assert len(row.samples) == 2
            assert row.seconds_low <= row.seconds_median <= row.seconds_high
            assert row.roofline_multiple > 0
            assert row.peak_bytes is not None or not Path("/proc").is_dir()
    summary = record["summary"]
    assert summary["complete"]
    assert {each["against"] for each in summary["comparisons"]} == {"jax", "all"}
    assert summary["versions"]["flax"]
    assert (directory / "ratios.png").read_bytes().startswith(PNG)
    assert sorted(path.name for path in directory.iterdir()) == [
        *("ratios.png", "results.json"),
    ]
    assert "Ours over the fastest peer" in done.stdout


def test_seeds_measures_and_writes_a_record(tmp_path):
    directory = tmp_path / "out"
    options = (
        "--shapes 3x5x2x4 --cells lstm --num-seeds 3 --seed-blocks 2 --sweep-seeds 3"
        " --num-devices 2 --num-compared 3 --peers linen cudnn --num-rounds 2"
        " --min-sample-ms 0.1"
    )
    done = start(seeds.MODULE, options, directory)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    record = json.loads((directory / "results.json").read_text())
    rows = record["cells"]["lstm"]["rows"]
    points = [(row["num_seeds"], row["seed_block"], row["num_devices"]) for row in rows]
    assert points == [(3, 2, 2), (3, 2, 1)]
    for row in rows:
        assert len(row["samples"]) == 2
        expected = row["num_seeds"] / row["seconds_median"]
        assert row["seeds_updates_a_second"] == pytest.approx(expected)
        assert row["planned_bytes"] > 0
    trained, linen, cudnn = record["summary"]["comparisons"]
    assert trained["implementation"] == "train_seeds"
    assert trained["max_relative_error"] < 1e-5
    assert trained["ours_over_this"]["estimate"] == 1
    assert len(linen["samples"]) == 2
    assert linen["reason"] is None
    assert cudnn["reason"] == "runs on NVIDIA GPUs only"
    assert "Throughput of train_seeds" in done.stdout


@pytest.mark.parametrize(
    ("main", "arguments", "named"),
    [
        (against_peers.main, "--shapes 3x5", "shapes"),
        (against_peers.main, "--implementations abacus", "'abacus'"),
        (against_peers.main, "--implementations scan scan", "each at most once"),
        (against_peers.main, "--suites", "suites"),
        (against_peers.main, "--modes sideways", "'sideways'"),
        (against_peers.main, "--num-rounds 0", "num_rounds"),
        (against_peers.main, "--min-sample-ms nan", "min_sample_ms"),
        (against_peers.main, "--dtypes bfloat16", "accelerators only"),
        (against_peers.main, "--colour black", "--colour"),
        (seeds.main, "--shapes huge", "shapes"),
        (seeds.main, "--seed-blocks 1", "seed_blocks"),
        (seeds.main, "--num-seeds 0", "num_seeds"),
        (seeds.main, "--peers scan", "'scan'"),
        (seeds.main, "--num-devices -1", "num_devices"),
        (seeds.main, "--case-seconds 0", "case_seconds"),
    ],
)
def test_wrong_command_line_is_one_line_and_nothing_is_written(
    main, arguments, named, tmp_path, capsys
):
    directory = tmp_path / "out"
    assert main([*arguments.split(), "--output-dir", str(directory)]) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.count("\n") == 1
    assert named in errors
    assert not directory.exists()


@pytest.mark.parametrize("main", [against_peers.main, seeds.main])
def test_folder_that_cannot_be_written_is_one_line(main, tmp_path, capsys):
    file = tmp_path / "file"
    file.write_text("kept")
    assert main(["--output-dir", str(file / "out")]) == 2
    _, errors = capsys.readouterr()
    assert errors.startswith("experiments.benchmarks.")
    assert "Cannot write to the output directory" in errors
    assert errors.count("\n") == 1
    assert file.read_text() == "kept"


@pytest.mark.parametrize("config", [against_peers.Config, seeds.Config])
def test_quick_leaves_alone_what_was_asked_for(config):
    assert config(quick=True, num_rounds=7).num_rounds == 7
    assert config(quick=True).num_rounds < config().num_rounds
    assert config(quick=True).limits.max_seconds < config().limits.max_seconds
