"""Training of one seed: a pure function of one random key (layer 4).

`make_train_step` makes one update. `start_run` and `advance_run` add what a run draws
from its key: parameters, data set, batches and the randomness of the loss. `train`
loops over them, and so does `train_seeds`: both make the same updates.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gated_rnn.training.optimizer import global_norm
from gated_rnn.types import Params, invalid

__all__ = [
    "Problem",
    "RunInputs",
    "TrainResult",
    "TrainState",
    "advance_run",
    "check_count",
    "check_key",
    "init_train_state",
    "join_metrics",
    "make_train_step",
    "start_run",
    "train",
]

Metrics = dict[str, jax.Array]
Loss = Callable[[Params, Any, jax.Array], tuple[jax.Array, Mapping[str, Any]]]
Optimizer = optax.GradientTransformation | Callable[[Any], optax.GradientTransformation]


class Problem(NamedTuple):
    """What is trained, and on what: pure functions, which know no seeds.

    Each may be a `jax.tree_util.Partial`. `train_seeds` passes the arrays in it to the
    compiled program as arguments, one copy a device for all seeds; an array that a
    plain function closes over is compiled into the program as a constant.

    Attributes:
        init: `(key, hyper) -> params`.
        loss: `(params, batch, key) -> (scalar, metrics)`; metrics is a dict of scalars
            or small arrays, other than `loss` and `grad_norm`; the key differs from
            update to update.
        batch: `(key, step) -> batch`, or `(key, step, dataset) -> batch` if there is a
            `dataset`. The key is the same at every step, so `jax.random.fold_in(key,
            step)` draws anew; step is an int32 scalar, 0 for the first update.
        dataset: `(key, hyper) -> pytree`, called once before training: data that every
            seed draws for itself. It stays in device memory during the whole run.
        validate: `params -> scalar`, or `(params, dataset) -> scalar` if there is a
            `dataset`: what tells the best parameters, lower is better. Only
            `train_seeds` calls it.
    """

    init: Callable[[jax.Array, Any], Params]
    loss: Loss
    batch: Callable[..., Any]
    dataset: Callable[[jax.Array, Any], Any] | None = None
    validate: Callable[..., Any] | None = None


class TrainState(NamedTuple):
    """What an update changes; `step` counts the updates made, an int32 scalar."""

    params: Params
    opt_state: optax.OptState
    step: jax.Array


class RunInputs(NamedTuple):
    """What a run keeps from its first update to its last."""

    batch_key: jax.Array
    loss_key: jax.Array
    dataset: Any
    hyper: Any


class TrainResult(NamedTuple):
    """A finished run; each of `metrics` is `[num_updates, ...]`, before the update."""

    params: Params
    opt_state: optax.OptState
    metrics: Metrics


def init_train_state(
    params: Params, optimizer: optax.GradientTransformation
) -> TrainState:
    """Return the state before the first update."""
    return TrainState(params, optimizer.init(params), step=jnp.zeros((), jnp.int32))


def make_train_step(
    loss: Loss, optimizer: optax.GradientTransformation
) -> Callable[[TrainState, Any, jax.Array], tuple[TrainState, Metrics]]:
    """Build the function that makes one update.

    Args:
        loss: `(params, batch, key) -> (scalar, metrics)`, as in `Problem`.
        optimizer: An optax transformation, such as `make_optimizer()`.

    Returns:
        `train_step(state, batch, key) -> (state, metrics)`, a pure function, not
        compiled. To the metrics of the loss it adds `loss` and `grad_norm`, the global
        norm of the gradient before clipping; all are of the parameters it was given.

    Example:
        >>> def loss(params, batch, key):
        ...     return jnp.square(params - batch), {}
        >>> optimizer = optax.sgd(0.25)
        >>> state = init_train_state(jnp.array(1.0), optimizer)
        >>> train_step = jax.jit(make_train_step(loss, optimizer))
        >>> state, metrics = train_step(state, jnp.array(3.0), jax.random.key(0))
        >>> float(state.params), float(metrics["loss"]), float(metrics["grad_norm"])
        (2.0, 4.0, 4.0)
    """
    value_and_grad = jax.value_and_grad(loss, has_aux=True)

    def train_step(
        state: TrainState, batch: Any, key: jax.Array
    ) -> tuple[TrainState, Metrics]:
        (value, extra), grads = value_and_grad(state.params, batch, key)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = join_metrics({"loss": value, "grad_norm": global_norm(grads)}, extra)
        return TrainState(params, opt_state, state.step + 1), metrics

    return train_step


def train(
    problem: Problem,
    key: jax.Array,
    num_updates: int,
    *,
    optimizer: Optimizer,
    hyper: Any = None,
) -> TrainResult:
    """Train one seed.

    Pure: the result is a function of the arguments, and the call may stand inside
    `jax.jit` or `jax.vmap`. With `jax.random.fold_in(key, i)` for a key it is the run
    of seed i of `train_seeds`, up to rounding.

    Args:
        problem: What is trained, and on what.
        key: A scalar key of `jax.random.key`.
        num_updates: How many updates to make; 0 returns the initial parameters.
        optimizer: An optax transformation, or a function from `hyper` to one.
        hyper: A pytree for `problem.init`, `problem.dataset` and `optimizer`.

    Returns:
        Parameters and optimiser state after the last update, and the metrics of every
        update, `[num_updates, ...]` each.

    Raises:
        ValueError: If an argument is not as said above, or if the loss calls a metric
            `loss` or `grad_norm`.

    Example:
        >>> problem = Problem(
        ...     init=lambda key, hyper: jax.random.normal(key, (2,)),
        ...     loss=lambda params, batch, key: (jnp.sum((params - batch) ** 2), {}),
        ...     batch=lambda key, step: jnp.array([1.0, -1.0]),
        ... )
        >>> result = train(problem, jax.random.key(0), 50, optimizer=optax.sgd(0.1))
        >>> result.metrics["loss"].shape
        (50,)
        >>> bool(jnp.allclose(result.params, jnp.array([1.0, -1.0]), atol=1e-3))
        True
    """
    check_key(key)
    check_count("num_updates", num_updates)
    state, inputs = start_run(problem, optimizer, key, hyper)

    def body(state: TrainState, _: None) -> tuple[TrainState, Metrics]:
        return advance_run(problem, optimizer, state, inputs)

    state, metrics = jax.lax.scan(body, state, length=num_updates)
    return TrainResult(state.params, state.opt_state, metrics)


def start_run(
    problem: Problem, optimizer: Optimizer, key: jax.Array, hyper: Any
) -> tuple[TrainState, RunInputs]:
    """Draw a run's parameters and data set and split its key by what it is for."""
    params_key, dataset_key, batch_key, loss_key = jax.random.split(key, 4)
    params = problem.init(params_key, hyper)
    dataset = None if problem.dataset is None else problem.dataset(dataset_key, hyper)
    state = init_train_state(params, _resolve(optimizer, hyper))
    return state, RunInputs(batch_key, loss_key, dataset, hyper)


