"""A network as JSON and back: names from a closed registry, nothing imported (layer 4).

An object is {"class": name, field: value, ...}, a function {"function": name}, a dtype
{"dtype": name}, a tuple a list; the rest are numbers, strings, booleans and null.
"""

import dataclasses
import math
import types
import typing
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gated_rnn import activations, cells, engines, initializers, networks
from gated_rnn.types import Activation, Cell, Engine, invalid

__all__ = ["build_network", "describe_network"]

MAX_DEPTH = 100
_PARTS = (cells, engines, initializers, networks)
CLASSES: Mapping[str, type] = {
    name: getattr(part, name)
    for part in _PARTS
    for name in part.__all__
    if dataclasses.is_dataclass(getattr(part, name))
}
# Named by the module that has them: hard_sigmoid has another slope in jax.nn.
FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    f"{module.__name__}.{name}": getattr(module, name)
    for module, names in {
        activations: " ".join(activations.__all__),
        jax.lax: "logistic tanh",
        jax.nn: "celu elu gelu hard_sigmoid hard_silu hard_tanh leaky_relu log_sigmoid"
        " log_softmax mish relu relu6 selu sigmoid silu soft_sign softmax softplus"
        " squareplus",
        jax.nn.initializers: "ones zeros",
        jnp: "exp tanh",
    }.items()
    for name in names.split()
}
DTYPES: Mapping[str, Any] = {
    name: getattr(jnp, name) for name in ("bfloat16", "float16", "float32", "float64")
}
# What a value must have to stand where one of these is meant.
_PROTOCOLS: Mapping[Any, str] = {
    Cell: "gate",
    Engine: "refuses",
    networks.Network: "apply",
}
_SIZES = ("features", "vocabulary")  # how the fields that allocate end


