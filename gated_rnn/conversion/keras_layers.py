"""What a layer of Keras becomes, from its configuration and weights (layer 4)."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gated_rnn.activations import identity
from gated_rnn.conversion.entries import to_jax
from gated_rnn.conversion.keras_cells import (
    GATES,
    Reading,
    check_shapes,
    make_rnn,
    read_activation,
)
from gated_rnn.conversion.keras_configs import LayerConfig, field_of, show
from gated_rnn.conversion.packed_cells import make_dense
from gated_rnn.networks import (
    Bidirectional,
    BidirectionalParams,
    Embedding,
    EmbeddingParams,
    LastStep,
    Network,
    Nonlinearity,
    Stack,
)
from gated_rnn.types import Params, invalid

__all__ = ["Unit", "count_weights", "make_unit"]

MERGES = {"concat": "concat", "sum": "sum", "ave": "mean", "mul": "product"}
_CLASSES = {4: "LSTM", 3: "GRU", 1: "SimpleRNN"}  # by the number of gates


class Unit(NamedTuple):
    """What becomes of one layer: a layer, and perhaps what stands behind it."""

    layers: tuple[Network, ...]
    params: tuple[Params, ...]


def count_weights(layer: LayerConfig) -> int:
    """Return how many weights a layer of a stated class has."""
    if layer.class_name == "Bidirectional":
        return sum(map(count_weights, _directions(layer)))
    if layer.class_name == "Dropout":
        return 0
    if layer.class_name == "Embedding":
        return 1
    kernels = 1 if layer.class_name == "Dense" else 2
    return kernels + field_of(layer, "use_bias", bool, True)


def make_unit(
    layer: LayerConfig, arrays: Sequence[np.ndarray], reading: Reading
) -> Unit:
    """Return what a layer becomes.

    Args:
        layer: The layer; without a class name it is told from the weights.
        arrays: All of its weights.
        reading: What holds for all layers.

    Raises:
        ValueError: If the weights do not fit, or there is no such layer here.
    """
    class_name = layer.class_name or _tell_class(layer, arrays)
    if class_name == "Bidirectional":
        return _make_bidirectional(layer, arrays, reading)
    if class_name == "Embedding":
        shapes = [array.shape for array in arrays]
        check_shapes(
            layer, arrays, [(*shapes[0][:1], *shapes[0][-1:])] if shapes else [()]
        )
        params = EmbeddingParams(to_jax(arrays[0]))
        return Unit((Embedding(*arrays[0].shape),), (params,))
    if class_name == "Dense":
        return _make_dense(layer, arrays, reading)
    rnn, params = make_rnn(layer, class_name, arrays, reading)
    if not field_of(layer, "return_sequences", bool, True):
        return Unit((rnn, LastStep(reverse=rnn.reverse)), (params, ()))
    if rnn.reverse:
        where = f"go_backwards of layer {show(layer.name)}"
        expected = (
            "False with return_sequences, whose outputs Keras gives last to first"
        )
        raise invalid(where, expected, True)
    return Unit((rnn,), (params,))


def _tell_class(layer: LayerConfig, arrays: Sequence[np.ndarray]) -> str:
    """Return the class of a layer that does not say it, from its weights."""
    if "merge_mode" in layer.config or len(arrays) in (4, 6):
        return "Bidirectional"
    if len(arrays) == 1 and "input_dim" in layer.config:
        return "Embedding"
    recurrent = "recurrent_initializer" in layer.config
    if len(arrays) == 1 and "units" in layer.config and not recurrent:
        return "Dense"
    if len(arrays) == 2 and arrays[1].ndim == 1:
        return "Dense"
    if len(arrays) in (2, 3) and arrays[1].ndim == 2 and arrays[1].size:
        gates, rest = divmod(*arrays[1].shape[::-1])
        if rest == 0 and gates in _CLASSES:
            return _CLASSES[gates]
    shapes = [array.shape for array in arrays]
    expected = "{'class_name': ..., 'config': ...} for weights that do not tell it"
    raise invalid("config", expected, f"weights of shapes {show(shapes)}")


def _make_dense(
    layer: LayerConfig, arrays: Sequence[np.ndarray], reading: Reading
) -> Unit:
    shapes = [array.shape for array in arrays]
    if not 1 <= len(arrays) <= 2 or arrays[0].ndim != 2:
        expected = "a kernel and perhaps a bias"
        raise invalid(
            f"the weights of layer {show(layer.name)}", expected, show(shapes)
        )
    check_shapes(layer, arrays, [shapes[0], shapes[0][1:]][: len(arrays)])
    dense, params = make_dense(arrays[0], arrays[1] if len(arrays) == 2 else None)
    function = read_activation(layer, "activation", "linear", reading)
    if function is identity:
        return Unit((dense,), (params,))
    return Unit((dense, Nonlinearity(function)), (params, ()))


def _make_bidirectional(
    layer: LayerConfig, arrays: Sequence[np.ndarray], reading: Reading
) -> Unit:
    where = f"of layer {show(layer.name)}"
    merge = field_of(layer, "merge_mode", (str, type(None)), "concat")
    if merge not in MERGES:
        raise invalid(f"merge_mode {where}", f"one of {', '.join(MERGES)}", show(merge))
    sides = _directions(layer)
    stated = all(side.class_name for side in sides)
    half = count_weights(sides[0]) if stated else len(arrays) // 2
    made = []
    for side, weights in zip(sides, (arrays[:half], arrays[half:]), strict=True):
        class_name = side.class_name or _tell_class(side, weights)
        if class_name not in GATES:
            raise invalid(f"the class {where}", "recurrent layers", show(class_name))
        made.append(make_rnn(side, class_name, weights, reading))
    (first, first_params), (second, second_params) = made
    if first.reverse or not second.reverse:
        raise invalid(f"go_backwards {where}", "False, then True", "another order")
    widths = [params.kernel.shape[0] for _, params in made]
    sequences = [field_of(side, "return_sequences", bool, True) for side in sides]
    for name, both in {"inputs": widths, "return_sequences": sequences}.items():
        if both[0] != both[1]:
            raise invalid(f"{name} {where}", "the same in both directions", both)
    if sequences[0]:
        network = Bidirectional(first, second, MERGES[merge])
        params = BidirectionalParams(first_params, second_params)
        return Unit((network,), (params,))
    network = Bidirectional(
        Stack(first, LastStep()), Stack(second, LastStep(reverse=True)), MERGES[merge]
    )
    params = BidirectionalParams((first_params, ()), (second_params, ()))
    return Unit((network,), (params,))


def _directions(layer: LayerConfig) -> tuple[LayerConfig, LayerConfig]:
    """Return the configurations of both directions; the second may not be stated."""
    forward = _direction(layer, "layer") or LayerConfig(layer.name, "", {})
    turned = {**forward.config, "go_backwards": True}
    backward = _direction(layer, "backward_layer")
    return forward, backward or forward._replace(config=turned)


def _direction(layer: LayerConfig, key: str) -> LayerConfig | None:
    entry = field_of(layer, key, (dict, type(None)), None)
    if entry is None:
        return None
    class_name, registered = entry.get("class_name"), entry.get("registered_name")
    name = f"{layer.name}/{key}"
    if class_name not in list(GATES) or registered not in (None, class_name):
        found = show(registered or class_name)
        raise invalid(
            f"the class of layer {show(name)}", f"one of {', '.join(GATES)}", found
        )
    config = entry.get("config")
    if not isinstance(config, dict):
        raise invalid(f"the config of layer {show(name)}", "a mapping", show(config))
    return LayerConfig(name, class_name, config)
