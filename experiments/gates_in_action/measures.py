"""From readings to numbers, one a seed: what stands in the statements. NumPy."""

import numpy as np

#: Steps around a decisive word.
OFFSETS = np.arange(-3, 4)


def mean_where(values: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Average over some steps of some reviews.

    Args:
        values: `[..., T, B]`.
        where: bool `[T, B]`, at least one of them true.

    Returns:
        float64 `[...]`.
    """
    return np.asarray(values, np.float64)[..., where].mean(axis=-1)


def profile(values: np.ndarray, decisive: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Average at so many steps before and after decisive words.

    Args:
        values: `[..., T, B]`.
        decisive: bool `[T, B]`.
        real: bool `[T, B]`; steps that are not are left out.

    Returns:
        float64 `[..., K]`, an entry for each of `OFFSETS`; NaN where there is no step.
    """
    num_steps = len(decisive)
    averages = []
    for offset in OFFSETS.tolist():
        shifted = np.zeros_like(decisive)
        if offset >= 0:
            shifted[offset:] = decisive[: num_steps - offset]
        else:
            shifted[:offset] = decisive[-offset:]
        at = shifted & real
        empty = np.full(values.shape[:-2], np.nan)
        averages.append(mean_where(values, at) if at.any() else empty)
    return np.stack(averages, axis=-1)


def share_of_other(
    both: np.ndarray, without: np.ndarray, without_main: np.ndarray
) -> np.ndarray:
    """Measure how much of what two parts do to a logit is done by the lesser one.

        a = mean |both - without|         what leaving out the lesser part changes
        b = mean |both - without_main|    what leaving out the other part changes
        a / (a + b)

    0: the lesser part is ignored; 1/2: both count alike.

    Args:
        both: `[S, P]`, logits of both parts.
        without: Of the main part alone.
        without_main: Of the lesser part alone.

    Returns:
        `[S]`.
    """
    both = np.asarray(both, np.float64)
    lesser = np.abs(both - without).mean(axis=-1)
    main = np.abs(both - without_main).mean(axis=-1)
    return lesser / (lesser + main)


def halves(lengths: np.ndarray, num_steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Mark the words of the first and of the last half of each review.

    The middle word of an odd number is in neither.

    Args:
        lengths: int `[B]`.
        num_steps: T.

    Returns:
        Two masks, bool `[T, B]`.

    Examples:
        >>> first, last = halves(np.array([5]), 6)
        >>> first[:, 0].astype(int), last[:, 0].astype(int)
        (array([1, 1, 0, 0, 0, 0]), array([0, 0, 0, 1, 1, 0]))
    """
    steps = np.arange(num_steps)[:, None]
    first = steps < lengths // 2
    last = (steps >= lengths - lengths // 2) & (steps < lengths)
    return first, last
