"""The main job, stopped and killed in every way, ends as one that was left alone."""

import contextlib
import errno
import json
import re
import shlex
import shutil
import signal
import struct

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from experiments.files import write_file
from experiments.long_sequences.__main__ import main
from experiments.training import heed_signals, stop_if_asked
from gated_rnn.conversion import files as model_files
from gated_rnn.training import Checkpoints, Stopped
from gated_rnn.training import checkpoints as checkpoints_module
from tests import snapshots
from tests.experiments import killing

NUM_KILLS = 4
STOPPED = (
    "experiments.long_sequences: stopped after 2 updates; "
    "all is saved, go on with --resume.\n"
)
PAGE = killing.REPOSITORY / "docs" / "checkpoints.md"
MEMORY_BUDGET = 1.0  # GiB, the whole process; of it 0.4 are JAX and its compiler


# Processes


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("processes")


def test_killed_job_has_the_results_of_one_left_alone(folder):
    whole, killed = folder / "whole", folder / "killed"
    ended = killing.run_to_end(whole)
    assert (ended.status, ended.errors) == (0, "")
    assert ended.num_lines == killing.NUM_LINES
    signals = [signal.SIGKILL] * NUM_KILLS
    for ended in killing.interrupt_often(killed, signals, seed=5):
        assert (ended.status, ended.errors) == (-signal.SIGKILL, "")
        assert not (killed / "results.json").exists()
    ended = killing.run_to_end(killed, "--resume")
    assert (ended.status, ended.errors) == (0, "")
    assert killing.outcome(killed) == killing.outcome(whole)


def test_many_seeds_stay_within_the_memory_budget(folder):
    arguments = ("--num-seeds", "64", "--num-epochs", "2")
    ended = killing.run_to_end(folder / "many", *arguments)
    assert (ended.status, ended.errors) == (0, "")
    record = json.loads((folder / "many" / "results.json").read_text())
    assert np.shape(record["cells"]["lstm"]["loss"]) == (64, 2)
    assert record["summary"]["peak_memory_bytes"] < MEMORY_BUDGET * 2**30


# In this process, with one cell


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """Run the command in this process; what was compiled is not compiled again."""
    names = (
        "jax_compilation_cache_dir",
        "jax_disable_most_optimizations",
        "jax_persistent_cache_min_compile_time_secs",
    )
    before = {name: jax.config.values[name] for name in names}
    cache = tmp_path_factory.mktemp("cache")
    jax.config.update("jax_disable_most_optimizations", True)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)

    def run(directory, *arguments):
        options = f"{killing.OPTIONS} --cells gru --num-seeds 2 --num-epochs 3"
        folders = ("--compilation-cache", str(cache), "--output-dir", str(directory))
        return main([*options.split(), *folders, *arguments])

    yield run
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.fixture(scope="module")
def finished(job, tmp_path_factory):
    directory = tmp_path_factory.mktemp("finished") / "out"
    assert job(directory, "--save-models", "--tensorboard") == 0
    return directory


@pytest.fixture
def out(finished, tmp_path):
    """A finished run of one's own."""
    return shutil.copytree(finished, tmp_path / "out")


def content_of(directory):
    return {
        path: path.read_bytes() if path.is_file() else None
        for path in directory.rglob("*")
    }


def series_of(directory):
    return json.loads((directory / "results.json").read_text())["cells"]["gru"]


def lines_of(directory):
    return sorted((directory / "metrics_gru.jsonl").read_text().splitlines())


def test_compiled_programs_are_kept_where_it_was_asked_for(finished):
    config = json.loads((finished / "results.json").read_text())["config"]
    assert len(list(finished.parent.parent.glob("cache*/*"))) > 3
    assert "cache" in config["compilation_cache"]


def test_more_seeds_and_epochs_are_those_of_a_run_that_had_them(job, out, tmp_path):
    more = ("--num-seeds", "3", "--num-epochs", "5")
    assert job(out, "--resume", *more) == 0
    assert job(tmp_path / "whole", *more) == 0
    assert series_of(out) == series_of(tmp_path / "whole")
    assert lines_of(out) == lines_of(tmp_path / "whole")
    assert len(lines_of(out)) == 3 * 5


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--learning-rate 0.02", "another run: learning_rate 0.001, now 0.02."),
        ("--seed 4", "another run: key ["),
        ("--num-epochs 2", "has made 3 updates: expected num_updates of at least"),
        ("--num-seeds 1", "have the seeds [1], which are not asked for"),
        ("--hidden-features 4 --tensorboard", "hidden_features 3, now 4"),
    ],
)
def test_other_settings_are_one_line_and_change_nothing(
    arguments, words, job, out, capsys
):
    before = content_of(out)
    assert job(out, "--resume", *arguments.split()) == 2
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1
    assert errors.startswith("experiments.long_sequences: The ")
    assert words in errors
    assert content_of(out) == before


