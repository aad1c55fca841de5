"""A recurrent layer of Keras from its weights, and a cell's weights (layer 4).

Kernels are `[F, G*H]`, gates i f c o and z r h; `reset_after` has biases `[2, 3H]`.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gated_rnn import activations
from gated_rnn.cells import GRU, LSTM, Elman
from gated_rnn.conversion.gates import (
    GRU_GATES,
    LSTM_GATES,
    merge_gru_biases,
    split_gru_biases,
)
from gated_rnn.conversion.keras2 import from_cudnn_layer, is_cudnn_layer
from gated_rnn.conversion.keras_configs import LayerConfig, field_of, show
from gated_rnn.conversion.layers import CellAndParams, check_params
from gated_rnn.conversion.packed_cells import Packed, make_elman, make_gru, make_lstm
from gated_rnn.networks import RNN
from gated_rnn.types import Activation, Params, invalid

__all__ = [
    "ACTIVATIONS",
    "GATES",
    "Reading",
    "check_shapes",
    "make_rnn",
    "pack_cell",
    "read_activation",
]

KERAS_LSTM = ("i", "f", "g", "o")
KERAS_GRU = ("z", "r", "n")
#: The number of gates by class.
GATES = {"LSTM": 4, "GRU": 3, "SimpleRNN": 1, "CuDNNLSTM": 4, "CuDNNGRU": 3}
#: Those that are the same function in Keras and in JAX; gelu and leaky_relu are not.
ACTIVATIONS: dict[str, Activation] = {
    "elu": jax.nn.elu,
    "exponential": jnp.exp,
    "linear": activations.identity,
    "log_softmax": jax.nn.log_softmax,
    "mish": jax.nn.mish,
    "relu": jax.nn.relu,
    "relu6": jax.nn.relu6,
    "selu": jax.nn.selu,
    "sigmoid": jax.nn.sigmoid,
    "silu": jax.nn.silu,
    "softmax": jax.nn.softmax,
    "softplus": jax.nn.softplus,
    "softsign": jax.nn.soft_sign,
    "swish": jax.nn.silu,
    "tanh": jnp.tanh,
}
HARD_SIGMOIDS = {2: activations.hard_sigmoid, 3: jax.nn.hard_sigmoid}


class Reading(NamedTuple):
    """What holds for all layers of a model.

    Attributes:
        keras_version: 2 or 3: whose hard_sigmoid.
        noise: Whether to keep dropout.
    """

    keras_version: int
    noise: bool


def check_shapes(
    layer: LayerConfig, arrays: Sequence[np.ndarray], shapes: Sequence[tuple[int, ...]]
) -> None:
    """Raise unless the weights of a layer have these shapes."""
    found = [array.shape for array in arrays]
    if found != list(shapes) or not all(array.size for array in arrays):
        name = f"the weights of layer {show(layer.name)}"
        raise invalid(name, f"shapes {show(list(shapes))}", show(found))


def read_activation(
    layer: LayerConfig, name: str, default: str, reading: Reading
) -> Activation:
    """Return the function that a configuration names.

    Raises:
        ValueError: If it is unknown, or another function here than in Keras.
    """
    key = field_of(layer, name, (str, dict, type(None)), default)
    key = "linear" if key is None else key
    if key == "hard_sigmoid":
        return HARD_SIGMOIDS[reading.keras_version]
    if not isinstance(key, str) or key not in ACTIVATIONS:
        where = f"{name} of layer {show(layer.name)}"
        expected = f"one of {', '.join(ACTIVATIONS)}, hard_sigmoid"
        raise invalid(where, expected, show(key))
    return ACTIVATIONS[key]


def make_rnn(
    layer: LayerConfig, class_name: str, arrays: Sequence[np.ndarray], reading: Reading
) -> tuple[RNN, Params]:
    """Return a recurrent layer and its parameters; `go_backwards` is its `reverse`.

    Args:
        layer: Its configuration.
        class_name: A key of `GATES`.
        arrays: All of its weights.
        reading: What holds for all layers.

    Raises:
        ValueError: If the weights do not fit, or there is no such layer here.
    """
    gates = GATES[class_name]
    kernel, recurrent_kernel, bias = _check_weights(layer, class_name, arrays)
    if gates == 4:
        made = make_lstm(Packed(kernel, recurrent_kernel, bias), KERAS_LSTM)
    elif gates == 3:
        made = _make_gru(layer, kernel, recurrent_kernel, bias)
    else:
        made = make_elman(Packed(kernel, recurrent_kernel, bias))
    functions = {"activation": read_activation(layer, "activation", "tanh", reading)}
    if gates > 1:
        gate = read_activation(layer, "recurrent_activation", "sigmoid", reading)
        functions["gate_activation"] = gate
    rnn = RNN(
        dataclasses.replace(made.cell, **functions),
        field_of(layer, "go_backwards", bool, False),
        input_dropout=_rate(layer, "dropout", reading),
        recurrent_dropout=_rate(layer, "recurrent_dropout", reading),
    )
    return rnn, made.params


def _rate(layer: LayerConfig, name: str, reading: Reading) -> float:
    return field_of(layer, name, (int, float), 0.0) if reading.noise else 0.0


def _check_weights(
    layer: LayerConfig, class_name: str, arrays: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Return kernel, recurrent kernel and bias in the layout of Keras 3."""
    if len(arrays) not in (2, 3) or any(array.ndim != 2 for array in arrays[:2]):
        found = show([array.shape for array in arrays])
        expected = "a kernel, a recurrent kernel and perhaps a bias"
        raise invalid(f"the weights of layer {show(layer.name)}", expected, found)
    size, gates = arrays[1].shape[0], GATES[class_name]
    columns = gates * size
    shapes: list[tuple[int, ...]] = [(arrays[0].shape[0], columns), (size, columns)]
    cudnn = class_name.startswith("CuDNN") or (gates > 1 and is_cudnn_layer(arrays))
    if cudnn:
        check_shapes(layer, arrays, [*shapes, (2 * columns,)])
        arrays = from_cudnn_layer(arrays)
    bias = arrays[2] if len(arrays) == 3 else None
    if bias is not None:
        two = gates == 3 and bias.ndim == 2
        shapes.append((2, columns) if two else (columns,))
    check_shapes(layer, arrays, shapes)
    for name, found in {"units": size, "use_bias": bias is not None}.items():
        if field_of(layer, name, type(found), found) != found:
            where = f"{name} of layer {show(layer.name)}"
            raise invalid(where, f"{found}, as the weights have", layer.config[name])
    return arrays[0], arrays[1], bias


