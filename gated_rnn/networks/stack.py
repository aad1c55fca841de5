"""Layers one above the other, with dropout and residuals between (layer 3)."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gated_rnn.arithmetic import match_varying, where
from gated_rnn.networks.dropout import check_rate, drop, keep_by_step
from gated_rnn.networks.network import (
    Network,
    reads_tokens,
    reduces_time,
    steps_shape,
    times_of_steps,
)
from gated_rnn.types import (
    Carry,
    DType,
    Params,
    Shape,
    check_flags,
    invalid,
    params_dtype,
)

__all__ = ["Stack", "StackCarry"]


class StackCarry(NamedTuple):
    """Carry of a stack.

    Attributes:
        time: int32 `[*batch]`, how many real steps each row has seen; dropout masks
            depend on it, so that pieces of a run draw what the whole would.
        layers: The carries of the layers.
    """

    time: jax.Array
    layers: tuple[Carry, ...]


@jax.tree_util.register_static
@dataclass(frozen=True, init=False)
class Stack:
    """Layers one above the other.

    Attributes:
        layers: The layers, the first one reads the inputs.
        dropout: Probability with which a feature between two layers is zeroed; those
            that stay are divided by 1 - dropout. Active only where a key is given. The
            mask is a function of the key, the layer, the row of the batch and the
            number of real steps the row has seen.
        residual: Add a layer's inputs to its outputs wherever both have the same
            number of features.

    Examples:
        >>> from gated_rnn import GRU, LSTM, RNN, Dense
        >>> net = Stack(RNN(LSTM(16)), RNN(GRU(8)), Dense(1), dropout=0.2)
        >>> params = net.init(jax.random.key(0), in_features=3)
        >>> dropout_key = jax.random.key(1)
        >>> carry, outputs = net.apply(params, jnp.ones((20, 2, 3)), key=dropout_key)
        >>> outputs.shape
        (20, 2, 1)

    References:
        N. Srivastava et al.: Dropout, JMLR 2014; W. Zaremba, I. Sutskever, O. Vinyals:
        Recurrent neural network regularization, 2014, arXiv 1409.2329 (between layers).
    """

    layers: tuple[Network, ...]
    dropout: float = 0.0
    residual: bool = False

    def __init__(
        self, *layers: Network, dropout: float = 0.0, residual: bool = False
    ) -> None:
        if not layers:
            raise invalid("layers", "at least one layer", "none")
        for layer in layers:
            if isinstance(layer, type) or not hasattr(layer, "apply"):
                expected = "layers such as RNN(cell), each an argument of its own"
                raise invalid("layers", expected, type(layer).__name__)
        check_rate("dropout", dropout)
        object.__setattr__(self, "layers", layers)
        object.__setattr__(self, "dropout", dropout)
        object.__setattr__(self, "residual", residual)

    @property
    def out_features(self) -> int | None:
        """Features of the last layer that states its own."""
        return self._widths(None)[-1]

    @property
    def reads_tokens(self) -> bool:
        """Whether the first layer reads integers `[T, *batch]`."""
        return reads_tokens(self.layers[0])

    @property
    def reduces_time(self) -> bool:
        """Whether a layer makes one vector of the sequence."""
        return any(map(reduces_time, self.layers))

    def init(
        self,
        key: jax.Array,
        in_features: int | None = None,
        dtype: DType = jnp.float32,
    ) -> tuple[Params, ...]:
        """Return the parameters of each layer; tokens have no `in_features`."""
        widths = self._widths(in_features)
        keys = jax.random.split(key, len(self.layers))
        return tuple(
            layer.init(layer_key, width, dtype)
            for layer, layer_key, width in zip(
                self.layers, keys, widths[:-1], strict=True
            )
        )

    def init_carry(
        self, batch_shape: Shape = (), dtype: DType = jnp.float32
    ) -> StackCarry:
        """Return time 0 and the carries of the layers."""
        return StackCarry(
            time=jnp.zeros(batch_shape, jnp.int32),
            layers=tuple(layer.init_carry(batch_shape, dtype) for layer in self.layers),
        )

    def apply(
        self,
        params: tuple[Params, ...],
        inputs: jax.Array,
        carry: StackCarry | None = None,
        *,
        mask: jax.Array | None = None,
        resets: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> tuple[StackCarry, jax.Array]:
        """Run a sequence through every layer.

        Args:
            params: The parameters of each layer.
            inputs: `[T, *batch, F]`.
            carry: The carry before the first step; None: `init_carry`.
            mask: bool `[T, *batch]`, true where a step is real.
            resets: bool `[T, *batch]`, true where a segment begins.
            key: Key of the dropout masks; None: no dropout.

        Returns:
            The final carry, and the outputs `[T, *batch, out_features]`.
        """
        flags_shape = steps_shape(self, inputs)
        carry = self._start(params, carry, flags_shape[1:])
        if mask is not None:
            check_flags("mask", mask, flags_shape)
            inputs = where(mask, inputs, jax.tree.map(jnp.zeros_like, inputs))
        carry = match_varying(carry, inputs, params, mask)
        times, end = times_of_steps(carry.time, mask, flags_shape)

        def run(
            index: int, x: jax.Array, layer_key: jax.Array | None
        ) -> tuple[Carry, jax.Array]:
            return self.layers[index].apply(
                params[index],
                x,
                carry.layers[index],
                mask=mask,
                resets=resets,
                key=layer_key,
            )

        def run_reduced(
            index: int, x: jax.Array, layer_key: jax.Array | None
        ) -> tuple[Carry, jax.Array]:
            return self.layers[index].step(
                params[index], carry.layers[index], x, key=layer_key
            )

        first_reduced = self._first_reduced()
        indices = range(len(self.layers))
        sequences, rest = indices[:first_reduced], indices[first_reduced:]
        carries, outputs = self._through(
            sequences, run, inputs, times, key, sequence=True
        )
        more_carries, outputs = self._through(
            rest, run_reduced, outputs, end, key, sequence=False
        )
        return StackCarry(end, (*carries, *more_carries)), outputs

    def step(
        self,
        params: tuple[Params, ...],
        carry: StackCarry,
        inputs: jax.Array,
        *,
        reset: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> tuple[StackCarry, jax.Array]:
        """Run one step through every layer; equals `apply` on a sequence of one."""
        batch_shape = steps_shape(self, jax.tree.map(lambda x: x[None], inputs))[1:]
        carry = self._start(params, carry, batch_shape)

        def run(
            index: int, x: jax.Array, layer_key: jax.Array | None
        ) -> tuple[Carry, jax.Array]:
            return self.layers[index].step(
                params[index], carry.layers[index], x, reset=reset, key=layer_key
            )

        indices = range(len(self.layers))
        layer_carries, outputs = self._through(
            indices, run, inputs, carry.time, key, sequence=False
        )
        return StackCarry(carry.time + 1, layer_carries), outputs

    def _start(
        self, params: tuple[Params, ...], carry: StackCarry | None, batch_shape: Shape
    ) -> StackCarry:
        """Check the carry, or make the first one, and give its time the batch axes."""
        if len(params) != len(self.layers):
            raise invalid(
                "params", f"parameters of {len(self.layers)} layers", len(params)
            )
        if carry is None:
            return self.init_carry(batch_shape, params_dtype(params))
        if not isinstance(carry, StackCarry):
            raise invalid("carry", "a StackCarry", type(carry).__name__)
        if len(carry.layers) != len(self.layers):
            expected = f"carries of {len(self.layers)} layers"
            raise invalid("carry.layers", expected, len(carry.layers))
        if jnp.shape(carry.time) not in ((), batch_shape):
            raise invalid(
                "carry.time",
                f"shape {batch_shape} or ()",
                f"shape {jnp.shape(carry.time)}",
            )
        return carry._replace(time=jnp.broadcast_to(carry.time, batch_shape))

    def _widths(self, in_features: int | None) -> list[Any]:
        """Return the features of the inputs and of each layer's outputs."""
        widths = [in_features]
        for layer in self.layers:
            own = layer.out_features
            widths.append(widths[-1] if own is None else own)
        return widths

    def _first_reduced(self) -> int:
        """Return the index of the first layer whose inputs have lost their time."""
        reduced = [reduces_time(layer) for layer in self.layers]
        return reduced.index(True) + 1 if True in reduced else len(reduced)

    def _through(
        self,
        indices: range,
        run: Any,
        inputs: Any,
        times: jax.Array,
        key: jax.Array | None,
        *,
        sequence: bool,
    ) -> tuple[tuple[Carry, ...], jax.Array]:
        """Thread `inputs` through some layers, with dropout and residuals between.

        Args:
            indices: Which layers.
            run: `(index, inputs, key) -> (carry, outputs)`.
            inputs: `[*leading, features]`.
            times: int32 `[*leading]`: `[T, *batch]`, or `[*batch]` without time.
            key: Key of the network.
            sequence: Whether there is a time axis.
        """
        carries = []
        x = inputs
        for index in indices:
            if index and key is not None and self.dropout:
                place_key = jax.random.fold_in(key, 2 * index)
                whole = times if sequence else times[None]
                kept = keep_by_step(place_key, whole, x.shape[-1], self.dropout)
                x = drop(x, kept if sequence else kept[0], self.dropout)
            layer_key = None if key is None else jax.random.fold_in(key, 2 * index + 1)
            carry, outputs = run(index, x, layer_key)
            if self.residual and jnp.shape(outputs) == jnp.shape(x):
                outputs = x.astype(outputs.dtype) + outputs
            carries.append(carry)
            x = outputs
        return tuple(carries), x
