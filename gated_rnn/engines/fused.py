"""The default engine: a scan with its own derivative (layer 1).

The derivative of a recurrence is a linear recurrence. What its steps multiply by is
computed for many steps at once, before the loop; the gradients of the parameters are
single large matmuls after it. Both are JAX, so every further derivative is JAX's.
"""

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from gated_rnn.arithmetic import match_varying, present_tangents
from gated_rnn.engines.chunks import join_chunks, scan_chunks, split_chunks
from gated_rnn.engines.forward import run_block, run_block_and_keep
from gated_rnn.engines.loop import Loop
from gated_rnn.engines.plan import Plan, fit_plan, make_plan
from gated_rnn.engines.scan import Scan
from gated_rnn.engines.tangent import tangent_of_block
from gated_rnn.types import (
    Carry,
    Cell,
    DType,
    Params,
    check_positive,
    invalid,
    params_dtype,
)
from gated_rnn.wrapping import WrappedCell

__all__ = ["FusedScan"]


@jax.tree_util.register_static
@dataclass(frozen=True)
class FusedScan:
    """Run a cell step by step, with one recurrent matmul a step in each direction.

        d carry_t = J_t d carry_{t-1} + b_t,     b_t = d step_t at fixed carry_{t-1}

    Forward, the carries are kept; backward, the gates of a block of steps are computed
    again in bulk, the loop runs through J_t transposed, and the gradients of all
    parameters follow as one matmul a block. If the gate is elementwise, J_t is a few
    arrays beside the recurrent kernel; any other gate is linearised step by step.

    Attributes:
        chunk_size: Steps per recomputed chunk. None keeps the carry of every step. A
            number keeps one carry per chunk and runs a chunk again when its derivative
            is due.
        memory_budget: Bytes that a gradient may take beyond the inputs, the outputs and
            their cotangents; chooses `chunk_size` by `predict_memory`. None: no limit.
        unroll: Steps per iteration of the compiled loops.
        precision: As `jax.default_matmul_precision`; None leaves it as it is.
        compute_dtype: dtype of the operands of the matmuls, such as `jnp.bfloat16`;
            sums and carry keep theirs. None: that of the parameters.

    References:
        T. Chen, B. Xu, C. Zhang, C. Guestrin: Training deep nets with sublinear memory
        cost, 2016, arXiv 1604.06174 (the chunks).
    """

    chunk_size: int | None = None
    memory_budget: int | None = None
    unroll: int = 1
    precision: str | None = None
    compute_dtype: DType | None = None

    def __post_init__(self) -> None:
        for name in ("chunk_size", "memory_budget"):
            if getattr(self, name) is not None:
                check_positive(name, getattr(self, name))
        if self.chunk_size is not None and self.memory_budget is not None:
            raise invalid("memory_budget", "None beside a chunk_size", "both")
        check_positive("unroll", self.unroll)

    def refuses(self, cell: Cell) -> str | None:
        """Return None: every cell runs here."""
        return None

    def plan(
        self,
        cell: Cell,
        params: Params,
        inputs: Any,
        carry: Carry | None = None,
        *,
        collect: bool = True,
    ) -> Plan:
        """Return how a run will be cut in time, and the bytes a gradient will take.

        Args:
            cell: The cell.
            params: Its parameters, or their shapes.
            inputs: `[T, *batch, F]`, T at least 1, or its shape.
            carry: The initial carry, or its shape. None: that of `cell.init_carry`.
            collect: Whether the outputs are returned.

        Raises:
            ValueError: If no chunk size fits `memory_budget`.
        """
        if carry is None:
            batch_shape = jax.tree.leaves(inputs)[0].shape[1:-1]
            dtype = params_dtype(params)
            carry = jax.eval_shape(lambda: cell.init_carry(batch_shape, dtype))
        cast = functools.partial(self._cast, cell)
        shapes = (jax.eval_shape(cast, params), inputs, carry)
        if self.memory_budget is None:
            return make_plan(cell, *shapes, collect, self.chunk_size)
        return fit_plan(cell, *shapes, collect, self.memory_budget)

    def predict_memory(
        self,
        cell: Cell,
        params: Params,
        inputs: Any,
        carry: Carry | None = None,
        *,
        collect: bool = True,
    ) -> int:
        """Return the bytes that a gradient by the parameters will take.

        Beyond the inputs, the outputs and their cotangents. For cells with an
        elementwise gate it is within 20 % of what XLA allots on a CPU; for the others
        it is a rough guide. Under `jax.vmap` multiply by the width.

        Args:
            cell: As these and all that follow in `plan`.
            params: See there.
            inputs: See there.
            carry: See there.
            collect: See there.

        Examples:
            >>> from gated_rnn import LSTM
            >>> cell = LSTM(16)
            >>> params = cell.init(jax.random.key(0), in_features=3)
            >>> inputs = jax.ShapeDtypeStruct((20_000, 40, 3), jnp.float32)
            >>> whole = FusedScan().predict_memory(cell, params, inputs)
            >>> cut = FusedScan(chunk_size=200).predict_memory(cell, params, inputs)
            >>> whole // 2**20, cut // 2**20
            (54, 10)
        """
        return self.plan(cell, params, inputs, carry, collect=collect).num_bytes

    def describe(
        self,
        cell: Cell,
        params: Params,
        inputs: Any,
        carry: Carry | None = None,
        *,
        collect: bool = True,
    ) -> str:
        """Return in words how a run will be cut in time; see `gated_rnn.explain`."""
        plan = self.plan(cell, params, inputs, carry, collect=collect)
        steps = f"{plan.num_steps} steps"
        if plan.elementwise:
            steps += ", one recurrent matmul each"
            gate = "the gate is elementwise: derived in bulk, a few products a step"
        else:
            gate = "the gate is not elementwise: derived again in each step"
        lines = [
            f"{steps}; {gate}",
            f"kept for the gradient: {_what_is_kept(plan)}",
            f"derivatives are computed for {plan.block_size} steps at once",
            f"a gradient takes about {plan.num_bytes / 2**20:.1f} MiB beyond the"
            " inputs, the outputs and their cotangents",
        ]
        return "\n".join(lines)

    def __call__(
        self,
        cell: Cell,
        params: Params,
        inputs: Any,
        carry: Carry,
        *,
        reverse: bool,
        collect: bool,
    ) -> tuple[Carry, Any]:
        """Run `cell` over `inputs` `[T, *batch, F]`, from the last step if `reverse`.

        Returns:
            The final carry, and the outputs `[T, *batch, out_features]`, or None
            unless `collect`.
        """
        if jax.tree.leaves(inputs)[0].shape[0] == 0:
            return Scan()(cell, params, inputs, carry, reverse=reverse, collect=collect)
        plan = self.plan(cell, params, inputs, carry, collect=collect)
        params = self._cast(cell, params)
        loop = Loop(cell, plan, reverse, collect, self.unroll, self.precision)
        if plan.chunk_size is None:
            return _run(loop, params, inputs, carry)

        def run_chunk(carry: Carry, inputs: Any) -> tuple[Carry, Any]:
            return _run(loop, params, inputs, carry)

        checkpointed = jax.checkpoint(run_chunk, prevent_cse=False)
        parts = split_chunks(inputs, plan.chunk_size)
        carry, outputs = scan_chunks(checkpointed, carry, parts, reverse)
        return carry, join_chunks(outputs)

    def _cast(self, cell: Cell, params: Params) -> Params:
        """Return the parameters with the kernels in the dtype of the matmuls."""
        if self.compute_dtype is None:
            return params
        if isinstance(cell, WrappedCell):
            # What a wrapper adds is no kernel, whatever its shape.
            if not hasattr(params, "cell"):
                return self._cast(cell.cell, params)
            return params._replace(cell=self._cast(cell.cell, params.cell))
        return jax.tree.map(
            lambda p: p.astype(self.compute_dtype) if jnp.ndim(p) > 1 else p, params
        )


