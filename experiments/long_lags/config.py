"""Every setting of the experiment, each a flag of the command, with its reason."""

import dataclasses
import itertools
import math
from pathlib import Path
from typing import Literal, get_args

from experiments.cells import LABELS, count_cell_parameters, make_cell, match_units
from experiments.run_config import ComparisonConfig
from experiments.tasks import SyntheticTask, TaskName, make_task
from gated_rnn.types import check_positive, invalid

ArmName = Literal["elman", "gru", "lstm", "elman_matched", "gru_matched"]

#: What --paper sets: lengths, units and batches of Arjovsky, Shah and Bengio (2016) and
#: of Le, Jaitly and Hinton (2015), ten symbols to copy.
PAPER = {
    "lengths": (100, 200, 400),
    "hidden_features": 100,
    "batch_size": 50,
    "num_updates": 10_000,
    "num_copied": 10,
}
_MIN_LENGTH = 10  # of temporal order


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(ComparisonConfig):
    """Elman network, GRU and LSTM on tasks that ask for memory, at growing lengths.

    Adding and copying as of Arjovsky, Shah and Bengio (2016), temporal order of
    Hochreiter and Schmidhuber (1997), and recall of marked symbols among distractors. A
    seed solves a task when at most 1 % of the answers to sequences it was not trained
    on are wrong; its training then ends.

    Attributes:
        tasks: Which tasks.
        lengths: Lengths, ascending. Of copying it is the delay, beside which there are
            twice as many steps as symbols.
        cells: What is compared. A matched one has as many parameters as the LSTM, and
            the learning rate of the cell itself.
        hidden_features: Units of all cells but the matched ones.
        batch_size: Sequences of an update, drawn afresh.
        num_updates: Updates after which a seed that has not solved the task gives up.
        validate_every: Updates between two looks at whether the task is solved.
        num_validation: Sequences that tell it, the same for all seeds.
        num_test: Sequences of the test, which are looked at once.
        num_symbols: Kinds of symbols to copy and to recall.
        num_copied: Symbols to copy. The published ten take more updates than a default
            run has.
        num_recalled: Symbols to recall among the others.
        max_grad_norm: Gradients are clipped to this norm over all parameters together;
            inf: not at all.
        paper: The published size: lengths 100, 200 and 400, 100 units, batches of 50,
            ten symbols to copy, 10,000 updates. Days on two cores.
    """

    tasks: tuple[TaskName, ...] = (
        *("adding", "copy", "temporal_order", "selective_recall"),
    )
    lengths: tuple[int, ...] = (20, 50, 100)
    cells: tuple[ArmName, ...] = ("elman", "gru", "lstm", "gru_matched")
    hidden_features: int = 32
    batch_size: int = 32
    num_updates: int = 1000
    validate_every: int = 50
    num_validation: int = 512
    num_test: int = 1024
    num_symbols: int = 8
    num_copied: int = 3
    num_recalled: int = 3
    max_grad_norm: float = 1.0
    learning_rates: tuple[float, ...] = (3e-3, 1e-2, 3e-2)
    tuning_seeds: int = 2
    paper: bool = False
    output_dir: Path = Path("outputs/long_lags")

    def __post_init__(self) -> None:
        """Refuse what cannot be; `paper` sets the sizes."""
        if self.paper:
            for name, value in PAPER.items():
                given = getattr(self, name)
                if given not in (getattr(type(self), name), value):
                    raise invalid(name, "none beside --paper", given)
                object.__setattr__(self, name, value)
        super().__post_init__()
        for name in ("tasks", "cells"):
            names = getattr(self, name)
            if not names or len(set(names)) < len(names):
                raise invalid(name, "each at most once, at least one", names)
        for name in _POSITIVE:
            check_positive(name, getattr(self, name))
        lengths = self.lengths
        ascending = all(a < b for a, b in itertools.pairwise(lengths))
        least = max(_MIN_LENGTH, self.num_recalled)
        if not lengths or not ascending or lengths[0] < least:
            expected = f"ascending numbers of at least {least}, at least one"
            raise invalid("lengths", expected, lengths)
        if self.validate_every > self.num_updates:
            expected = f"at most num_updates, {self.num_updates}"
            raise invalid("validate_every", expected, self.validate_every)
        if self.tuning_seeds < 1:
            expected = "at least 1: it is the seeds of all rates that are counted"
            raise invalid("tuning_seeds", expected, self.tuning_seeds)
        if not self.max_grad_norm > 0:
            raise invalid("max_grad_norm", "a number above 0", self.max_grad_norm)
        if any(not math.isfinite(rate) for rate in self.learning_rates):
            raise invalid("learning_rates", "finite numbers", self.learning_rates)

    def task(self, name: TaskName) -> SyntheticTask:
        """Give a task in the sizes of these settings."""
        return make_task(
            name,
            num_symbols=self.num_symbols,
            num_copied=self.num_copied,
            num_recalled=self.num_recalled,
        )

    def task_number(self, name: TaskName) -> int:
        """Number a task, whichever are run."""
        return get_args(TaskName).index(name)

    def units(self, cell: ArmName, in_features: int) -> int:
        """Count the units of an arm's cell."""
        if not cell.endswith("_matched"):
            return self.hidden_features
        lstm = make_cell("lstm", self.hidden_features)
        wanted = count_cell_parameters(lstm, in_features)
        return match_units(cell_of(cell), in_features, wanted)


def cell_of(arm: ArmName) -> str:
    """Name the cell of an arm."""
    return arm.removesuffix("_matched")


def label_of(arm: ArmName) -> str:
    """Give what a person reads of an arm."""
    label = LABELS[cell_of(arm)]
    return f"{label}, matched" if arm.endswith("_matched") else label


_POSITIVE = (
    *("hidden_features", "batch_size", "num_updates", "validate_every"),
    *("num_validation", "num_test", "num_symbols", "num_copied", "num_recalled"),
)
