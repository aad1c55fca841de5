"""From cells to a network, and from a network to its cells (layer 4)."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gated_rnn.activations import hard_sigmoid, identity
from gated_rnn.networks import (
    RNN,
    Bidirectional,
    BidirectionalParams,
    Network,
    Stack,
)
from gated_rnn.types import Activation, Params, invalid

__all__ = [
    "ACTIVATIONS",
    "CellAndParams",
    "check_activations",
    "check_params",
    "join_directions",
    "join_layers",
    "name_activation",
    "split_directions",
    "split_layers",
]

#: Functions by the names that the formats use; hard_sigmoid is that of Keras 2.
ACTIVATIONS: dict[str, tuple[Activation, ...]] = {
    "tanh": (jnp.tanh, jax.nn.tanh, jax.lax.tanh),
    "sigmoid": (jax.nn.sigmoid, jax.lax.logistic),
    "relu": (jax.nn.relu,),
    "linear": (identity,),
    "hard_sigmoid_2": (hard_sigmoid,),
    "hard_sigmoid_3": (jax.nn.hard_sigmoid,),
}
_NOISE = ("input_dropout", "recurrent_dropout", "weight_dropout", "zoneout")


class CellAndParams(NamedTuple):
    """A cell and its parameters."""

    cell: Any
    params: Params


def name_activation(name: str, function: Activation) -> str:
    """Return the name of a function in `ACTIVATIONS`.

    Args:
        name: The argument it was, for the message.
        function: The function.

    Raises:
        ValueError: If it is none of them.

    Examples:
        >>> name_activation("activation", jnp.tanh)
        'tanh'
    """
    for known, functions in ACTIVATIONS.items():
        if any(function is other for other in functions):
            return known
    expected = f"one of {', '.join(ACTIVATIONS)}"
    raise invalid(name, expected, getattr(function, "__name__", repr(function)))


def check_activations(cell: Any, **expected: str) -> None:
    """Raise unless the cell has these activations, each by the name of its field."""
    for field, wanted in expected.items():
        function = getattr(cell, field)
        if function is None:  # the LSTM's output activation: that of g
            function = cell.activation
        name = f"{type(cell).__name__}.{field}"
        if name_activation(name, function) != wanted:
            got = name_activation(name, function)
            raise invalid(name, f"{wanted}, which is all the format has", got)


def check_params(cell: Any, params: Params) -> None:
    """Raise unless the parameters have the structure and the shapes of a cell's."""
    kernel = getattr(params, "kernel", None)
    if kernel is None or jnp.ndim(kernel) != 2:
        got = type(params).__name__ if kernel is None else f"shape {jnp.shape(kernel)}"
        raise invalid("params.kernel", "a matrix", got)
    expected = jax.eval_shape(
        lambda key: cell.init(key, kernel.shape[0]), jax.random.key(0)
    )
    same = jax.tree.structure(expected) == jax.tree.structure(params)
    shapes = (jax.tree.map(jnp.shape, params), jax.tree.map(jnp.shape, expected))
    if not same or shapes[0] != shapes[1]:
        raise invalid("params", f"the shapes {shapes[1]} of {cell}", shapes[0])


def join_directions(cells: Sequence[CellAndParams]) -> tuple[Network, Params]:
    """Return one cell as an `RNN`, two as a `Bidirectional`, and their parameters.

    Raises:
        ValueError: If both directions read different numbers of features.
    """
    if len(cells) == 1:
        return RNN(cells[0].cell), cells[0].params
    forward, backward = cells
    params = BidirectionalParams(forward.params, backward.params)
    widths = [_in_features(each) for each in params]
    if widths[0] != widths[1]:
        name = "the inputs of the backward cell"
        raise invalid(name, f"{widths[0]} features, as forward", widths[1])
    return Bidirectional(forward.cell, backward.cell), params


def join_layers(
    layers: Sequence[tuple[Network, Params]], dropout: float = 0.0
) -> tuple[Network, Params]:
    """Return one layer as it is, several as a `Stack`, and their parameters.

    Raises:
        ValueError: If a layer reads another number of features than that below has.
    """
    _check_widths(layers)
    if len(layers) == 1:
        return layers[0]
    network = Stack(*(layer for layer, _ in layers), dropout=dropout)
    return network, tuple(params for _, params in layers)


def split_layers(network: Network, params: Params) -> list[tuple[Network, Params]]:
    """Return the layers of a network from the first to the last, stacks flattened.

    The dropout between the layers of a stack is no parameter of any format and is left
    out.

    Raises:
        ValueError: If a stack has residuals, or the parameters do not fit it.
    """
    pairs = _flatten(network, params)
    _check_widths(pairs)
    return pairs


def _check_widths(layers: Sequence[tuple[Network, Params]]) -> None:
    """Raise unless each kernel has as many rows as the layer below has features."""
    width = None
    for number, (layer, params) in enumerate(layers):
        in_features = _in_features(params)
        if width is not None and in_features not in (None, width):
            name = f"the inputs of layer {number}"
            raise invalid(name, f"{width} features, as below it", in_features)
        width = layer.out_features


def _flatten(network: Network, params: Params) -> list[tuple[Network, Params]]:
    if not isinstance(network, Stack):
        return [(network, params)]
    if network.residual:
        raise invalid("network", "a stack without residuals", "Stack(residual=True)")
    if not isinstance(params, tuple | list) or len(params) != len(network.layers):
        got = len(params) if isinstance(params, tuple | list) else type(params).__name__
        raise invalid("params", f"those of {len(network.layers)} layers", got)
    pairs = zip(network.layers, params, strict=True)
    return [pair for layer, inner in pairs for pair in _flatten(layer, inner)]


def _in_features(params: Params) -> int | None:
    """Return the rows of the first kernel, if the parameters have one."""
    kernel = getattr(getattr(params, "forward", params), "kernel", None)
    return kernel.shape[0] if kernel is not None and jnp.ndim(kernel) == 2 else None


def split_directions(layer: Network, params: Params) -> list[CellAndParams]:
    """Return the cell of an `RNN`, or both cells of a `Bidirectional`, forward first.

    Raises:
        ValueError: If it is of another type, has noise or a learned carry, merges
            otherwise than by concatenation, or runs backward alone.
    """
    if isinstance(layer, Bidirectional):
        if layer.merge != "concat":
            raise invalid("network", "merge='concat'", f"merge={layer.merge!r}")
        if not hasattr(params, "forward"):
            got = type(params).__name__
            raise invalid("params", "BidirectionalParams", got)
        return [
            _cell_of(layer.forward, params.forward),
            _cell_of(layer.backward, params.backward),
        ]
    if isinstance(layer, RNN) and layer.reverse:
        raise invalid("network", "a layer that runs forward", "RNN(reverse=True)")
    return [_cell_of(layer, params)]


def _cell_of(layer: Network, params: Params) -> CellAndParams:
    if not isinstance(layer, RNN):
        raise invalid("network", "recurrent layers", type(layer).__name__)
    for field in _NOISE:
        if getattr(layer, field):
            got = f"{field}={getattr(layer, field)}"
            raise invalid("network", "a layer without noise inside", got)
    if layer.learned_carry:
        expected = "a layer that starts from zeros"
        raise invalid("network", expected, "learned_carry=True")
    check_params(layer.cell, params)
    return CellAndParams(layer.cell, params)
