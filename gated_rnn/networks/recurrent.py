"""A recurrent layer: a cell, a direction, an engine and its noise (layer 3)."""

from dataclasses import KW_ONLY, dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gated_rnn.arithmetic import broadcast_batch, match_varying, where
from gated_rnn.networks.network import times_of_steps
from gated_rnn.networks.regularized import Noise
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
)
from gated_rnn.unrolling import check_engine, unroll

__all__ = ["RNN", "RNNCarry", "RNNParams"]


class RNNParams(NamedTuple):
    """Parameters of a layer that learns its initial carry.

    Attributes:
        cell: Those of the cell.
        carry: The learned carry, leaves `[features]`.
    """

    cell: Params
    carry: Carry


class RNNCarry(NamedTuple):
    """Carry of a layer with zoneout or a learned carry.

    Attributes:
        time: int32 `[*batch]`, how many real steps each row has seen. At 0, a learned
            carry stands in for `cell`.
        cell: The carry of the cell.
    """

    time: jax.Array
    cell: Carry


@jax.tree_util.register_static
@dataclass(frozen=True)
class RNN:
    """A recurrent layer.

    Its parameters and carry are those of the cell; with `learned_carry` the parameters
    are `RNNParams`, and with it or `zoneout` the carry is `RNNCarry`, in whose place a
    carry of the cell may be handed in.

    Noise is active only where a key is given. It is a function of the key, of the row
    of the batch, and, for zoneout, of the number of real steps the row has seen. One
    key keeps the same features of a row at every step: draw a new one a batch.

    Attributes:
        cell: The cell.
        reverse: Run from the last step to the first.
        engine: How the cell is run along time; None: the default engine.
        learned_carry: Learn the carry that rows start from and that resets go to; it
            starts at zero.
        input_dropout: Probability of losing a feature of the inputs, at all steps.
        recurrent_dropout: Of losing a feature of the hidden that the recurrent kernel
            multiplies, at all steps.
        weight_dropout: Of losing an entry of the recurrent kernel, for all rows.
        zoneout: Of a feature keeping its old value at a step; one number, or one for
            each field of the carry in its order. Without a key the carry is the
            expected one.

    Examples:
        >>> from gated_rnn import LSTM
        >>> layer = RNN(LSTM(16), zoneout=(0.05, 0.5))
        >>> params = layer.init(jax.random.key(0), in_features=3)
        >>> noise_key = jax.random.key(1)
        >>> carry, outputs = layer.apply(params, jnp.ones((20, 2, 3)), key=noise_key)
        >>> outputs.shape
        (20, 2, 16)

    References:
        Y. Gal, Z. Ghahramani: A theoretically grounded application of dropout in
        recurrent neural networks, 2016, arXiv 1512.05287 (one mask for all steps);
        S. Merity, N. Keskar, R. Socher: Regularizing and optimizing LSTM language
        models, 2018, arXiv 1708.02182 (dropout of the recurrent kernel); D. Krueger
        et al.: Zoneout, 2017, arXiv 1606.01305.
    """

    cell: Cell
    reverse: bool = False
    engine: Engine | None = None
    _: KW_ONLY
    learned_carry: bool = False
    input_dropout: float = 0.0
    recurrent_dropout: float = 0.0
    weight_dropout: float = 0.0
    zoneout: float | tuple[float, ...] = 0.0

    def __post_init__(self) -> None:
        if isinstance(self.cell, type) or not hasattr(self.cell, "gate"):
            raise invalid("cell", "a cell such as LSTM(16)", repr(self.cell))
        self._noise.check_cell(self.cell)
        if self.engine is not None:
            check_engine(self.engine, self.cell)

    @property
    def out_features(self) -> int:
        """Features of the outputs: those of the cell."""
        return self.cell.out_features

    def init(
        self, key: jax.Array, in_features: int, dtype: DType = jnp.float32
    ) -> Params:
        """Return the parameters of the cell, and the carry if it is learned."""
        params = self.cell.init(key, in_features, dtype)
        if self.learned_carry:
            return RNNParams(params, self.cell.init_carry((), dtype))
        return params

    def init_carry(self, batch_shape: Shape = (), dtype: DType = jnp.float32) -> Carry:
        """Return the zero carry of the cell; at time 0, if the layer counts time."""
        carry = self.cell.init_carry(batch_shape, dtype)
        if self._counts_time:
            return RNNCarry(jnp.zeros(batch_shape, jnp.int32), carry)
        return carry

    def apply(
        self,
        params: Params,
        inputs: Any,
        carry: Carry | None = None,
        *,
        mask: jax.Array | None = None,
        resets: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> tuple[Carry, jax.Array]:
        """Run a sequence; see `gated_rnn.unroll`.

        Args:
            params: The parameters.
            inputs: `[T, *batch, F]`.
            carry: The carry before the first step processed; None: zero, or learned.
            mask: bool `[T, *batch]`, true where a step is real.
            resets: bool `[T, *batch]`, true where a segment begins.
            key: Key of the noise; None: no noise.

        Returns:
            The final carry, and the outputs `[T, *batch, out_features]`.
        """
        flags_shape = check_sequences("inputs", inputs)
        if mask is not None:
            check_flags("mask", mask, flags_shape)
        params, learned = self._split(params)
        time, carry = self._start(carry, learned, flags_shape[1:])
        time = match_varying(time, inputs, params, mask)
        times, end = times_of_steps(time, mask, flags_shape)
        carry, outputs = unroll(
            *self._noise.add(self.cell, params, inputs, times, key),
            carry,
            reset_carry=learned,
            mask=mask,
            resets=resets,
            reverse=self.reverse,
            engine=self.engine,
        )
        if self._counts_time:
            carry = RNNCarry(end, carry)
        return carry, outputs

    def step(
        self,
        params: Params,
        carry: Carry,
        inputs: Any,
        *,
        reset: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> tuple[Carry, jax.Array]:
        """Run one step; equals `apply` on a sequence of one.

        Args:
            params: The parameters.
            carry: The carry before the step.
            inputs: `[*batch, F]`.
            reset: bool `[*batch]`, true where a segment begins with this step.
            key: Key of the noise; None: no noise.

        Raises:
            ValueError: If the layer runs in reverse, which has no next step.
        """
        if self.reverse:
            raise invalid("layer", "one that runs forward", "RNN(reverse=True)")
        batch_shape = jax.tree.leaves(inputs)[0].shape[:-1]
        params, learned = self._split(params)
        time, carry = self._start(carry, learned, batch_shape)
        zeros = self.cell.init_carry()
        check_carry("carry", carry, zeros, batch_shape)
        carry = broadcast_batch(carry, zeros, batch_shape)
        if reset is not None:
            check_flags("reset", reset, batch_shape)
            start = zeros if learned is None else learned
            carry = where(reset, _like(start, carry), carry)
        cell, params, sequence = self._noise.add(
            self.cell, params, jax.tree.map(lambda x: x[None], inputs), time[None], key
        )
        step_inputs = jax.tree.map(lambda x: x[0], sequence)
        carry, outputs = cell.step(params, carry, step_inputs)
        return RNNCarry(time + 1, carry) if self._counts_time else carry, outputs

    @property
    def _noise(self) -> Noise:
        return Noise(
            self.input_dropout,
            self.recurrent_dropout,
            self.weight_dropout,
            self.zoneout,
        )

    @property
    def _counts_time(self) -> bool:
        return self.learned_carry or self._noise.has_zoneout

    def _split(self, params: Params) -> tuple[Params, Carry | None]:
        """Return the parameters of the cell, and the learned carry or None."""
        if not self.learned_carry:
            return params, None
        if not isinstance(params, RNNParams):
            raise invalid("params", "RNNParams (learned_carry)", type(params).__name__)
        return params

    def _start(
        self, carry: Carry | None, learned: Carry | None, batch_shape: Shape
    ) -> tuple[jax.Array, Carry | None]:
        """Return time, and the carry of the cell or None for zeros."""
        if not isinstance(carry, RNNCarry):
            time = jnp.zeros(batch_shape, jnp.int32)
            return time, learned if carry is None else carry
        if not self._counts_time:
            raise invalid("carry", "a carry of the cell", "RNNCarry")
        if jnp.shape(carry.time) not in ((), batch_shape):
            expected = f"shape {batch_shape} or ()"
            raise invalid("carry.time", expected, f"shape {jnp.shape(carry.time)}")
        time = jnp.broadcast_to(carry.time, batch_shape)
        if learned is None:
            return time, carry.cell
        whole = broadcast_batch(carry.cell, learned, batch_shape)
        return time, where(time == 0, _like(learned, whole), whole)


def _like(start: Carry, carry: Carry) -> Carry:
    """Give a carry without batch axes the shapes and dtypes of another."""
    return jax.tree.map(
        lambda leaf, other: jnp.broadcast_to(leaf, other.shape).astype(other.dtype),
        start,
        carry,
    )
