"""The reference engine: `lax.scan` over the cell's step (layer 1)."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

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

        if self.chunk_size is None:
            return scan(carry, inputs)
        return _scan_chunks(scan, carry, inputs, self.chunk_size, reverse)


def _scan_chunks(
    scan: Any, carry: Carry, inputs: Any, chunk_size: int, reverse: bool
) -> tuple[Carry, Any]:
    """Run `scan` over checkpointed chunks; a shorter one stands at the end of time."""
    num_steps = jax.tree.leaves(inputs)[0].shape[0]
    whole = num_steps - num_steps % chunk_size
    checkpointed = jax.checkpoint(scan, prevent_cse=False)

    def chunks(carry: Carry) -> tuple[Carry, Any]:
        split = jax.tree.map(
            lambda x: x[:whole].reshape(whole // chunk_size, chunk_size, *x.shape[1:]),
            inputs,
        )
        carry, outputs = jax.lax.scan(checkpointed, carry, split, reverse=reverse)
        return carry, jax.tree.map(lambda y: y.reshape(whole, *y.shape[2:]), outputs)

    def rest(carry: Carry) -> tuple[Carry, Any]:
        return checkpointed(carry, jax.tree.map(lambda x: x[whole:], inputs))

    # In the order of processing; what is empty is not compiled.
    parts = [chunks] * (whole > 0) + [rest] * (whole < num_steps or num_steps == 0)
    collected = []
    for part in reversed(parts) if reverse else parts:
        carry, outputs = part(carry)
        collected.append(outputs)
    if len(collected) == 1:
        return carry, collected[0]
    in_time = reversed(collected) if reverse else collected
    return carry, jax.tree.map(lambda *y: jnp.concatenate(y), *in_time)
