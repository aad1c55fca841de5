"""The one way in which experiments train: resumable, with progress and metrics."""

import contextlib
import importlib.util
import itertools
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from experiments.command import UsageError, check_output_dir
from experiments.progress import show_progress
from experiments.record import to_json
from experiments.run_config import RunConfig
from experiments.tensorboard import open_tensorboard
from gated_rnn.networks import Network
from gated_rnn.training import (
    CheckpointError,
    Checkpoints,
    Piece,
    Problem,
    SeedPlan,
    SeedResult,
    Stopped,
    StopReason,
    plan_block,
    plan_seeds,
    train_resumable,
)

CHECKPOINTS_NAME = "checkpoints"
MODELS_NAME = "models"
#: What asks a run to stop; it saves first.
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """Whether the process was asked to stop, and how.

    Attributes:
        signal: The signal, or None.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None


#: Of this process: signals know no other place.
INTERRUPTION = Interruption()


@contextlib.contextmanager
def heed_signals() -> Iterator[None]:
    """Let a first SIGINT or SIGTERM ask for a stop; a second one ends the process."""

    def ask(number: int, frame: Any) -> None:
        INTERRUPTION.signal = signal.Signals(number)
        signal.signal(number, before[number])

    before = {}
    # Only the main thread may set handlers; elsewhere signals do what they did.
    with contextlib.suppress(ValueError):
        for number in SIGNALS:
            before[number] = signal.signal(number, ask)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        INTERRUPTION.signal = None


def was_asked_to_stop() -> bool:
    """Tell whether a signal asked for a stop; the one who asks saves first."""
    return INTERRUPTION.signal is not None


def stop_if_asked(step: int) -> None:
    """Stop between two things of which none has to be saved.

    Args:
        step: How many updates have been made.

    Raises:
        Stopped: If a signal asked for it.
    """
    if was_asked_to_stop():
        raise Stopped(step)


@contextlib.contextmanager
def writing_results(config: RunConfig) -> Iterator[None]:
    """Say in one line that the results cannot be written, such as for a full disk.

    Args:
        config: Says where they go.

    Raises:
        UsageError: If an operation on a file fails within the context.
    """
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"Cannot write the results to {config.output_dir}: "
            f"{error.strerror or error}. All training is saved: make room, and go on "
            "with --resume."
        ) from error


def prepare_run(config: RunConfig, console: Console) -> None:
    """Make ready what a run needs, once, before anything is trained.

    Without `resume`, the checkpoints of an earlier run are moved aside.

    Args:
        config: The settings; the output directory exists.
        console: Where to say so.

    Raises:
        UsageError: If the library is missing that writes what is asked for.
    """
    if config.save_models and importlib.util.find_spec("safetensors") is None:
        raise UsageError("--save-models needs safetensors: pip install safetensors.")
    if config.compilation_cache is not None:
        jax.config.update("jax_compilation_cache_dir", str(config.compilation_cache))
    folder = config.output_dir / CHECKPOINTS_NAME
    if not config.resume and folder.is_dir() and any(folder.iterdir()):
        aside = _free_name(folder)
        folder.rename(aside)
        console.print(
            f"The checkpoints of an earlier run are now in {aside.name}; "
            "--resume would have gone on with it.",
            highlight=False,
        )


@contextlib.contextmanager
def running(config: RunConfig, console: Console) -> Iterator[None]:
    """Make ready what a run needs; within, a signal asks for a stop that saves first.

    Data that can be refused are read before.

    Args:
        config: The settings.
        console: Where notices go.

    Raises:
        UsageError: If the output directory cannot be written, or what is asked for
            needs a library that is not installed; nothing is written then.
    """
    check_output_dir(config.output_dir)
    prepare_run(config, console)
    with heed_signals():
        yield


def plan_blocks(
    config: RunConfig,
    console: Console,
    problems: Mapping[str, Problem],
    num_seeds: int,
    *,
    seed_block: int,
    **options: Any,
) -> tuple[dict[str, SeedPlan], dict[str, float]]:
    """Predict the memory of what is trained, and choose the width of blocks by it.

    This compiles what training will run.

    Args:
        config: Says the budget; without one the width is `seed_block`.
        console: Where the plans are shown.
        problems: What is trained, by name; all get one width.
        num_seeds: How many seeds each has.
        seed_block: The width without a budget.
        **options: The other arguments of `plan_block`.

    Returns:
        A plan for each problem, and the seconds that compiling it took.

    Raises:
        UsageError: If the budget is too small.
    """
    if config.memory_budget is not None:
        try:
            plans = [
                plan_seeds(
                    problem, num_seeds, memory_budget=config.memory_budget, **options
                )
                for problem in problems.values()
            ]
        except ValueError as error:
            raise UsageError(str(error)) from error
        seed_block = min(plan.seed_block for plan in plans)
    chosen, seconds = {}, {}
    for name, problem in problems.items():
        began = time.perf_counter()
        chosen[name] = plan_block(problem, num_seeds, seed_block, **options)
        seconds[name] = time.perf_counter() - began
        console.print(f"{name.upper()}: {chosen[name].describe()}", highlight=False)
    return chosen, seconds


def train(
    config: RunConfig,
    console: Console,
    name: str,
    problem: Problem,
    key: jax.Array,
    seed_ids: Any,
    num_updates: int,
    **options: Any,
) -> SeedResult:
    """Train many seeds of one thing that is compared, such as a cell.

    Progress and what is said about resuming go to the console, metrics of every seed
    and update to `metrics_NAME.jsonl`, checkpoints to `checkpoints/NAME`.

    Args:
        config: The settings.
        console: Where to.
        name: What is trained; a file name.
        problem: As for `train_resumable`.
        key: The same.
        seed_ids: The same.
        num_updates: The same.
        **options: Its other arguments.

    Returns:
        The result.

    Raises:
        UsageError: If the run cannot go on, or nothing can be saved.
        Stopped: If a signal asked for it; all is saved.
    """
    label = name.upper()
    with (
        show_progress(console, label, num_updates) as on_piece,
        open_tensorboard(config, name) as on_metrics,
    ):

        def observe(piece: Piece) -> None:
            on_piece(piece)
            on_metrics(piece)

        try:
            result = train_resumable(
                problem,
                key,
                seed_ids,
                num_updates,
                checkpoints=Checkpoints(config.output_dir / CHECKPOINTS_NAME / name),
                resume=config.resume,
                identity=to_json(config.identity),
                metrics_file=config.output_dir / f"metrics_{name}.jsonl",
                save_seconds=config.save_seconds,
                should_stop=was_asked_to_stop,
                on_piece=observe,
                on_notice=lambda line: console.print(
                    f"{label}: {line}", highlight=False
                ),
                **options,
            )
        except CheckpointError as error:
            raise UsageError(str(error)) from error
    reached = 0
    for seed_id, (reason, step) in result.ended.items():
        if reason == StopReason.TARGET_REACHED:
            reached += 1
            continue
        words = reason.name.lower().replace("_", " ")
        console.print(
            f"{label}: seed {seed_id} ended at update {step}: {words}.", highlight=False
        )
    if reached:
        console.print(
            f"{label}: {reached} of {len(result.seed_ids)} seeds reached the target.",
            highlight=False,
        )
    return result


def only_seed(result: SeedResult, seed_id: int) -> Any:
    """Return the parameters of one seed: the best ones where there is a validation.

    Args:
        result: Of `train`.
        seed_id: Which.

    Returns:
        The parameters.
    """
    row = result.seed_ids.tolist().index(seed_id)
    params = result.params if result.best is None else result.best.params
    return jax.tree.map(lambda leaf: np.asarray(leaf[row]), params)


def save_models(
    config: RunConfig, name: str, network: Network, result: SeedResult
) -> None:
    """Write each seed's network to `models/NAME_seed_ID.safetensors`.

    Args:
        config: Says where to, and whether at all.
        name: What was trained.
        network: Of all seeds.
        result: Of `train`; `only_seed` says which parameters are taken.
    """
    if not config.save_models:
        return
    # Here: of the experiments' libraries, this alone may be missing.
    from gated_rnn.conversion.files import save_model

    folder = config.output_dir / MODELS_NAME
    folder.mkdir(exist_ok=True)
    for seed_id in result.seed_ids.tolist():
        save_model(
            folder / f"{name}_seed_{seed_id}.safetensors",
            network,
            only_seed(result, seed_id),
            metadata={"name": name, "seed": seed_id, "config": to_json(config)},
        )


def _free_name(folder: Path) -> Path:
    names = (folder.with_name(f"{folder.name}_{n}") for n in itertools.count(1))
    return next(name for name in names if not name.exists())
