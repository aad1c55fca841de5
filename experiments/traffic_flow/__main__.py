"""The command `python -m experiments.traffic_flow`."""

import sys
from collections.abc import Sequence

from experiments.command import run_command
from experiments.traffic_flow.config import Config
from experiments.traffic_flow.run import run


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the experiment from the command line; return the exit status."""
    return run_command(
        run, Config, module="experiments.traffic_flow", arguments=arguments
    )


if __name__ == "__main__":
    sys.exit(main())
