"""Every setting of the experiment, each a flag of the command, with its reason."""

import dataclasses
from pathlib import Path
from typing import Literal

from experiments.cells import LABELS, count_cell_parameters, make_cell, match_units
from experiments.run_config import ComparisonConfig
from gated_rnn.types import check_positive, invalid

TaskName = Literal["adding", "selective_recall", "traffic_flow"]
VariantName = Literal[
    *("elman", "mgu", "janet", "gru", "cifg", "lstm"),
    *("lstm_no_output_gate", "lstm_no_output_tanh"),
]
Matching = Literal["parameters", "units"]

#: Sigmoid gates of each cell, the candidate not counted.
NUM_GATES: dict[str, int] = {
    **{"elman": 0, "mgu": 1, "janet": 1, "gru": 2, "cifg": 2},
    **{"lstm_no_output_gate": 2, "lstm_no_output_tanh": 3, "lstm": 3},
}
#: What --paper sets: the units of the adding problem in Le, Jaitly and Hinton (2015),
#: lengths and updates that let every cell come to its end.
PAPER = {
    "hidden_features": 100,
    "num_steps": 200,
    "num_updates": 10_000,
    "units_tasks": ("adding", "selective_recall", "traffic_flow"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(ComparisonConfig):
    """Eight cells, each a gate or a nonlinearity away from another, on three tasks.

    Two ask for memory and draw their data afresh: adding, and recall of marked symbols
    among distractors. The third is real: the traffic of the past hour tells that of
    the next five minutes. Everything but the cell is the same.

    Attributes:
        tasks: Which tasks.
        cells: Which cells; the LSTM is what the others are measured by.
        units_tasks: Tasks on which all cells are compared with the LSTM's units as
            well. On all of them they are compared with its parameters.
        hidden_features: Units of the LSTM.
        num_steps: Length of the synthetic tasks.
        batch_size: Sequences or windows of an update.
        num_updates: Updates of every seed; none stops earlier, so that the ends can be
            compared.
        validate_every: Updates between two validations, whose curve is what roughness
            is measured on.
        num_validation: Sequences to validate a synthetic task on.
        num_test: Sequences to test it on, once.
        num_symbols: Kinds of symbols to recall.
        num_recalled: Symbols to recall among the others.
        window_steps: Past steps of five minutes in a window of traffic.
        valid_share: Share of the training flow, at its end, to validate on.
        max_grad_norm: Gradients are clipped to this norm over all parameters together;
            inf: not at all.
        data_dir: Folder with train.csv and test.csv of traffic; None: the environment
            variable GATED_RNN_DATA, or fetched.
        paper: LSTMs of 100 units, sequences of 200 steps, 10,000 updates, both
            matchings on all tasks. A day on two cores.
    """

    tasks: tuple[TaskName, ...] = ("adding", "selective_recall", "traffic_flow")
    cells: tuple[VariantName, ...] = (
        *("elman", "mgu", "janet", "gru", "cifg"),
        *("lstm_no_output_gate", "lstm_no_output_tanh", "lstm"),
    )
    units_tasks: tuple[TaskName, ...] = ("selective_recall",)
    hidden_features: int = 32
    num_steps: int = 40
    batch_size: int = 32
    num_updates: int = 400
    validate_every: int = 10
    num_validation: int = 128
    num_test: int = 1024
    num_symbols: int = 4
    num_recalled: int = 2
    window_steps: int = 12
    valid_share: float = 0.05
    max_grad_norm: float = 1.0
    learning_rates: tuple[float, ...] = (3e-3, 1e-2, 3e-2)
    tuning_seeds: int = 2
    data_dir: Path | None = None
    paper: bool = False
    output_dir: Path = Path("outputs/cell_variants")

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
        if "lstm" not in self.cells:
            raise invalid("cells", "lstm among them", self.cells)
        for name in _POSITIVE:
            check_positive(name, getattr(self, name))
        if self.num_steps < max(2, self.num_recalled):
            expected = f"at least {max(2, self.num_recalled)}"
            raise invalid("num_steps", expected, self.num_steps)
        if self.num_updates < _MIN_VALIDATIONS * self.validate_every:
            expected = f"at least {_MIN_VALIDATIONS} times validate_every"
            raise invalid("num_updates", expected, self.num_updates)
        if not 0 < self.valid_share < 1:
            raise invalid("valid_share", "a share in (0, 1)", self.valid_share)
        if not self.max_grad_norm > 0:
            raise invalid("max_grad_norm", "a number above 0", self.max_grad_norm)

    def units(self, cell: VariantName, matching: Matching, in_features: int) -> int:
        """Count the units of a cell."""
        if matching == "units" or cell == "lstm":
            return self.hidden_features
        lstm = make_cell("lstm", self.hidden_features)
        return match_units(cell, in_features, count_cell_parameters(lstm, in_features))

    def matchings(self, task: TaskName) -> tuple[Matching, ...]:
        """List how cells are made alike on a task."""
        return ("parameters", "units") if task in self.units_tasks else ("parameters",)


def arm_name(task: TaskName, cell: VariantName, matching: Matching) -> str:
    """Name an arm; the LSTM is the same in both matchings."""
    suffix = "_units" if matching == "units" and cell != "lstm" else ""
    return f"{task}_{cell}{suffix}"


def label_of(cell: VariantName) -> str:
    """Give what a person reads of a cell."""
    return LABELS[cell]


_MIN_VALIDATIONS = 3  # a second difference takes three
_POSITIVE = (
    *("hidden_features", "num_steps", "batch_size", "num_updates", "validate_every"),
    *("num_validation", "num_test", "num_symbols", "num_recalled", "window_steps"),
)