def test_without_resume_the_earlier_run_is_moved_aside(job, out, capsys):
    before = content_of(out / "checkpoints").values()
    results = series_of(out)
    (out / "checkpoints_1").mkdir()
    assert job(out) == 0
    assert "an earlier run are now in checkpoints_2;" in capsys.readouterr().out
    assert list(content_of(out / "checkpoints_2").values()) == list(before)
    assert series_of(out) == results


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_job_that_is_asked_to_stop_saves_and_says_so(
    number, job, finished, tmp_path, capsys, monkeypatch
):
    @contextlib.contextmanager
    def raise_signal(*_):
        yield lambda piece: piece.step == 2 and signal.raise_signal(number)

    out, before = tmp_path / "out", signal.getsignal(number)
    with monkeypatch.context() as patched:
        patched.setattr("experiments.training.show_progress", raise_signal)
        assert job(out, "--save-seconds", "1000") == 130
    assert capsys.readouterr().err == STOPPED
    assert signal.getsignal(number) is before
    assert Checkpoints(out / "checkpoints" / "gru").numbers() == [0]
    assert job(out, "--resume") == 0
    assert series_of(out) == series_of(finished)
    assert lines_of(out) == lines_of(finished)


def test_commands_of_the_page_run(job, finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prefix = "python -m experiments.long_sequences "
    blocks = re.findall(r"```bash\n(.*?)```", PAGE.read_text(), re.DOTALL)
    commands = [line for block in blocks for line in block.splitlines()]
    assert len(commands) == 4
    for command in commands:
        assert command.startswith(prefix)
        assert job("elsewhere", *shlex.split(command.removeprefix(prefix))) == 0
    out = tmp_path / "outputs" / "prices"
    series = series_of(out)
    assert np.shape(series["loss"]) == (6, 120)
    assert [row[:3] for row in series["loss"][:2]] == series_of(finished)["loss"]
    assert (out / "models" / "gru_seed_3.safetensors").exists()
    assert not (tmp_path / "elsewhere").exists()


def test_models_are_those_of_the_last_checkpoint(finished):
    arrays = Checkpoints(finished / "checkpoints" / "gru").load().arrays
    params = [array for name, array in arrays.items() if name.startswith("0/state[0][")]
    for seed in range(2):
        path = finished / "models" / f"gru_seed_{seed}.safetensors"
        network, model = model_files.load_model(path)
        assert network.layers[0].cell.hidden_features == 3
        leaves = jax.tree.leaves(model)
        assert len(leaves) == len(params) == 6
        for leaf, rows in zip(leaves, params, strict=True):
            np.testing.assert_array_equal(leaf, rows[seed], strict=True)
        metadata = model_files.load_metadata(path)
        assert (metadata["name"], metadata["seed"]) == ("gru", seed)
    assert len(list((finished / "models").iterdir())) == 2


def events_of(path):
    """Read the scalars of an event file: records of length, crc, message, crc."""
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")
    data, first = path.read_bytes(), 0
    while first < len(data):
        (length,) = struct.unpack_from("<Q", data, first)
        event = event_pb2.Event.FromString(data[first + 12 : first + 12 + length])
        for value in event.summary.value:
            yield value.tag, event.step, value.simple_value
        first += 12 + length + 4


def test_tensorboard_has_the_numbers_of_the_metrics_file(finished):
    (path,) = (finished / "tensorboard" / "gru").iterdir()
    expected = {}
    for line in map(json.loads, lines_of(finished)):
        for name in line.keys() - {"seed", "step"}:
            expected[f"{name}/seed_{line['seed']}", line["step"]] = line[name]
    seen = {(tag, step): value for tag, step, value in events_of(path)}
    assert seen == expected
    assert len(seen) == 2 * 3 * 2  # loss and gradient norm


def no_room(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("where", ["checkpoint", "results"])
def test_full_disk_is_one_line_and_with_room_the_job_goes_on(
    where, job, finished, tmp_path, capsys, monkeypatch
):
    real_write, calls = checkpoints_module.write_arrays, []

    def write(*arguments):
        calls.append(1)
        (no_room if len(calls) == 2 else real_write)(*arguments)

    out = tmp_path / "out"
    with monkeypatch.context() as full:
        if where == "checkpoint":
            full.setattr(checkpoints_module, "write_arrays", write)
        else:
            full.setattr("experiments.record.write_file", no_room)
        assert job(out) == 2
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1
    assert errors.startswith("experiments.long_sequences: Cannot ")
    assert ": No space left on device. " in errors
    assert not (out / "results.json").exists()
    assert job(out, "--resume") == 0
    assert series_of(out) == series_of(finished)
    assert lines_of(out) == lines_of(finished)


# Smaller parts


def test_record_is_old_or_new_at_any_instant(tmp_path):
    out, copies = tmp_path / "out", tmp_path / "copies"
    out.mkdir()
    copies.mkdir()
    old, new = b"old" * 99, b"new" * 999
    write_file(out / "results.json", old)
    with snapshots.recording(out, copies):
        write_file(out / "results.json", new)
    seen = [{str(p): d for p, d in c.items()} for c in snapshots.distinct(copies)]
    assert len(seen) > 2
    assert {content["results.json"] for content in seen} <= {old, new}
    assert [path.name for path in out.iterdir()] == ["results.json"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_is_heeded_between_trainings_too(number):
    before = signal.getsignal(number)
    with heed_signals():
        stop_if_asked(3)
        signal.raise_signal(number)
        assert signal.getsignal(number) is before  # a second one ends the process
        with pytest.raises(Stopped, match="stopped after 3 updates"):
            stop_if_asked(3)
    stop_if_asked(3)
    assert signal.getsignal(number) is before
