"""The command `python -m experiments.cell_variants`."""

import sys
from collections.abc import Sequence

from experiments.cell_variants.config import Config
from experiments.cell_variants.run import run
from experiments.command import run_command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the experiment from the command line; return the exit status."""
    return run_command(
        run, Config, module="experiments.cell_variants", arguments=arguments
    )


if __name__ == "__main__":
    sys.exit(main())
