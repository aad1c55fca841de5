"""When to cut a long sequence into fewer, longer pieces (layer 4).

The companion of `truncated_epoch`, on the host: plain Python numbers, and a state that
can be saved as JSON.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

from gated_rnn.types import check_positive, invalid

__all__ = ["PieceSchedule", "PieceState"]


class PieceState(NamedTuple):
    """Where a schedule of pieces stands; `PieceState(*json.loads(text))` restores it.

    Attributes:
        phase: Index of the number of pieces.
        best: The lowest loss of this phase, or None.
        stale: How many losses in a row have not been lower than `best`.
    """

    phase: int = 0
    best: float | None = None
    stale: int = 0


@dataclass(frozen=True)
class PieceSchedule:
    """Into how many pieces to cut a sequence: fewer, once the loss stops falling.

    Many short pieces make many updates an epoch, which lowers the loss fast; few long
    ones let the gradient reach further back. The defaults are those of the reference:
    sequences of 20,000 steps start in 100 pieces of 200, and once the loss has failed
    to decrease for 20 straight epochs the next number of pieces is used. What a loss
    is compared with is left open there: here with the lowest of its own phase, because
    phases differ in how many updates stand behind the loss of an epoch.

    Attributes:
        counts: The numbers of pieces, one a phase; the last one stays.
        patience: How many losses in a row may fail to be a new lowest.
        min_improvement: How far below the lowest a loss must be to count as lower.

    Examples:
        >>> schedule = PieceSchedule(counts=(4, 1), patience=2)
        >>> state, counts = schedule.init(), []
        >>> for loss in [3.0, 2.0, 2.5, 2.0, 1.9]:
        ...     state = schedule.update(state, loss)
        ...     counts.append(schedule.count(state))
        >>> counts, schedule.piece_size(schedule.init(), num_steps=20_000)
        ([4, 4, 4, 1, 1], 5000)

    References:
        E. Muccino: Training recurrent neural networks on long sequences, Mindboard,
        2019, section "Batch sequence length".
    """

    counts: tuple[int, ...] = (100, 50, 10, 2, 1)
    patience: int = 20
    min_improvement: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.counts, tuple) or not self.counts:
            expected = "a tuple of at least one number of pieces"
            raise invalid("counts", expected, repr(self.counts))
        for count in self.counts:
            check_positive("counts", count)
        check_positive("patience", self.patience)
        if not 0 <= self.min_improvement < math.inf:
            expected = "a finite number of at least 0"
            raise invalid("min_improvement", expected, repr(self.min_improvement))

    def init(self) -> PieceState:
        """Return the state before the first loss."""
        return PieceState()

    def update(self, state: PieceState, loss: float) -> PieceState:
        """Take in the loss of an epoch, and go to the next phase if it is time.

        Args:
            state: The state before.
            loss: The loss of an epoch; one that is not finite is never a new lowest.

        Returns:
            The state after. In the last phase `stale` counts on, so that
            `state.stale >= patience` may end the training.
        """
        loss = float(loss)
        lower = state.best is None or loss < state.best - self.min_improvement
        if math.isfinite(loss) and lower:
            return PieceState(state.phase, best=loss, stale=0)
        stale = state.stale + 1
        if stale >= self.patience and state.phase + 1 < len(self.counts):
            return PieceState(state.phase + 1)
        return state._replace(stale=stale)

    def count(self, state: PieceState) -> int:
        """Return the number of pieces."""
        return self.counts[state.phase]

    def piece_size(self, state: PieceState, num_steps: int) -> int:
        """Return the steps in a piece: T / count, rounded up.

        Rounding up keeps the last piece from being a sliver; it may also make fewer
        pieces than `count` (of 10 steps, 6 pieces become 5 of 2).
        """
        check_positive("num_steps", num_steps)
        return -(-num_steps // self.count(state))