def describe_network(
    network: networks.Network, custom_objects: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return a network as what `json.dumps` takes.

    Args:
        network: Made of the package's layers, cells, engines, initialisers and
            activations, and of what `custom_objects` names.
        custom_objects: Dataclasses and functions of your own by their names.

    Raises:
        ValueError: If a part has no name, or a field holds anything else.

    Examples:
        >>> from gated_rnn import RNN, MinGRU
        >>> description = describe_network(RNN(MinGRU(16)))
        >>> description["class"], description["cell"]["hidden_features"]
        ('RNN', 16)
        >>> description["cell"]["gate_activation"]
        {'function': 'jax.nn.sigmoid'}
    """
    return _describe(network, "network", _registry(custom_objects), 0)


def build_network(
    description: Any,
    custom_objects: Mapping[str, Any] | None = None,
    *,
    max_features: int | None = None,
) -> networks.Network:
    """Return the network of a description.

    Args:
        description: What `describe_network` returned.
        custom_objects: As there.
        max_features: Refuse sizes above this; None: any.

    Raises:
        ValueError: If it names what is not in the registry, or a field does not fit.
    """
    network = _build(description, "network", _registry(custom_objects), max_features, 0)
    if not hasattr(network, "apply"):
        raise invalid("network", "a layer", _show(description))
    return network


def _registry(custom_objects: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return everything that may be named."""
    known = {**CLASSES, **FUNCTIONS}
    for name, value in (custom_objects or {}).items():
        if name in known:
            raise invalid("custom_objects", "names of your own", repr(name))
        if not (
            dataclasses.is_dataclass(value)
            if isinstance(value, type)
            else callable(value)
        ):
            raise invalid("custom_objects", "dataclasses and functions", repr(name))
        known[name] = value
    return known


def _describe(value: Any, where: str, known: dict[str, Any], depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise invalid(where, f"at most {MAX_DEPTH} levels", "more")
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, tuple):
        return [
            _describe(each, f"{where}[{i}]", known, depth + 1)
            for i, each in enumerate(value)
        ]
    if isinstance(value, np.dtype | type(jnp.float32)) or (
        isinstance(value, type) and issubclass(value, np.generic)
    ):
        return {"dtype": _name_dtype(value, where)}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _describe_object(value, where, known, depth)
    if isinstance(value, np.ndarray | jax.Array) and value.ndim == 0:
        value = value.item()
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        if not math.isfinite(value):
            raise invalid(where, "a finite number", value)
        return float(value)
    for name, function in known.items():
        if function is value and not isinstance(value, type):
            return {"function": name}
    expected = "a number, a string, or what the package or custom_objects names"
    raise invalid(where, expected, getattr(value, "__name__", None) or _show(value))


def _describe_object(value: Any, where: str, known: dict[str, Any], depth: int) -> Any:
    name = next((name for name, each in known.items() if each is type(value)), None)
    if name is None:
        expected = "a class of the package, or one that custom_objects names"
        raise invalid(where, expected, type(value).__name__)
    fields = {
        field.name: _describe(
            getattr(value, field.name), f"{where}.{field.name}", known, depth + 1
        )
        for field in dataclasses.fields(value)
        if field.init
    }
    return {"class": name, **fields}


def _name_dtype(value: Any, where: str) -> str:
    name = jnp.dtype(value).name
    if name not in DTYPES:
        raise invalid(where, f"one of {', '.join(DTYPES)}", name)
    return name


def _build(
    value: Any, where: str, known: dict[str, Any], limit: int | None, depth: int
) -> Any:
    if depth > MAX_DEPTH:
        raise invalid(where, f"at most {MAX_DEPTH} levels", "more")
    if isinstance(value, list):
        return tuple(
            _build(each, f"{where}[{i}]", known, limit, depth + 1)
            for i, each in enumerate(value)
        )
    if not isinstance(value, dict):
        return value
    if list(value) == ["dtype"]:
        name = value["dtype"]
        if not isinstance(name, str) or name not in DTYPES:
            raise invalid(where, f"one of {', '.join(DTYPES)}", _show(name))
        return DTYPES[name]
    kind = "function" if list(value) == ["function"] else "class"
    name = value.get(kind)
    found = known.get(name) if isinstance(name, str) else None
    if found is None or isinstance(found, type) != (kind == "class"):
        expected = f"the name of a {kind} of the package, or one in custom_objects"
        raise invalid(where, expected, _show(name))
    if kind == "function":
        return found
    fields = {
        key: _build(each, f"{where}.{key}", known, limit, depth + 1)
        for key, each in value.items()
        if key != "class"
    }
    return _construct(found, fields, where, limit)


def _construct(cls: type, fields: dict[str, Any], where: str, limit: int | None) -> Any:
    """Make an object of a class, each field of the type that the class states."""
    stated = {field.name for field in dataclasses.fields(cls) if field.init}
    if set(fields) - stated:
        extra = sorted(set(fields) - stated)[0]
        expected = f"the fields of {cls.__name__} (was it saved by a newer version?)"
        raise invalid(where, expected, _show(extra))
    hints = typing.get_type_hints(cls)
    for name, value in fields.items():
        if not _fits(value, hints[name]):
            raise invalid(f"{where}.{name}", "a value of its type", _show(value))
        if limit is not None and name.endswith(_SIZES) and _exceeds(value, limit):
            expected = f"at most {limit}, for so few parameters"
            raise invalid(f"{where}.{name}", expected, _show(value))
    try:
        if cls is networks.Stack:
            return networks.Stack(*fields.pop("layers", ()), **fields)
        if cls is initializers.PerGate:
            exceptions = dict(fields.pop("exceptions", ()))
            return initializers.PerGate(**fields, **exceptions)
        return cls(**fields)
    except (ArithmeticError, AttributeError, LookupError, TypeError) as error:
        reason = _show(str(error))
        raise invalid(where, f"the fields of {cls.__name__}", reason) from None


def _exceeds(value: Any, limit: int) -> bool:
    return isinstance(value, int | float) and value > limit


def _fits(value: Any, hint: Any) -> bool:
    """Return whether a value is of an annotated type, as far as that can be told."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, each) for each in typing.get_args(hint))
    if hint == Activation:
        return callable(value) and not dataclasses.is_dataclass(value)
    if origin is Callable:
        return callable(value)
    if origin is tuple:
        return _fits_tuple(value, typing.get_args(hint))
    if hint in _PROTOCOLS:
        return hasattr(value, _PROTOCOLS[hint])
    if hint in (int, float):
        accepted = (int, float) if hint is float else int
        return isinstance(value, accepted) and not isinstance(value, bool)
    try:
        return isinstance(value, hint)
    except TypeError:  # Any, or a protocol of the user: nothing can be told
        return True


def _fits_tuple(value: Any, hints: tuple[Any, ...]) -> bool:
    if not isinstance(value, tuple):
        return False
    if len(hints) == 2 and hints[1] is Ellipsis:
        return all(_fits(each, hints[0]) for each in value)
    return len(value) == len(hints) and all(map(_fits, value, hints))


def _show(value: Any) -> str:
    """Return a value in a few characters of one line."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
