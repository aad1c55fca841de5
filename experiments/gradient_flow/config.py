"""Every setting of the experiment, each a flag of the command, with its reason."""

import dataclasses
import math
from pathlib import Path
from typing import Literal

from experiments.run_config import ComparisonConfig
from experiments.tasks import SyntheticTask, make_task
from gated_rnn.types import check_positive, invalid

CellName = Literal["elman", "gru", "lstm", "gru_matched"]

_MIN_LENGTH = 10  # of temporal order


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(ComparisonConfig):
    """Size of the gradient against lag, for Elman network, GRU and LSTM.

    Takes the gradient of a random combination of the network's answer, at the step at
    which it is due, with respect to the input so many steps before; before training,
    under several initialisers, and after training on a task that asks for memory.

    Attributes:
        cells: What is trained; all start as Keras' do. The matched GRU has as many
            parameters as the LSTM.
        task: What is trained on. Temporal order asks for the order of two symbols in
            the first 60 % of a sequence, adding for the sum of two numbers.
        length: Steps of a sequence (temporal order adds up to a tenth).
        hidden_features: Units, of all but the matched GRU.
        batch_size: Sequences of an update, drawn afresh.
        num_updates: Updates of each seed.
        validate_every: Updates between two validations; the best parameters are kept.
        num_validation: Sequences that choose learning rate and parameters.
        num_test: Sequences of the test, at which the gradient is measured too.
        gate_biases: Biases of the gate that keeps the past: the GRU's update gate, the
            LSTM's forget gate. Ascending; a gate at sigmoid(b) halves what it keeps
            every -1 / log2(sigmoid(b)) steps.
        max_grad_norm: Gradients are clipped to this norm over all parameters together;
            inf: not at all.
    """

    cells: tuple[CellName, ...] = ("elman", "gru", "lstm", "gru_matched")
    task: Literal["temporal_order", "adding"] = "temporal_order"
    length: int = 50
    hidden_features: int = 32
    batch_size: int = 32
    num_updates: int = 600
    validate_every: int = 50
    num_validation: int = 256
    num_test: int = 128
    gate_biases: tuple[float, ...] = (0.0, 1.0, 2.0, 3.0, 4.0, 6.0)
    learning_rates: tuple[float, ...] = (3e-3, 1e-2, 3e-2)
    max_grad_norm: float = 1.0
    output_dir: Path = Path("outputs/gradient_flow")

    def __post_init__(self) -> None:
        """Refuse what cannot be trained or measured."""
        super().__post_init__()
        if not self.cells or len(set(self.cells)) < len(self.cells):
            raise invalid("cells", "each at most once, at least one", self.cells)
        for name in _POSITIVE:
            check_positive(name, getattr(self, name))
        if self.length < _MIN_LENGTH:
            raise invalid("length", f"at least {_MIN_LENGTH}", self.length)
        if self.validate_every > self.num_updates:
            expected = f"at most num_updates, {self.num_updates}"
            raise invalid("validate_every", expected, self.validate_every)
        if self.tuning_seeds < 1:
            expected = "at least 1: no text gives a learning rate"
            raise invalid("tuning_seeds", expected, self.tuning_seeds)
        if not self.max_grad_norm > 0:
            raise invalid("max_grad_norm", "a number above 0", self.max_grad_norm)
        biases = self.gate_biases
        if (
            not biases
            or sorted(set(biases)) != list(biases)
            or not all(math.isfinite(bias) for bias in biases)
        ):
            raise invalid("gate_biases", "ascending numbers, at least one", biases)

    @property
    def synthetic_task(self) -> SyntheticTask:
        """The task by its name."""
        return make_task(self.task)


_POSITIVE = (
    *("hidden_features", "batch_size", "num_updates", "validate_every"),
    *("num_validation", "num_test"),
)
