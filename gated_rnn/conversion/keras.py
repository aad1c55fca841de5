"""Keras: LSTM, GRU, SimpleRNN, Bidirectional, Dense, Embedding, whole models (layer 4).

From weights as `get_weights()` gives them, or from a file; keras itself is not needed.
Keras is batch-major, `[B, T, F]`; networks are time-major here.
"""

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

import numpy as np

from gated_rnn.conversion.entries import as_array
from gated_rnn.conversion.keras2 import to_cudnn_layer
from gated_rnn.conversion.keras_cells import ACTIVATIONS, Reading, pack_cell
from gated_rnn.conversion.keras_configs import LayerConfig, field_of, read_layers, show
from gated_rnn.conversion.keras_files import read_file, read_weights
from gated_rnn.conversion.keras_layers import Unit, count_weights, make_unit
from gated_rnn.conversion.layers import split_layers
from gated_rnn.conversion.shapes import (
    in_features_of,
    match_leaves,
    name_leaves,
    shapes_of,
)
from gated_rnn.networks import (
    RNN,
    Bidirectional,
    Dense,
    Embedding,
    LastStep,
    Network,
    Nonlinearity,
    Stack,
)
from gated_rnn.types import DType, Params, invalid

__all__ = ["from_keras", "to_keras"]

LAYOUTS = ("keras", "cudnn")


def from_keras(
    source: Sequence[Any] | str | PathLike[str],
    config: Mapping[str, Any] | None = None,
    *,
    keras_version: int | None = None,
    noise: bool = True,
    dtype: DType | None = None,
) -> tuple[Network, Params]:
    """Return the network and the parameters of a layer or a model of Keras.

    What shapes tell need not be said: without `config` the weights of a recurrent layer
    are an `RNN` (or a `Bidirectional`) with outputs at every step. `return_sequences=
    False` becomes a `LastStep`, the activation of a `Dense` a `Nonlinearity`, the two
    biases of a GRU their sum where they act as one. Masks are an argument of `apply`:
    for `Embedding(mask_zero=True)` hand in `mask=tokens != 0`.

    Args:
        source: `layer.get_weights()` or `model.get_weights()`; or the path of a .keras,
            .weights.h5 or .h5 file. The weights of CuDNNLSTM and CuDNNGRU (Keras 2) are
            told by their shapes.
        config: `get_config()` of the layer or the Sequential model, or of a functional
            one that is a chain of layers; or a part of it, such as {"reset_after":
            False}. For a .weights.h5 file it must be there, in a .keras file it is.
        keras_version: 2 or 3, whose `hard_sigmoid` it is; None: what the file says, or
            3.
        noise: Keep dropout. Keras' layers draw other masks with the same rates. Set it
            to False where a rate cannot be kept and is not needed.
        dtype: dtype of the parameters; None: that of the weights.

    Returns:
        The layer, or a `Stack` of several, nested where `Dropout` stands between some
        of them; and the parameters.

    Raises:
        ValueError: If a layer is not supported, the weights do not fit, or the file is
            damaged.

    Examples:
        >>> weights = [np.ones((3, 8)), np.ones((2, 8)), np.zeros(8)]
        >>> network, params = from_keras(weights, {"recurrent_activation": "relu"})
        >>> network.cell.hidden_features, network.cell.gate_activation.__name__
        (2, 'relu')
        >>> [array.shape for array in to_keras(network, params)]
        [(3, 8), (2, 8), (8,)]
    """
    if isinstance(source, str | PathLike):
        file = read_file(source)
        if config is None and file.config is None:
            raise invalid("config", "get_config() of the model of these weights", None)
        layers = read_layers(file.config if config is None else config)
        keras_version = keras_version or file.keras_version
        per_layer = read_weights(file, layers)
    else:
        layers = read_layers({} if config is None else config)
        per_layer = _split_weights(source, layers)
    keras_version = 3 if keras_version is None else keras_version
    if keras_version not in (2, 3):
        raise invalid("keras_version", "2 or 3", keras_version)
    reading = Reading(keras_version, noise)
    units, rates, rate = [], [], 0.0
    for layer, weights in zip(layers, per_layer, strict=True):
        if layer.class_name == "Dropout":
            rate = _join_rates(rate, _dropout_rate(layer, noise), first=not units)
            continue
        name = f"the weights of layer {show(layer.name)}"
        arrays = [as_array(name, weight, dtype) for weight in weights]
        rates.append(rate)
        rate = 0.0
        units.append(make_unit(layer, arrays, reading))
    if not units or rate:
        expected = "a layer with weights, and one behind each Dropout"
        raise invalid(
            "config", expected, f"layers {show([each.name for each in layers])}"
        )
    network, params = _assemble(units, rates[1:])
    # Each layer must read as many features as the one below it gives.
    expected = shapes_of(network, in_features_of(network, params))
    match_leaves("source", expected, name_leaves(params))
    return network, params


