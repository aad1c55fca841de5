"""Hyper-parameters that differ from seed to seed: grids and random searches (layer 5).

A search is a set of seeds, each with values of its own, for one call of `train_seeds`:
one compiled program, one learning curve a seed.
"""

import itertools
import zlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from gated_rnn.training.loop import check_key
from gated_rnn.types import check_positive, invalid

__all__ = ["Points", "choice", "grid", "log_uniform", "random_search", "uniform"]

Sampler = Callable[[np.ndarray], Any]
NUMBERS = "biuf"  # kinds of dtype: bool, integers, floats


class Points(NamedTuple):
    """Seeds and their values, the repeats of a point next to each other.

    A result `[S, ...]` by point and repeat is `result.reshape(-1, repeats, ...)`.

    Attributes:
        seed_ids: int64 `[S]`, for `train_seeds`: `0, 1, ..., S - 1`.
        hyper: By name `[S]`, for `train_seeds`.
        point: Which point a seed belongs to, int64 `[S]`.
        repeat: The number of the repeat, int64 `[S]`. Keys are drawn by the seed's id
            and differ between all seeds; where points should share what they draw,
            such as their data, let `hyper` hold it and draw by it.
    """

    seed_ids: np.ndarray
    hyper: dict[str, np.ndarray]
    point: np.ndarray
    repeat: np.ndarray


def grid(*, repeats: int = 1, **values: Sequence[Any] | np.ndarray) -> Points:
    """Return every combination of some values.

    Args:
        repeats: How many seeds each point gets.
        **values: By name the values to try, numbers `[n]`; the last varies fastest.

    Returns:
        The seeds; S is the product of the numbers of values, times `repeats`.

    Raises:
        ValueError: If nothing is given, or what is given is not numbers `[n]`, n > 0.

    Example:
        >>> points = grid(learning_rate=[1e-3, 1e-2], max_grad_norm=[1, 5], repeats=3)
        >>> points.seed_ids.size
        12
        >>> points.hyper["learning_rate"][::3], points.hyper["max_grad_norm"][::3]
        (array([0.001, 0.001, 0.01 , 0.01 ]), array([1, 5, 1, 5]))
    """
    if not values:
        raise invalid("values", "at least one hyper-parameter", "none")
    columns = {name: _check_numbers(name, column) for name, column in values.items()}
    rows = itertools.product(*(range(column.size) for column in columns.values()))
    chosen = np.array(list(rows)).T
    points = {
        name: column[indices]
        for (name, column), indices in zip(columns.items(), chosen, strict=True)
    }
    return _repeat(points, repeats)


def random_search(
    key: jax.Array, num_points: int, *, repeats: int = 1, **samplers: Sampler
) -> Points:
    """Draw points at random.

    What is drawn depends on the key, the name of the hyper-parameter and the number of
    the point alone: a longer search begins with the points of a shorter one, and one
    more hyper-parameter changes nothing for the others.

    Args:
        key: A scalar key of `jax.random.key`; not the one of the training.
        num_points: How many points to draw.
        repeats: How many seeds each point gets.
        **samplers: By name `log_uniform(...)`, `uniform(...)`, `choice(...)`, or any
            function from numbers `[num_points]`, uniform in [0, 1), to values: an
            inverse distribution function.

    Returns:
        The seeds; S is `num_points` times `repeats`.

    Raises:
        ValueError: If an argument is not as said above.

    Example:
        >>> points = random_search(
        ...     jax.random.key(0),
        ...     20,
        ...     learning_rate=log_uniform(1e-4, 1e-1),
        ...     forget_bias=choice([0.0, 1.0, 2.0]),
        ... )
        >>> points.hyper["learning_rate"].shape, points.hyper["forget_bias"].shape
        ((20,), (20,))
    """
    check_key(key)
    check_positive("num_points", num_points)
    if not samplers:
        raise invalid("samplers", "at least one hyper-parameter", "none")
    points = {}
    for name, sampler in samplers.items():
        if not callable(sampler):
            expected = "a sampler such as uniform(0.0, 1.0)"
            raise invalid(name, expected, repr(sampler))
        name_key = jax.random.fold_in(key, zlib.crc32(name.encode()))
        drawn = _check_numbers(name, sampler(_draw(name_key, num_points)))
        if drawn.size != num_points:
            raise invalid(name, f"a sampler of {num_points} values", drawn.size)
        points[name] = drawn
    return _repeat(points, repeats)


def uniform(low: float, high: float) -> Sampler:
    """Return a sampler of numbers between two, all alike.

    Args:
        low: The lower end.
        high: The upper end, above it.

    Raises:
        ValueError: If they are not finite, or not in this order.

    Example:
        >>> uniform(2.0, 4.0)(np.array([0.0, 0.5]))
        array([2., 3.])
    """
    if not -np.inf < low < high < np.inf:
        raise invalid("low, high", "finite numbers, low < high", (low, high))
    return lambda quantiles: low + (high - low) * quantiles


def log_uniform(low: float, high: float) -> Sampler:
    """Return a sampler of numbers between two whose logarithms are all alike.

    Args:
        low: The lower end, above 0.
        high: The upper end, above it.

    Raises:
        ValueError: If they are not finite, positive, and in this order.

    Example:
        >>> log_uniform(1e-4, 1e-2)(np.array([0.0, 0.5])).round(6)
        array([0.0001, 0.001 ])
    """
    if not 0 < low < high < np.inf:
        raise invalid("low, high", "finite numbers, 0 < low < high", (low, high))
    return lambda quantiles: low * (high / low) ** quantiles


def choice(values: Sequence[Any] | np.ndarray) -> Sampler:
    """Return a sampler of some values, all alike.

    Args:
        values: Numbers `[n]`, n > 0.

    Raises:
        ValueError: If they are something else.

    Example:
        >>> choice([8, 16, 32])(np.array([0.0, 0.5, 0.9]))
        array([ 8, 16, 32])
    """
    column = _check_numbers("values", values)
    return lambda quantiles: column[(quantiles * column.size).astype(int)]


@jax.jit
def _draw_each(key: jax.Array, numbers: jax.Array) -> jax.Array:
    def draw(number: jax.Array) -> jax.Array:
        return jax.random.uniform(jax.random.fold_in(key, number), dtype="float32")

    return jax.vmap(draw)(numbers)


def _draw(key: jax.Array, num_points: int) -> np.ndarray:
    numbers = np.arange(num_points, dtype=np.uint32)
    return np.asarray(_draw_each(key, numbers), np.float64)


def _check_numbers(name: str, values: Any) -> np.ndarray:
    column = np.asarray(values)
    if column.ndim != 1 or not column.size or column.dtype.kind not in NUMBERS:
        raise invalid(name, "numbers [n], at least one", repr(values))
    return column


def _repeat(points: dict[str, np.ndarray], repeats: int) -> Points:
    check_positive("repeats", repeats)
    num_points = next(iter(points.values())).size
    return Points(
        np.arange(num_points * repeats),
        {name: np.repeat(column, repeats) for name, column in points.items()},
        np.repeat(np.arange(num_points), repeats),
        np.tile(np.arange(repeats), num_points),
    )
