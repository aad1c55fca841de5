"""What a Keras configuration says: a chain of layers (layer 4).

A configuration is data: names in it are compared with those that are known, and never
imported.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from gated_rnn.types import invalid

__all__ = ["LayerConfig", "field_of", "read_layers", "show"]

#: The classes that can be converted, and how files number them.
GROUPS = {
    "Bidirectional": "bidirectional",
    "CuDNNGRU": "cu_dnngru",
    "CuDNNLSTM": "cu_dnnlstm",
    "Dense": "dense",
    "Dropout": "dropout",
    "Embedding": "embedding",
    "GRU": "gru",
    "InputLayer": "input_layer",
    "LSTM": "lstm",
    "SimpleRNN": "simple_rnn",
}
MODELS = ("Functional", "Model", "Sequential")
_SHOWN = 60


class LayerConfig(NamedTuple):
    """A layer of a model.

    Attributes:
        name: Its name in messages and in old files.
        class_name: A key of `GROUPS`, or "": to be told from the weights.
        config: Its `get_config()`, or a part of that.
        group: Its place in a weights file, such as "lstm_1".
    """

    name: str
    class_name: str
    config: Mapping[str, Any]
    group: str = ""


def show(value: Any) -> str:
    """Return a value in a few characters of one line."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def field_of(
    layer: LayerConfig, name: str, kinds: type | tuple[type, ...], default: Any
) -> Any:
    """Return an entry of a layer's configuration, of one of these types.

    Raises:
        ValueError: If it is of another type.
    """
    value = layer.config.get(name, default)
    if not isinstance(value, kinds):
        where = f"{name} of layer {show(layer.name)}"
        names = " or ".join(
            kind.__name__ for kind in (kinds if isinstance(kinds, tuple) else (kinds,))
        )
        raise invalid(where, names, show(value))
    return value


def read_layers(config: Any) -> list[LayerConfig]:
    """Return the layers of a model, or the one layer, from the first to the last.

    Args:
        config: `model.get_config()`, `layer.get_config()` or a part of that, or either
            as {"class_name": ..., "config": ...}.

    Raises:
        ValueError: If it is none, if the layers are no chain, or if the class of one is
            not supported.

    Examples:
        >>> [layer.group for layer in read_layers({"layers": [
        ...     {"class_name": "GRU", "config": {"name": "first"}},
        ...     {"class_name": "GRU", "config": {"name": "second"}},
        ... ]})]
        ['gru', 'gru_1']
    """
    config = _mapping("config", config)
    class_name = config.get("class_name")
    if class_name is None and "layers" not in config:
        return [LayerConfig("layer", "", config)]
    if class_name is not None and class_name not in MODELS:
        return [_layer(config, {})]
    inner = config if class_name is None else config.get("config")
    if isinstance(inner, list):  # Sequential before Keras 2.3
        inner = {"layers": inner}
    inner = _mapping("config", inner)
    entries = inner.get("layers")
    if not isinstance(entries, list):
        raise invalid("config", "a list of layers", show(entries))
    entries = [_mapping("config", entry) for entry in entries]
    functional = "input_layers" in inner
    operations = [entry for entry in entries if _is_mask(entry)] if functional else []
    layers: list[LayerConfig] = []
    counts: dict[str, int] = {}
    for entry in entries:
        if not any(entry is each for each in operations):
            layers.append(_layer(entry, counts))
    if functional:
        kept = [entry for entry in entries if not _is_mask(entry)]
        order = _chain(inner, kept, {_name(each): each for each in operations})
        layers = [layers[index] for index in order]
    return [layer for layer in layers if layer.class_name != "InputLayer"]