def advance_run(
    problem: Problem, optimizer: Optimizer, state: TrainState, inputs: RunInputs
) -> tuple[TrainState, Metrics]:
    """Make the update number `state.step` of a run."""
    dataset = () if problem.dataset is None else (inputs.dataset,)
    batch = problem.batch(inputs.batch_key, state.step, *dataset)
    train_step = make_train_step(problem.loss, _resolve(optimizer, inputs.hyper))
    return train_step(state, batch, jax.random.fold_in(inputs.loss_key, state.step))


def check_key(key: Any) -> None:
    """Raise unless `key` is one new-style random key."""
    is_array = isinstance(key, jax.Array)
    is_key = is_array and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    if not is_key or key.ndim:
        got = f"{key.dtype}{list(key.shape)}" if is_array else repr(key)
        raise invalid("key", "a scalar key made by jax.random.key", got)


def check_count(name: str, value: Any) -> None:
    """Raise unless `value` is an integer of at least 0."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise invalid(name, "an integer of at least 0", repr(value))


def _resolve(optimizer: Optimizer, hyper: Any) -> optax.GradientTransformation:
    if isinstance(optimizer, optax.GradientTransformation):
        return optimizer
    return optimizer(hyper)


def join_metrics(own: Mapping[str, Any], extra: Any) -> Metrics:
    """Join what the loop measures and what the loss does, by different names."""
    if not isinstance(extra, Mapping) or own.keys() & extra.keys():
        names = sorted(extra) if isinstance(extra, Mapping) else repr(extra)
        raise invalid("metrics", f"a dict with names other than {sorted(own)}", names)
    return {name: jnp.asarray(value) for name, value in {**own, **extra}.items()}
