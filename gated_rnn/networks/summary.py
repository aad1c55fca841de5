"""What a network consists of: parameters, bytes and operations of each layer (layer 3).

Nothing is computed: parameters are counted from shapes, and operations from the jaxpr
of one step.
"""

import copy
import dataclasses
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr

from gated_rnn.networks.network import Network, reads_tokens
from gated_rnn.types import DType, Params, check_positive, invalid

__all__ = ["LayerSummary", "Summary", "count_parameters", "summarize"]

# Primitives that compute no number: shapes, indices, choices, and notes to a compiler.
MOVES = frozenset[str]().union(
    ("broadcast_in_dim", "concatenate", "expand_dims", "iota", "pad", "reshape", "rev"),
    ("split", "squeeze", "transpose", "dynamic_slice", "dynamic_update_slice", "slice"),
    ("gather", "scatter", "select_n", "convert_element_type", "reduce_precision"),
    ("copy", "copy_p", "device_put", "name", "optimization_barrier", "pcast", "pvary"),
    ("sharding_constraint", "stop_gradient"),
)
COLUMNS = ("layer", "type", "in", "out", "parameters", "bytes", "operations")


class LayerSummary(NamedTuple):
    """One layer, or a whole network.

    Attributes:
        path: Where the layer stands: its index, or the name of its field, in each of
            the layers around it, as "1.forward"; "total" for the whole network.
        name: Its type, and that of its cell.
        in_features: F; None for a layer that reads tokens.
        out_features: Features of its outputs.
        num_parameters: How many numbers are learned.
        num_bytes: The memory they take.
        matmul_operations: Multiplications and additions of the matmuls of one step of
            one row.
        elementwise_operations: The other operations on floating-point numbers, an
            exponential or a tanh counted as one.
    """

    path: str
    name: str
    in_features: int | None
    out_features: int | None
    num_parameters: int
    num_bytes: int
    matmul_operations: int
    elementwise_operations: int

    @property
    def operations(self) -> int:
        """All operations of one step of one row."""
        return self.matmul_operations + self.elementwise_operations


class Summary(NamedTuple):
    """A table of layers; `str` prints it.

    Attributes:
        layers: A row for each layer, outer ones before those in them, whose numbers
            they include; a network that is no composition is its only layer.
        total: The whole network.
    """

    layers: tuple[LayerSummary, ...]
    total: LayerSummary

    def __str__(self) -> str:
        rows = [COLUMNS, *map(_cells, (*self.layers, self.total))]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(
                cell.ljust(width) if column < 2 else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
        return "\n".join([*lines[:-1], "-" * len(lines[0]), lines[-1]])


def count_parameters(params: Params) -> int:
    """Return how many numbers a pytree of arrays holds.

    Examples:
        >>> from gated_rnn import GRU
        >>> count_parameters(GRU(50).init(jax.random.key(0), in_features=1))
        7850
    """
    return sum(math.prod(jnp.shape(leaf)) for leaf in jax.tree.leaves(params))


def summarize(
    net: Network, in_features: int | None = None, *, dtype: DType = jnp.float32
) -> Summary:
    """Count the parameters, bytes and operations of a network, layer by layer.

    Operations are those of one step of one row, without dropout: 2 for each
    multiplication and addition of a matmul, 1 for each element of any other arithmetic.
    Moving, choosing, comparing and counting (integers) is free. The body of a
    `while` loop, whose number of runs is unknown, counts once.

    Args:
        net: The network.
        in_features: F; None for a network that reads tokens.
        dtype: dtype of the parameters and of the inputs.

    Returns:
        A table, which `str` prints.

    Raises:
        ValueError: If `in_features` does not fit the network.

    Examples:
        >>> from gated_rnn import LSTM, RNN, Dense, Stack
        >>> print(summarize(Stack(RNN(LSTM(16)), Dense(1)), in_features=3))
        layer  type       in  out  parameters  bytes  operations
        0      RNN(LSTM)   3   16       1,280  5,120       2,704
        1      Dense      16    1          17     68          33
        --------------------------------------------------------
        total  Stack       3    1       1,297  5,188       2,737
    """
    if not hasattr(net, "apply"):
        raise invalid("net", "a network such as RNN(cell)", type(net).__name__)
    if reads_tokens(net):
        inputs = jax.ShapeDtypeStruct((1,), jnp.int32)
    else:
        check_positive("in_features", in_features)
        inputs = jax.ShapeDtypeStruct((1, in_features), dtype)
    root = _Probe("total", net)

    def run(key: jax.Array, inputs: jax.Array) -> Any:
        return root.apply(root.init(key, in_features, dtype), inputs)

    jax.eval_shape(run, jax.random.key(0), inputs)
    total, *layers = map(_summarize_layer, root.walk())
    return Summary(tuple(layers or [total._replace(path="0")]), total)


class _Probe:
    """Stands for a layer in the composition around it and notes what it is given.

    The layers in it are replaced by probes too, in a copy.
    """

    def __init__(self, path: str, layer: Any):
        self.path = path
        self.layer = layer
        self.in_features: int | None = None
        self.params: Params = ()
        self.call: tuple[str, tuple[Any, ...], dict[str, Any]] | None = None
        self._probes: list[_Probe] = []
        self._probed = copy.copy(layer)
        fields = dataclasses.fields(layer) if dataclasses.is_dataclass(layer) else ()
        for field in fields:
            value = getattr(layer, field.name)
            if _is_layer(value):
                value = self._probe(field.name, value)
            elif isinstance(value, tuple) and any(map(_is_layer, value)):
                value = tuple(self._probe(str(i), one) for i, one in enumerate(value))
            else:
                continue
            object.__setattr__(self._probed, field.name, value)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._probed, name)

    def init(self, key: jax.Array, in_features: int | None, dtype: DType) -> Params:
        params = self._probed.init(key, in_features, dtype)
        self.in_features, self.params = in_features, _shapes(params)
        return params

    def apply(self, *args: Any, **options: Any) -> Any:
        self.call = ("apply", _shapes(args), _shapes(options))
        return self._probed.apply(*args, **options)

    def step(self, *args: Any, **options: Any) -> Any:
        self.call = ("step", _shapes(args), _shapes(options))
        return self._probed.step(*args, **options)

    def walk(self) -> "Iterator[_Probe]":
        yield self
        for probe in self._probes:
            yield from probe.walk()

    def _probe(self, name: str, layer: Any) -> "_Probe":
        path = name if self.path == "total" else f"{self.path}.{name}"
        self._probes.append(_Probe(path, layer))
        return self._probes[-1]


