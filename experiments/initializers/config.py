"""Every setting of the experiment, each a flag of the command, with its reason."""

import dataclasses
import math
from pathlib import Path
from typing import Any, Literal

from experiments.long_sequences.config import Config as LongSequences
from experiments.run_config import ComparisonConfig
from gated_rnn.types import check_positive, invalid

TaskName = Literal["prices", "adding"]
#: What --paper sets: the long sequences of the text, and its 1000 updates.
PAPER = {
    "price_steps": 20_000,
    "num_sequences": 40,
    "price_updates": 1000,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(ComparisonConfig):
    """Initialisers of LSTM and GRU, one factor at a time from those of Keras.

    Prices are the task of long_sequences, shorter; adding asks to remember two numbers.
    Learning rates are chosen for each cell and task as Keras starts it, and serve all
    its other starts.

    Attributes:
        tasks: Which tasks.
        cells: Which cells; the LSTM is compared with the GRU, and with one of as many
            parameters, where there are both.
        keep_biases: Biases of the gate that keeps the past, the LSTM's forget gate and
            the GRU's update gate. Keras' are 1 and 0.
        price_steps: Length of a price series, all of it backpropagated through; 500 are
            two and a half periods of the fast wave.
        num_sequences: Price series in the one batch.
        price_features: Units that value prices, the text's 16.
        price_updates: Updates on prices.
        adding_steps: Length of an adding sequence.
        adding_batch: Adding sequences of an update, drawn afresh.
        adding_features: Units that add.
        adding_updates: Updates on adding.
        validations: How often validation looks at a run; its best parameters are kept.
        held_out: Sequences of each validation and test.
        max_grad_norm: Gradients are clipped to this norm over all parameters together;
            inf: not at all.
        paper: The text's 40 sequences of 20,000 steps and 1000 updates on prices. Weeks
            on two cores.
    """

    tasks: tuple[TaskName, ...] = ("prices", "adding")
    cells: tuple[Literal["lstm", "gru"], ...] = ("lstm", "gru")
    keep_biases: tuple[float, ...] = (0.0, 1.0, 2.0, 4.0)
    price_steps: int = 500
    num_sequences: int = 16
    price_features: int = 16
    price_updates: int = 100
    adding_steps: int = 40
    adding_batch: int = 32
    adding_features: int = 24
    adding_updates: int = 600
    validations: int = 10
    held_out: int = 256
    learning_rates: tuple[float, ...] = (3e-3, 1e-2, 3e-2)
    max_grad_norm: float = 1.0
    paper: bool = False
    output_dir: Path = Path("outputs/initializers")

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
        if self.adding_steps < _MIN_ADDING_STEPS:
            expected = f"at least {_MIN_ADDING_STEPS}, for chrono initialisation"
            raise invalid("adding_steps", expected, self.adding_steps)
        for name in ("price_updates", "adding_updates"):
            if getattr(self, name) < self.validations:
                expected = f"at least validations, {self.validations}"
                raise invalid(name, expected, getattr(self, name))
        biases = self.keep_biases
        if len(set(biases)) < len(biases) or not all(map(math.isfinite, biases)):
            raise invalid("keep_biases", "finite numbers, each once", biases)
        if self.tuning_seeds < 1:
            expected = "at least 1: no text gives a rate for these sizes"
            raise invalid("tuning_seeds", expected, self.tuning_seeds)
        if not self.max_grad_norm > 0:
            raise invalid("max_grad_norm", "a number above 0", self.max_grad_norm)

    @property
    def long_sequences(self) -> LongSequences:
        """The settings of the prices, in the terms of their own experiment."""
        return LongSequences(
            num_steps=self.price_steps,
            num_sequences=self.num_sequences,
            hidden_features=self.price_features,
        )

    def sizes(self, task: TaskName) -> dict[str, Any]:
        """Give units, updates and the longest lag of a task."""
        if task == "prices":
            units, updates = self.price_features, self.price_updates
            # The slow wave is longer than a series; its period is the longest lag.
            longest = int(max(self.long_sequences.periods))
        else:
            units, updates = self.adding_features, self.adding_updates
            longest = self.adding_steps
        return {"units": units, "updates": updates, "longest": longest}


_MIN_ADDING_STEPS = 3
_POSITIVE = (
    *("price_steps", "num_sequences", "price_features", "price_updates"),
    *("adding_steps", "adding_batch", "adding_features", "adding_updates"),
    *("validations", "held_out"),
)
