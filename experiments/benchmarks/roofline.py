"""What the machine can do at best, and what a case asks of it at least.

The limit of a case is max(flops / matmul rate, bytes / bandwidth). No recurrence
reaches it: its matmuls are small and wait for one another.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from experiments.benchmarks.cases import STEP, Case
from experiments.benchmarks.data import NUM_GATES

#: Edge of the square matmul and length of the triad's vectors, by kind of device; the
#: vectors are larger than any cache.
MATMUL_SIZES = {"cpu": 1536, "gpu": 8192, "tpu": 8192}
TRIAD_SIZES = {"cpu": 2**25, "gpu": 2**28, "tpu": 2**28}
_NUM_TRIES = 5
_BYTES = {"float32": 4, "bfloat16": 2}
_ADAM_NUMBERS = 7  # reads params, m, v and the gradient, writes params, m and v
_CARRY_LEAVES = {"lstm": 2, "gru": 1}


class Machine(NamedTuple):
    """Rates measured here, the best of a few tries.

    Attributes:
        flops: Operations a second of a large matmul, by dtype.
        bandwidth: Bytes a second of a triad a = b + s c, two read and one written.
    """

    flops: dict[str, float]
    bandwidth: float


class Work(NamedTuple):
    """What a case asks for at least."""

    flops: int
    bytes: int


def measure_machine(dtypes: tuple[str, ...] = ("float32",)) -> Machine:
    """Measure the rates of the device that JAX uses.

    Args:
        dtypes: For which the matmul is measured.

    Returns:
        The rates.
    """
    kind = jax.default_backend()
    edge, length = MATMUL_SIZES[kind], TRIAD_SIZES[kind]
    flops = {}
    for dtype in dtypes:
        square = jnp.ones((edge, edge), dtype)
        seconds = _best_seconds(jax.jit(jnp.matmul), square / edge, square)
        flops[dtype] = 2 * edge**3 / seconds
    vector = jnp.ones(length, jnp.float32)
    # In place, or the pages of a new result would be timed.
    triad = jax.jit(lambda b, c: b + 3.0 * c, donate_argnums=0)
    seconds = _best_seconds(triad, vector + 1, vector)
    return Machine(flops, 3 * vector.nbytes / seconds)


def _best_seconds(
    function: Callable[..., jax.Array], first: jax.Array, second: jax.Array
) -> float:
    """Time `first = function(first, second)`, again and again."""
    first = jax.block_until_ready(function(first, second))
    spent = []
    for _ in range(_NUM_TRIES):
        started = time.perf_counter()
        first = jax.block_until_ready(function(first, second))
        spent.append(time.perf_counter() - started)
    return min(spent)


def count_work(case: Case, num_real_steps: int | None = None) -> Work:
    """Count the operations of the matmuls and the bytes that must be moved.

    With G gates, P = G H (F + H + 1) parameters (GRU: H more), N = B T real steps and
    C leaves of the carry (LSTM 2, GRU 1):

        flops   forward   2 N G H (F + H)
                gradient  2 N G H (2 F + 3 H)     h U and dz U^T; x W, x^T dz, h^T dz
        numbers forward   N F + P + N H           inputs and params in, outputs out
                gradient  2 N F + 3 P + 2 N C H   the inputs and every carry twice,
                                                  params twice, one gradient
                train     gradient and 7 P        Adam
                step      forward of one step and 2 B C H

    The gradient is that of the parameters, with gates computed again from the carry.
    Elementwise operations are not counted. Seeds share the inputs.

    Args:
        case: The case.
        num_real_steps: N, where sequences are padded; None: B T.

    Returns:
        Operations and bytes.

    Examples:
        >>> from experiments.benchmarks.cases import Sizes
        >>> count_work(Case("lstm", "forward", Sizes(2, 3, 1, 4)))
        Work(flops=960, bytes=504)
    """
    batch_size, num_steps, in_features, hidden = case.sizes
    columns = NUM_GATES[case.cell] * hidden
    steps = batch_size * num_steps if num_real_steps is None else num_real_steps
    if case.mode == STEP:
        steps = batch_size
    params = columns * (in_features + hidden + 1)
    params += hidden if case.cell == "gru" else 0
    leaves = _CARRY_LEAVES[case.cell]
    if case.mode in ("forward", STEP):
        flops = 2 * steps * columns * (in_features + hidden)
        shared, own = steps * in_features, params + steps * hidden
        own += 2 * steps * leaves * hidden if case.mode == STEP else 0
    else:
        flops = 2 * steps * columns * (2 * in_features + 3 * hidden)
        shared = 2 * steps * in_features
        own = 3 * params + 2 * steps * leaves * hidden
        own += _ADAM_NUMBERS * params if case.mode == "train" else 0
    seeds = case.num_seeds
    return Work(flops * seeds, (shared + own * seeds) * _BYTES[case.dtype])


def limit_seconds(work: Work, machine: Machine, dtype: str) -> float:
    """Say how long the machine needs at least.

    Args:
        work: From `count_work`.
        machine: From `measure_machine`.
        dtype: Of the case.

    Returns:
        Seconds.
    """
    return max(work.flops / machine.flops[dtype], work.bytes / machine.bandwidth)
