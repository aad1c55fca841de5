"""The command `python -m tests.accuracy`: measure the accuracy, write record and page.

python -m tests.accuracy --output-dir docs/results/accuracy --page docs/accuracy.md
"""

import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from experiments.benchmarks.command import run_benchmark
from experiments.command import UsageError, check_output_dir
from experiments.files import write_file
from experiments.record import RECORD_NAME, SCHEMA, make_record, write_record
from gated_rnn.types import check_positive, invalid
from tests.accuracy.measure import measure_cell
from tests.accuracy.page import MODULE, make_page
from tests.accuracy.promise import MARGIN, find_largest, promise
from tests.cases import CELLS

EXPERIMENT = "accuracy"
PAGE_NAME = "accuracy.md"


@dataclasses.dataclass(frozen=True)
class Config:
    """Measure how far the package is from its float64 oracle, and write the contract.

    Every cell, engine and dtype, in every row class; writes results.json after each
    cell, and the page at the end.

    Attributes:
        cells: Rows of tests/cases.py; none: all of them.
        num_draws: Random problems a row.
        seed: Of the draws.
        resume: Keep the cells of the record that is in the output directory already, if
            it has the same draws.
        output_dir: Folder for results.json, made if need be.
        page: The page; none: accuracy.md in that folder.
    """

    cells: tuple[str, ...] = ()
    num_draws: int = 24
    seed: int = 0
    resume: bool = False
    output_dir: Path = Path("outputs/accuracy")
    page: Path | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be measured."""
        check_positive("num_draws", self.num_draws)
        if self.seed < 0:
            raise invalid("seed", "a number of at least 0", self.seed)
        for cell in self.cells:
            if cell not in CELLS:
                raise invalid("cells", f"some of {', '.join(CELLS)}", repr(cell))


def run(config: Config, console: Console) -> None:
    """Measure, and write the record and the page.

    Args:
        config: The settings.
        console: Where progress goes.

    Raises:
        UsageError: If the output directory cannot be written.
    """
    check_output_dir(config.output_dir)
    wanted = list(config.cells or CELLS)
    measured = _read_cells(config) if config.resume else {}
    for cell in wanted:
        if cell in measured:
            continue
        began = time.perf_counter()
        measured[cell] = measure_cell(cell, config.num_draws, config.seed)
        seconds = time.perf_counter() - began
        console.print(f"{cell}: {seconds:.0f} s", highlight=False)
        write_record(config.output_dir, _record(config, measured))
    record = _record(config, measured)
    write_record(config.output_dir, record)
    page = config.page or config.output_dir / PAGE_NAME
    try:
        write_file(page, make_page(record).encode())
    except OSError as error:
        raise UsageError(f"Cannot write {page}: {error.strerror}.") from error
    console.print(f"Wrote {page}.", highlight=False)


def _record(config: Config, measured: dict[str, Any]) -> dict[str, Any]:
    """Make a record; where it was made and how far one got is not a setting of it."""
    cells = {cell: measured[cell] for cell in CELLS if cell in measured}
    bounds = [
        {**row._asdict(), "bound": promise(found.error), **found._asdict()}
        for row, found in find_largest(cells).items()
    ]
    settings = {"num_draws": config.num_draws, "seed": config.seed}
    summary = {"margin": MARGIN, "bounds": bounds}
    return make_record(EXPERIMENT, settings, cells, summary)


def _read_cells(config: Config) -> dict[str, Any]:
    path = config.output_dir / RECORD_NAME
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        same = (
            record["schema"] == SCHEMA
            and record["experiment"] == EXPERIMENT
            and record["config"]["num_draws"] == config.num_draws
            and record["config"]["seed"] == config.seed
        )
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} is no record: {error!r}.") from error
    if not same:
        raise UsageError(f"{path} has other draws; leave out --resume.")
    return record["cells"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure from the command line; return the exit status."""
    return run_benchmark(run, Config, module=MODULE, arguments=arguments)


if __name__ == "__main__":
    sys.exit(main())
