"""How many updates of how many seeds a second does `train_seeds` make?

python -m experiments.benchmarks.seeds --help
"""

import contextlib
import dataclasses
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import jax
from rich.console import Console

from experiments.benchmarks import cases, seeds_report
from experiments.benchmarks.against_peers import VARIABLES
from experiments.benchmarks.cases import Case, Cell
from experiments.benchmarks.command import run_benchmark
from experiments.benchmarks.implementations import IMPLEMENTATIONS, versions
from experiments.benchmarks.measure import MIN_ROUNDS, Limits
from experiments.benchmarks.ours import ENGINES
from experiments.benchmarks.seed_points import (
    DEFAULT_ENGINE,
    MIN_SEED_BLOCK,
    use_devices,
)
from experiments.benchmarks.seed_sweeps import (
    SeedsRow,
    compare_seeds,
    list_points,
    measure_points,
)
from experiments.command import UsageError, check_output_dir
from experiments.record import RECORD_NAME, make_record, num_cores, write_record
from experiments.tables import to_rich
from gated_rnn.types import check_positive, invalid

MODULE = "experiments.benchmarks.seeds"
EXPERIMENT = "benchmarks.seeds"
PEER_NAMES = tuple(name for name, entry in IMPLEMENTATIONS.items() if not entry.is_ours)
#: What --quick sets where nothing else is asked for.
QUICK = {
    "shapes": ("64x60x1x50",),
    "num_seeds": (1, 8, 32),
    "seed_blocks": (2, 4),
    "num_rounds": MIN_ROUNDS,
    "case_seconds": 5.0,
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Throughput of `train_seeds`, and 8 seeds against other libraries.

    Three sweeps for each cell and shape: over the number of seeds, in the first of the
    blocks and on all devices; over the width of a block; over the number of devices.
    Then 8 seeds at once against every other library's 8 runs one after another, in a
    process of their own at default settings. Writes results.json.

    Attributes:
        cells: Which cells.
        shapes: BxTxFxH, or a name such as targets.
        engine: Of ours; default is what `unroll` takes.
        num_seeds: Numbers of seeds.
        seed_blocks: Widths of a block.
        sweep_seeds: Seeds in the sweeps over blocks and devices.
        num_devices: CPU devices to make, to which blocks go in turn; 0: one a core. Has
            no effect on accelerators.
        num_compared: Seeds in the comparison with other libraries; 0 leaves it out.
        peers: Other libraries to compare with; none: all that are installed.
        num_rounds: Samples of each point.
        min_sample_ms: What a sample lasts at least.
        case_seconds: After so long a sweep ends early, with at least 5 rounds; numbers
            of seeds of which one update takes longer are left out.
        memory: Measure the peak memory of each point in a fresh process.
        quick: About two minutes on two cores.
        output_dir: Folder for the results, made if need be.
    """

    cells: tuple[Cell, ...] = cases.CELLS
    shapes: tuple[str, ...] = ("40x2000x1x16", "64x60x1x50")
    engine: Literal["default", "scan", "fused"] = DEFAULT_ENGINE
    num_seeds: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
    seed_blocks: tuple[int, ...] = (4, 2, 8, 16, 32)
    sweep_seeds: int = 32
    num_devices: int = 0
    num_compared: int = 8
    peers: tuple[str, ...] = ()
    num_rounds: int = 11
    min_sample_ms: float = 100.0
    case_seconds: float = 120.0
    memory: bool = False
    quick: bool = False
    output_dir: Path = Path("outputs/benchmarks/seeds")

    def __post_init__(self) -> None:
        """Refuse what cannot be measured; `quick` sets what is left at its default."""
        for name in ("cells", "shapes", "num_seeds", "seed_blocks"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise invalid(name, "each at most once, at least one", values)
        for name in ("num_seeds", "seed_blocks"):
            for value in getattr(self, name):
                check_positive(name, value)
        if min(self.seed_blocks) < MIN_SEED_BLOCK:
            expected = f"integers of at least {MIN_SEED_BLOCK}"
            raise invalid("seed_blocks", expected, self.seed_blocks)
        for name in ("sweep_seeds", "num_rounds"):
            check_positive(name, getattr(self, name))
        for name in ("num_devices", "num_compared"):
            if getattr(self, name) < 0:
                raise invalid(name, "an integer of at least 0", getattr(self, name))
        for name in ("min_sample_ms", "case_seconds"):
            if not getattr(self, name) > 0:
                raise invalid(name, "a number above 0", getattr(self, name))
        for name in self.peers:
            if name not in PEER_NAMES:
                raise invalid("peers", ", ".join(PEER_NAMES), repr(name))
        cases.parse_shapes(self.shapes)
        if self.quick:
            defaults = {field.name: field.default for field in dataclasses.fields(self)}
            for name, value in QUICK.items():
                if getattr(self, name) == defaults[name]:
                    object.__setattr__(self, name, value)

    @property
    def limits(self) -> Limits:
        """How much is measured."""
        return Limits(self.num_rounds, self.min_sample_ms / 1e3, self.case_seconds)


def run(config: Config, console: Console) -> None:
    """Measure all sweeps and comparisons; the record is written after each.

    Args:
        config: The settings.
        console: Where progress and the tables go.

    Raises:
        UsageError: If the engine does not exist or nothing can be written.
    """
    if config.engine != DEFAULT_ENGINE:
        try:
            ENGINES[config.engine]()
        except AttributeError as error:
            raise UsageError(f"There is no engine {config.engine}: {error}.") from error
    check_output_dir(config.output_dir)
    # JAX refuses once it has started, as in a test's process.
    with contextlib.suppress(RuntimeError):
        use_devices(config.num_devices or num_cores())
    num_devices = len(jax.local_devices())
    began = time.perf_counter()
    rows: list[SeedsRow] = []
    comparisons: list[SeedsRow] = []

    def write(complete: bool) -> dict[str, Any]:
        spent = time.perf_counter() - began
        record = _make_record(config, rows, comparisons, spent, complete)
        write_record(config.output_dir, record)
        return record

    for sizes in cases.parse_shapes(config.shapes):
        for cell in config.cells:
            points = list_points(
                Case(cell, "train", sizes),
                num_seeds=config.num_seeds,
                seed_blocks=config.seed_blocks,
                sweep_seeds=config.sweep_seeds,
                num_devices=num_devices,
            )
            rows += measure_points(
                points, config.engine, config.limits, with_memory=config.memory
            )
            console.print(f"{cell.upper()} {sizes.label}: done", highlight=False)
            write(complete=False)
            if config.num_compared:
                case = Case(cell, "train", sizes, num_seeds=config.num_compared)
                peers = config.peers or PEER_NAMES
                comparisons += compare_seeds(
                    case, peers, config.engine, config.limits, num_devices
                )
                console.print(f"{case.label}: compared", highlight=False)
                write(complete=False)
    record = write(complete=True)
    for table in seeds_report.list_tables(record):
        console.print(to_rich(table))
    for note in seeds_report.list_notes(record):
        console.print(note, highlight=False)
    console.print(f"Wrote {RECORD_NAME} to {config.output_dir}.", highlight=False)


def _make_record(
    config: Config,
    rows: Sequence[SeedsRow],
    comparisons: Sequence[SeedsRow],
    seconds: float,
    complete: bool,
) -> dict[str, Any]:
    summary = {
        "complete": complete,
        "total_seconds": seconds,
        "num_devices": len(jax.local_devices()),
        "versions": versions(),
        "variables": {name: os.environ.get(name) for name in VARIABLES},
        "comparisons": comparisons,
    }
    by_cell = {
        cell: {"rows": [row for row in rows if row.cell == cell]}
        for cell in config.cells
    }
    return make_record(EXPERIMENT, config, by_cell, summary)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark from the command line; return the exit status."""
    return run_benchmark(run, Config, module=MODULE, arguments=arguments)


if __name__ == "__main__":
    sys.exit(main())
