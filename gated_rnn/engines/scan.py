"""The reference engine: `lax.scan` over the cell's step (layer 1)."""

from dataclasses import dataclass
from typing import Any

import jax

from gated_rnn.engines.chunks import join_chunks, scan_chunks, split_chunks
from gated_rnn.types import Carry, Cell, Params, check_positive

__all__ = ["Scan"]


@jax.tree_util.register_static
@dataclass(frozen=True)
class Scan:
    """Run a cell step by step; JAX derives every derivative.

        carry_t, outputs_t = step(params, carry_{t-1}, inputs_t)

    Attributes:
        chunk_size: Steps per checkpointed chunk. None keeps what the derivative needs
            of every step. A number keeps one carry per chunk and computes a chunk
            again when its derivative is due: memory for T / chunk_size carries and one
            chunk of steps, for one more forward pass.
        unroll: Steps per iteration of the compiled loop.

    References:
        T. Chen, B. Xu, C. Zhang, C. Guestrin: Training deep nets with sublinear memory
        cost, 2016, arXiv 1604.06174.
    """

    chunk_size: int | None = None
    unroll: int = 1

    def __post_init__(self) -> None:
        if self.chunk_size is not None:
            check_positive("chunk_size", self.chunk_size)
        check_positive("unroll", self.unroll)

    def refuses(self, cell: Cell) -> str | None:
        """Return None: every cell runs here."""
        return None

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

        def body(carry: Carry, inputs: Any) -> tuple[Carry, Any]:
            carry, outputs = cell.step(params, carry, inputs)
            return carry, outputs if collect else None

        def scan(carry: Carry, inputs: Any) -> tuple[Carry, Any]:
            return jax.lax.scan(
                body, carry, inputs, reverse=reverse, unroll=self.unroll
            )

        if self.chunk_size is None or jax.tree.leaves(inputs)[0].shape[0] == 0:
            return scan(carry, inputs)
        checkpointed = jax.checkpoint(scan, prevent_cse=False)
        parts = split_chunks(inputs, self.chunk_size)
        carry, outputs = scan_chunks(checkpointed, carry, parts, reverse)
        return carry, join_chunks(outputs)
