"""NNX modules around cells, layers and networks (layer 4).

`RNNCell` holds the parameters of a cell, `RNN` runs one along time by `unroll`, and
`Network` holds those of a whole network. Their state is parameters, nothing else.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from gated_rnn.flax import shells
from gated_rnn.networks.network import Network as PureNetwork
from gated_rnn.networks.network import reads_tokens, reduces_time
from gated_rnn.types import (
    Carry,
    Cell,
    DType,
    Engine,
    Initializer,
    Params,
    Shape,
    invalid,
    params_dtype,
)

__all__ = ["RNN", "Network", "RNNCell"]

Rngs = nnx.Rngs | nnx.RngStream


class RNNCell(nnx.RNNCellBase):
    """A cell as an NNX cell: one step, for acting and for Flax's own `nnx.RNN`.

    `params` is the cell's own `NamedTuple` with an `nnx.Param` in each field. Carries
    are those of the cell, `LSTMCarry(hidden, cell)` where Flax's LSTM has `(c, h)`.

    Attributes:
        cell: The cell.
        params: Its parameters.
        dtype: dtype of the operands of the matmuls; None: that of the parameters.
            Sums, gates and outputs have the dtype of the carry.

    Examples:
        >>> from gated_rnn import LSTM
        >>> cell = RNNCell(LSTM(16), 3, rngs=nnx.Rngs(0))
        >>> nnx.RNN(cell)(jnp.ones((2, 20, 3))).shape
        (2, 20, 16)
        >>> cell.params.recurrent_kernel.shape
        (16, 64)
    """

    def __init__(
        self,
        cell: Cell,
        in_features: int,
        *,
        dtype: DType | None = None,
        param_dtype: DType = jnp.float32,
        partitioning: Any = None,
        rngs: nnx.Rngs,
    ) -> None:
        """Draw the parameters.

        Args:
            cell: The cell.
            in_features: F.
            dtype: See the attribute.
            param_dtype: dtype of the parameters.
            partitioning: A `jax.sharding.PartitionSpec` or None for each parameter, in
                their structure, such as `LSTMParams(kernel=P(None, "model"), ...)`; it
                becomes the metadata `out_sharding`. None: no metadata.
            rngs: The key is drawn from its stream "params".

        Raises:
            ValueError: If an argument is missing or does not fit.
        """
        shells.check_cell(cell)
        self.cell = cell
        self.dtype = dtype
        params = cell.init(_required(rngs).params(), in_features, param_dtype)
        self.params: Any = _hold(params, partitioning)

    def __call__(self, carry: Carry, inputs: jax.Array) -> tuple[Carry, jax.Array]:
        """Run one step.

        Args:
            carry: The carry, leaves `[*batch, features]`.
            inputs: `[*batch, F]`.

        Returns:
            The next carry, and the outputs `[*batch, out_features]`.

        Raises:
            ValueError: If the carry is not one of the cell or a shape does not fit.
        """
        shells.features_of(inputs)
        return shells.step_cell(self.cell, self.get_params(), carry, inputs, self.dtype)

    def initialize_carry(
        self,
        input_shape: Shape,
        rngs: Rngs | None = None,
        carry_init: Initializer | None = None,
    ) -> Carry:
        """Return the zero carry in the dtype of the parameters, or another.

        Args:
            input_shape: `(*batch, F)`.
            rngs: Used by `carry_init` alone.
            carry_init: From `(key, shape, dtype)` to a leaf of the carry; None: zeros.

        Raises:
            ValueError: If there is a `carry_init` and no `rngs`.
        """
        dtype = params_dtype(self.get_params())
        zeros = self.cell.init_carry(input_shape[:-1], dtype)
        if carry_init is None:
            return zeros
        draw = rngs if isinstance(rngs, nnx.RngStream) else _required(rngs).carry
        return jax.tree.map(
            lambda leaf: carry_init(draw(), leaf.shape, leaf.dtype), zeros
        )

    @property
    def num_feature_axes(self) -> int:
        """1."""
        return 1

    def get_params(self) -> Params:
        """Return the parameters as the cell's own `NamedTuple` of arrays."""
        return _get(self.params)

    def set_params(self, params: Params) -> None:
        """Replace the values of the parameters by those of a `NamedTuple` of arrays.

        As `nnx.update` does: the arrays keep the dtype and sharding they come with.

        Raises:
            ValueError: If the structure or a shape does not fit.
        """
        _set(self.params, params)


