"""Compare our engines with other libraries on the same function and the same data.

python -m experiments.benchmarks.against_peers --help
"""

import dataclasses
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from experiments.benchmarks import cases, report
from experiments.benchmarks.cases import Case, Cell, DType, Mode, Suite
from experiments.benchmarks.command import run_benchmark
from experiments.benchmarks.implementations import IMPLEMENTATIONS, load, versions
from experiments.benchmarks.measure import MIN_ROUNDS, Limits
from experiments.benchmarks.one_case import add_peak, measure_case
from experiments.benchmarks.plot import PICTURE_NAME, plot_ratios
from experiments.benchmarks.roofline import Machine, measure_machine
from experiments.benchmarks.rows import Row
from experiments.benchmarks.summary import summarise
from experiments.command import UsageError, check_output_dir
from experiments.record import RECORD_NAME, make_record, write_record
from experiments.tables import to_rich
from gated_rnn.types import check_positive, invalid

MODULE = "experiments.benchmarks.against_peers"
EXPERIMENT = "benchmarks.against_peers"
#: Environment variables that change what is measured.
VARIABLES = (
    *("XLA_FLAGS", "JAX_PLATFORMS", "JAX_NUM_CPU_DEVICES"),
    *("JAX_DEFAULT_MATMUL_PRECISION", "JAX_ENABLE_X64", "JAX_COMPILATION_CACHE_DIR"),
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS"),
)
#: Processes that run or wait, over the last minute, before the benchmark starts.
BUSY_LOAD = 0.5
#: What --quick sets where nothing else is asked for.
QUICK = {
    "suites": ("shapes", "latency"),
    "modes": ("gradient",),
    "num_rounds": MIN_ROUNDS,
    "case_seconds": 2.0,
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Our engines against Flax, Haiku, Equinox, Keras and PyTorch.

    Every implementation gets the same weights and inputs. What it computes, gradients
    included, is compared with ours before it is timed; what disagrees is reported and
    not timed. Runs take turns in rounds, each of another order. Writes results.json
    and ratios.png.

    Attributes:
        implementations: Which ones, by name; none: all that are installed. One of ours
            (scan, fused) has to be among them to be compared.
        suites: What to ask: plain sequences of many shapes; padded sequences; resets;
            many seeds, ours as lanes of one program and others in a loop; the latency
            of one step at batch size 1.
        cells: Which cells.
        modes: What a call does: outputs; mean(outputs ** 2) and its gradient with
            respect to the parameters; a training step with clipping and Adam.
        shapes: BxTxFxH, or small, targets, standard or all, for every suite. None:
            those of each suite.
        dtypes: None: float32, and bfloat16 where there is an accelerator.
        num_rounds: Samples of each implementation and case.
        min_sample_ms: What a sample lasts at least; short calls are repeated.
        case_seconds: After so long a case ends early, with at least 5 rounds.
        memory: Measure the peak memory of every gradient of the suite "shapes", each
            in a fresh process. Takes several seconds each.
        quick: About two minutes on two cores: small shapes, gradients, few rounds.
        output_dir: Folder for the results, made if need be.
    """

    implementations: tuple[str, ...] = ()
    suites: tuple[Suite, ...] = cases.SUITES
    cells: tuple[Cell, ...] = cases.CELLS
    modes: tuple[Mode, ...] = cases.MODES
    shapes: tuple[str, ...] = ()
    dtypes: tuple[DType, ...] = ()
    num_rounds: int = 21
    min_sample_ms: float = 10.0
    case_seconds: float = 120.0
    memory: bool = False
    quick: bool = False
    output_dir: Path = Path("outputs/benchmarks/against_peers")

    def __post_init__(self) -> None:
        """Refuse what cannot be measured; `quick` sets what is left at its default."""
        for name in ("suites", "cells", "modes"):
            if not getattr(self, name):
                raise invalid(name, "at least one", "none")
        for name in ("implementations", "suites", "cells", "modes", "dtypes"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise invalid(name, "each at most once", values)
        for name in self.implementations:
            if name not in IMPLEMENTATIONS:
                raise invalid("implementations", ", ".join(IMPLEMENTATIONS), repr(name))
        cases.parse_shapes(self.shapes)
        check_positive("num_rounds", self.num_rounds)
        for name in ("min_sample_ms", "case_seconds"):
            if not getattr(self, name) > 0:
                raise invalid(name, "a number above 0", getattr(self, name))
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
    """Measure all cases; the record is written after each.

    Args:
        config: The settings.
        console: Where progress and the tables go.

    Raises:
        UsageError: If nothing could be measured; nothing is written then.
    """
    names = config.implementations or tuple(IMPLEMENTATIONS)
    loaded = {name: load(name) for name in names}
    missing = {name: why for name, why in loaded.items() if isinstance(why, str)}
    if len(missing) == len(names):
        name, why = next(iter(missing.items()))
        raise UsageError(f"None of the implementations can run; {name}: {why}.")
    on_cpu = jax.default_backend() == "cpu"
    if on_cpu and "bfloat16" in config.dtypes:
        raise UsageError("bfloat16 is measured on accelerators only; this is a CPU.")
    check_output_dir(config.output_dir)
    began, load_before = time.perf_counter(), _read_load()
    if load_before is not None and load_before > BUSY_LOAD:
        console.print(
            f"The machine is busy (load {load_before:.1f}): threads that wait for one "
            "another, PyTorch's above all, look much slower than they are.",
            highlight=False,
        )
    for name, why in missing.items():
        console.print(f"{name}: skipped, {why}", highlight=False)
    dtypes = config.dtypes or (("float32",) if on_cpu else ("float32", "bfloat16"))
    machine = measure_machine(dtypes)
    rows: list[Row] = []

    def write(complete: bool) -> dict[str, Any]:
        spent = time.perf_counter() - began
        record = _make_record(config, rows, machine, spent, complete, load_before)
        write_record(config.output_dir, record)
        return record

    for suite, suite_cases in _list_cases(config, dtypes, on_cpu).items():
        for case in suite_cases:
            rows += measure_case(suite, case, loaded, config.limits, machine)
            console.print(_describe(case, rows[-len(names) :]), highlight=False)
            write(complete=False)
    if config.memory:
        for index, row in enumerate(rows):
            if (row.suite, row.mode, row.status) == ("shapes", "gradient", "timed"):
                rows[index] = add_peak(row)
        write(complete=False)
    record = write(complete=True)
    plot_ratios(config.output_dir / PICTURE_NAME, rows)
    for table in report.list_tables(record):
        console.print(to_rich(table))
    console.print(
        f"Wrote {RECORD_NAME} and {PICTURE_NAME} to {config.output_dir}.",
        highlight=False,
    )


def _read_load() -> float | None:
    """Read how many processes ran or waited during the last minute, None off Unix."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def _list_cases(
    config: Config, dtypes: tuple[str, ...], on_cpu: bool
) -> dict[str, list[Case]]:
    default = "small" if config.quick else "standard" if on_cpu else "all"
    return cases.make_cases(
        suites=config.suites,
        cells=config.cells,
        modes=config.modes,
        shapes=cases.parse_shapes(config.shapes),
        dtypes=dtypes,
        default_shapes=cases.SHAPE_SETS[default],
    )


