"""Metrics for TensorBoard, where they are asked for."""

import contextlib
import functools
import importlib.util
from collections.abc import Callable, Iterator

from experiments.command import UsageError
from experiments.run_config import RunConfig
from gated_rnn.training import Piece

FOLDER_NAME = "tensorboard"


@contextlib.contextmanager
def open_tensorboard(
    config: RunConfig, name: str
) -> Iterator[Callable[[Piece], object]]:
    """Open the log of one thing that is trained.

    Args:
        config: Says whether there is one, and where.
        name: What is trained.

    Yields:
        An `on_piece` that writes `METRIC/seed_ID` for every number a seed and update.

    Raises:
        UsageError: If the library that writes it is missing.
    """
    if not config.tensorboard:
        yield lambda piece: None
        return
    if importlib.util.find_spec("tensorboardX") is None:
        raise UsageError("--tensorboard needs tensorboardX: pip install tensorboardX.")
    import tensorboardX

    folder = config.output_dir / FOLDER_NAME / name
    with contextlib.ExitStack() as stack:

        @functools.cache  # not before there is something to write: a run may be refused
        def writer() -> tensorboardX.SummaryWriter:
            opened = tensorboardX.SummaryWriter(str(folder))
            return stack.enter_context(contextlib.closing(opened))

        def on_piece(piece: Piece) -> None:
            for metric, curve in piece.metrics.items():
                if curve.ndim != 2:
                    continue
                first = piece.step - curve.shape[1]
                for row, seed_id in enumerate(piece.seed_ids.tolist()):
                    for index, value in enumerate(curve[row].tolist()):
                        tag = f"{metric}/seed_{seed_id}"
                        writer().add_scalar(tag, value, first + index)

        yield on_piece
