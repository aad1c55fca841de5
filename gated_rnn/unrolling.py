"""A cell along time: masks, resets, direction and carry, around any engine (layer 2).

Masks and resets become part of the cell: `_Sequence` is a cell whose step holds, zeroes
or resets what the inner cell's step returns. An engine therefore never sees them.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gated_rnn.arithmetic import broadcast_batch, match_varying, where
from gated_rnn.engines.fused import FusedScan
from gated_rnn.types import (
    Carry,
    Cell,
    DType,
    Engine,
    Params,
    Shape,
    check_carry,
    check_flags,
    check_sequences,
    invalid,
    params_dtype,
)
from gated_rnn.wrapping import WrappedCell

__all__ = [
    "DEFAULT_ENGINE",
    "Run",
    "check_engine",
    "lengths_to_mask",
    "prepare_run",
    "unroll",
]

DEFAULT_ENGINE = FusedScan()


def unroll(
    cell: Cell,
    params: Params,
    inputs: Any,
    carry: Carry | None = None,
    *,
    reset_carry: Carry | None = None,
    mask: jax.Array | None = None,
    resets: jax.Array | None = None,
    reverse: bool = False,
    engine: Engine | None = None,
    collect: bool = True,
) -> tuple[Carry, Any]:
    """Run a cell over a time-major sequence.

        carry_t, outputs_t = cell.step(params, carry_{t-1}, inputs_t)     t = 0 .. T-1

    Where `mask` is false the result is as if that step had been deleted: the carry is
    held, the output is zero, a reset there is ignored and nothing under the mask, NaN
    included, reaches a value or a gradient. Where `resets` is true, inputs_t is the
    first step of a segment in time, in either direction: forward, the carry becomes
    `reset_carry` before step t; in reverse, after step t and before the next one
    processed (never after the last).

    Args:
        cell: The cell; static under `jax.jit` without `static_argnums`.
        params: Its parameters.
        inputs: `[T, *batch, F]`; T and the batch axes may be 0, and there may be none
            or several batch axes. For a cell that reads a pytree, one of such arrays.
        carry: The carry before the first step processed; leaves `[*batch, features]`
            or `[features]`. None: zeros in the dtype of the parameters.
        reset_carry: The carry a reset goes to, same shapes, cast to the dtype of the
            carry. None: zeros. Not used without `resets`.
        mask: bool `[T, *batch]`, true where a step is real. None: all are.
        resets: bool `[T, *batch]`, true where a segment begins. None: nowhere.
        reverse: Run from the last step to the first; outputs stay aligned with inputs.
        engine: How to run the cell along time. None: the default engine.
        collect: Whether to return the outputs. Without, nothing of length T is kept.

    Returns:
        The carry after the last step processed, and the outputs
        `[T, *batch, out_features]` in the dtype of the carry, or None unless `collect`.

    Raises:
        ValueError: If an array has a shape or dtype that does not fit, if the carry
            belongs to another cell, or if the engine refuses the cell.

    Examples:
        >>> from gated_rnn import GRU, lengths_to_mask, unroll
        >>> cell = GRU(16)
        >>> params = cell.init(jax.random.key(0), in_features=3)
        >>> inputs = jnp.ones((20, 2, 3))
        >>> mask = lengths_to_mask(jnp.array([20, 7]), num_steps=20)
        >>> carry, outputs = unroll(cell, params, inputs, mask=mask)
        >>> carry.hidden.shape, outputs.shape, float(abs(outputs[7:, 1]).max())
        ((2, 16), (20, 2, 16), 0.0)
    """
    run = prepare_run(
        cell,
        params,
        inputs,
        carry,
        reset_carry=reset_carry,
        mask=mask,
        resets=resets,
        reverse=reverse,
        engine=engine,
    )
    return run(run.inputs, run.carry, collect)


class Run(NamedTuple):
    """A checked run: a cell that holds masks and resets, and an engine to run it."""

    engine: Engine
    cell: Cell
    params: Params
    inputs: Any
    carry: Carry
    reverse: bool

    def __call__(self, inputs: Any, carry: Carry, collect: bool) -> tuple[Carry, Any]:
        """Run over a piece of the inputs."""
        return self.engine(
            self.cell,
            self.params,
            inputs,
            carry,
            reverse=self.reverse,
            collect=collect,
        )


def prepare_run(
    cell: Cell,
    params: Params,
    inputs: Any,
    carry: Carry | None,
    *,
    reset_carry: Carry | None,
    mask: jax.Array | None,
    resets: jax.Array | None,
    reverse: bool,
    engine: Engine | None,
) -> Run:
    """Check the arguments of `unroll` and make masks and resets a part of the cell."""
    steps_shape = check_sequences("inputs", inputs)
    # The cell checks features and parameters here, where all of the shape is known.
    jax.eval_shape(cell.project, params, inputs)
    engine = DEFAULT_ENGINE if engine is None else engine
    batch_shape = steps_shape[1:]
    zeros = cell.init_carry((), params_dtype(params))
    carry = _batched("carry", carry, zeros, batch_shape)
    if mask is not None:
        check_flags("mask", mask, steps_shape)
        inputs = where(mask, inputs, jax.tree.map(jnp.zeros_like, inputs))
    leave = None
    if resets is not None:
        check_flags("resets", resets, steps_shape)
        reset_carry = _batched("reset_carry", reset_carry, zeros, batch_shape)
        reset_carry = jax.tree.map(
            lambda leaf, like: leaf.astype(like.dtype), reset_carry, carry
        )
        enter, leave = _when_to_reset(resets, mask, reverse)
        carry = where(enter, reset_carry, carry)
    run, run_params, run_inputs = cell, params, inputs
    if mask is not None or leave is not None:
        run = _Sequence(cell)
        run_params = _SequenceParams(params, None if leave is None else reset_carry)
        run_inputs = _SequenceInputs(inputs, mask, leave)
    check_engine(engine, run)
    carry = match_varying(carry, run_params, run_inputs)
    return Run(engine, run, run_params, run_inputs, carry, reverse)


def check_engine(engine: Engine, cell: Cell) -> None:
    """Raise unless `engine` is an engine that runs `cell`."""
    if isinstance(engine, type) or not hasattr(engine, "refuses"):
        raise invalid("engine", "an engine such as Scan()", repr(engine))
    refusal = engine.refuses(cell)
    if refusal is not None:
        inner = getattr(cell, "cell", cell)
        expected = f"one that runs {type(inner).__name__}"
        raise invalid("engine", expected, f"{engine}: {refusal}")


def lengths_to_mask(lengths: jax.Array, num_steps: int) -> jax.Array:
    """Return the mask of sequences that are padded at the end.

    Args:
        lengths: Integers `[*batch]`, 0 to `num_steps`.
        num_steps: T.

    Returns:
        bool `[T, *batch]`, true at the first `lengths` steps.

    Raises:
        ValueError: If the lengths are no integers.

    Examples:
        >>> lengths_to_mask(jnp.array([1, 3]), num_steps=3).astype(int).tolist()
        [[1, 1], [0, 1], [0, 1]]
    """
    lengths = jnp.asarray(lengths)
    if not jnp.issubdtype(lengths.dtype, jnp.integer):
        raise invalid("lengths", "an integer array", f"dtype {lengths.dtype}")
    steps = jnp.arange(num_steps, dtype=lengths.dtype)
    return jnp.expand_dims(steps, tuple(range(1, lengths.ndim + 1))) < lengths


def _batched(name: str, carry: Carry | None, zeros: Carry, batch_shape: Shape) -> Carry:
    """Check a carry, or take zeros for None, and give it the batch axes."""
    if carry is None:
        return broadcast_batch(zeros, zeros, batch_shape)
    check_carry(name, carry, zeros, batch_shape)
    return broadcast_batch(carry, zeros, batch_shape)


def _when_to_reset(
    resets: jax.Array, mask: jax.Array | None, reverse: bool
) -> tuple[jax.Array, jax.Array]:
    """Translate segment starts into the steps after which the carry is replaced.

    Args:
        resets: bool `[T, *batch]`, where a segment begins.
        mask: bool `[T, *batch]` or None.
        reverse: Direction of the run.

    Returns:
        `enter` bool `[*batch]`: replace the initial carry; `leave` bool `[T, *batch]`:
        replace the carry that step t returns.
    """
    num_steps, batch_shape = resets.shape[0], resets.shape[1:]
    starts = resets if mask is None else resets & mask
    never = jnp.zeros((1, *batch_shape), jnp.bool_)
    if not reverse:
        enter = starts[0] if num_steps else never[0]
        return enter, jnp.concatenate([starts[1:], never])[:num_steps]
    if mask is None:
        mask = jnp.ones_like(resets)
    real_before = jnp.cumsum(mask, axis=0, dtype=jnp.int32) > mask.astype(jnp.int32)
    return never[0], starts & real_before


class _SequenceParams(NamedTuple):
    cell: Params
    reset_carry: Carry | None


class _SequenceInputs(NamedTuple):
    inputs: Any
    mask: jax.Array | None
    leave: jax.Array | None


@jax.tree_util.register_static
@dataclass(frozen=True)
class _Sequence(WrappedCell):
    """A cell that skips masked steps and resets the carry it leaves behind.

    Inputs are `_SequenceInputs` whose values under the mask are already clean; so is
    what `project` makes of them.
    """

    def init(
        self, key: jax.Array, in_features: int, dtype: DType = jnp.float32
    ) -> _SequenceParams:
        return _SequenceParams(self.cell.init(key, in_features, dtype), None)

    def project(
        self, params: _SequenceParams, inputs: _SequenceInputs
    ) -> _SequenceInputs:
        return inputs._replace(inputs=self.cell.project(params.cell, inputs.inputs))

    def recur(self, params: _SequenceParams, carry: Carry) -> Any:
        return self.cell.recur(params.cell, carry)

    def gate(
        self,
        params: _SequenceParams,
        projected: _SequenceInputs,
        recurrent: Any,
        carry: Carry,
    ) -> tuple[Carry, Any]:
        projected, mask, leave = projected
        stepped, outputs = self.cell.gate(params.cell, projected, recurrent, carry)
        if mask is not None:
            stepped = where(mask, stepped, carry)
            outputs = where(mask, outputs, jax.tree.map(jnp.zeros_like, outputs))
        if leave is not None:
            stepped = where(leave, params.reset_carry, stepped)
        return stepped, outputs