def _describe(case: Case, rows: Sequence[Row]) -> str:
    """Say in a line what came out of a case."""
    times = [
        f"{row.implementation} {row.seconds_median * 1e3:.3g} ms"
        if row.status == "timed"
        else f"{row.implementation} {row.status} ({row.reason})"
        for row in rows
        if row.status != "skipped"
    ]
    return f"{case.label}: {', '.join(times) or 'nothing runs it'}"


def _make_record(
    config: Config,
    rows: Sequence[Row],
    machine: Machine,
    seconds: float,
    complete: bool,
    load_before: float | None,
) -> dict[str, Any]:
    by_cell = {
        cell: {"rows": [row for row in rows if row.cell == cell]}
        for cell in config.cells
    }
    precision = jax.config.jax_default_matmul_precision
    summary = {
        "complete": complete,
        "load_before": load_before,
        "total_seconds": seconds,
        "machine": machine,
        "versions": versions(),
        "variables": {name: os.environ.get(name) for name in VARIABLES},
        "matmul_precision": precision or "default",
        **summarise(rows),
    }
    return make_record(EXPERIMENT, config, by_cell, summary)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark from the command line; return the exit status."""
    return run_benchmark(run, Config, module=MODULE, arguments=arguments)


if __name__ == "__main__":
    sys.exit(main())
