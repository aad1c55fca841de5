"""Progress of a training run: how far, the current loss, the time left."""

import contextlib
from collections.abc import Callable, Iterator

import numpy as np
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from gated_rnn.training import Piece

#: Seconds that the estimate of the time left looks back over.
_LOOK_BACK = 300.0
#: Where there is no terminal, so many lines stand for the bar.
_NUM_LINES = 10


@contextlib.contextmanager
def show_progress(
    console: Console, label: str, num_updates: int
) -> Iterator[Callable[[Piece], None]]:
    """Show a bar while a run lasts; in a log, a line every tenth of the way.

    Args:
        console: Where to.
        label: What is trained.
        num_updates: Updates of the whole run.

    Yields:
        The `on_piece` for `train_seeds`.
    """
    if not console.is_terminal:
        yield _line_writer(console, label)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    bar = Progress(*columns, console=console, speed_estimate_period=_LOOK_BACK)
    with bar:
        task = bar.add_task(label, total=num_updates, loss="(compiling)")

        def on_piece(piece: Piece) -> None:
            bar.update(task, completed=piece.step, loss=_mean_loss(piece))

        yield on_piece


def _line_writer(console: Console, label: str) -> Callable[[Piece], None]:
    spent = 0.0

    def on_piece(piece: Piece) -> None:
        nonlocal spent
        spent += piece.seconds
        before = piece.step - piece.metrics["loss"].shape[1]
        tenth = _NUM_LINES * piece.step // piece.num_updates
        if tenth > _NUM_LINES * before // piece.num_updates:
            left = spent / piece.step * (piece.num_updates - piece.step)
            console.print(
                f"{label}: {piece.step}/{piece.num_updates}, "
                f"loss {_mean_loss(piece)}, {left:.0f} s left",
                highlight=False,
            )

    return on_piece


def _mean_loss(piece: Piece) -> str:
    """Show the latest loss, the mean over seeds that have one."""
    latest = piece.metrics["loss"][:, -1]
    finite = latest[np.isfinite(latest)]
    mean = f"{finite.mean():.4g}" if finite.size else "none"
    lost = latest.size - finite.size  # diverged, or stopped
    return f"{mean} ({lost} ended)" if lost else mean
