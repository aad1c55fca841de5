"""The command `python -m experiments.memory_of_untrained_cells`."""

import sys
from collections.abc import Sequence

from experiments.command import run_command
from experiments.memory_of_untrained_cells.config import Config
from experiments.memory_of_untrained_cells.run import run


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the experiment from the command line; return the exit status."""
    return run_command(
        run,
        Config,
        module="experiments.memory_of_untrained_cells",
        arguments=arguments,
    )


if __name__ == "__main__":
    sys.exit(main())
