"""Run untrained cells on two sequences and count the steps until they look alike.

Layer: experiments. The measures are NumPy in float32, so that what is counted does not
depend on the order in which a compiler sums.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.memory_of_untrained_cells.setups import (
    SETUPS,
    initial_cell,
    running_cell,
)
from experiments.training import stop_if_asked
from gated_rnn import unroll
from gated_rnn.types import Carry, Cell, Params

#: Steps between two looks at the outputs.
PIECE_STEPS = 125
#: The share of the first distance below which a memory has ended. Rounding leaves about
#: a tenth of it.
TOLERANCE = 1e-6
#: What ends a memory, by name.
MEASURES = {
    "equal": "all outputs are equal as floats",
    "cosine": "their cosine distance, computed in float32, is 0",
    "distance": f"their distance is below {TOLERANCE:g} of the first",
}


class Size(NamedTuple):
    """Input features F and units H."""

    in_features: int
    hidden_features: int


def cosine_distance(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Compute 1 - mean(a b) / sqrt(mean(a a) mean(b b)) in the dtype of the outputs.

    In float32 it is 0 for vectors that are some 3e-4 apart in direction, and for single
    numbers of one sign, nearly always: it forgets much sooner than equality.

    Args:
        first: a, `[..., H]`.
        second: b, `[..., H]`.

    Returns:
        `[...]`; NaN where one is all zeros.

    Examples:
        >>> a = np.array([[3.0, 4.0]], np.float32)
        >>> cosine_distance(a, 2 * a), cosine_distance(a, -a)
        (array([0.], dtype=float32), array([2.], dtype=float32))
    """
    products = (first * second).mean(axis=-1)
    squares = (first * first).mean(axis=-1) * (second * second).mean(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return 1 - products / np.sqrt(squares)


def ended(first: np.ndarray, second: np.ndarray, initial: np.ndarray) -> dict:
    """Tell of each step whether the memory has ended, by each of `MEASURES`.

    Args:
        first: Outputs under one sequence, float32 `[..., H]`.
        second: Outputs under the other.
        initial: Distance of the outputs at the last step whose inputs differed, `[...]`
            without the axis of steps, which is the last but one of the outputs.

    Returns:
        bool `[...]` by the name of the measure.
    """
    apart = np.linalg.norm((first - second).astype(np.float64), axis=-1)
    return {
        "equal": (first == second).all(axis=-1),
        "cosine": cosine_distance(first, second) == 0,
        "distance": apart < TOLERANCE * initial[..., None],
    }


def measure_size(
    names: Sequence[str],
    size: Size,
    key: jax.Array,
    *,
    num_runs: int,
    num_before: int,
    max_after: int,
) -> dict[str, dict[str, np.ndarray]]:
    """Measure how long set-ups remember, all on the same sequences.

    Args:
        names: Of `SETUPS`.
        size: F and H.
        key: Run i draws from `fold_in(key, i)`, alike for all set-ups.
        num_runs: R.
        num_before: Steps in which the two sequences differ.
        max_after: Steps after these in which a memory can end.

    Returns:
        For each set-up and measure, the steps with equal inputs before the first one at
        which the memory has ended, float64 `[R]`; infinite if it does not end.

    Raises:
        Stopped: If a signal asked for it.
    """
    keys = jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.arange(num_runs))
    drawn = draw_params(keys, tuple(names), size)
    found = {}
    for kind in dict.fromkeys(SETUPS[name].kind for name in names):
        members = [name for name in names if SETUPS[name].kind == kind]
        params = jax.tree.map(
            lambda *rows: jnp.stack(rows), *(drawn[n] for n in members)
        )
        cell = running_cell(kind, size.hidden_features)
        steps = _measure(cell, params, keys, size.in_features, num_before, max_after)
        for row, name in enumerate(members):
            found[name] = {measure: rows[row] for measure, rows in steps.items()}
    return found


