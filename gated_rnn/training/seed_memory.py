"""How much memory a run of many seeds takes, and how wide its blocks may be (layer 5).

Predicted before anything runs, from the shapes of what stays in memory and XLA's own
plan of the compiled programs.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from gated_rnn.training.guarded import Rules
from gated_rnn.training.loop import Optimizer, Problem
from gated_rnn.training.seed_blocks import (
    Device,
    Program,
    Worker,
    compile_program,
    hide_objects,
)
from gated_rnn.training.seeds import MIN_SEED_BLOCK
from gated_rnn.types import check_positive, invalid

__all__ = ["SeedPlan", "plan_block", "plan_seeds"]

UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


class SeedPlan(NamedTuple):
    """A block width and the memory it takes, all in bytes.

    It covers arrays: not the program itself, the process, or metrics on the host. CPU
    devices share one memory, of which this is the sum; it includes the copy of the
    state that the host makes. Of accelerators it is that with the most blocks.

    Attributes:
        seed_block: How many seeds share a program; `train_seeds` takes it.
        num_blocks: How many blocks there are.
        num_devices: How many devices have a block.
        vectorize: Whether the seeds of a block run side by side.
        num_bytes: The predicted peak.
        shared_bytes: Of it, one copy a device of what all seeds share.
        seed_bytes: The state and the data set of one seed.
        scratch_bytes: What a device needs beside them while a block runs.
    """

    seed_block: int
    num_blocks: int
    num_devices: int
    vectorize: bool
    num_bytes: int
    shared_bytes: int
    seed_bytes: int
    scratch_bytes: int

    def describe(self) -> str:
        """Say it in a line."""
        way = "side by side" if self.vectorize else "in turn"
        blocks = f"block{'s' * (self.num_blocks > 1)}"
        devices = f"device{'s' * (self.num_devices > 1)}"
        return (
            f"{self.num_blocks} {blocks} of {self.seed_block} seeds {way} on "
            f"{self.num_devices} {devices}: {show_bytes(self.num_bytes)}, of it "
            f"{show_bytes(self.seed_bytes)} a seed, {show_bytes(self.scratch_bytes)} "
            f"scratch a device, {show_bytes(self.shared_bytes)} shared"
        )


def plan_seeds(
    problem: Problem,
    num_seeds: int,
    *,
    optimizer: Optimizer,
    memory_budget: int,
    hyper: Any = None,
    updates_per_piece: int = 10,
    vectorize: bool | None = None,
    devices: Sequence[Device] | None = None,
) -> SeedPlan:
    """Choose the width of a block so that a run of many seeds fits into memory.

    It is the widest that fits of those that give every device a block, and all of them
    as many. Seeds side by side take scratch memory each; seeds in turn share that of
    one, so that width hardly matters to them (see `train_seeds`).

    Compiles programs and runs none, at least one and about log2 of the number of
    widths. The bits of a seed follow the width: write it down with the results.

    Args:
        problem: As in `train_seeds`, and so are the arguments that bear the same name.
        num_seeds: How many seeds are trained.
        optimizer: An optax transformation, or a function from `hyper` to one.
        memory_budget: In bytes: of one accelerator, or for all CPU devices together.
        hyper: Leaves `[num_seeds, ...]`, of which the shapes count.
        updates_per_piece: How many updates run between two returns to the host.
        vectorize: Whether the seeds of a block run side by side.
        devices: Where to run; all alike.

    Returns:
        The width, and the predicted bytes.

    Raises:
        ValueError: If not even the narrowest blocks fit, with the bytes they need; or
            if the devices plan no memory.

    Example:
        >>> import optax
        >>> problem = Problem(
        ...     init=lambda key, hyper: jax.random.normal(key, (1000,)),
        ...     loss=lambda params, batch, key: ((params * batch).sum(), {}),
        ...     batch=lambda key, step: 1.0,
        ... )
        >>> plan = plan_seeds(
        ...     problem, 12, optimizer=optax.adam(0.1), memory_budget=10**6
        ... )
        >>> plan.seed_block * plan.num_blocks >= 12 and plan.num_bytes <= 10**6
        True
    """
    check_positive("num_seeds", num_seeds)
    check_positive("memory_budget", memory_budget)
    devices = jax.local_devices() if devices is None else devices
    widths = _list_widths(num_seeds, len(devices))

    def plan(width: int) -> SeedPlan:
        return plan_block(
            problem,
            num_seeds,
            width,
            optimizer=optimizer,
            hyper=hyper,
            updates_per_piece=updates_per_piece,
            vectorize=vectorize,
            devices=devices,
        )

    best = plan(widths[0])
    if best.num_bytes <= memory_budget:
        return best
    too_wide, fits = 0, len(widths) - 1
    best = plan(widths[fits])
    if best.num_bytes > memory_budget:
        least = f"{best.num_bytes} bytes ({show_bytes(best.num_bytes)})"
        expected = f"at least {least} for {num_seeds} seeds in {best.describe()}"
        raise invalid("memory_budget", expected, memory_budget)
    while fits - too_wide > 1:
        middle = (too_wide + fits) // 2
        tried = plan(widths[middle])
        if tried.num_bytes <= memory_budget:
            fits, best = middle, tried
        else:
            too_wide = middle
    return best


def plan_block(
    problem: Problem,
    num_seeds: int,
    seed_block: int,
    *,
    optimizer: Optimizer,
    hyper: Any = None,
    updates_per_piece: int = 10,
    vectorize: bool | None = None,
    devices: Sequence[Device] | None = None,
) -> SeedPlan:
    """Predict the memory of a run of many seeds in blocks of a given width.

    Args:
        problem: As in `plan_seeds`, and so are the other arguments.
        num_seeds: How many seeds are trained.
        seed_block: How many of them share a program, at least 2.
        optimizer: An optax transformation, or a function from `hyper` to one.
        hyper: Leaves `[num_seeds, ...]`.
        updates_per_piece: How many updates run between two returns to the host.
        vectorize: Whether the seeds of a block run side by side.
        devices: Where to run; all alike.

    Returns:
        The width as it was given, and the predicted bytes.

    Raises:
        ValueError: If the devices plan no memory.
    """
    devices = jax.local_devices() if devices is None else devices
    on_cpu = devices[0].platform == "cpu"
    side_by_side = not on_cpu if vectorize is None else vectorize
    functions = hide_objects(problem, optimizer)
    program = Program(functions, Rules(), updates_per_piece, side_by_side)
    ids = np.arange(seed_block, dtype=np.uint32)
    rows = ids % num_seeds
    hyper = jax.tree.map(lambda leaf: leaf[rows], hyper)
    worker = compile_program(devices[0], program, jax.random.key(0), ids, hyper)
    sizes = _measure(worker)
    num_blocks = -(-num_seeds // seed_block)
    num_devices = min(len(devices), num_blocks)
    return SeedPlan(
        seed_block=seed_block,
        num_blocks=num_blocks,
        num_devices=num_devices,
        vectorize=side_by_side,
        num_bytes=predict_peak(sizes, num_blocks, num_devices, on_cpu),
        shared_bytes=sizes.shared,
        seed_bytes=(sizes.state + sizes.inputs) // seed_block,
        scratch_bytes=sizes.scratch,
    )


class Sizes(NamedTuple):
    """Bytes of what all seeds share, of a block, and of the programs it runs."""

    shared: int
    state: int
    inputs: int
    start_scratch: int
    scratch: int
    curves: int


def predict_peak(
    sizes: Sizes, num_blocks: int, num_devices: int, share_memory: bool
) -> int:
    """Add up one memory: of all devices if they share it, else of the fullest one."""
    blocks, running = num_blocks, num_devices
    if not share_memory:
        blocks, running = -(-num_blocks // num_devices), 1
    resident = running * sizes.shared + blocks * (sizes.state + sizes.inputs)
    # The last block, which may go on from a state: that replaces what was drawn.
    start = sizes.start_scratch + sizes.state
    update = running * sizes.scratch + blocks * sizes.curves
    host_copy = num_blocks * sizes.state if share_memory else 0
    return resident + max(start, update, host_copy)


def show_bytes(count: int) -> str:
    """Write a number of bytes with three digits and a unit."""
    value, unit = float(count), 0
    while value >= 999.5 and unit < len(UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.3g} {UNITS[unit]}"


def _list_widths(num_seeds: int, num_devices: int) -> list[int]:
    """List the widths that deal equally many blocks to every device, widest first."""
    share = -(-num_seeds // num_devices)
    widths = {-(-share // rounds) for rounds in range(1, share + 1)}
    return sorted({max(width, MIN_SEED_BLOCK) for width in widths}, reverse=True)


def _measure(worker: Worker) -> Sizes:
    start, advance = worker.start.memory_analysis(), worker.advance.memory_analysis()
    if start is None or advance is None:
        expected = "devices whose compiler plans memory"
        raise invalid("devices", expected, worker.device.platform)
    state, inputs = worker.start.out_info
    return Sizes(
        shared=_count_bytes((worker.functions, worker.key)),
        state=_count_bytes(state),
        inputs=_count_bytes(inputs),
        start_scratch=start.temp_size_in_bytes,
        scratch=advance.temp_size_in_bytes,
        curves=advance.output_size_in_bytes - advance.alias_size_in_bytes,
    )


def _count_bytes(tree: Any) -> int:
    leaves = (leaf for leaf in jax.tree.leaves(tree) if hasattr(leaf, "dtype"))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)