def _is_layer(value: Any) -> bool:
    return all(hasattr(value, name) for name in ("init_carry", "apply", "step"))


def _shapes(tree: Any) -> Any:
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf)), tree
    )


def _summarize_layer(probe: _Probe) -> LayerSummary:
    layer, name = probe.layer, type(probe.layer).__name__
    if hasattr(layer, "cell"):
        name = f"{name}({type(layer.cell).__name__})"
    own = layer.out_features
    operations = (0, 0)  # of a layer that is never called
    if probe.call is not None:
        method, args, options = probe.call
        operations = _count(jax.make_jaxpr(getattr(layer, method))(*args, **options))
    leaves = jax.tree.leaves(probe.params)
    return LayerSummary(
        path=probe.path,
        name=name,
        in_features=probe.in_features,
        out_features=probe.in_features if own is None else own,
        num_parameters=count_parameters(probe.params),
        num_bytes=sum(leaf.size * leaf.dtype.itemsize for leaf in leaves),
        matmul_operations=operations[0],
        elementwise_operations=operations[1],
    )


def _count(jaxpr: Any) -> tuple[int, int]:
    """Return the operations of matmuls and the others, sub-jaxprs included."""
    matmul = elementwise = 0
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        inner = [_count(sub) for sub in _sub_jaxprs(equation.params)]
        name = equation.primitive.name
        if name == "cond":
            inner = [max(inner, key=sum)]
        if inner:
            times = equation.params["length"] if name == "scan" else 1
            matmul += times * sum(counts[0] for counts in inner)
            elementwise += times * sum(counts[1] for counts in inner)
        elif name == "dot_general":
            matmul += _count_matmul(equation)
        elif name not in MOVES:
            elementwise += _count_elements(equation)
    return matmul, elementwise


def _sub_jaxprs(params: dict[str, Any]) -> Iterator[Any]:
    for value in params.values():
        for one in value if isinstance(value, tuple | list) else (value,):
            if isinstance(one, ClosedJaxpr | Jaxpr):
                yield one


def _count_matmul(equation: Any) -> int:
    (contracted, _), _ = equation.params["dimension_numbers"]
    shape = equation.invars[0].aval.shape
    terms = math.prod(shape[axis] for axis in contracted)
    return 2 * terms * math.prod(equation.outvars[0].aval.shape)


def _count_elements(equation: Any) -> int:
    """Return the size of the largest array, which for a reduction is what it reads."""
    made = [variable.aval for variable in equation.outvars]
    if not any(jnp.issubdtype(aval.dtype, jnp.floating) for aval in made):
        return 0
    read = [variable.aval for variable in equation.invars]
    return max(math.prod(aval.shape) for aval in (*made, *read))


def _cells(row: LayerSummary) -> tuple[str, ...]:
    numbers = (
        row.in_features,
        row.out_features,
        row.num_parameters,
        row.num_bytes,
        row.operations,
    )
    return (row.path, row.name, *("-" if n is None else f"{n:,}" for n in numbers))