def _mapping(name: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise invalid(name, "a configuration of Keras, a mapping", show(value))
    return value


def _name(entry: Mapping[str, Any]) -> str:
    inner = entry.get("config")
    named = inner.get("name") if isinstance(inner, Mapping) else None
    name = entry.get("name", named)
    return name if isinstance(name, str) else "unnamed"


def _layer(entry: Mapping[str, Any], counts: dict[str, int]) -> LayerConfig:
    class_name, name = entry.get("class_name"), _name(entry)
    registered = entry.get("registered_name")
    known = class_name if isinstance(class_name, str) else ""
    if known not in GROUPS or registered not in (None, class_name):
        found = registered or class_name
        expected = f"one of {', '.join(GROUPS)}"
        raise invalid(f"the class of layer {show(name)}", expected, show(found))
    group = GROUPS[known]
    number = counts.get(group, 0)
    counts[group] = number + 1
    config = _mapping(f"the config of layer {show(name)}", entry.get("config"))
    return LayerConfig(name, known, config, f"{group}_{number}" if number else group)


def _is_mask(entry: Mapping[str, Any]) -> bool:
    """Whether an entry is the comparison that Keras 3 adds for `mask_zero`."""
    return entry.get("class_name") == "NotEqual"


def _chain(
    model: Mapping[str, Any],
    entries: Sequence[Mapping[str, Any]],
    masks: Mapping[str, Mapping[str, Any]],
) -> list[int]:
    """Return the entries' indices from the input to the output of a chain."""
    names = [_name(entry) for entry in entries]
    after: dict[str, int] = {}
    for index, entry in enumerate(entries):
        source = _source(entry, names, masks)
        if source in after:
            got = f"a fork after {show(source)}" if source else "two inputs"
            raise invalid("config", "layers in a chain", got)
        after[source] = index
    order = [after.get("", -1)]
    while names[order[-1]] in after and len(order) < len(entries):
        order.append(after[names[order[-1]]])
    start, end = _only(model.get("input_layers")), _only(model.get("output_layers"))
    ends = (names[order[0]], names[order[-1]])
    if len(set(order)) != len(entries) or (start, end) != ends:
        expected = "one chain of layers from one input to one output"
        raise invalid("config", expected, f"layers {show(names)}")
    return order


def _only(ends: Any) -> Any:
    """Return the name in ["name", 0, 0] or [["name", 0, 0]], or None."""
    ends = _sequence(ends)
    if len(ends) == 1:
        ends = _sequence(ends[0])
    return ends[0] if len(ends) == 3 else None


def _sequence(value: Any) -> Sequence[Any]:
    """Return a list of JSON, or a tuple where Keras has not made JSON yet."""
    return value if isinstance(value, list | tuple) else []


def _source(
    entry: Mapping[str, Any],
    names: Sequence[str],
    masks: Mapping[str, Mapping[str, Any]],
) -> str:
    """Return the name of the layer that an entry reads, "" for the input."""
    nodes, name = entry.get("inbound_nodes"), _name(entry)
    problem = invalid(
        f"the inputs of layer {show(name)}",
        "the outputs of one other layer, and no more than a mask of zero tokens",
        show(nodes),
    )
    if not isinstance(nodes, list | tuple) or len(nodes) > 1:
        raise problem
    if not nodes:
        return ""
    source, keywords = _read_node(nodes[0])
    for key, value in keywords.items():
        mask = _history(value)
        if key == "mask" and isinstance(mask, str) and mask in masks:
            compared = [
                _read_node(node)[0]
                for node in _sequence(masks[mask].get("inbound_nodes"))
            ]
            if compared == names[:1]:
                continue
        if isinstance(value, Mapping | list | tuple):
            raise problem
    if not isinstance(source, str) or source not in names:
        raise problem
    return source


def _read_node(node: Any) -> tuple[Any, Mapping[str, Any]]:
    """Return what a node reads and its keywords, in the form of Keras 3 or 2."""
    if isinstance(node, Mapping):
        args, keywords = _sequence(node.get("args")), node.get("kwargs", {})
        # A comparison with 0 is the mask; nothing else has a second argument.
        if not isinstance(keywords, Mapping) or list(args[1:]) not in ([], [0]):
            return None, {}
        return _history(args[0]) if args else None, keywords
    read = _sequence(node)
    read = _sequence(read[0]) if len(read) == 1 else []
    if len(read) == 4 and isinstance(read[3], Mapping):
        return read[0], read[3]
    return None, {}


def _history(tensor: Any) -> Any:
    """Return the layer whose first output a serialised tensor is, or None."""
    inner = tensor.get("config") if isinstance(tensor, Mapping) else None
    history = inner.get("keras_history") if isinstance(inner, Mapping) else None
    history = list(_sequence(history))
    return history[0] if history[1:] == [0, 0] else None
