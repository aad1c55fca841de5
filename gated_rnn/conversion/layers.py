"""From cells to a network, and from a network to its cells (layer 4)."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gated_rnn.activations import hard_sigmoid, identity
from gated_rnn.networks import RNN, Bidirectional, Network, Stack
from gated_rnn.types import Activation, Params, invalid

__all__ = [
    "ACTIVATIONS",
    "CellAndParams",
    "check_activations",
    "check_params",
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
    if jnp.ndim(kernel) != 2 or kernel is None:
        got = type(params).__name__ if kernel is None else f"shape {jnp.shape(kernel)}"
        raise invalid("params.kernel", "a matrix", got)
    expected = jax.eval_shape(
        lambda key: cell.init(key, kernel.shape[0]), jax.random.key(0)
    )
    same = jax.tree.structure(expected) == jax.tree.structure(params)
    shapes = (jax.tree.map(jnp.shape, params), jax.tree.map(jnp.shape, expected))
    if not same or shapes[0] != shapes[1]:
        raise invalid("params", f"the shapes {shapes[1]} of {cell}", shapes[0])


def join_layers(
    layers: Sequence[Network], params: Sequence[Params], dropout: float = 0.0
) -> tuple[Network, Params]:
    """Return one layer as it is, several as a `Stack`, and their parameters."""
    if len(layers) == 1:
        return layers[0], params[0]
    return Stack(*layers, dropout=dropout), tuple(params)


def split_layers(network: Network, params: Params) -> list[tuple[Network, Params]]:
    """Return the layers of a network from the first to the last, stacks flattened.

    The dropout between the layers of a stack is no parameter of any format and is left
    out.

    Raises:
        ValueError: If a stack has residuals, or the parameters are not as many.
    """
    if not isinstance(network, Stack):
        return [(network, params)]
    if network.residual:
        raise invalid("network", "a stack without residuals", "Stack(residual=True)")
    if not isinstance(params, tuple | list) or len(params) != len(network.layers):
        got = len(params) if isinstance(params, tuple | list) else type(params).__name__
        raise invalid("params", f"those of {len(network.layers)} layers", got)
    pairs = zip(network.layers, params, strict=True)
    return [pair for layer, inner in pairs for pair in split_layers(layer, inner)]


def split_directions(layer: Network, params: Params) -> list[CellAndParams]:
    """Return the cell of an `RNN`, or both cells of a `Bidirectional`, forward first.

    Raises:
        ValueError: If it is of another type, has noise or a learned carry, merges
            otherwise than by concatenation, or runs backward alone.
    """
    if isinstance(layer, Bidirectional):
        if layer.merge != "concat":
            raise invalid("network", "merge='concat'", f"merge={layer.merge!r}")
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
