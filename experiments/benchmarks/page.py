"""Write docs/benchmarks.md from the results of the two benchmarks.

    python -m experiments.benchmarks.page RESULTS_DIR

The page is a function of the records: made again, it is the same to the byte.
"""

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

from experiments.benchmarks import against_peers, report, seeds, seeds_report
from experiments.benchmarks.command import run_benchmark
from experiments.benchmarks.roofline import MATMUL_SIZES
from experiments.benchmarks.summary import (
    ALL_TARGET,
    JAX_CEILING,
    JAX_TARGET,
    MEMORY_TARGET,
)
from experiments.command import UsageError
from experiments.files import write_file
from experiments.record import RECORD_NAME, SCHEMA
from experiments.tables import show_number, to_markdown

MODULE = "experiments.benchmarks.page"
PEERS, SEEDS = "benchmarks.against_peers", "benchmarks.seeds"
_GIGA = 1e9

HEAD = f"""\
# Benchmarks

Made by `python -m {MODULE}` from the records named below; do not edit.

Every implementation gets the same weights, none of them zero, and the same inputs. Its
outputs and gradients are compared with ours before it is timed; one that disagrees is
named and not timed. All run in one process at default settings, in rounds: each once a
round, in an order drawn anew, every call until the device is done. A sample is the mean
of as many calls as last some milliseconds; a time is the median over the rounds, an
interval that of a bootstrap over rounds. Compiling is measured apart. "Forward and
gradient" is mean(outputs ** 2) and its gradient with respect to the parameters; a
training step adds clipping by the global norm and Adam. Shapes are BxTxFxH. The limit
of the machine is the larger of the operations of the matmuls over the rate of a large
matmul, and the bytes that must be moved over the bandwidth, both measured in the same
run (`experiments/benchmarks/roofline.py` has the formulas). Peak memory is what one
call adds to the resident size of a fresh process.

The targets: ours takes at most {JAX_TARGET} of the time of the fastest JAX library
(geometric mean over the target shapes, none above {JAX_CEILING}), at most {ALL_TARGET}
of the fastest of all, and on 40x20000x1x16 at most {MEMORY_TARGET} of the peak memory
of the fastest JAX library.
"""

AGAIN = f"""\
## How to repeat it

On a machine that does nothing else:

```
pip install -e '.[experiments,peers]'
python -m experiments.benchmarks.against_peers --memory --output-dir RESULTS_DIR/peers
python -m experiments.benchmarks.seeds --output-dir RESULTS_DIR/seeds
python -m {MODULE} RESULTS_DIR
```

`--quick` makes a first impression of either in about two minutes.
"""


@dataclasses.dataclass(frozen=True)
class Config:
    """Write docs/benchmarks.md from the results of the two benchmarks.

    Attributes:
        results_dir: A folder with a results.json, or with folders that have one.
        output: The page.
    """

    results_dir: Annotated[Path, tyro.conf.Positional]
    output: Path = Path("docs/benchmarks.md")


def make_page(directory: Path) -> str:
    """Write the page of all records below a folder.

    Args:
        directory: Where to look.

    Returns:
        Markdown.

    Raises:
        UsageError: If there is no record, or one that is none of a benchmark.
    """
    paths = sorted(directory.rglob(RECORD_NAME))
    if not paths:
        raise UsageError(f"There is no {RECORD_NAME} below {directory}.")
    parts = [HEAD]
    for path in paths:
        name = path.parent.relative_to(directory).as_posix().replace("_", " ")
        parts.append(_section("" if name == "." else name, _read(path)))
    return "\n\n".join(part.rstrip("\n") for part in (*parts, AGAIN)) + "\n"


def _read(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        known = record["schema"] == SCHEMA and record["experiment"] in (PEERS, SEEDS)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} is no record: {error!r}.") from error
    if not known:
        raise UsageError(f"{path} is no record of a benchmark of schema {SCHEMA}.")
    return record


def _section(name: str, record: dict[str, Any]) -> str:
    is_peers = record["experiment"] == PEERS
    title = "Against other libraries" if is_peers else "Many seeds"
    made = report if is_peers else seeds_report
    parts = [
        f"## {title}" + (f": {name}" if name else ""),
        _place(record),
        f"Made by `{_command(record)}`.",
        *(to_markdown(table) for table in made.list_tables(record)),
        "\n".join(f"- {note}" for note in made.list_notes(record)),
    ]
    return "\n\n".join(part.rstrip("\n") for part in parts if part)


def _place(record: dict[str, Any]) -> str:
    """Say on what a record was made."""
    place, summary = record["environment"], record["summary"]
    versions = ", ".join(
        f"{name} {version}" for name, version in summary["versions"].items() if version
    )
    commit = (place["commit"] or "unknown")[:10]
    if place["modified"]:
        commit += ", modified"
    variables = {
        name: value for name, value in summary["variables"].items() if value is not None
    }
    sentences = [
        f"{len(place['devices'])} x {place['devices'][0]} ({place['processor']}, "
        f"{place['cores']} cores), {place['platform']}, Python {place['python']}.",
        f"{versions}; commit {commit}.",
    ]
    machine = summary.get("machine")
    if machine:
        edge = MATMUL_SIZES[place["backend"]]
        rates = ", ".join(
            f"{show_number(rate / _GIGA)} GFLOP/s in {dtype}"
            for dtype, rate in machine["flops"].items()
        )
        bandwidth = show_number(machine["bandwidth"] / _GIGA)
        sentences.append(
            f"A matmul of edge {edge} runs at {rates}; memory at {bandwidth} GB/s."
        )
    if variables:
        named = ", ".join(f"{name}={value}" for name, value in variables.items())
        sentences.append(f"Environment: {named}.")
    if not summary["complete"]:
        sentences.append("The run was broken off; the tables hold what was done.")
    return " ".join(sentences)


def _command(record: dict[str, Any]) -> str:
    """Return the command that made a record, with the settings that are no defaults."""
    makers: dict[str, Any] = {PEERS: against_peers, SEEDS: seeds}
    module = makers[record["experiment"]]
    defaults = json.loads(json.dumps(dataclasses.asdict(module.Config()), default=str))
    words = [f"python -m {module.MODULE}"]
    for name, value in record["config"].items():
        if name == "output_dir" or value == defaults.get(name):
            continue
        words.append("--" + name.replace("_", "-"))
        if value is not True:
            words += map(str, value) if isinstance(value, list) else [str(value)]
    return " ".join(words)


def run(config: Config, console: Console) -> None:
    """Write the page.

    Args:
        config: The settings.
        console: Where to say so.

    Raises:
        UsageError: If a record is missing or the page cannot be written.
    """
    if not config.results_dir.is_dir():
        raise UsageError(f"There is no folder {config.results_dir}.")
    page = make_page(config.results_dir)
    try:
        write_file(config.output, page.encode())
    except OSError as error:
        raise UsageError(f"Cannot write {config.output}: {error.strerror}.") from error
    console.print(f"Wrote {config.output}.", highlight=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page from the command line; return the exit status."""
    return run_benchmark(run, Config, module=MODULE, arguments=arguments)


if __name__ == "__main__":
    sys.exit(main())
