"""Two layers over the same sequence, one forward and one backward (layer 3)."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gated_rnn.networks.network import Network, reduces_time
from gated_rnn.networks.recurrent import RNN
from gated_rnn.types import Carry, Cell, DType, Params, Shape, invalid

__all__ = ["Bidirectional", "BidirectionalCarry", "BidirectionalParams"]

MERGES: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "concat": lambda forward, backward: jnp.concatenate([forward, backward], axis=-1),
    "sum": jnp.add,
    "mean": lambda forward, backward: (forward + backward) / 2,
    "product": jnp.multiply,
}


class BidirectionalParams(NamedTuple):
    """Parameters of both directions."""

    forward: Params
    backward: Params


class BidirectionalCarry(NamedTuple):
    """Carries of both directions: after the last step and after the first one."""

    forward: Carry
    backward: Carry


@jax.tree_util.register_static
@dataclass(frozen=True, init=False)
class Bidirectional:
    """Two layers over the same sequence, and their outputs merged step by step.

    Each ends, row by row, where its real steps end: the final carry of `backward` is
    the one after the first real step.

    Attributes:
        forward: The layer that runs forward; a cell stands for `RNN(cell)`.
        backward: The one that runs backward; a cell stands for `RNN(cell,
            reverse=True)`, and an `RNN` is reversed if it is not.
        merge: "concat", "sum", "mean" or "product" of both outputs.

    Examples:
        >>> from gated_rnn import LSTM
        >>> layer = Bidirectional(LSTM(16), LSTM(16))
        >>> params = layer.init(jax.random.key(0), in_features=3)
        >>> carry, outputs = layer.apply(params, jnp.ones((20, 2, 3)))
        >>> outputs.shape, carry.backward.hidden.shape
        ((20, 2, 32), (2, 16))

    References:
        M. Schuster, K. Paliwal: Bidirectional recurrent neural networks, 1997,
        doi 10.1109/78.650093.
    """

    forward: Network
    backward: Network
    merge: str

    def __init__(
        self, forward: Network | Cell, backward: Network | Cell, merge: str = "concat"
    ) -> None:
        first, second = _as_layer(forward), _as_layer(backward)
        if isinstance(first, RNN) and first.reverse:
            raise invalid("forward", "a layer that runs forward", "RNN(reverse=True)")
        if isinstance(second, RNN):
            second = dataclasses.replace(second, reverse=True)
        if merge not in MERGES:
            raise invalid("merge", f"one of {', '.join(MERGES)}", repr(merge))
        widths = (first.out_features, second.out_features)
        if merge != "concat" and widths[0] != widths[1]:
            expected = f"as many features as forward has ({widths[0]}) to {merge} them"
            raise invalid("backward", expected, widths[1])
        if reduces_time(first) != reduces_time(second):
            expected = "one vector a sequence from both layers, or from none"
            raise invalid("backward", expected, "from one")
        object.__setattr__(self, "forward", first)
        object.__setattr__(self, "backward", second)
        object.__setattr__(self, "merge", merge)

    @property
    def out_features(self) -> int:
        """Features of the merged outputs."""
        forward, backward = self.forward.out_features, self.backward.out_features
        if forward is None or backward is None:
            raise invalid("forward", "a layer that states its features", self.forward)
        return forward + backward if self.merge == "concat" else forward

    @property
    def reduces_time(self) -> bool:
        """Whether both layers make one vector of the sequence."""
        return reduces_time(self.forward)

    def init(
        self, key: jax.Array, in_features: int, dtype: DType = jnp.float32
    ) -> BidirectionalParams:
        """Draw the parameters of both directions."""
        forward_key, backward_key = jax.random.split(key)
        return BidirectionalParams(
            forward=self.forward.init(forward_key, in_features, dtype),
            backward=self.backward.init(backward_key, in_features, dtype),
        )

    def init_carry(
        self, batch_shape: Shape = (), dtype: DType = jnp.float32
    ) -> BidirectionalCarry:
        """Return the carries that both directions start from."""
        return BidirectionalCarry(
            forward=self.forward.init_carry(batch_shape, dtype),
            backward=self.backward.init_carry(batch_shape, dtype),
        )

    def apply(
        self,
        params: BidirectionalParams,
        inputs: Any,
        carry: BidirectionalCarry | None = None,
        *,
        mask: jax.Array | None = None,
        resets: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> tuple[BidirectionalCarry, jax.Array]:
        """Run both directions.

        Args:
            params: The parameters.
            inputs: `[T, *batch, F]`.
            carry: The carry before the first step, and that behind the last one.
            mask: bool `[T, *batch]`, true where a step is real.
            resets: bool `[T, *batch]`, true where a segment begins.
            key: Key of the noise; None: no noise.

        Returns:
            Both final carries, and the outputs `[T, *batch, out_features]`.
        """
        if carry is None:
            carry = BidirectionalCarry(None, None)
        if not isinstance(carry, BidirectionalCarry):
            raise invalid("carry", "a BidirectionalCarry", type(carry).__name__)
        keys = (None, None) if key is None else jax.random.split(key)
        ends, outputs = zip(
            *(
                layer.apply(
                    layer_params,
                    inputs,
                    layer_carry,
                    mask=mask,
                    resets=resets,
                    key=layer_key,
                )
                for layer, layer_params, layer_carry, layer_key in zip(
                    (self.forward, self.backward), params, carry, keys, strict=True
                )
            ),
            strict=True,
        )
        return BidirectionalCarry(*ends), MERGES[self.merge](*outputs)

    def step(
        self,
        params: BidirectionalParams,
        carry: Carry,
        inputs: Any,
        *,
        reset: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> tuple[Carry, jax.Array]:
        """Refuse: what runs backward has no next step.

        Raises:
            ValueError: Always.
        """
        raise invalid("layer", "one that runs forward", "Bidirectional")


def _as_layer(layer: Any) -> Network:
    return RNN(layer) if hasattr(layer, "gate") else layer
