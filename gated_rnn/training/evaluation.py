"""Predictions and losses over more rows than one call should take (layer 4).

Rows go through one compiled program in batches of one size. The last batch is filled
up with repeats of real rows, and what they give is dropped before anything is averaged.
"""

import functools
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gated_rnn.networks.network import Network, reduces_time, steps_shape
from gated_rnn.training.loop import Loss, Metrics, join_metrics
from gated_rnn.types import Params, check_flags, check_positive, invalid

__all__ = ["evaluate", "predict"]

BATCH_AXIS = 1  # of sequences [T, B, F]


def predict(
    net: Network,
    params: Params,
    inputs: Any,
    *,
    mask: Any = None,
    batch_size: int = 32,
) -> np.ndarray:
    """Run a network over many rows, a few at a time, without dropout.

    A second call with the same network and shapes compiles nothing. Inputs stay where
    they are but for the batch that runs; NumPy arrays need not fit on the device.

    Args:
        net: The network; every row starts from its first carry.
        params: Its parameters.
        inputs: `[T, B, F]`, `[T, B, *batch, F]`, or what else the network reads; axis
            1 is cut into batches.
        mask: bool `[T, B, *batch]`, true where a step is real. None: all are.
        batch_size: How many rows run at once; if there are fewer, all of them.

    Returns:
        In host memory, `[T, B, *batch, out_features]`, or `[B, *batch, out_features]`
        for a network that reduces time.

    Raises:
        ValueError: If there is no batch axis, no row, or the mask does not fit.

    Example:
        >>> from gated_rnn import GRU, RNN
        >>> net = RNN(GRU(16))
        >>> params = net.init(jax.random.key(0), in_features=3)
        >>> predict(net, params, np.ones((20, 50, 3), np.float32)).shape
        (20, 50, 16)
    """
    check_positive("batch_size", batch_size)
    shape = steps_shape(net, inputs)
    if len(shape) <= BATCH_AXIS or not shape[BATCH_AXIS]:
        expected = "sequences [T, B, ...] with a batch axis and at least one row"
        raise invalid("inputs", expected, f"[T, *batch] = {shape}")
    if mask is not None:
        check_flags("mask", mask, shape)
    reduced = reduces_time(net)
    batches, axes = (inputs, mask), _axes_of((inputs, mask), BATCH_AXIS)
    outputs = []
    size = min(batch_size, shape[BATCH_AXIS])
    for (some, some_mask), count in _cut(batches, axes, size):
        batch_outputs = np.asarray(_apply(net, params, some, some_mask))
        outputs.append(batch_outputs[:count] if reduced else batch_outputs[:, :count])
    return np.concatenate(outputs, axis=0 if reduced else BATCH_AXIS)


def evaluate(
    loss: Loss,
    params: Params,
    batches: Iterable[Any],
    *,
    weight: Any = None,
    axis: Any = BATCH_AXIS,
    batch_size: int = 32,
) -> dict[str, np.ndarray]:
    """Average a loss and its metrics over many rows.

    The loss is taken of every row by itself, as if it were the only one of its batch:
    with l_b the loss or a metric of row b and w_b its weight, the result is

        sum_b w_b l_b / sum_b w_b

    over all rows of all batches, however unequal these are. That is the loss of all
    rows at once if the loss is a mean over rows, or a mean over real steps and the
    weight counts them. The loss is given no key, so that networks draw no noise.

    A second call with the same functions and shapes compiles nothing, nor do batches
    of another number of rows.

    Args:
        loss: `(params, batch, key) -> (scalar, metrics)`, as in `Problem`.
        params: The parameters.
        batches: Pytrees as the loss takes them, with any numbers of rows: a generator,
            or a list; `[data]` for data in one piece. No tuple: a batch may be one.
            Leaves should be equal in all but rows.
        weight: `batch -> scalar`, the weight of a batch of one row, such as its number
            of real steps. None: all rows weigh the same.
        axis: The axis of the rows: one for all leaves, or a pytree as the `in_axes` of
            `jax.vmap` is; None for a leaf that all rows share.
        batch_size: How many rows run at once; if the first batch has fewer, as many as
            it has.

    Returns:
        `loss` and every metric, in float64 on the host.

    Raises:
        ValueError: If there is no row, leaves differ in their rows, a weight is no
            scalar, or all weights are zero.

    Example:
        >>> def loss(params, batch, key):
        ...     inputs, mask = batch
        ...     errors = jnp.where(mask, inputs - params, 0.0)
        ...     return jnp.sum(errors**2) / jnp.sum(mask), {}
        >>> inputs = np.array([[1.0, 2.0], [3.0, 0.0]])  # [T, B], the last is padding
        >>> mask = np.array([[True, True], [True, False]])
        >>> metrics = evaluate(
        ...     loss, 0.0, [(inputs, mask)], weight=lambda batch: batch[1].sum()
        ... )
        >>> round(float(metrics["loss"]), 4)  # (1 + 4 + 9) / 3
        4.6667
    """
    check_positive("batch_size", batch_size)
    if isinstance(batches, tuple | jax.Array | np.ndarray):
        expected = "a list or generator of batches, [data] for data in one piece"
        raise invalid("batches", expected, f"a {type(batches).__name__}")
    functions = (_as_pytree(loss), _as_pytree(weight or _one))
    size, total, sums = None, 0.0, {}
    for batch in batches:
        axes = _axes_of(batch, axis)
        size = size or min(batch_size, _count_rows(batch, axes))
        for rows, count in _cut(batch, axes, size):
            measured = jax.device_get(_measure(*functions, params, rows, axes))
            weights, values = jax.tree.map(
                lambda leaf, count=count: leaf[:count].astype(np.float64), measured
            )
            counts = weights != 0
            total += weights.sum()
            for name, value in values.items():
                part = np.tensordot(weights[counts], value[counts], axes=1)
                sums[name] = sums.get(name, 0.0) + part
    if not total:
        raise invalid("batches", "at least one row whose weight is not zero", "none")
    return {name: value / total for name, value in sums.items()}


