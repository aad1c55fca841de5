"""What seeds say about a claim: paired differences, margins, words, and their table."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from experiments.tables import Table, show_interval, show_number
from gated_rnn.statistics import PairedDifference, paired_difference, verdict

#: Fewer seeds give a provisional verdict.
VERDICT_SEEDS = 10


class Comparison(NamedTuple):
    """Two arms compared by one measure, seed by seed.

    Attributes:
        measure: What was measured; lower is better unless the name says otherwise.
        first: Name of an arm.
        second: Name of the other.
        difference: First less second, of the seeds where both are finite; None if
            there is no such seed.
        margin: Largest difference that does not matter, chosen before the run.
        num_seeds: Seeds that were compared.
        left_out: Seeds of which one of the two is not finite.
        verdict: Whether the first is "lower", "higher", "equivalent", or
            "inconclusive".
    """

    measure: str
    first: str
    second: str
    difference: PairedDifference | None
    margin: float
    num_seeds: int
    left_out: int
    verdict: str


def compare(
    measure: str,
    scores: Mapping[str, np.ndarray],
    first: str,
    second: str,
    key: jax.Array,
    *,
    margin: float,
) -> Comparison:
    """Compare two arms on the same seeds.

    Args:
        measure: Its name.
        scores: `[S]` for each arm; what is not finite is a seed that diverged.
        first: Name of an arm.
        second: Name of the arm that is subtracted.
        key: For the resamples.
        margin: Largest difference that does not matter, in the measure's unit.

    Returns:
        The comparison.

    Examples:
        >>> scores = {"gru": np.arange(12.0), "lstm": np.arange(12.0) + 2}
        >>> compare("loss", scores, "gru", "lstm", jax.random.key(0), margin=1).verdict
        'lower'
    """
    a, b = (np.asarray(scores[name], np.float64) for name in (first, second))
    both = np.isfinite(a) & np.isfinite(b)
    num_seeds, left_out = int(both.sum()), int((~both).sum())
    if not num_seeds:
        word, difference = "no seed of both is finite", None
    else:
        difference = paired_difference(a[both], b[both], key)
        word = verdict(difference.mean, margin)
        if num_seeds < VERDICT_SEEDS:
            word += f", provisionally ({num_seeds} seeds of {VERDICT_SEEDS})"
    return Comparison(
        measure, first, second, difference, margin, num_seeds, left_out, word
    )


def comparisons_table(
    comparisons: Sequence[Comparison], labels: Mapping[str, str], *, title: str
) -> Table:
    """Lay out comparisons.

    Args:
        comparisons: From `compare`.
        labels: What a person reads of an arm, by its name.
        title: Of the table.

    Returns:
        A row for each: the mean difference with its interval, margin, p and verdict.
    """
    rows = []
    for one in comparisons:
        names = f"{labels[one.first]} - {labels[one.second]}"
        left_out = f", {one.left_out} left out" if one.left_out else ""
        rows.append(
            (
                f"{one.measure}: {names}",
                show_interval(one.difference and one.difference.mean),
                show_number(one.margin, 2),
                show_number(one.difference and one.difference.p_value, 2),
                f"{one.num_seeds}{left_out}",
                one.verdict,
            )
        )
    columns = ("", "mean [95 %]", "margin", "p", "seeds", "the first is")
    return Table(title, columns, rows)