class RNN(nnx.Module):
    """A layer: a cell along time by `gated_rnn.unroll`, on any engine.

    It is called as `nnx.RNN` is, and may stand in `nnx.Bidirectional`. What differs:
    outputs of a layer in reverse stay aligned with the inputs, and outputs where a row
    is padded are zero.

    Attributes:
        cell: The `RNNCell`.
        engine: How the cell is run along time; None: the default engine.
        time_major: Whether inputs and flags begin with time, `[T, *batch, F]`, and not
            `[*batch, T, F]`.
        reverse: Run from the last step to the first.
        return_carry: Return `(carry, outputs)`, and not the outputs alone.

    Examples:
        >>> from gated_rnn import LSTM
        >>> layer = RNN(LSTM(16), 3, rngs=nnx.Rngs(0))
        >>> inputs = jnp.ones((2, 20, 3))
        >>> layer(inputs, seq_lengths=jnp.array([20, 7])).shape
        (2, 20, 16)
    """

    def __init__(
        self,
        cell: RNNCell | Cell,
        in_features: int | None = None,
        *,
        engine: Engine | None = None,
        time_major: bool = False,
        reverse: bool = False,
        return_carry: bool = False,
        rngs: nnx.Rngs | None = None,
    ) -> None:
        """Take an `RNNCell`, or make one.

        Args:
            cell: An `RNNCell`, or a cell, for which `RNN(cell, in_features, rngs=rngs)`
                stands for `RNN(RNNCell(cell, in_features, rngs=rngs))`.
            in_features: F; None beside an `RNNCell`.
            engine: As these and all that follow in the attributes.
            time_major: See there.
            reverse: See there.
            return_carry: See there.
            rngs: Where the parameters are drawn; None beside an `RNNCell`.

        Raises:
            ValueError: If an argument is missing or does not fit.
        """
        if not isinstance(cell, RNNCell):
            if in_features is None:
                raise invalid("in_features", "a positive integer beside a cell", None)
            cell = RNNCell(cell, in_features, rngs=_required(rngs))
        elif in_features is not None:
            raise invalid("in_features", "None beside an RNNCell", in_features)
        elif rngs is not None:
            raise invalid("rngs", "None beside an RNNCell", type(rngs).__name__)
        shells.check_engine_of(cell.cell, engine)
        self.cell = cell
        self.engine = engine
        self.time_major = time_major
        self.reverse = reverse
        self.return_carry = return_carry

    def __call__(
        self,
        inputs: jax.Array,
        *,
        initial_carry: Carry | None = None,
        rngs: Rngs | None = None,
        seq_lengths: jax.Array | None = None,
        mask: jax.Array | None = None,
        resets: jax.Array | None = None,
        reset_carry: Carry | None = None,
        return_carry: bool | None = None,
        time_major: bool | None = None,
        reverse: bool | None = None,
        keep_order: bool | None = None,
    ) -> Any:
        """Run a sequence; see `gated_rnn.unroll`.

        Args:
            inputs: `[*batch, T, F]`, or `[T, *batch, F]` if `time_major`.
            initial_carry: The carry before the first step processed; None: zeros.
            rngs: Not used.
            seq_lengths: Integers `[*batch]`, how many steps of a row are real.
            mask: bool, as the inputs without features, true where a step is real.
            resets: The same, true where a segment begins.
            reset_carry: The carry a reset goes to; None: zeros.
            return_carry: As the attribute, for this call; None: the attribute.
            time_major: As the attribute, for this call.
            reverse: As the attribute, for this call.
            keep_order: None or True; `nnx.Bidirectional` says it.

        Returns:
            The outputs, in the layout of the inputs and the dtype of the carry; with
            `return_carry`, `(carry, outputs)`.

        Raises:
            ValueError: If a shape or dtype does not fit, or if both a mask and lengths
                are given.
        """
        shells.check_order(keep_order)
        time_major = self.time_major if time_major is None else time_major
        carry, outputs = shells.run_cell(
            self.cell.cell,
            self.cell.get_params(),
            shells.to_time_major(
                inputs, mask, seq_lengths, resets, time_major=time_major
            ),
            dtype=self.cell.dtype,
            engine=self.engine,
            initial_carry=initial_carry,
            reset_carry=reset_carry,
            reverse=self.reverse if reverse is None else reverse,
        )
        outputs = shells.to_layout(outputs, time_major=time_major)
        wanted = self.return_carry if return_carry is None else return_carry
        return (carry, outputs) if wanted else outputs

    def get_params(self) -> Params:
        """Return the parameters of the cell; see `RNNCell.get_params`."""
        return self.cell.get_params()

    def set_params(self, params: Params) -> None:
        """Replace the parameters of the cell; see `RNNCell.set_params`."""
        self.cell.set_params(params)