@jax.jit
def _apply(net: Network, params: Params, inputs: Any, mask: Any) -> jax.Array:
    return net.apply(params, inputs, mask=mask)[1]


@functools.partial(jax.jit, static_argnames="axes")
def _measure(
    loss: Any, weight: Any, params: Params, batch: Any, axes: tuple[int | None, ...]
) -> tuple[jax.Array, Metrics]:
    """Return the weight, and the loss and metrics, of each row: `[rows, ...]`."""
    leaves, structure = jax.tree.flatten(batch)

    def measure_row(*leaves: jax.Array) -> tuple[jax.Array, Metrics]:
        row = [
            leaf if axis is None else jnp.expand_dims(leaf, axis)
            for leaf, axis in zip(leaves, axes, strict=True)
        ]
        batch = jax.tree.unflatten(structure, row)
        value, metrics = loss(params, batch, None)
        row_weight = jnp.asarray(weight(batch))
        if row_weight.ndim:
            got = f"shape {row_weight.shape}"
            raise invalid("weight", "a function that returns a scalar", got)
        return row_weight, join_metrics({"loss": value}, metrics)

    return jax.vmap(measure_row, in_axes=axes)(*leaves)


def _one(batch: Any) -> float:
    return 1.0


def _as_pytree(function: Any) -> jax.tree_util.Partial:
    """Make a function an argument of compiled code, with its arrays if it has any."""
    is_pytree = isinstance(function, jax.tree_util.Partial)
    return function if is_pytree else jax.tree_util.Partial(function)


def _axes_of(batch: Any, axis: Any) -> tuple[int | None, ...]:
    """Return the axis of the rows of each leaf, given one for all or a prefix."""

    def repeat(axis: int | None, branch: Any) -> list[int | None]:
        return [axis] * len(jax.tree.leaves(branch))

    def is_none(node: Any) -> bool:
        return node is None

    axes = jax.tree.map(repeat, axis, batch, is_leaf=is_none)
    return tuple(jax.tree.leaves(axes, is_leaf=is_none))


def _count_rows(batch: Any, axes: tuple[int | None, ...]) -> int:
    """Raise unless all leaves have the same number of rows, above 0; return it."""
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(batch)]
    sizes = {
        shape[axis] if -len(shape) <= axis < len(shape) else 0
        for shape, axis in zip(shapes, axes, strict=True)
        if axis is not None
    }
    if len(sizes) != 1 or 0 in sizes:
        expected = f"arrays with the same number of rows on the axes {axes}"
        raise invalid("batches", expected, f"shapes {', '.join(map(str, shapes))}")
    return sizes.pop()


def _cut(
    batch: Any, axes: tuple[int | None, ...], size: int
) -> Iterator[tuple[Any, int]]:
    """Yield batches of `size` rows, each with the number of rows that are no repeats.

    NumPy arrays are cut on the host and JAX arrays on their device.
    """
    num_rows = _count_rows(batch, axes)
    leaves, structure = jax.tree.flatten(batch)
    for first in range(0, num_rows, size):
        count = min(size, num_rows - first)
        rows = first + np.arange(size) % count
        cut = [
            leaf
            if axis is None
            else (jnp if isinstance(leaf, jax.Array) else np).take(leaf, rows, axis)
            for leaf, axis in zip(leaves, axes, strict=True)
        ]
        yield jax.tree.unflatten(structure, cut), count