def _make_gru(
    layer: LayerConfig,
    kernel: np.ndarray,
    recurrent_kernel: np.ndarray,
    bias: np.ndarray | None,
) -> CellAndParams:
    told = None if bias is None else bias.ndim == 2
    after = field_of(layer, "reset_after", (bool, type(None)), told)
    name = f"reset_after of layer {show(layer.name)}"
    if after is None:
        raise invalid(name, "True or False for a GRU without biases", "neither")
    if told not in (None, after):
        raise invalid(name, f"{told}, as the shape of the bias says", after)
    inner = None
    if bias is not None and after:
        bias, inner = merge_gru_biases(bias[0], bias[1], KERAS_GRU)
    return make_gru(Packed(kernel, recurrent_kernel, bias, inner), KERAS_GRU, after)


def pack_cell(cell: Any, params: Params, keras_version: int) -> list[np.ndarray]:
    """Return the weights that Keras' layer has for a cell.

    Raises:
        ValueError: If Keras has no such cell.
    """
    if type(cell) not in (LSTM, GRU, Elman):
        raise invalid("cell", "LSTM, GRU or Elman", type(cell).__name__)
    check_params(cell, params)
    _check_functions(cell, keras_version)
    bias = None if params.bias is None else np.array(params.bias)
    packed = Packed(np.array(params.kernel), np.array(params.recurrent_kernel), bias)
    if isinstance(cell, LSTM):
        packed = packed.reorder(LSTM_GATES, KERAS_LSTM)
    elif isinstance(cell, GRU):
        packed = packed.reorder(GRU_GATES, KERAS_GRU)
    arrays = [packed.kernel, packed.recurrent_kernel]
    if packed.bias is None:
        return arrays
    if isinstance(cell, GRU) and cell.reset_after:
        inner = np.array(params.recurrent_bias)
        return [*arrays, np.stack(split_gru_biases(packed.bias, inner, KERAS_GRU))]
    return [*arrays, packed.bias]


def _check_functions(cell: Any, keras_version: int) -> None:
    names = (
        ["activation"] if isinstance(cell, Elman) else ["activation", "gate_activation"]
    )
    known = [*ACTIVATIONS.values(), HARD_SIGMOIDS[keras_version]]
    for name in names:
        function = getattr(cell, name)
        if not any(function is each for each in known):
            got = getattr(function, "__name__", repr(function))
            where = f"{type(cell).__name__}.{name}"
            raise invalid(where, f"an activation of Keras {keras_version}", got)
    if isinstance(cell, LSTM) and cell.output_activation not in (None, cell.activation):
        got = getattr(cell.output_activation, "__name__", repr(cell.output_activation))
        raise invalid("LSTM.output_activation", "the activation, as in Keras", got)
