"""What a run of blocks is, and what a block leaves for its tangent (layer 1)."""

import contextlib
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax

from gated_rnn.engines.chunks import join_chunks, split_chunks
from gated_rnn.engines.plan import Plan
from gated_rnn.types import Carry, Cell

__all__ = ["Kept", "Loop"]


@dataclass(frozen=True)
class Loop:
    """What a run is, its arrays apart."""

    cell: Cell
    plan: Plan
    reverse: bool
    collect: bool
    unroll: int
    precision: str | None

    def scan(self, body: Any, carry: Any, sequences: Any) -> tuple[Any, Any]:
        """Run `body` over the steps of a block."""
        return jax.lax.scan(
            body, carry, sequences, reverse=self.reverse, unroll=self.unroll
        )

    @property
    def stores_outputs(self) -> bool:
        """Whether the outputs are kept as such, and are no part of the carries."""
        return self.collect and self.plan.output_leaf is None

    def blocks(self, inputs: Any) -> list[Any]:
        """Cut the inputs into blocks."""
        return split_chunks(inputs, self.plan.block_size)

    def blocks_of(self, inputs: Any, inputs_dots: Any, kept: list["Kept"]) -> list[Any]:
        """Return what `tangent_of_block` reads of each block."""
        return [
            (*part, keep._replace(outputs=None))
            for part, keep in zip(self.blocks((inputs, inputs_dots)), kept, strict=True)
        ]

    def join(self, parts: list[Any]) -> Any:
        """Return the outputs of all blocks, or None."""
        return join_chunks(parts) if self.collect else None

    def outputs_of(self, kept: list["Kept"]) -> Any:
        """Return the outputs of all blocks, or None."""
        leaf = self.plan.output_leaf
        if leaf is None:
            return self.join([part.outputs for part in kept])
        return self.join([jax.tree.leaves(part.carries)[leaf] for part in kept])

    def matmul_precision(self) -> Any:
        """Return the context in which matmuls are to be traced."""
        if self.precision is None:
            return contextlib.nullcontext()
        return jax.default_matmul_precision(self.precision)


class Kept(NamedTuple):
    """What a block leaves behind for its tangent.

    Attributes:
        entering: The carry that enters the block.
        carries: The carry that leaves each step.
        projected: What `project` returned, or None: computed again.
        recurrent: What each step's `recur` returned, or None: computed again.
        activations: Those of each step's gate, or None: computed again. What they make
            superfluous of the rest, the compiler leaves out.
        outputs: The outputs, or None: not collected, or a part of the carries.
    """

    entering: Carry
    carries: Carry
    projected: Any
    recurrent: Any
    activations: Any
    outputs: Any
