"""How every experiment writes and shows what came out."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from experiments.files import write_file
from experiments.record import (
    RECORD_NAME,
    environment,
    make_record,
    peak_memory_bytes,
    write_record,
)
from experiments.run_config import RunConfig
from experiments.tables import Table, to_markdown, to_rich
from experiments.training import writing_results

SUMMARY_NAME = "summary.md"

#: Draws a picture into a file; the suffix says in which format.
Draw = Callable[[Path], object]


def write_results(
    config: RunConfig,
    console: Console,
    *,
    experiment: str,
    title: str,
    cells: Mapping[str, Mapping[str, Any]],
    summary: Mapping[str, Any],
    tables: Sequence[Table],
    notes: Sequence[str] = (),
    pictures: Mapping[str, Draw],
    seconds: float,
    scale: str,
) -> None:
    """Write the record, the pictures and summary.md; print tables and notes.

    The record comes first: the rest can be made from it again.

    Args:
        config: Says where to, and how pictures are written.
        console: Where the tables go.
        experiment: Name of the experiment's module.
        title: The first line of summary.md.
        cells: For each arm its series by name, seeds on axis 0.
        summary: What the report states; `peak_memory_bytes` and `total_seconds` are
            added.
        tables: What is shown.
        notes: Sentences beside them.
        pictures: For each name, without suffix, what draws it.
        seconds: How long the run took.
        scale: How large it was, such as "10 seeds, 50 epochs".

    Raises:
        UsageError: If a file cannot be written.
    """
    memory = peak_memory_bytes()
    summary = {**summary, "peak_memory_bytes": memory, "total_seconds": seconds}
    where = _describe_run(scale, seconds, memory)
    with writing_results(config):
        write_record(config.output_dir, make_record(experiment, config, cells, summary))
        names = []
        for name, draw in pictures.items():
            names.append(f"{name}.{config.picture_format}")
            draw(config.output_dir / names[-1])
        parts = [
            f"# {title}",
            *(to_markdown(table) for table in tables),
            *notes,
            *(f"![{_show_words(name)}]({name})" for name in names),
            where,
        ]
        text = "\n\n".join(part.rstrip("\n") for part in parts) + "\n"
        write_file(config.output_dir / SUMMARY_NAME, text.encode())
    for table in tables:
        console.print(to_rich(table))
    for line in (*notes, where):
        console.print(line, highlight=False)
    written = ", ".join((RECORD_NAME, *names, SUMMARY_NAME))
    console.print(f"Wrote {written} to {config.output_dir}.", highlight=False)


def _show_words(picture: str) -> str:
    return Path(picture).stem.replace("_", " ").capitalize()


def _describe_run(scale: str, seconds: float, memory: int | None) -> str:
    place = environment()
    devices = f"{len(place['devices'])} x {place['devices'][0]}"
    peak = "" if memory is None else f", at most {memory / 2**30:.2f} GiB"
    return (
        f"{scale}; {seconds:.0f} s in all{peak}; jax {place['packages']['jax']} on "
        f"{devices} ({place['processor']})."
    )