class Network(nnx.Module):
    """A network of `gated_rnn.networks`, such as a `Stack`, as one module.

    `params` has the structure of the network's parameters, with an `nnx.Param` in each
    place.

    Attributes:
        net: The network.
        params: Its parameters.
        time_major: As in `RNN`.
        return_carry: As in `RNN`.

    Examples:
        >>> from gated_rnn import GRU, RNN, Dense, Stack
        >>> net = Stack(RNN(GRU(16)), Dense(1), dropout=0.1)
        >>> model = Network(net, 3, rngs=nnx.Rngs(0))
        >>> model(jnp.ones((2, 20, 3)), rngs=nnx.Rngs(dropout=1)).shape
        (2, 20, 1)
    """

    def __init__(
        self,
        net: PureNetwork,
        in_features: int | None = None,
        *,
        param_dtype: DType = jnp.float32,
        partitioning: Any = None,
        time_major: bool = False,
        return_carry: bool = False,
        rngs: nnx.Rngs,
    ) -> None:
        """Draw the parameters.

        Args:
            net: The network.
            in_features: F; None for tokens.
            param_dtype: dtype of the parameters.
            partitioning: As in `RNNCell`.
            time_major: See the attribute.
            return_carry: See the attribute.
            rngs: The key is drawn from its stream "params".

        Raises:
            ValueError: If an argument is missing or does not fit.
        """
        shells.check_network(net)
        self.net = net
        self.time_major = time_major
        self.return_carry = return_carry
        init: Any = net.init  # tokens have no in_features
        params = init(_required(rngs).params(), in_features, param_dtype)
        self.params: Any = _hold(params, partitioning)

    def __call__(
        self,
        inputs: jax.Array,
        *,
        initial_carry: Carry | None = None,
        rngs: Rngs | None = None,
        seq_lengths: jax.Array | None = None,
        mask: jax.Array | None = None,
        resets: jax.Array | None = None,
        return_carry: bool | None = None,
        time_major: bool | None = None,
    ) -> Any:
        """Run a sequence.

        Args:
            inputs: As in `RNN`; tokens have no feature axis.
            initial_carry: The carry before the first step; None: `net.init_carry`.
            rngs: The key of the noise is drawn from its stream "dropout"; None: no
                noise.
            seq_lengths: As in `RNN`.
            mask: As in `RNN`.
            resets: As in `RNN`.
            return_carry: As in `RNN`.
            time_major: As in `RNN`.

        Returns:
            The outputs, in the layout of the inputs, or `[*batch, features]` of a
            network that reduces time; with `return_carry`, `(carry, outputs)`.
        """
        time_major = self.time_major if time_major is None else time_major
        sequence = shells.to_time_major(
            inputs,
            mask,
            seq_lengths,
            resets,
            time_major=time_major,
            num_feature_axes=0 if reads_tokens(self.net) else 1,
        )
        carry, outputs = self.net.apply(
            self.get_params(),
            sequence.inputs,
            initial_carry,
            mask=sequence.mask,
            resets=sequence.resets,
            key=_noise_key(rngs),
        )
        if not reduces_time(self.net):
            outputs = shells.to_layout(outputs, time_major=time_major)
        wanted = self.return_carry if return_carry is None else return_carry
        return (carry, outputs) if wanted else outputs

    def step(
        self,
        carry: Carry,
        inputs: jax.Array,
        *,
        reset: jax.Array | None = None,
        rngs: Rngs | None = None,
    ) -> tuple[Carry, jax.Array]:
        """Run one step, for acting.

        Args:
            carry: The carry; the first one is `net.init_carry(batch_shape)`.
            inputs: `[*batch, F]`, or tokens `[*batch]`.
            reset: bool `[*batch]`, true where a segment begins with this step.
            rngs: As in a call.

        Returns:
            The next carry, and the outputs `[*batch, features]`.
        """
        key = _noise_key(rngs)
        return self.net.step(self.get_params(), carry, inputs, reset=reset, key=key)

    def get_params(self) -> Params:
        """Return the parameters as the network's own pytree of arrays."""
        return _get(self.params)

    def set_params(self, params: Params) -> None:
        """Replace the values of the parameters; see `RNNCell.set_params`."""
        _set(self.params, params)


