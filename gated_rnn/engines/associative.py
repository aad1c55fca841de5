"""The engine for cells that are affine in their carry: parallel in time (layer 1)."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from gated_rnn.engines.scan import Scan
from gated_rnn.types import Carry, Cell, Params

__all__ = ["Associative"]


@jax.tree_util.register_static
@dataclass(frozen=True)
class Associative:
    """Run a cell whose next carry is a_t * carry + b_t, element by element, exactly.

    Affine maps compose to affine maps, (a2, b2) after (a1, b1) = (a2 a1, a2 b1 + b2),
    so `jax.lax.associative_scan` finds all carries in about 2 log2 T rounds. a_t and
    b_t are read off the cell: b_t is its next carry from zeros, a_t its derivative with
    respect to the carry.

    References:
        G. Blelloch: Prefix sums and their applications, 1990; E. Martin, C. Cundy:
        Parallelizing linear recurrent neural nets over sequence length, ICLR 2018,
        arXiv 1709.04057.
    """

    def refuses(self, cell: Cell) -> str | None:
        """Return why `cell` cannot run here: its next carry is not affine in it."""
        if getattr(cell, "affine", False):
            return None
        return "the next carry is not affine in the carry, so steps do not compose"

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
        projected = cell.project(params, inputs)

        def step(projected: Any, carry: Carry) -> tuple[Carry, Any]:
            return cell.gate(params, projected, cell.recur(params, carry), carry)

        def next_carries(carry: Carry) -> Carry:
            return jax.vmap(lambda p: step(p, carry)[0])(projected)

        zeros, ones = (jax.tree.map(f, carry) for f in (jnp.zeros_like, jnp.ones_like))
        sources, decays = jax.jvp(next_carries, (zeros,), (ones,))
        decays, sources = jax.lax.associative_scan(
            _compose, (decays, sources), reverse=reverse
        )
        carries = jax.tree.map(lambda a, b, c: a * c + b, decays, sources, carry)
        last = jax.tree.map(lambda c: c[0 if reverse else -1], carries)
        if not collect:
            return last, None
        before = jax.tree.map(
            lambda first, rest: jnp.concatenate(
                [rest[1:], first[None]] if reverse else [first[None], rest[:-1]]
            ),
            carry,
            carries,
        )
        return last, jax.vmap(lambda p, c: step(p, c)[1])(projected, before)


def _compose(first: Any, second: Any) -> Any:
    """Return the affine map that applies `first`, then `second`."""
    decay_1, source_1 = first
    decay_2, source_2 = second
    decays = jax.tree.map(jnp.multiply, decay_2, decay_1)
    sources = jax.tree.map(lambda a, b, c: a * b + c, decay_2, source_1, source_2)
    return decays, sources
