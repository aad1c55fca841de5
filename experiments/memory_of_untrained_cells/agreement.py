"""Whether a table of means could be a draw of ours: distances in units of seed noise.

NumPy on the host; knows nothing of cells. Layer: experiments.
"""

from typing import NamedTuple

import numpy as np

#: Standard deviation of rounding to whole steps: no seed noise is taken for less.
ROUNDING_SD = 12**-0.5
NUM_RESAMPLES = 2_000
#: A table that fewer of our own draws would be as far away as is not taken for one.
LEVEL = 0.05
WITHIN = 2.0  # standard deviations


class Agreement(NamedTuple):
    """How far a published table of means is from ours.

    Attributes:
        published_runs: Runs that are taken to be behind each published mean.
        z: Published less ours, over the standard deviation that the difference of two
            such means has, one a place of the table.
        root_mean_square: Of z; about 1 if the table is a draw of ours.
        share_within: Share of places with |z| at most 2.
        p_value: Share of tables drawn from our own runs that are as far from the rest
            of our runs.
        agrees: Whether that is at least 5 %.
    """

    published_runs: int
    z: np.ndarray
    root_mean_square: float
    share_within: float
    p_value: float
    agrees: bool


def z_scores(means: np.ndarray, num_behind: int, steps: np.ndarray) -> np.ndarray:
    """Compare means with those of our runs, in units of the noise of both.

    Args:
        means: `[M]`, one a place of the table.
        num_behind: Runs behind each.
        steps: Our runs, `[R, M]`, finite.

    Returns:
        `[M]`.

    Examples:
        >>> ours = np.array([[10.0], [14.0], [10.0], [14.0]])
        >>> z_scores(np.array([15.0]), 1, ours).round(3)
        array([1.162])
    """
    sd = np.maximum(steps.std(axis=0, ddof=1), ROUNDING_SD)
    noise = sd * np.sqrt(1 / num_behind + 1 / len(steps))
    return (means - steps.mean(axis=0)) / noise


def compare_table(
    means: np.ndarray, published_runs: int, steps: np.ndarray, seed: int
) -> Agreement:
    """Judge a published table by our runs.

    The runs' steps are skewed and whole, and the places of a table share their runs'
    sequences; so no distribution is assumed. Some of our runs, as many as are behind a
    published mean, are dealt out as if they were published, and the rest is ours.

    Args:
        means: The published means, `[M]`.
        published_runs: Runs behind each of them.
        steps: Our runs, `[R, M]`, with R above `published_runs` + 1.
        seed: Of the deals.

    Returns:
        The agreement; a place where our steps are infinite is infinitely far.
    """
    if not np.isfinite(steps).all():
        z = np.full(means.shape, -np.inf)
        finite = np.isfinite(steps).all(axis=0)
        z[finite] = z_scores(means[finite], published_runs, steps[:, finite])
        share = float((np.abs(z) <= WITHIN).mean())
        return Agreement(published_runs, z, np.inf, share, 0.0, False)
    z = z_scores(means, published_runs, steps)
    seen = np.mean(z**2)
    generator = np.random.default_rng(seed)
    as_far = 0
    for _ in range(NUM_RESAMPLES):
        # Each place has its own deal: the published runs shared nothing.
        order = generator.random(steps.shape).argsort(axis=0)
        dealt = np.take_along_axis(steps, order, axis=0)
        theirs, ours = dealt[:published_runs], dealt[published_runs:]
        drawn = z_scores(theirs.mean(axis=0), published_runs, ours)
        as_far += np.mean(drawn**2) >= seen
    p_value = float(as_far + 1) / (NUM_RESAMPLES + 1)
    share = float((np.abs(z) <= WITHIN).mean())
    return Agreement(
        published_runs, z, float(np.sqrt(seen)), share, p_value, p_value >= LEVEL
    )