def to_keras(
    network: Network,
    params: Params,
    *,
    layout: str = "keras",
    keras_version: int = 3,
) -> list[np.ndarray]:
    """Return what `set_weights` of the same layer or model of Keras takes.

    The same layer or model is the one that `from_keras` would turn into `network`: of
    several layers it is the Sequential model, whose weights are those of its layers,
    one after the other. The bias of a GRU that resets after is the first of Keras' two,
    and the second is zero but for that of the candidate.

    Args:
        network: Made of LSTM, GRU and Elman layers, `Bidirectional`, `Dense`,
            `Embedding`, `Nonlinearity` and `LastStep`.
        params: Its parameters.
        layout: "cudnn" for the CuDNNLSTM and CuDNNGRU layers of Keras 2.
        keras_version: 2 or 3, whose `hard_sigmoid` is meant.

    Raises:
        ValueError: If Keras has no such layer.

    Examples:
        >>> import jax
        >>> from gated_rnn import GRU, RNN, Dense, Stack
        >>> network = Stack(RNN(GRU(4)), Dense(2))
        >>> params = network.init(jax.random.key(0), in_features=3)
        >>> [array.shape for array in to_keras(network, params)]
        [(3, 12), (4, 12), (2, 12), (4, 2), (2,)]
    """
    if layout not in LAYOUTS:
        raise invalid("layout", f"one of {', '.join(LAYOUTS)}", repr(layout))
    if keras_version not in (2, 3):
        raise invalid("keras_version", "2 or 3", keras_version)
    pairs = split_layers(network, params)
    weights: list[np.ndarray] = []
    for number, (layer, layer_params) in enumerate(pairs):
        behind = pairs[number + 1][0] if number + 1 < len(pairs) else None
        if isinstance(layer, RNN):
            _check_end(layer, behind)
            weights += _pack_rnn(layer, layer_params, layout, keras_version)
        elif isinstance(layer, Bidirectional):
            for side, side_params in _split_sides(layer, layer_params):
                weights += _pack_rnn(side, side_params, layout, keras_version)
        elif isinstance(layer, Dense | Embedding):
            weights += [np.array(each) for each in layer_params if each is not None]
        elif not isinstance(layer, LastStep | Nonlinearity):
            raise invalid("network", "layers that Keras has", type(layer).__name__)
        if isinstance(behind, LastStep) and not isinstance(layer, RNN):
            expected = "LastStep behind a recurrent layer (within each direction)"
            raise invalid("network", expected, f"behind {type(layer).__name__}")
    return weights


# The weights and the noise of a model


