"""The synthetic tasks as something to train: a network, a problem, and what is solved.

Data are drawn afresh for every update, from the seed's key; validation and test are
draws of their own, the same for all seeds and cells. Layer: experiments.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.data import synthetic
from experiments.data.synthetic import Task
from gated_rnn import RNN, Dense, Stack, losses
from gated_rnn.networks import Network
from gated_rnn.training import Problem
from gated_rnn.types import Cell, invalid

TaskName = Literal["adding", "copy", "temporal_order", "selective_recall"]

#: A task is solved when at most this share of the answers is wrong: the measure of
#: Pascanu, Mikolov and Bengio (2013, arXiv:1211.5063) and, for temporal order, close to
#: that of Hochreiter and Schmidhuber (1997).
SOLVED_WRONG = 0.01
#: A sum is right if the squared error of the two numbers' mean is at most this
#: (Pascanu et al.).
ADDING_SQUARED_ERROR = 0.04
#: The stricter measure of Hochreiter and Schmidhuber, of the mean as well: their target
#: is 0.5 + (X1 + X2) / 4 with X = 2 v - 1.
ADDING_ABSOLUTE_ERROR = 0.04


class SyntheticTask(NamedTuple):
    """A task at any length.

    Attributes:
        label: What a person reads.
        in_features: F.
        out_features: 1, or the number of classes.
        draw: `(key, length, batch_size) -> Task`.
        baseline: From a length to the loss of the best predictor without memory.
        is_due: From a batch to bool `[T, B]`: where an answer counts as right or wrong.
    """

    label: str
    in_features: int
    out_features: int
    draw: Callable[[jax.Array, int, int], Task]
    baseline: Callable[[int], float]
    is_due: Callable[[Task], jax.Array]


class Score(NamedTuple):
    """What a network makes of some sequences.

    Attributes:
        loss: Mean squared error, or cross-entropy in nats, over the steps scored.
        wrong: Share of the answers that are wrong.
        far: Of adding, the share wrong by the stricter measure; else as `wrong`.
    """

    loss: Any
    wrong: Any
    far: Any


def make_task(
    name: TaskName,
    *,
    num_symbols: int = 8,
    num_copied: int = 10,
    num_recalled: int = 3,
) -> SyntheticTask:
    """Choose a task.

    Args:
        name: Which.
        num_symbols: Kinds of symbols to copy or recall.
        num_copied: Symbols to copy.
        num_recalled: Symbols to recall.

    Returns:
        The task.

    Raises:
        ValueError: If there is none of this name.

    Examples:
        >>> round(make_task("copy").baseline(1000), 4)
        0.0204
    """
    sizes = {"num_symbols": num_symbols, "num_copied": num_copied}
    match name:
        case "adding":
            draw, baseline = synthetic.adding_problem, synthetic.adding_baseline
            return SyntheticTask("adding", 2, 1, draw, baseline, _scored)
        case "copy":
            draw = functools.partial(synthetic.copy_memory, **sizes)
            baseline = functools.partial(synthetic.copy_baseline, **sizes)
            features, classes = num_symbols + 2, num_symbols + 1
            return SyntheticTask("copy", features, classes, draw, baseline, _not_blank)
        case "temporal_order":
            return SyntheticTask(
                *("temporal order", 8, 4, synthetic.temporal_order),
                *(lambda length: synthetic.temporal_order_baseline(), _scored),
            )
        case "selective_recall":
            sizes = {"num_symbols": num_symbols, "num_recalled": num_recalled}
            return SyntheticTask(
                *("selective recall", num_symbols + 2, num_symbols),
                functools.partial(synthetic.selective_recall, **sizes),
                lambda length: synthetic.selective_recall_baseline(num_symbols),
                _scored,
            )
    raise invalid("task", "one of adding, copy, temporal_order, ...", repr(name))


def make_network(task: SyntheticTask, cell: Cell) -> Stack:
    """Put a linear readout of every step on a cell.

    Args:
        task: Says how many outputs.
        cell: The recurrent layer.

    Returns:
        The network.
    """
    return Stack(RNN(cell), Dense(task.out_features))


def make_problem(
    task: SyntheticTask,
    network: Network,
    lengths: Sequence[int],
    batch_size: int,
    validation: Sequence[Task],
    *,
    measure: Literal["wrong", "loss"] = "wrong",
) -> Problem:
    """State the problem; `hyper["length"]` says which of the lengths a seed has.

    Seeds of all lengths run in one program, which is compiled once, and compute no
    longer than their own length where they run in turn (on a CPU).

    Args:
        task: The task.
        network: What is trained.
        lengths: The lengths.
        batch_size: Sequences of an update.
        validation: Sequences of each length, never trained on.
        measure: What the validation measures: the share of wrong answers, or the loss.

    Returns:
        The problem.
    """

    def init(key: jax.Array, hyper: Any) -> Any:
        return network.init(key, task.in_features)

    def own_length(key: jax.Array, hyper: Any) -> jax.Array:
        return jnp.asarray(hyper.get("length", 0), jnp.int32)

    def batch(key: jax.Array, step: jax.Array, which: jax.Array) -> Any:
        return jax.random.fold_in(key, step), which

    def loss_at(length: int, params: Any, key: jax.Array) -> jax.Array:
        drawn = task.draw(key, length, batch_size)
        return loss_of(task, network.apply(params, drawn.inputs)[1], drawn)

    choose = choose_loss([functools.partial(loss_at, length) for length in lengths])

    def loss(params: Any, batch: Any, key: jax.Array) -> tuple[jax.Array, dict]:
        draw_key, which = batch
        return choose(params, which, draw_key), {}

    def validate(parts: tuple[Task, ...], params: Any, which: jax.Array) -> jax.Array:
        return getattr(_score_at(task, network, parts, params, which), measure)

    part = jax.tree_util.Partial(validate, tuple(validation))
    return Problem(init, loss, batch, own_length, part)


def make_score(
    task: SyntheticTask, network: Network, parts: Sequence[Task]
) -> Callable[[Any], Score]:
    """Build what scores a seed's parameters, for `score_seeds`.

    Args:
        task: The task.
        network: What was trained.
        parts: Sequences of each length.

    Returns:
        From a pair, the parameters and which length they are for, to a `Score`.
    """

    def score(parts: tuple[Task, ...], pair: Any) -> Score:
        return _score_at(task, network, parts, *pair)

    return jax.tree_util.Partial(score, tuple(parts))


def draw_parts(
    task: SyntheticTask, key: jax.Array, lengths: Sequence[int], num_sequences: int
) -> list[Task]:
    """Draw sequences of each length, such as those of a validation.

    Args:
        task: The task.
        key: The draw.
        lengths: The lengths.
        num_sequences: Of each.

    Returns:
        A part for each length.
    """

    @jax.jit
    def draw(key: jax.Array) -> list[Task]:
        return [
            task.draw(jax.random.fold_in(key, length), length, num_sequences)
            for length in lengths
        ]

    return draw(key)


def choose_loss(
    branches: Sequence[Callable[[Any, jax.Array], jax.Array]],
) -> Callable[[Any, jax.Array, jax.Array], jax.Array]:
    """Join losses to one, which computes that of a number, and its gradient with it.

    Else all that the gradients of the others need would be allocated and cleared too.

    Args:
        branches: Each `(params, key) -> loss`.

    Returns:
        `(params, which, key) -> loss`.
    """

    @jax.custom_vjp
    def choose(params: Any, which: jax.Array, key: jax.Array) -> jax.Array:
        return jax.lax.switch(which, branches, params, key)

    def forward(params: Any, which: jax.Array, key: jax.Array) -> tuple:
        both = [jax.value_and_grad(branch) for branch in branches]
        return jax.lax.switch(which, both, params, key)

    def backward(gradient: Any, cotangent: jax.Array) -> tuple:
        return jax.tree.map(lambda leaf: cotangent * leaf, gradient), None, None

    choose.defvjp(forward, backward)
    return choose


def loss_of(task: SyntheticTask, outputs: jax.Array, part: Task) -> jax.Array:
    """Compute the loss of outputs.

    Args:
        task: The task.
        outputs: `[T, B, out_features]`.
        part: What was asked.

    Returns:
        Mean squared error or cross-entropy over the steps that are scored.
    """
    if jnp.issubdtype(part.targets.dtype, jnp.floating):
        return losses.mean_squared_error(outputs, part.targets, part.mask)
    return losses.cross_entropy(outputs, part.targets, part.mask)


def score_of(task: SyntheticTask, outputs: jax.Array, part: Task) -> Score:
    """Compute loss and wrong answers of outputs.

    Args:
        task: The task.
        outputs: `[T, B, out_features]`.
        part: What was asked.

    Returns:
        Scalars.
    """
    due = task.is_due(part)

    def share(flags: jax.Array) -> jax.Array:
        return (flags & due).sum() / due.sum()

    if jnp.issubdtype(part.targets.dtype, jnp.floating):
        off = jnp.abs(outputs - part.targets)[..., 0] / 2  # of the mean of the two
        # So that what is no number is wrong.
        wrong = share(~(off**2 <= ADDING_SQUARED_ERROR))
        far = share(~(off < ADDING_ABSOLUTE_ERROR))
    else:
        wrong = far = share(jnp.argmax(outputs, axis=-1) != part.targets)
    return Score(loss_of(task, outputs, part), wrong, far)


def stretch_means(curves: np.ndarray, num_points: int) -> np.ndarray:
    """Thin curves: the mean of each of so many stretches of equal length.

    Args:
        curves: `[S, N]`; NaN where there is no value.
        num_points: At most so many stretches.

    Returns:
        `[S, at most num_points]`, the last stretch may be shorter; NaN where a stretch
        has no value.

    Examples:
        >>> stretch_means(np.array([[1.0, 3.0, np.nan, 5.0, 7.0]]), 3).tolist()
        [[2.0, 5.0, 7.0]]
    """
    length = -(-curves.shape[1] // num_points)
    stretches = [
        curves[:, start : start + length] for start in range(0, curves.shape[1], length)
    ]
    sums = [np.nansum(stretch, axis=1) for stretch in stretches]
    counts = [np.isfinite(stretch).sum(axis=1) for stretch in stretches]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.stack(sums, axis=1) / np.stack(counts, axis=1)


def _score_at(
    task: SyntheticTask,
    network: Network,
    parts: tuple[Task, ...],
    params: Any,
    which: jax.Array,
) -> Score:
    def score(part: Task) -> Score:
        return score_of(task, network.apply(params, part.inputs)[1], part)

    return jax.lax.switch(which, [functools.partial(score, part) for part in parts])


def _scored(part: Task) -> jax.Array:
    return part.mask


def _not_blank(part: Task) -> jax.Array:
    return part.targets > 0
