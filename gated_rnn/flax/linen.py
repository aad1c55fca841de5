"""Linen modules around cells, layers and networks (layer 4).

`RNNCell` holds the parameters of a cell, `RNN` runs one along time by `unroll`, and
`Network` holds those of a whole network. Their variables are parameters, nothing else.
"""

import functools
import operator
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from gated_rnn.flax import shells
from gated_rnn.networks.network import Network as PureNetwork
from gated_rnn.networks.network import reads_tokens, reduces_time
from gated_rnn.types import Carry, Cell, DType, Engine, Params, Shape, invalid

__all__ = ["RNN", "Network", "RNNCell"]

Variables = Mapping[str, Any]


class RNNCell(nn.RNNCellBase):
    """A cell as a Linen cell: one step, for acting and for Flax's own `nn.RNN`.

    Its variables are the cell's parameters by name, `{"params": {"kernel": ...}}`,
    drawn by `cell.init` from one key. Carries are those of the cell, `LSTMCarry(hidden,
    cell)` where Flax's LSTM has a tuple `(c, h)`.

    Attributes:
        cell: The cell.
        dtype: dtype of the operands of the matmuls; None: that of the parameters.
            Sums, gates and outputs have the dtype of the carry.
        param_dtype: dtype of the parameters and of the zero carry.
        partitioning: A `jax.sharding.PartitionSpec` or None for each parameter, in
            their structure, such as `LSTMParams(kernel=P(None, "model"), ...)`: the
            parameter is stored in an `nn.Partitioned`. None: no boxes.

    Examples:
        >>> from gated_rnn import LSTM
        >>> layer = nn.RNN(RNNCell(LSTM(16)))
        >>> inputs = jnp.ones((2, 20, 3))
        >>> variables = layer.init(jax.random.key(0), inputs)
        >>> layer.apply(variables, inputs).shape
        (2, 20, 16)
        >>> sorted(variables["params"]["cell"])
        ['bias', 'kernel', 'recurrent_kernel']
    """

    cell: Cell
    dtype: DType | None = None
    param_dtype: DType = jnp.float32
    partitioning: Any = None

    def __post_init__(self) -> None:
        shells.check_cell(self.cell)
        super().__post_init__()

    @nn.compact
    def parameters(self, in_features: int) -> Params:
        """Return the parameters, drawn where the module is being initialised."""
        init = functools.partial(
            self.cell.init, in_features=in_features, dtype=self.param_dtype
        )
        return _hold(self, init, self.partitioning)

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
        params = self.parameters(shells.features_of(inputs))
        return shells.step_cell(self.cell, params, carry, inputs, self.dtype)

    @nn.nowrap
    def initialize_carry(self, rng: jax.Array, input_shape: Shape) -> Carry:
        """Return the zero carry.

        Args:
            rng: Not used.
            input_shape: `(*batch, F)`.
        """
        return self.cell.init_carry(input_shape[:-1], self.param_dtype)

    @property
    def num_feature_axes(self) -> int:
        """1."""
        return 1

    @nn.nowrap
    def params_of(self, variables: Variables, in_features: int) -> Params:
        """Return the parameters that variables hold, as the cell's own `NamedTuple`."""
        return self.apply(variables, in_features, method="parameters")

    @nn.nowrap
    def variables_of(self, params: Params) -> dict[str, Any]:
        """Return parameters of the cell as variables; the inverse of `params_of`."""
        return {"params": _name(_box(params, self.partitioning))}