def _split_weights(
    source: Sequence[Any], layers: Sequence[LayerConfig]
) -> list[list[Any]]:
    """Return the weights of each layer from those of the model."""
    weights = list(source) if isinstance(source, Sequence) else None
    if not weights:
        expected = "a list of arrays as get_weights() returns, or a path"
        raise invalid("source", expected, show(source))
    if len(layers) == 1 and layers[0].class_name != "Dropout":
        return [weights]
    counts = [count_weights(layer) for layer in layers]
    if sum(counts) != len(weights):
        expected = f"{sum(counts)} arrays, as the layers of config have"
        raise invalid("source", expected, len(weights))
    return [[weights.pop(0) for _ in range(count)] for count in counts]


def _dropout_rate(layer: LayerConfig, noise: bool) -> float:
    rate = field_of(layer, "rate", (int, float), None)
    if layer.config.get("noise_shape") is not None and noise:
        where = f"noise_shape of layer {show(layer.name)}"
        raise invalid(where, "None (or pass noise=False)", "another")
    return float(rate) if noise else 0.0


def _join_rates(rate: float, other: float, *, first: bool) -> float:
    """Return the rate of a Dropout between two layers."""
    if first and other:
        expected = "no Dropout before the first layer (or pass noise=False)"
        raise invalid("config", expected, f"rate {other}")
    if rate and other:
        expected = "one Dropout between two layers (or pass noise=False)"
        raise invalid("config", expected, "two")
    return rate or other


def _assemble(units: Sequence[Unit], rates: Sequence[float]) -> tuple[Network, Params]:
    """Return the layers of all units, with each rate between two of them."""
    if not any(rates):
        layers = [layer for unit in units for layer in unit.layers]
        params = tuple(each for unit in units for each in unit.params)
        return (layers[0], params[0]) if len(layers) == 1 else (Stack(*layers), params)
    # A stack has one rate between all of its layers: nest where the rate changes.
    same = next((i for i, each in enumerate(rates) if each != rates[0]), len(rates))
    parts = [_assemble([unit], []) for unit in units[:same]]
    parts.append(_assemble(units[same:], rates[same:]))
    network = Stack(*(layer for layer, _ in parts), dropout=rates[0])
    return network, tuple(params for _, params in parts)


# From a network to weights


def _pack_rnn(
    layer: RNN, params: Params, layout: str, keras_version: int
) -> list[np.ndarray]:
    changed = {"learned_carry": layer.learned_carry, "zoneout": layer.zoneout}
    for name, value in changed.items():
        if value:
            raise invalid("network", f"no {name}, as in Keras", value)
    arrays = pack_cell(layer.cell, params, keras_version)
    if layout == "keras":
        return arrays
    expected = "an LSTM, or a GRU that resets after, of tanh and sigmoid"
    wanted = {
        "activation": ACTIVATIONS["tanh"],
        "gate_activation": ACTIVATIONS["sigmoid"],
        "reset_after": True,
    }
    cell = layer.cell
    same = all(getattr(cell, name, each) == each for name, each in wanted.items())
    if not same or not hasattr(cell, "gate_activation"):
        raise invalid("network", expected, cell)
    return to_cudnn_layer(arrays)


def _check_end(layer: RNN, behind: Network | None) -> None:
    """Raise unless what follows a layer takes the step where the layer ends."""
    ends = isinstance(behind, LastStep)
    if (layer.reverse and not ends) or (ends and behind.reverse != layer.reverse):
        expected = "RNN(reverse=True) with LastStep(reverse=True), or both forward"
        raise invalid("network", expected, f"{show(layer.reverse)} before {behind}")


def _split_sides(layer: Bidirectional, params: Params) -> list[tuple[RNN, Params]]:
    """Return the recurrent layers of both directions."""
    sides = []
    for side, side_params in zip((layer.forward, layer.backward), params, strict=True):
        pairs = split_layers(side, side_params)
        rnn = pairs[0][0]
        ends = [LastStep(reverse=side is layer.backward)] if len(pairs) > 1 else []
        if not isinstance(rnn, RNN) or [each for each, _ in pairs[1:]] != ends:
            raise invalid("network", "recurrent layers in each direction", side)
        sides.append((rnn, pairs[0][1]))
    return sides
