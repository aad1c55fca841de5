import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest

from experiments.command import UsageError, check_output_dir, run_command


@dataclasses.dataclass(frozen=True)
class Config:
    """Count sheep.

    Attributes:
        count: How many sheep.
        breeds: Which ones.
        weight: Of one sheep.
        output_dir: Where they go.
    """

    count: int = 3
    breeds: tuple[Literal["merino", "suffolk"], ...] = ("merino",)
    weight: float = 1.0
    output_dir: Path = Path("pen")

    def __post_init__(self):
        if self.count < 1:
            raise ValueError(f"Received an invalid value for count: {self.count}.")


def command(arguments, run=lambda config, console: None):
    return run_command(run, Config, module="sheep", arguments=arguments)


def test_config_reaches_the_experiment_and_status_is_0():
    seen = []
    status = command(
        ["--count", "5", "--breeds", "suffolk", "merino"],
        lambda config, console: seen.append(config),
    )
    assert status == 0
    assert seen == [Config(count=5, breeds=("suffolk", "merino"))]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--count", "-1"], "Received an invalid value for count: -1"),
        (["--count", "many"], "--count"),
        (["--weight", "heavy"], "'heavy'"),
        (["--breeds", "dorset"], "'dorset'"),
        (["--colour", "black"], "--colour"),
        (["--count"], "--count"),
    ],
    ids=["refused", "no int", "no float", "no choice", "no flag", "no value"],
)
def test_wrong_command_line_is_one_line_on_stderr_and_status_2(
    arguments, named, capsys
):
    def run(config, console):
        raise AssertionError("the experiment ran")

    assert command(arguments, run) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.startswith("sheep: ")
    assert errors.count("\n") == 1
    assert named in errors
    assert "│" not in errors


def test_long_message_stays_on_one_line(capsys):
    assert command(["--breeds", "dorset" * 100]) == 2
    _, errors = capsys.readouterr()
    assert "dorset" * 100 in errors
    assert errors.count("\n") == 1


def test_help_explains_every_flag(capsys):
    with pytest.raises(SystemExit) as exit_:
        command(["--help"])
    assert exit_.value.code == 0
    output, _ = capsys.readouterr()
    for words in ("--count", "How many sheep.", "Which ones.", "Of one sheep."):
        assert words in output


def test_usage_error_of_the_experiment_is_one_line_and_status_2(capsys):
    def run(config, console):
        raise UsageError("No sheep here.")

    assert command([], run) == 2
    assert capsys.readouterr().err == "sheep: No sheep here.\n"


def test_interrupt_is_one_line_and_status_130(capsys):
    def run(config, console):
        raise KeyboardInterrupt

    assert command([], run) == 130
    assert capsys.readouterr().err.count("\n") == 1


def test_errors_of_the_code_are_not_hidden():
    def run(config, console):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        command([], run)


def test_output_dir_is_made_and_left_empty(tmp_path):
    directory = tmp_path / "a" / "b"
    check_output_dir(directory)
    assert list(directory.iterdir()) == []


def test_output_dir_below_a_file_is_refused_and_nothing_is_left(tmp_path):
    file = tmp_path / "file"
    file.write_text("kept")
    with pytest.raises(UsageError, match="Cannot write to the output directory"):
        check_output_dir(file / "deep" / "down")
    assert list(tmp_path.iterdir()) == [file]
    assert file.read_text() == "kept"


def test_folders_made_on_the_way_are_removed_when_writing_fails(tmp_path, monkeypatch):
    def fail(dir):  # the name tempfile gives it
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", fail)
    with pytest.raises(UsageError, match="Permission denied"):
        check_output_dir(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_message_is_found_in_whatever_box(encoding, tmp_path):
    script = tmp_path / "sheep.py"
    script.write_text(
        "import dataclasses, sys\n"
        "from experiments.command import run_command\n"
        "@dataclasses.dataclass(frozen=True)\n"
        "class Config:\n"
        "    '''Count sheep.'''\n"
        "    weight: float = 1.0\n"
        "sys.exit(run_command(print, Config, module='sheep'))\n"
    )
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONIOENCODING": encoding}
    done = subprocess.run(
        [sys.executable, str(script), "--weight", "heavy"],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "'heavy'" in done.stderr
