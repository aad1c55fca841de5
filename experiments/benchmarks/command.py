"""The command line of a benchmark: as `experiments.command`, at JAX' own settings.

An experiment makes a device of every core, which is not what users of other libraries
run; a benchmark leaves the devices as they are.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

from rich.console import Console

from experiments.command import (
    INTERRUPTED_STATUS,
    USAGE_STATUS,
    UsageError,
    parse_config,
)

ConfigT = TypeVar("ConfigT")


def run_benchmark(
    run: Callable[[ConfigT, Console], None],
    config_type: type[ConfigT],
    *,
    module: str,
    arguments: Sequence[str] | None = None,
) -> int:
    """Run a benchmark from the command line.

    Args:
        run: The benchmark; gets its config and the console to write to.
        config_type: Frozen dataclass; its `ValueError`s and `run`'s `UsageError`s are
            shown as one line.
        module: The name after `python -m`.
        arguments: The command line; None for that of the process.

    Returns:
        The exit status: 0, 2 for a usage error, 130 when interrupted.
    """
    errors = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    try:
        run(parse_config(config_type, module, arguments), Console())
    except UsageError as error:
        errors.print(f"{module}: {error}")
        return USAGE_STATUS
    except KeyboardInterrupt:
        errors.print(f"{module}: interrupted; the cases that were done are written.")
        return INTERRUPTED_STATUS
    return 0
