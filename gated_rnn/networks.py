"""Networks: layers with one interface, composed into a model (layer 3).

A layer is a frozen static dataclass with `init`, `init_carry`, `apply`, `step` and
`out_features`; so is a stack of layers. A model is again pure functions.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from gated_rnn.arithmetic import match_varying, matmul, where
from gated_rnn.initializers import GlorotUniform, Zeros
from gated_rnn.types import (
    Carry,
    Cell,
    DType,
    Engine,
    Initializer,
    Params,
    Shape,
    check_features,
    check_flags,
    check_positive,
    check_sequence,
    invalid,
    params_dtype,
)
from gated_rnn.unrolling import unroll

__all__ = ["RNN", "Dense", "DenseParams", "Network", "Stack", "StackCarry"]


class Network(Protocol):
    """What every layer and every composition of layers offers."""

    @property
    def out_features(self) -> int:
        """Features of the outputs."""
        ...

    def init(self, key: jax.Array, in_features: int, dtype: DType = ...) -> Params:
        """Draw parameters for inputs of `in_features` features."""
        ...

    def init_carry(self, batch_shape: Shape = ..., dtype: DType = ...) -> Carry:
        """Return the carry before the first step."""
        ...

    def apply(
        self,
        params: Params,
        inputs: jax.Array,
        carry: Carry | None = None,
        *,
        mask: jax.Array | None = None,
        resets: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> tuple[Carry, jax.Array]:
        """Run a sequence `[T, *batch, F]`; without a key there is no dropout."""
        ...

    def step(
        self,
        params: Params,
        carry: Carry,
        inputs: jax.Array,
        *,
        reset: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> tuple[Carry, jax.Array]:
        """Run one step `[*batch, F]`, for acting, sampling and export."""
        ...


@jax.tree_util.register_static
@dataclass(frozen=True)
class RNN:
    """A recurrent layer: a cell, a direction and an engine.

    Attributes:
        cell: The cell.
        reverse: Run from the last step to the first.
        engine: How the cell is run along time; None: the default engine.

    Examples:
        >>> from gated_rnn import LSTM
        >>> layer = RNN(LSTM(16))
        >>> params = layer.init(jax.random.key(0), in_features=3)
        >>> carry, outputs = layer.apply(params, jnp.ones((20, 2, 3)))
        >>> outputs.shape
        (20, 2, 16)
    """

    cell: Cell
    reverse: bool = False
    engine: Engine | None = None

    @property
    def out_features(self) -> int:
        """Features of the outputs: those of the cell."""
        return self.cell.out_features

    def init(
        self, key: jax.Array, in_features: int, dtype: DType = jnp.float32
    ) -> Params:
        """Return the parameters of the cell."""
        return self.cell.init(key, in_features, dtype)

    def init_carry(self, batch_shape: Shape = (), dtype: DType = jnp.float32) -> Carry:
        """Return the zero carry of the cell."""
        return self.cell.init_carry(batch_shape, dtype)

    def apply(
        self,
        params: Params,
        inputs: jax.Array,
        carry: Carry | None = None,
        *,
        mask: jax.Array | None = None,
        resets: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> tuple[Carry, jax.Array]:
        """Run a sequence; see `gated_rnn.unroll`. The key is not used."""
        carry, outputs = unroll(
            self.cell,
            params,
            inputs,
            carry,
            mask=mask,
            resets=resets,
            reverse=self.reverse,
            engine=self.engine,
        )
        if outputs is None:  # unroll collects unless it is told not to
            raise invalid("engine", "one that collects outputs", str(self.engine))
        return carry, outputs

    def step(
        self,
        params: Params,
        carry: Carry,
        inputs: jax.Array,
        *,
        reset: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> tuple[Carry, jax.Array]:
        """Run one step; where `reset` (bool `[*batch]`) the carry is zeroed before it.

        Raises:
            ValueError: If the layer runs in reverse, which has no next step.
        """
        if self.reverse:
            raise invalid("layer", "one that runs forward", "RNN(reverse=True)")
        if reset is not None:
            check_flags("reset", reset, inputs.shape[:-1])
            zeros = jax.tree.map(jnp.zeros_like, carry)
            carry = where(reset, zeros, carry)
        return self.cell.step(params, carry, inputs)


class DenseParams(NamedTuple):
    """Parameters of a dense readout.

    Attributes:
        kernel: `[F, features]`.
        bias: `[features]`, or None.
    """

    kernel: jax.Array
    bias: jax.Array | None


@jax.tree_util.register_static
@dataclass(frozen=True)
class Dense:
    """A readout at every step: x W + b, zero where the mask is false.

    Attributes:
        features: Features of the outputs.
        kernel_init: Initialiser of the kernel.
        bias_init: Initialiser of the bias.
        use_bias: Whether there is a bias.
    """

    features: int
    kernel_init: Initializer = GlorotUniform()
    bias_init: Initializer = Zeros()
    use_bias: bool = True

    def __post_init__(self) -> None:
        check_positive("features", self.features)

    @property
    def out_features(self) -> int:
        """Features of the outputs."""
        return self.features

    def init(
        self, key: jax.Array, in_features: int, dtype: DType = jnp.float32
    ) -> DenseParams:
        """Draw parameters."""
        check_positive("in_features", in_features)
        kernel_key, bias_key = jax.random.split(key)
        return DenseParams(
            kernel=self.kernel_init(kernel_key, (in_features, self.features), dtype),
            bias=(
                self.bias_init(bias_key, (self.features,), dtype)
                if self.use_bias
                else None
            ),
        )

    def init_carry(
        self, batch_shape: Shape = (), dtype: DType = jnp.float32
    ) -> tuple[()]:
        """Return the empty carry."""
        return ()

    def apply(
        self,
        params: DenseParams,
        inputs: jax.Array,
        carry: Carry | None = None,
        *,
        mask: jax.Array | None = None,
        resets: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> tuple[tuple[()], jax.Array]:
        """Read out every step; carry, resets and key are not used."""
        check_sequence("inputs", inputs)
        if mask is None:
            return self.step(params, (), inputs)
        check_flags("mask", mask, inputs.shape[:-1])
        _, outputs = self.step(params, (), where(mask, inputs, jnp.zeros_like(inputs)))
        return (), where(mask, outputs, jnp.zeros_like(outputs))

    def step(
        self,
        params: DenseParams,
        carry: Carry,
        inputs: jax.Array,
        *,
        reset: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> tuple[tuple[()], jax.Array]:
        """Read out one step, in the dtype of the kernel."""
        check_features("inputs", inputs, params.kernel.shape[0])
        outputs = matmul(inputs, params.kernel)
        if params.bias is not None:
            outputs = outputs + params.bias.astype(outputs.dtype)
        return (), outputs.astype(params.kernel.dtype)


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
        >>> from gated_rnn import GRU, LSTM
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
        if not 0.0 <= dropout < 1.0:
            raise invalid("dropout", "a probability in [0, 1)", repr(dropout))
        object.__setattr__(self, "layers", layers)
        object.__setattr__(self, "dropout", dropout)
        object.__setattr__(self, "residual", residual)

    @property
    def out_features(self) -> int:
        """Features of the last layer."""
        return self.layers[-1].out_features

    def init(
        self, key: jax.Array, in_features: int, dtype: DType = jnp.float32
    ) -> tuple[Params, ...]:
        """Return the parameters of each layer."""
        widths = [in_features, *(layer.out_features for layer in self.layers)]
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
        check_sequence("inputs", inputs)
        flags_shape = inputs.shape[:-1]
        carry = self._start(params, carry, flags_shape[1:])
        if mask is None:
            real = jnp.ones(flags_shape, jnp.int32)
        else:
            check_flags("mask", mask, flags_shape)
            real = mask.astype(jnp.int32)
        carry = match_varying(carry, inputs, params, mask)
        times = carry.time + jnp.cumsum(real, axis=0) - real

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

        layer_carries, outputs = self._through(run, inputs, times, key)
        return StackCarry(carry.time + real.sum(axis=0), layer_carries), outputs

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
        carry = self._start(params, carry, inputs.shape[:-1])

        def run(
            index: int, x: jax.Array, layer_key: jax.Array | None
        ) -> tuple[Carry, jax.Array]:
            layer = self.layers[index]
            layer_carry, outputs = layer.step(
                params[index], carry.layers[index], x[0], reset=reset, key=layer_key
            )
            return layer_carry, outputs[None]

        layer_carries, outputs = self._through(run, inputs[None], carry.time[None], key)
        return StackCarry(carry.time + 1, layer_carries), outputs[0]

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
        if jnp.shape(carry.time) not in ((), batch_shape):
            raise invalid(
                "carry.time",
                f"shape {batch_shape} or ()",
                f"shape {jnp.shape(carry.time)}",
            )
        return carry._replace(time=jnp.broadcast_to(carry.time, batch_shape))

    def _through(
        self, run: Any, inputs: jax.Array, times: jax.Array, key: jax.Array | None
    ) -> tuple[tuple[Carry, ...], jax.Array]:
        """Thread `inputs` through the layers, with dropout and residuals between."""
        carries = []
        x = inputs
        for index in range(len(self.layers)):
            if index and key is not None and self.dropout:
                x = _drop(jax.random.fold_in(key, 2 * index), times, x, self.dropout)
            layer_key = None if key is None else jax.random.fold_in(key, 2 * index + 1)
            carry, outputs = run(index, x, layer_key)
            if self.residual and outputs.shape == x.shape:
                outputs = x.astype(outputs.dtype) + outputs
            carries.append(carry)
            x = outputs
        return tuple(carries), x


def _drop(key: jax.Array, times: jax.Array, x: jax.Array, rate: float) -> jax.Array:
    """Zero features of `x` with probability `rate` and scale the others up.

    Args:
        key: Key of this place in the network.
        times: int32 `[T, *batch]`, the time of each vector of `x`.
        x: `[T, *batch, features]`.
        rate: Probability of zero.
    """

    def keep(time: jax.Array, row: jax.Array) -> jax.Array:
        step_key = jax.random.fold_in(jax.random.fold_in(key, time), row)
        return jax.random.bernoulli(step_key, 1.0 - rate, x.shape[-1:])

    rows = jnp.arange(math.prod(times.shape[1:]), dtype=jnp.int32)
    kept = jax.vmap(jax.vmap(keep), in_axes=(0, None))(
        times.reshape(len(times), -1), rows
    )
    scale = jnp.asarray(1.0 / (1.0 - rate), x.dtype)
    return jnp.where(kept.reshape(x.shape), x * scale, jnp.zeros_like(x))
