"""Tasks that ask for memory: adding, copying, temporal order, selective recall.

Pure functions of a key. Each has a baseline: the loss of the best predictor that knows
the step number and the input of the step, but nothing before. Layer: experiments
(data).
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gated_rnn.types import check_positive, invalid


class Task(NamedTuple):
    """A batch; time-major.

    Attributes:
        inputs: float32 `[T, B, F]`.
        targets: What to predict at each step: float32 `[T, B, 1]`, or the number of a
            class, int32 `[T, B]`. Where the mask is false it is 0 and means nothing.
        mask: bool `[T, B]`, the steps that are scored.
    """

    inputs: jax.Array
    targets: jax.Array
    mask: jax.Array


def adding_problem(key: jax.Array, num_steps: int, batch_size: int) -> Task:
    """Draw sequences of numbers, two of them marked: what is the sum of these two?

    Args:
        key: The draw.
        num_steps: T, at least 2.
        batch_size: B.

    Returns:
        Inputs `[T, B, 2]`: a number uniform in [0, 1), and a marker that is 1 at one
        step of each half of the sequence and else 0. Targets `[T, B, 1]`, scored by the
        squared error at the last step alone.

    Raises:
        ValueError: If a size is out of range.

    References:
        S. Hochreiter and J. Schmidhuber, "Long Short-Term Memory", 1997,
        doi:10.1162/neco.1997.9.8.1735. In the form of M. Arjovsky, A. Shah and
        Y. Bengio, "Unitary Evolution Recurrent Neural Networks", 2016,
        arXiv:1511.06464.
    """
    _check_sizes(num_steps, 2, batch_size)
    values_key, first_key, second_key = jax.random.split(key, 3)
    values = jax.random.uniform(values_key, (num_steps, batch_size))
    half, steps = num_steps // 2, jnp.arange(num_steps)[:, None]
    first = jax.random.randint(first_key, (batch_size,), 0, half)
    second = jax.random.randint(second_key, (batch_size,), half, num_steps)
    marked = (steps == first) | (steps == second)
    sums = jnp.where(marked, values, 0.0).sum(axis=0)
    mask = jnp.broadcast_to(steps == num_steps - 1, marked.shape)
    inputs = jnp.stack([values, marked.astype(values.dtype)], axis=-1)
    return Task(inputs, jnp.where(mask, sums, 0.0)[..., None], mask)


def adding_baseline(num_steps: int) -> float:
    """Give the mean squared error of predicting the sum without memory.

    The two numbers have a variance of 1/12 each, which makes 1/6 for the constant 1.
    If the last step is marked, one of ceil(T / 2) times, its number is known.

    Args:
        num_steps: T, at least 2.

    Returns:
        The loss.

    Examples:
        >>> round(adding_baseline(100), 4)
        0.165
    """
    _check_sizes(num_steps, 2, 1)
    known = 1 / (num_steps - num_steps // 2)
    return (2 - known) / 12


def copy_memory(
    key: jax.Array,
    delay: int,
    batch_size: int,
    *,
    num_symbols: int = 8,
    num_copied: int = 10,
) -> Task:
    """Draw symbols that must be said again after a delay.

    The symbols, then `delay - 1` blanks and a delimiter, then as many blanks as there
    were symbols, at which the symbols are due, in their order. Until then the answer
    is blank.

    Args:
        key: The draw.
        delay: Steps from the last symbol to the delimiter, at least 1.
        batch_size: B.
        num_symbols: Kinds of symbols, A.
        num_copied: Number of symbols, K.

    Returns:
        With T = delay + 2 K: inputs `[T, B, A + 2]`, one-hot (blank, symbols,
        delimiter); targets int32 `[T, B]`, 0 for blank and 1 to A for a symbol; every
        step is scored by cross-entropy over A + 1 classes.

    Raises:
        ValueError: If a size is out of range.

    References:
        S. Hochreiter and J. Schmidhuber, 1997, doi:10.1162/neco.1997.9.8.1735; in the
        form of M. Arjovsky, A. Shah and Y. Bengio, 2016, arXiv:1511.06464.
    """
    _check_sizes(delay, 1, batch_size)
    check_positive("num_symbols", num_symbols)
    check_positive("num_copied", num_copied)
    symbols = jax.random.randint(key, (num_copied, batch_size), 1, num_symbols + 1)
    num_steps = delay + 2 * num_copied
    blank = jnp.zeros((num_steps, batch_size), jnp.int32)
    shown = blank.at[:num_copied].set(symbols)
    shown = shown.at[num_copied + delay - 1].set(num_symbols + 1)
    targets = blank.at[-num_copied:].set(symbols)
    inputs = jax.nn.one_hot(shown, num_symbols + 2)
    return Task(inputs, targets, jnp.ones((num_steps, batch_size), bool))


def copy_baseline(delay: int, *, num_symbols: int = 8, num_copied: int = 10) -> float:
    """Give the cross-entropy a step, in nats, of copying without memory.

    Blank is sure until the symbols are due, and then each is as likely:
    K ln A / (delay + 2 K).

    Args:
        delay: As in `copy_memory`.
        num_symbols: A.
        num_copied: K.

    Returns:
        The loss.

    Examples:
        >>> round(copy_baseline(1000), 4)
        0.0204
    """
    _check_sizes(delay, 1, 1)
    return num_copied * math.log(num_symbols) / (delay + 2 * num_copied)


def temporal_order(key: jax.Array, num_steps: int, batch_size: int) -> Task:
    """Draw sequences in which only the order of two symbols counts.

    Distractors a, b, c, d, but for a start E at step 0, a trigger B at the last step,
    and X or Y at a step in [T/10, 2T/10) and at one in [T/2, 6T/10). At the trigger the
    order is due: XX, XY, YX or YY. A sequence has T to T + T/10 steps, after which its
    inputs are zeros.

    Args:
        key: The draw.
        num_steps: T, the shortest length, at least 10.
        batch_size: B.

    Returns:
        Inputs `[T + T // 10, B, 8]`, one-hot (E, B, a, b, c, d, X, Y); targets int32,
        0 to 3, scored by cross-entropy at the trigger alone.

    Raises:
        ValueError: If a size is out of range.

    References:
        S. Hochreiter and J. Schmidhuber, "Long Short-Term Memory", 1997, experiment 6a
        (T = 100), doi:10.1162/neco.1997.9.8.1735.
    """
    _check_sizes(num_steps, 10, batch_size)
    noise_key, length_key, first_key, second_key, symbol_key = jax.random.split(key, 5)
    longest, tenth = num_steps + num_steps // 10, num_steps // 10
    columns = (batch_size,)
    lengths = jax.random.randint(length_key, columns, num_steps, longest + 1)
    first = tenth + jax.random.randint(first_key, columns, 0, tenth)
    second = num_steps // 2 + jax.random.randint(second_key, columns, 0, tenth)
    symbols = jax.random.randint(symbol_key, (2, batch_size), 0, 2)
    steps = jnp.arange(longest)[:, None]
    shown = jax.random.randint(noise_key, (longest, batch_size), 2, 6)
    shown = jnp.where(steps == 0, 0, shown)
    shown = jnp.where(steps == first, 6 + symbols[0], shown)
    shown = jnp.where(steps == second, 6 + symbols[1], shown)
    mask = steps == lengths - 1
    shown = jnp.where(mask, 1, shown)
    shown = jnp.where(steps < lengths, shown, -1)  # one_hot makes zeros of it
    targets = jnp.where(mask, 2 * symbols[0] + symbols[1], 0)
    return Task(jax.nn.one_hot(shown, 8), targets, mask)


def temporal_order_baseline() -> float:
    """Give the cross-entropy, in nats, of guessing one of four orders: ln 4."""
    return math.log(4)


def selective_recall(
    key: jax.Array,
    num_steps: int,
    batch_size: int,
    *,
    num_symbols: int = 8,
    num_recalled: int = 3,
) -> Task:
    """Draw symbols of which the marked ones must be said again, in their order.

    Distractors are symbols like the others and differ by the marker alone, so that a
    cell must choose what it writes and protect it from what comes after.

    Args:
        key: The draw.
        num_steps: Steps of symbols, T, at least K.
        batch_size: B.
        num_symbols: Kinds of symbols, A.
        num_recalled: Marked symbols of a sequence, K.

    Returns:
        Inputs `[T + K, B, A + 2]`: the symbol one-hot, the marker, and a cue that is 1
        at the last K steps, where there is no symbol. Targets int32, 0 to A - 1, scored
        by cross-entropy at the last K steps alone.

    Raises:
        ValueError: If a size is out of range.

    References:
        The denoising task of L. Jing et al., "Gated Orthogonal Recurrent Units: On
        Learning to Forget", 2017, arXiv:1706.02761, with distractors that look like
        what is asked for.
    """
    check_positive("num_symbols", num_symbols)
    check_positive("num_recalled", num_recalled)
    _check_sizes(num_steps, num_recalled, batch_size)
    symbol_key, place_key = jax.random.split(key)
    shape = (num_steps, batch_size)
    symbols = jax.random.randint(symbol_key, shape, 0, num_symbols)
    # The K largest of T draws: every choice of K steps is as likely.
    draws = jax.random.uniform(place_key, (batch_size, num_steps))
    places = jnp.sort(jax.lax.top_k(draws, num_recalled)[1], axis=-1).T
    marked = (jnp.arange(num_steps)[:, None] == places[:, None]).any(axis=0)
    recalled = jnp.take_along_axis(symbols, places, axis=0)
    after = jnp.zeros((num_recalled, batch_size), bool)
    mask = jnp.concatenate([jnp.zeros(shape, bool), ~after])
    shown = jnp.concatenate([symbols, jnp.full(after.shape, -1)])
    flags = jnp.stack([jnp.concatenate([marked, after]), mask], axis=-1)
    one_hot = jax.nn.one_hot(shown, num_symbols)
    inputs = jnp.concatenate([one_hot, flags.astype(one_hot.dtype)], axis=-1)
    targets = jnp.concatenate([jnp.zeros(shape, recalled.dtype), recalled])
    return Task(inputs, targets, mask)


def selective_recall_baseline(num_symbols: int = 8) -> float:
    """Give the cross-entropy, in nats, of guessing one of A symbols: ln A."""
    check_positive("num_symbols", num_symbols)
    return math.log(num_symbols)


def _check_sizes(num_steps: int, least: int, batch_size: int) -> None:
    check_positive("num_steps", num_steps)
    if num_steps < least:
        raise invalid("num_steps", f"at least {least}", repr(num_steps))
    check_positive("batch_size", batch_size)