def _hold(params: Params, partitioning: Any) -> Any:
    """Return parameters with an `nnx.Param` in each place, as data of a module."""
    boxed = shells.annotate(params, partitioning, _annotated)
    held = jax.tree.map(
        lambda leaf: leaf if _is_variable(leaf) else nnx.Param(leaf),
        boxed,
        is_leaf=_is_variable,
    )
    return nnx.data(held)


def _annotated(value: jax.Array, names: tuple[Any, ...]) -> nnx.Param:
    return nnx.Param(value, out_sharding=names)


def _get(held: Any) -> Params:
    return jax.tree.map(lambda p: p.get_value(), held, is_leaf=_is_variable)


def _set(held: Any, params: Params) -> None:
    """Write `params` into the variables of `held`, or raise and write nothing."""
    old = _get(held)
    if jax.tree.structure(params) != jax.tree.structure(old):
        raise invalid("params", jax.tree.structure(old), jax.tree.structure(params))
    leaves = jax.tree_util.tree_leaves_with_path(params)
    for (path, leaf), current in zip(leaves, jax.tree.leaves(old), strict=True):
        if jnp.shape(leaf) != current.shape:
            name = f"params{jax.tree_util.keystr(path)}"
            raise invalid(name, f"shape {current.shape}", f"shape {jnp.shape(leaf)}")
    variables = jax.tree.leaves(held, is_leaf=_is_variable)
    for variable, (_, leaf) in zip(variables, leaves, strict=True):
        variable.set_value(jnp.asarray(leaf))


def _is_variable(node: Any) -> bool:
    return isinstance(node, nnx.Variable)


def _required(rngs: Any) -> nnx.Rngs:
    if not isinstance(rngs, nnx.Rngs):
        raise invalid("rngs", "random streams such as nnx.Rngs(0)", type(rngs).__name__)
    return rngs


def _noise_key(rngs: Rngs | None) -> jax.Array | None:
    if rngs is None:
        return None
    return rngs.dropout() if isinstance(rngs, nnx.Rngs) else rngs()
