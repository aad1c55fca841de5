"""One model over several devices: a loss whose rows are dealt to them (layer 4).

For a model or a batch too large for one device's share. Many seeds of a smaller model
need none of it: `train_seeds` gives whole blocks of them to devices.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from gated_rnn.training.loop import Loss, Metrics
from gated_rnn.types import Params, invalid

__all__ = ["shard_batch", "shard_loss"]

BATCH_AXIS = 1  # of sequences [T, B, F]


def shard_loss(
    loss: Loss,
    mesh: Mesh,
    *,
    axis_name: str = "data",
    axis: Any = BATCH_AXIS,
    weight: Any = None,
) -> Loss:
    """Return a loss that computes its rows on the devices of a mesh axis.

    Every device takes the loss of its own rows, with parameters that all have. With
    l_d the loss or a metric there and w_d the weight of those rows, the result is

        sum_d w_d l_d / sum_d w_d

    and its gradient is that of this number. So it is the loss of all rows at once, up
    to rounding, if the loss is a mean over rows; or a mean over real steps, which
    devices may have more or fewer of, if `weight` counts them. Without `weight` it is
    the mean of the devices' losses. What is no such mean, a sum or a maximum, is not
    what it was; nor is a metric with an axis of rows. A device whose weight is 0 counts
    nothing; its loss and its gradient must be finite, as those of
    `gated_rnn.losses` are.

    It stands wherever a loss does: in `make_train_step`, `Problem` and `train`, under
    `jax.jit`; not in `train_seeds`, whose blocks each run on one device. The state
    is on every device; `shard_batch` puts a batch in place.

    Args:
        loss: `(params, batch, key) -> (scalar, metrics)`, as in `Problem`. Each device
            gives it a key of its own, so the noise differs from that of one device.
        mesh: The devices, such as `jax.make_mesh((4,), ("data",))`.
        axis_name: The axis of the mesh that rows are dealt to.
        axis: The axis of the rows: one for all leaves, or a pytree as the `in_axes` of
            `jax.vmap` is; None for a leaf that all rows share.
        weight: `batch -> scalar`, the weight of a device's rows, such as their number
            of real steps. None: all weigh the same.

    Returns:
        The loss, of the same form. Metrics that are not floats come out as float32.

    Raises:
        ValueError: If the mesh has no such axis; when called, if the rows cannot be
            dealt evenly.

    Example:
        >>> def loss(params, batch, key):
        ...     return jnp.mean((batch - params) ** 2), {}
        >>> mesh = jax.make_mesh((1,), ("data",))
        >>> sharded = jax.jit(shard_loss(loss, mesh))
        >>> batch = shard_batch(jnp.ones((5, 8)), mesh)  # [T, B]
        >>> value, metrics = sharded(3.0, batch, jax.random.key(0))
        >>> float(value)
        4.0
    """
    mesh = _check_mesh(mesh, axis_name)

    def sharded(
        params: Params, batch: Any, key: jax.Array
    ) -> tuple[jax.Array, Metrics]:
        specs = _make_specs(batch, axis, axis_name, mesh.shape[axis_name])

        def local(params: Params, batch: Any, key: jax.Array) -> Any:
            key = jax.random.fold_in(key, jax.lax.axis_index(axis_name))
            value, metrics = loss(params, batch, key)
            share = jnp.float32(1) if weight is None else weight(batch)
            return _average((value, dict(metrics)), share, axis_name)

        shards = jax.shard_map(
            local, mesh=mesh, in_specs=(P(), specs, P()), out_specs=P()
        )
        return shards(params, batch, key)

    return sharded


def shard_batch(
    batch: Any, mesh: Mesh, *, axis_name: str = "data", axis: Any = BATCH_AXIS
) -> Any:
    """Deal the rows of a batch to the devices of a mesh axis.

    Args:
        batch: A pytree of arrays.
        mesh: The devices.
        axis_name: As in `shard_loss`.
        axis: As in `shard_loss`.

    Returns:
        The batch, each device with its rows and with a copy of what all share.

    Raises:
        ValueError: If the mesh has no such axis, or the rows cannot be dealt evenly.
    """
    mesh = _check_mesh(mesh, axis_name)
    specs = _make_specs(batch, axis, axis_name, mesh.shape[axis_name])
    shardings = jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs)
    return jax.device_put(batch, shardings)


def _check_mesh(mesh: Mesh, axis_name: str) -> Mesh:
    """Return the mesh with axes over which XLA may place what it likes.

    `jax.make_mesh` makes axes that refuse an array which lies elsewhere, such as a
    batch that was drawn within the program.
    """
    if axis_name not in mesh.axis_names:
        expected = f"an axis of the mesh, {', '.join(mesh.axis_names)}"
        raise invalid("axis_name", expected, repr(axis_name))
    return Mesh(mesh.devices, mesh.axis_names)


def _make_specs(batch: Any, axis: Any, axis_name: str, num_shards: int) -> Any:
    """Return a PartitionSpec for every leaf."""

    def make_spec(path: Any, leaf: Any, rows: int | None) -> P:
        if rows is None:
            return P()
        shape = jnp.shape(leaf)
        if rows >= len(shape) or shape[rows] % num_shards:
            expected = f"rows on axis {rows} that {num_shards} devices share evenly"
            name = jax.tree_util.keystr(path)
            raise invalid("batch", expected, f"{name} of shape {shape}".lstrip())
        return P(*[None] * rows, axis_name)

    axes = jax.tree.broadcast(axis, batch, is_leaf=lambda leaf: leaf is None)
    return jax.tree_util.tree_map_with_path(
        make_spec, batch, axes, is_leaf=lambda leaf: leaf is None
    )


def _average(values: Any, weight: jax.Array, axis_name: str) -> Any:
    counts = weight != 0
    total = jax.lax.psum(weight, axis_name)

    def average(value: Any) -> jax.Array:
        value = jnp.asarray(value)
        if not jnp.issubdtype(value.dtype, jnp.inexact):
            value = value.astype(jnp.float32)
        weighed = jnp.where(counts, value * weight.astype(value.dtype), 0)
        return jax.lax.psum(weighed, axis_name) / total.astype(value.dtype)

    return jax.tree.map(average, values)
