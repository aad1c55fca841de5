"""The command `python -m experiments.gates_in_action`."""

import sys
from collections.abc import Sequence

from experiments.command import run_command
from experiments.gates_in_action.config import Config
from experiments.gates_in_action.run import run


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the experiment from the command line; return the exit status."""
    return run_command(
        run, Config, module="experiments.gates_in_action", arguments=arguments
    )


if __name__ == "__main__":
    sys.exit(main())