def _measure(
    cell: Cell,
    params: Params,
    keys: jax.Array,
    in_features: int,
    num_before: int,
    max_after: int,
) -> dict[str, np.ndarray]:
    """Count the steps `[A, R]` of set-ups that differ in their parameters."""
    num_setups = jax.tree.leaves(params)[0].shape[0]
    shape = (num_setups, len(keys))
    carry = jax.tree.map(
        lambda leaf: jnp.zeros((*shape, *leaf.shape), leaf.dtype), cell.init_carry((2,))
    )
    outputs = None
    for start, num_steps in pieces(0, num_before):
        stop_if_asked(0)
        inputs = draw_inputs(keys, start, num_steps, in_features, 2)
        carry, outputs = _run(cell, params, carry, inputs)
    last = np.asarray(outputs, np.float64)[:, :, -1]
    initial = np.linalg.norm(last[:, :, 0] - last[:, :, 1], axis=-1)
    counts = {name: np.full(shape, np.inf) for name in MEASURES}
    for start, num_steps in pieces(num_before, num_before + max_after):
        stop_if_asked(0)
        inputs = draw_inputs(keys, start, num_steps, in_features, 1)
        carry, outputs = _run(cell, params, carry, inputs)
        outputs = np.asarray(outputs)
        flags = ended(outputs[..., 0, :], outputs[..., 1, :], initial)
        for name, flag in flags.items():
            first = np.where(flag.any(axis=-1), flag.argmax(axis=-1), np.inf)
            counts[name] = np.minimum(counts[name], start - num_before + first)
        if all(np.isfinite(steps).all() for steps in counts.values()):
            break
    return counts


def pieces(start: int, stop: int) -> list[tuple[int, int]]:
    """Cut steps into pieces of at most `PIECE_STEPS`.

    Args:
        start: The first step.
        stop: The step after the last.

    Returns:
        `(start, length)` of each.
    """
    starts = range(start, stop, PIECE_STEPS)
    return [(first, min(PIECE_STEPS, stop - first)) for first in starts]


# The draws run once and are slow to compile: without optimisation they take a fifth.
@functools.partial(
    jax.jit,
    static_argnames=("names", "size"),
    compiler_options={"xla_backend_optimization_level": 0},
)
def draw_params(
    keys: jax.Array, names: tuple[str, ...], size: Size
) -> dict[str, Params]:
    """Draw the parameters of every run.

    Args:
        keys: `[R]`.
        names: Of `SETUPS`.
        size: F and H.

    Returns:
        Parameters with an axis of runs before all others, by the name of the set-up.
    """

    def draw(key: jax.Array) -> dict[str, Params]:
        params_key = jax.random.fold_in(key, 0)
        return {
            name: initial_cell(name, size.hidden_features).init(
                params_key, size.in_features
            )
            for name in names
        }

    # One run at a time: LAPACK's batches of several matrices can wait for one another.
    return jax.lax.map(draw, keys)


@functools.partial(jax.jit, static_argnames=("num_steps", "in_features", "num_drawn"))
def draw_inputs(
    keys: jax.Array, start: int, num_steps: int, in_features: int, num_drawn: int
) -> jax.Array:
    """Draw a piece of both sequences of every run, standard normal.

    Args:
        keys: `[R]`.
        start: Its first step; another one gives another draw.
        num_steps: N.
        in_features: F.
        num_drawn: 2, or 1 for what both sequences share.

    Returns:
        `[R, N, 2, F]`.
    """

    def draw(key: jax.Array) -> jax.Array:
        piece_key = jax.random.fold_in(jax.random.fold_in(key, 1), start)
        shape = (num_steps, num_drawn, in_features)
        return jnp.broadcast_to(
            jax.random.normal(piece_key, shape), (num_steps, 2, in_features)
        )

    return jax.vmap(draw)(keys)


@functools.partial(jax.jit, static_argnames="cell")
def _run(
    cell: Cell, params: Params, carry: Carry, inputs: jax.Array
) -> tuple[Carry, Any]:
    """Run a piece: outputs `[A, R, N, 2, H]`."""

    def run(params: Params, carry: Carry, inputs: jax.Array) -> tuple[Carry, Any]:
        return unroll(cell, params, inputs, carry)

    return jax.vmap(jax.vmap(run), in_axes=(0, 0, None))(params, carry, inputs)
