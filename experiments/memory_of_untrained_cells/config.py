"""Every setting of the experiment, each a flag of the command, with its reason."""

import dataclasses
from pathlib import Path

from experiments.data import published_memory
from experiments.run_config import RunConfig
from gated_rnn.types import check_positive, invalid

#: Some are dealt out as if they were published, at least two are left as ours.
_MIN_RUNS = published_memory.RUNS_STATED + 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(RunConfig):
    """Count the steps for which untrained cells remember that their inputs differed.

    Repeats E. Muccino, "An Investigation of RNN Memory Stability", 2019: two sequences
    of normal numbers differ in their first 1,000 steps and are the same from then on.
    Writes results.json, memory.png and summary.md. Nothing is trained, so nothing is
    saved on the way; --resume begins again.

    Attributes:
        num_runs: Draws of weights and sequences for every size. The text's means are
            those of ten, or, as their digits say, of five; with twenty ours add little
            noise to theirs.
        in_features: Numbers of input features. The default are those of the published
            table that can be compared.
        hidden_features: Numbers of units, those of the published table.
        num_before: Steps in which the sequences differ.
        max_after: Steps after these in which a memory can end; longer ones are counted
            as longer. Only as many are computed as one of the runs needs.
        paper: All eight numbers of input features, and 99,000 steps after the first
            thousand. Some cells never come to equal outputs and take all of them: an
            afternoon.
    """

    num_runs: int = 20
    in_features: tuple[int, ...] = tuple(published_memory.MEANS["lstm"])
    hidden_features: tuple[int, ...] = published_memory.HIDDEN_FEATURES
    num_before: int = published_memory.NUM_BEFORE
    max_after: int = 500
    paper: bool = False
    output_dir: Path = Path("outputs/memory_of_untrained_cells")

    def __post_init__(self) -> None:
        """Refuse what cannot be measured; `paper` sets the published sizes."""
        super().__post_init__()
        if self.num_runs < _MIN_RUNS:
            expected = f"an integer of at least {_MIN_RUNS}"
            raise invalid("num_runs", expected, self.num_runs)
        check_positive("num_before", self.num_before)
        check_positive("max_after", self.max_after)
        for name in ("in_features", "hidden_features"):
            sizes = getattr(self, name)
            if not sizes or len(set(sizes)) < len(sizes):
                raise invalid(name, "each size once, at least one", sizes)
            for size in sizes:
                check_positive(name, size)
        if self.paper:
            after = published_memory.NUM_STEPS - published_memory.NUM_BEFORE
            object.__setattr__(self, "in_features", published_memory.IN_FEATURES)
            object.__setattr__(self, "max_after", after)