class RNN(nn.Module):
    """A layer: a cell along time by `gated_rnn.unroll`, on any engine.

    It is called as `nn.RNN` is, and may stand in `nn.Bidirectional`. Its variables are
    those of `nn.RNN(RNNCell(...))`. What differs: outputs of a layer in reverse stay
    aligned with the inputs, and outputs where a row is padded are zero.

    Attributes:
        cell: An `RNNCell`, or a cell, which stands for `RNNCell(cell)`.
        engine: How the cell is run along time; None: the default engine.
        time_major: Whether inputs and flags begin with time, `[T, *batch, F]`, and not
            `[*batch, T, F]`.
        reverse: Run from the last step to the first.
        return_carry: Return `(carry, outputs)`, and not the outputs alone.

    Examples:
        >>> from gated_rnn import LSTM
        >>> layer = RNN(LSTM(16))
        >>> inputs = jnp.ones((2, 20, 3))
        >>> variables = layer.init(jax.random.key(0), inputs)
        >>> layer.apply(variables, inputs, seq_lengths=jnp.array([20, 7])).shape
        (2, 20, 16)
    """

    cell: Any
    engine: Engine | None = None
    time_major: bool = False
    reverse: bool = False
    return_carry: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.cell, RNNCell):
            # Without a parent it becomes a part of this layer, named after the field.
            self.cell = RNNCell(self.cell, parent=None)
        shells.check_engine_of(self.cell.cell, self.engine)
        super().__post_init__()

    def __call__(
        self,
        inputs: jax.Array,
        *,
        initial_carry: Carry | None = None,
        init_key: jax.Array | None = None,
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
            init_key: Not used.
            seq_lengths: Integers `[*batch]`, how many steps of a row are real.
            mask: bool, as the inputs without features, true where a step is real.
            resets: The same, true where a segment begins.
            reset_carry: The carry a reset goes to; None: zeros.
            return_carry: As the attribute, for this call; None: the attribute.
            time_major: As the attribute, for this call.
            reverse: As the attribute, for this call.
            keep_order: None or True; `nn.Bidirectional` says it.

        Returns:
            The outputs, in the layout of the inputs and the dtype of the carry; with
            `return_carry`, `(carry, outputs)`.

        Raises:
            ValueError: If a shape or dtype does not fit, or if both a mask and lengths
                are given.
        """
        shells.check_order(keep_order)
        time_major = self.time_major if time_major is None else time_major
        sequence = shells.to_time_major(
            inputs, mask, seq_lengths, resets, time_major=time_major
        )
        carry, outputs = shells.run_cell(
            self.cell.cell,
            self.cell.parameters(sequence.inputs.shape[-1]),
            sequence,
            dtype=self.cell.dtype,
            engine=self.engine,
            initial_carry=initial_carry,
            reset_carry=reset_carry,
            reverse=self.reverse if reverse is None else reverse,
        )
        outputs = shells.to_layout(outputs, time_major=time_major)
        wanted = self.return_carry if return_carry is None else return_carry
        return (carry, outputs) if wanted else outputs

    @nn.nowrap
    def params_of(self, variables: Variables, in_features: int) -> Params:
        """Return the cell's parameters that variables hold."""
        cell = {"params": variables["params"]["cell"]}
        return self.cell.params_of(cell, in_features)

    @nn.nowrap
    def variables_of(self, params: Params) -> dict[str, Any]:
        """Return parameters of the cell as variables; the inverse of `params_of`."""
        return {"params": {"cell": self.cell.variables_of(params)["params"]}}


class Network(nn.Module):
    """A network of `gated_rnn.networks`, such as a `Stack`, as one module.

    Its variables are the parameters of the network by field name and, in a stack, by
    the number of the layer: `variables["params"]["0"]["kernel"]`.

    Attributes:
        net: The network.
        param_dtype: dtype of the parameters.
        partitioning: As in `RNNCell`.
        time_major: As in `RNN`.
        return_carry: As in `RNN`.

    Examples:
        >>> from gated_rnn import GRU, RNN, Dense, Stack
        >>> model = Network(Stack(RNN(GRU(16)), Dense(1), dropout=0.1))
        >>> inputs = jnp.ones((2, 20, 3))
        >>> variables = model.init(jax.random.key(0), inputs)
        >>> rngs = {"dropout": jax.random.key(1)}
        >>> model.apply(variables, inputs, deterministic=False, rngs=rngs).shape
        (2, 20, 1)
    """

    net: PureNetwork
    param_dtype: DType = jnp.float32
    partitioning: Any = None
    time_major: bool = False
    return_carry: bool = False

    def __post_init__(self) -> None:
        shells.check_network(self.net)
        super().__post_init__()

    @nn.compact
    def parameters(self, in_features: int | None) -> Params:
        """Return the parameters, drawn where the module is being initialised."""
        init: Any = self.net.init  # tokens have no in_features
        init = functools.partial(init, in_features=in_features, dtype=self.param_dtype)
        return _hold(self, init, self.partitioning)

    def __call__(
        self,
        inputs: jax.Array,
        *,
        initial_carry: Carry | None = None,
        seq_lengths: jax.Array | None = None,
        mask: jax.Array | None = None,
        resets: jax.Array | None = None,
        deterministic: bool = True,
        return_carry: bool | None = None,
        time_major: bool | None = None,
    ) -> Any:
        """Run a sequence.

        Args:
            inputs: As in `RNN`; tokens have no feature axis.
            initial_carry: The carry before the first step; None: `net.init_carry`.
            seq_lengths: As in `RNN`.
            mask: As in `RNN`.
            resets: As in `RNN`.
            deterministic: Whether there is no noise; else its key is drawn from the
                random stream "dropout".
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
            self._parameters_for(inputs),
            sequence.inputs,
            initial_carry,
            mask=sequence.mask,
            resets=sequence.resets,
            key=None if deterministic else self.make_rng("dropout"),
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
        deterministic: bool = True,
    ) -> tuple[Carry, jax.Array]:
        """Run one step, for acting: `model.apply(..., method="step")`.

        Args:
            carry: The carry; the first one is `net.init_carry(batch_shape)`.
            inputs: `[*batch, F]`, or tokens `[*batch]`.
            reset: bool `[*batch]`, true where a segment begins with this step.
            deterministic: Whether there is no noise.

        Returns:
            The next carry, and the outputs `[*batch, features]`.
        """
        key = None if deterministic else self.make_rng("dropout")
        params = self._parameters_for(inputs)
        return self.net.step(params, carry, inputs, reset=reset, key=key)

    def _parameters_for(self, inputs: jax.Array) -> Params:
        """Return the parameters for inputs `[..., F]`, or tokens."""
        return self.parameters(
            None if reads_tokens(self.net) else shells.features_of(inputs)
        )

    @nn.nowrap
    def params_of(self, variables: Variables, in_features: int | None = None) -> Params:
        """Return the network's parameters that variables hold.

        Args:
            variables: The variables.
            in_features: F; None for tokens.
        """
        return self.apply(variables, in_features, method="parameters")

    @nn.nowrap
    def variables_of(self, params: Params) -> dict[str, Any]:
        """Return parameters of the network as variables."""
        return {"params": _name(_box(params, self.partitioning))}


def _hold(module: nn.Module, init: Callable[..., Params], partitioning: Any) -> Params:
    """Return the parameters in the variables of a module, or draw them into these.

    Args:
        module: A bound module, in a compact method.
        init: From a key to all parameters; it is called once, with one key.
        partitioning: As in `RNNCell`.
    """
    shapes = jax.eval_shape(lambda: init(jax.random.key(0)))
    named = _name(shapes)
    missing = any(not module.has_variable("params", name) for name in named)
    draws = missing and module.is_mutable_collection("params")
    if draws:
        named = _name(_box(init(module.make_rng("params")), partitioning))

    def zeros(leaf: Any) -> jax.Array:
        return jnp.zeros(leaf.shape, leaf.dtype)

    def take(key: jax.Array, name: str) -> Any:
        # Of a parameter that is held Flax asks the shape alone.
        return named[name] if draws else jax.tree.map(zeros, named[name])

    values = {name: module.param(name, take, name) for name in named}
    return _unname(values, shapes)


def _box(params: Params, partitioning: Any) -> Params:
    return shells.annotate(params, partitioning, nn.Partitioned)


def _path(entries: tuple[Any, ...]) -> list[str]:
    return [jax.tree_util.keystr((entry,), simple=True) for entry in entries]


def _name(params: Params) -> dict[str, Any]:
    """Return the leaves in dictionaries by field name; what is None has no entry."""
    named = {}
    leaves = jax.tree_util.tree_leaves_with_path(params, is_leaf=_is_box)
    for entries, leaf in leaves:
        *outer, last = _path(entries) or [""]
        if not last:
            raise invalid("params", "a NamedTuple of arrays", type(params).__name__)
        node = named
        for name in outer:
            node = node.setdefault(name, {})
        node[last] = leaf
    return named


def _unname(named: Mapping[str, Any], like: Params) -> Params:
    """Return named leaves in the structure of `like`; the inverse of `_name`."""

    def find(entries: tuple[Any, ...], _: Any) -> Any:
        return functools.reduce(operator.getitem, _path(entries), named)

    return jax.tree_util.tree_map_with_path(find, like)


def _is_box(node: Any) -> bool:
    return isinstance(node, nn.meta.AxisMetadata)
