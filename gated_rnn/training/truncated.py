"""Truncated backpropagation through time (layer 4).

A long sequence is cut into pieces along time. Each piece makes one update; the carry is
handed on to the next one as a constant, so that no gradient reaches further back than
the piece. Memory and the length of the gradient's path are those of a piece.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from gated_rnn.training.loop import Metrics, TrainState, join_metrics
from gated_rnn.training.optimizer import global_norm
from gated_rnn.types import Carry, Params, check_positive, invalid

__all__ = ["make_truncated_step", "truncated_epoch"]

TruncatedLoss = Callable[
    [Params, Carry, Any, jax.Array], tuple[jax.Array, tuple[Carry, Mapping[str, Any]]]
]
TruncatedStep = Callable[
    [TrainState, Carry, Any, jax.Array], tuple[TrainState, Carry, Metrics]
]


def make_truncated_step(
    loss: TruncatedLoss, optimizer: optax.GradientTransformation
) -> TruncatedStep:
    """Build the function that makes one update on one piece of a sequence.

    With c the carry that comes in, the gradient is that of

        params -> loss(params, stop_gradient(c), batch, key)

    Args:
        loss: `(params, carry, batch, key) -> (scalar, (carry, metrics))`: starts from
            the carry and returns the one after the piece; metrics as in `Problem`.
        optimizer: An optax transformation, such as `make_optimizer()`.

    Returns:
        `train_step(state, carry, batch, key) -> (state, carry, metrics)`, a pure
        function, not compiled. To the metrics it adds `loss` and `grad_norm`, as
        `make_train_step` does. The carry may be None if the loss can start from it:
        so a network that learns its first carry gets a gradient for it.

    Raises:
        ValueError: By `train_step`, if the loss returns anything else or calls a
            metric `loss` or `grad_norm`.

    Example:
        >>> from gated_rnn.training import init_train_state
        >>> def loss(params, carry, batch, key):  # a sum that leaks
        ...     for value in batch:
        ...         carry = params * carry + value
        ...     return carry, (carry, {})
        >>> optimizer = optax.sgd(0.0)
        >>> state = init_train_state(jnp.array(0.5), optimizer)
        >>> train_step = make_truncated_step(loss, optimizer)
        >>> key = jax.random.key(0)
        >>> _, carry, _ = train_step(state, jnp.array(0.0), jnp.array([8.0]), key)
        >>> _, carry, metrics = train_step(state, carry, jnp.array([1.0]), key)
        >>> float(carry), float(metrics["grad_norm"])
        (5.0, 8.0)

    References:
        R. Williams, J. Peng: An efficient gradient-based algorithm for on-line training
        of recurrent network trajectories, 1990, doi 10.1162/neco.1990.2.4.490.
    """
    value_and_grad = jax.value_and_grad(loss, has_aux=True)

    def train_step(
        state: TrainState, carry: Carry, batch: Any, key: jax.Array
    ) -> tuple[TrainState, Carry, Metrics]:
        carry = jax.lax.stop_gradient(carry)
        (value, extra), grads = value_and_grad(state.params, carry, batch, key)
        if not isinstance(extra, tuple) or len(extra) != 2:
            expected = "a function that returns (scalar, (carry, metrics))"
            raise invalid("loss", expected, f"{type(extra).__name__} beside the scalar")
        carry, extra = extra
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = join_metrics({"loss": value, "grad_norm": global_norm(grads)}, extra)
        return TrainState(params, opt_state, state.step + 1), carry, metrics

    return train_step


def truncated_epoch(
    train_step: TruncatedStep,
    state: TrainState,
    carry: Carry,
    batch: Any,
    key: jax.Array,
    *,
    piece_size: int,
) -> tuple[TrainState, Carry, Metrics]:
    """Go once through a batch of long sequences, an update a piece, in order.

    Pure. All whole pieces are one `jax.lax.scan`; steps that are left make a last,
    shorter piece. With `piece_size` of at least T it is one update by full
    backpropagation. A `PieceSchedule` chooses the size from epoch to epoch.

    Every piece is given the same key. A network draws its noise by the time that its
    carry holds, so the noise is that of one run over the whole; a loss that draws for
    itself should fold in a time that it finds in the batch.

    Args:
        train_step: As made by `make_truncated_step`.
        state: The state before the first piece.
        carry: The carry before the first step, of the shapes that the loss returns.
        batch: A pytree; the first axis of every leaf is time, `[T, ...]`, T > 0.
        key: Key of the noise of this epoch.
        piece_size: Steps in a piece; static.

    Returns:
        The state after the last piece, the carry after the last step, and the metrics
        of each piece, `[ceil(T / piece_size), ...]`.

    Raises:
        ValueError: If an argument is not as said above, or if a metric has another
            shape in the shorter piece.

    Example:
        >>> from gated_rnn import GRU, RNN, Dense, Stack, losses
        >>> from gated_rnn.training import init_train_state
        >>> net = Stack(RNN(GRU(8)), Dense(1))
        >>> def loss(params, carry, batch, key):
        ...     inputs, targets = batch
        ...     carry, outputs = net.apply(params, inputs, carry, key=key)
        ...     return losses.mean_squared_error(outputs, targets), (carry, {})
        >>> optimizer = optax.adam(1e-3)
        >>> train_step = make_truncated_step(loss, optimizer)
        >>> static = ("train_step", "piece_size")
        >>> epoch = jax.jit(truncated_epoch, static_argnames=static)
        >>> key = jax.random.key(0)
        >>> state = init_train_state(net.init(key, in_features=3), optimizer)
        >>> batch = jnp.ones((50, 2, 3)), jnp.zeros((50, 2, 1))
        >>> start = net.init_carry((2,))
        >>> state, carry, metrics = epoch(
        ...     train_step, state, start, batch, key, piece_size=20
        ... )
        >>> int(state.step), metrics["loss"].shape
        (3, (3,))
    """
    check_positive("piece_size", piece_size)
    num_steps = _check_batch(batch)

    def body(
        loop: tuple[TrainState, Carry], piece: Any
    ) -> tuple[tuple[TrainState, Carry], Metrics]:
        state, carry = loop
        state, after, metrics = train_step(state, carry, piece, key)
        _check_carry(carry, after)
        return (state, after), metrics

    num_whole = num_steps // piece_size
    whole = num_whole * piece_size
    curves: Metrics = {}
    if num_whole:
        pieces = jax.tree.map(
            lambda x: x[:whole].reshape(num_whole, piece_size, *x.shape[1:]), batch
        )
        (state, carry), curves = jax.lax.scan(body, (state, carry), pieces)
    if whole < num_steps:
        rest = jax.tree.map(lambda x: x[whole:], batch)
        (state, carry), last = body((state, carry), rest)
        curves = _append(curves, last)
    return state, carry, curves


def _check_batch(batch: Any) -> int:
    """Raise unless all leaves are `[T, ...]` with one T > 0; return T."""
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(batch)]
    sizes = {shape[:1] for shape in shapes}
    if len(sizes) != 1 or sizes & {(), (0,)}:
        expected = "arrays [T, ...] with the same T > 0"
        raise invalid("batch", expected, f"shapes {', '.join(map(str, shapes))}")
    return shapes[0][0]


def _check_carry(before: Carry, after: Carry) -> None:
    """Raise unless the loss returns a carry like the one it was given."""

    def describe(carry: Carry) -> Any:
        return jax.tree.map(lambda leaf: str(jax.typeof(leaf)), carry)

    expected, got = describe(after), describe(before)
    if expected != got or jax.tree.structure(expected) != jax.tree.structure(got):
        expected = f"a carry like the one that the loss returns, {expected}"
        raise invalid("carry", expected, got)


def _append(curves: Metrics, last: Metrics) -> Metrics:
    """Add the metrics of one more piece to `[pieces, ...]`, or to none."""
    joined = {}
    for name, value in last.items():
        if not curves:
            joined[name] = value[None]
            continue
        shape = curves[name].shape[1:]
        if value.shape != shape:
            expected = f"the shape {shape} in the last, shorter piece too"
            raise invalid(f"metrics[{name!r}]", expected, f"shape {value.shape}")
        joined[name] = jnp.concatenate([curves[name], value[None]])
    return joined
