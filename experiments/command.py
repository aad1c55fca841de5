"""The command line of an experiment, from its frozen Config.

What a person got wrong is one line on stderr and exit status 2, with nothing written.
"""

import contextlib
import io
import os
import re
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import jax
import tyro
from rich.console import Console

from experiments.record import num_cores
from gated_rnn.training import Stopped

ConfigT = TypeVar("ConfigT")

USAGE_STATUS = 2
INTERRUPTED_STATUS = 130  # what a shell reports of a program ended by Ctrl-C
_WIDE_TERMINAL = "10000"  # columns: a message then stands on one line
_BORDERS = " │─╭╮╰╯"  # of tyro's box; in ASCII it has rules of "-" alone
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class UsageError(Exception):
    """What a person asked for cannot be done; the message is one line that says why."""


def run_command(
    run: Callable[[ConfigT, Console], None],
    config_type: type[ConfigT],
    *,
    module: str,
    arguments: Sequence[str] | None = None,
) -> int:
    """Run an experiment from the command line.

    On CPU every core becomes a device, so that blocks of seeds run side by side.

    Args:
        run: The experiment; gets its config and the console to write to.
        config_type: Frozen dataclass; its `ValueError`s and `run`'s `UsageError`s are
            shown as one line.
        module: The name after `python -m`.
        arguments: The command line; None for that of the process.

    Returns:
        The exit status: 0, 2 for a usage error, 130 when interrupted or stopped.
    """
    errors = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    try:
        config = parse_config(config_type, module, arguments)
        use_every_core()
        run(config, Console())
    except UsageError as error:
        errors.print(f"{module}: {error}")
        return USAGE_STATUS
    except Stopped as stop:
        errors.print(f"{module}: {stop}; all is saved, go on with --resume.")
        return INTERRUPTED_STATUS
    except KeyboardInterrupt:
        errors.print(f"{module}: interrupted; no results were written.")
        return INTERRUPTED_STATUS
    return 0


def parse_config(
    config_type: type[ConfigT], module: str, arguments: Sequence[str] | None = None
) -> ConfigT:
    """Read a config from a command line; `--help` prints and exits with status 0.

    Args:
        config_type: Frozen dataclass.
        module: The name after `python -m`.
        arguments: The command line; None for that of the process.

    Returns:
        The config.

    Raises:
        UsageError: If the command line does not give a config; one line.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)

    def parse() -> ConfigT:
        return tyro.cli(
            config_type,
            prog=f"python -m {module}",
            args=arguments,
            config=(tyro.conf.FlagCreatePairsOff,),
        )

    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return parse()
    except SystemExit as exit_:
        if not exit_.code:
            raise
    # tyro draws its message into a box as wide as the terminal; once more, unwrapped.
    said = io.StringIO()
    with (
        contextlib.redirect_stderr(said),
        contextlib.suppress(SystemExit),
        _terminal_width(_WIDE_TERMINAL),
    ):
        parse()
    raise UsageError(_message(said.getvalue(), config_type.__name__))


def check_output_dir(directory: Path) -> None:
    """Make sure that a result can be written, before hours are spent on it.

    The folder is made if need be, and stays.

    Args:
        directory: Where the results go.

    Raises:
        UsageError: If a file cannot be created there; nothing is left behind.
    """
    made = [path for path in (directory, *directory.parents) if not path.exists()]
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        for path in made:
            with contextlib.suppress(OSError):
                path.rmdir()
        reason = error.strerror or str(error)
        raise UsageError(
            f"Cannot write to the output directory {directory}: {reason}. "
            "Choose another one with --output-dir."
        ) from error


def use_every_core() -> None:
    """Make one CPU device of each core, unless JAX runs already or was told otherwise.

    Has no effect on other backends.
    """
    if "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return
    if "JAX_NUM_CPU_DEVICES" in os.environ:
        return
    # JAX refuses once a backend has started, as in a test's process.
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", num_cores())


@contextlib.contextmanager
def _terminal_width(columns: str):
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = columns
    try:
        yield
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before


def _message(said: str, config_name: str) -> str:
    """Take the message out of tyro's box: the line that follows its title."""
    lines = (_COLOURS.sub("", line).strip(_BORDERS) for line in said.splitlines())
    title_and_message = [line for line in lines if line.strip("-")]
    if len(title_and_message) < 2:
        return "The arguments are not valid. See --help."
    message = title_and_message[1]
    message = message.removeprefix(f"Error parsing {config_name}: ").rstrip(".")
    return f"{message}. See --help."