def _what_is_kept(plan: Plan) -> str:
    if plan.chunk_size is not None:
        return f"one carry per chunk of {plan.chunk_size} steps, which run again"
    kept = ["the carry"]
    kept += ["the projected inputs"] * plan.keep_projected
    kept += ["the activations of the gate"] * plan.keep_activations
    part = "what else is read of " if plan.keep_activations else ""
    kept += [f"{part}the recurrent matmul"] * plan.keep_recurrent
    return f"{', '.join(kept)} of every step"


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _run(loop: Loop, params: Params, inputs: Any, carry: Carry) -> tuple[Carry, Any]:
    """Return the final carry and the outputs; nothing else of length T is kept."""
    with loop.matmul_precision():
        carry, outputs = scan_chunks(
            lambda carry, block: run_block(loop, params, carry, block),
            carry,
            loop.blocks(inputs),
            loop.reverse,
        )
    return carry, loop.join(outputs)


@functools.partial(_run.defjvp, symbolic_zeros=True)
def _run_jvp(loop: Loop, primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> Any:
    """Return the results of `_run`, and their tangents by the linear recurrence."""
    params, inputs, carry = primals
    params_dots, inputs_dots, carry_dots = map(present_tangents, tangents)
    leaves, structure = jax.tree.flatten(carry)
    carry_dot = jax.tree.unflatten(
        structure,
        [
            jnp.zeros_like(leaf) if dot is None else dot
            for leaf, dot in zip(leaves, carry_dots, strict=True)
        ],
    )
    carry_dot = match_varying(carry_dot, *primals, params_dots, inputs_dots)

    def tangent(
        params: Params, params_dots: Any, carry_dot: Carry, block: Any
    ) -> tuple[Carry, Any]:
        return tangent_of_block(loop, params, params_dots, carry_dot, *block)

    # What the tangents need is computed again where they are transposed, in blocks.
    recomputed = jax.checkpoint(tangent, prevent_cse=False)
    with loop.matmul_precision():
        final, kept = scan_chunks(
            lambda carry, block: run_block_and_keep(loop, params, carry, block),
            carry,
            loop.blocks(inputs),
            loop.reverse,
        )
        final_dot, outputs_dot = scan_chunks(
            lambda carry_dot, block: recomputed(params, params_dots, carry_dot, block),
            carry_dot,
            loop.blocks_of(inputs, inputs_dots, kept),
            loop.reverse,
        )
    return (final, loop.outputs_of(kept)), (final_dot, loop.join(outputs_dot))
