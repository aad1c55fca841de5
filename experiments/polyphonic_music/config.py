"""Every setting of the experiment, each a flag of the command, with its reason."""

import dataclasses
import math
from pathlib import Path
from typing import Literal

from experiments.data.polyphonic_music import PUBLISHED as COLLECTIONS
from experiments.data.polyphonic_music import Collection
from experiments.run_config import ComparisonConfig
from gated_rnn.types import check_positive, invalid

CellName = Literal["elman", "gru_reset_before", "peephole_lstm"]
#: Units with which the cells have about 20,000 parameters each, as published.
UNITS = {"elman": 100, "gru_reset_before": 46, "peephole_lstm": 36}
#: The published search: rates drawn log-uniformly, exponents -12 to -6. The base is
#: not stated; e, as of the natural logarithm, gives rates that RMSProp can use.
PAPER_RATES = tuple(math.exp(-12 + 6 * part / 9) for part in range(10))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(ComparisonConfig):
    """Elman, GRU and LSTM on polyphonic music, over several random seeds.

    Repeats the music part of J. Chung, C. Gulcehre, K. Cho, Y. Bengio: Empirical
    evaluation of gated recurrent neural networks on sequence modeling, 2014, arXiv
    1412.3555: below, "the paper".

    Writes results.json, pictures of the validation against updates and seconds and of
    the test next to the published table, and summary.md.

    Attributes:
        collections: Music to train on, each by itself.
        cells: Cells to compare. The GRU resets before the matmul and the LSTM has
            peepholes, as in the paper.
        match: Give the cells as many parameters (100, 46 and 36 units, as published),
            or as many units (36).
        data_dir: A folder with the published files, or one file for the one
            collection; None: look in $GATED_RNN_DATA, or fetch them.
        jsb_epochs: Updates on the chorales, counted in epochs: so many times as many
            steps are seen as there are.
        nottingham_epochs: The same for the folk tunes, which are 13 times as many.
        tuning_share: Share of a run's updates, its first ones, that each learning rate
            is tried for.
        num_steps: T, the steps of a stretch that is backpropagated through.
        batch_size: Stretches in an update.
        learning_rates: What is tried for each cell, on validation data.
        jsb_kernel_deviation: Standard deviation with which the input kernels start on
            the chorales; 0: that of Glorot's. A step has about four keys, so that with
            0.5 the preactivations start near 1; with Glorot's, made for as many inputs
            as there are keys, near a quarter.
        nottingham_kernel_deviation: The same for the folk tunes. There, with the biases
            below, Glorot's ended lower than 1 on training and validation pieces.
        frequency_biases: Collections on which the readout's biases start at the log
            odds of each key, so that keys that never sound are silent from the start.
            From zero, the LSTM ended higher on validation tunes of Nottingham; on the
            chorales it was not tried.
        optimizer: The paper has RMSProp; Adam needs fewer updates.
        schedule: Let the learning rate fall to zero along a half cosine, or leave it
            constant as in the paper.
        max_grad_norm: Gradients are clipped to this norm over all parameters together,
            as in the paper.
        weight_noise: Standard deviation of the noise that is added to every parameter,
            drawn anew at each update; 0.075 in the paper.
        dropout: Probability of losing a unit between the recurrent layer and the keys.
        num_validations: How often each run is validated; the best parameters are kept,
            which is the paper's early stopping.
        timing_rounds: Rounds in which the cells take turns, at the end, to compare
            their speed on equal terms; 0 leaves them and the curves against seconds
            out.
        paper: Train as published: RMSProp, constant learning rates, ten of them, weight
            noise 0.075, and enough epochs that validation decides the end. Hours.
    """

    collections: tuple[Collection, ...] = ("jsb_chorales", "nottingham")
    cells: tuple[CellName, ...] = ("elman", "gru_reset_before", "peephole_lstm")
    match: Literal["parameters", "units"] = "parameters"
    data_dir: Path | None = None
    jsb_epochs: int = 50
    nottingham_epochs: int = 10
    tuning_share: float = 0.2
    num_steps: int = 40
    batch_size: int = 8
    learning_rates: tuple[float, ...] = (2.5e-3, 5e-3, 1e-2, 2e-2, 4e-2)
    jsb_kernel_deviation: float = 0.5
    nottingham_kernel_deviation: float = 0.0
    frequency_biases: tuple[Collection, ...] = ("nottingham",)
    optimizer: Literal["adam", "rmsprop"] = "adam"
    schedule: Literal["cosine", "constant"] = "cosine"
    max_grad_norm: float = 1.0
    weight_noise: float = 0.075
    dropout: float = 0.0
    num_validations: int = 25
    timing_rounds: int = 3
    paper: bool = False
    output_dir: Path = Path("outputs/polyphonic_music")

    def __post_init__(self) -> None:
        """Refuse what cannot be trained; `paper` sets how it is trained."""
        if self.paper:
            for name, value in _PAPER.items():
                object.__setattr__(self, name, value)
        super().__post_init__()
        for name, known in (("collections", COLLECTIONS), ("cells", UNITS)):
            chosen = getattr(self, name)
            if not chosen or len(set(chosen)) < len(chosen) or set(chosen) - {*known}:
                expected = f"some of {', '.join(known)}, each at most once"
                raise invalid(name, expected, chosen)
        unknown = set(self.frequency_biases) - {*COLLECTIONS}
        if unknown:
            expected = f"some of {', '.join(COLLECTIONS)}, or none"
            raise invalid("frequency_biases", expected, self.frequency_biases)
        for name in _POSITIVE_INTEGERS:
            check_positive(name, getattr(self, name))
        for name, expected, allows in _NUMBERS:
            if not allows(getattr(self, name)):
                raise invalid(name, expected, getattr(self, name))

    @property
    def units(self) -> dict[str, int]:
        """Units of each cell."""
        same = UNITS["peephole_lstm"]
        return {
            cell: UNITS[cell] if self.match == "parameters" else same
            for cell in self.cells
        }

    def epochs(self, collection: str) -> int:
        """Epochs of a run on a collection."""
        return {
            "jsb_chorales": self.jsb_epochs,
            "nottingham": self.nottingham_epochs,
        }[collection]

    def kernel_deviation(self, collection: str) -> float:
        """Standard deviation with which the input kernels start; 0: Glorot's."""
        return {
            "jsb_chorales": self.jsb_kernel_deviation,
            "nottingham": self.nottingham_kernel_deviation,
        }[collection]


_POSITIVE_INTEGERS = (
    *("jsb_epochs", "nottingham_epochs", "num_steps", "batch_size"),
    "num_validations",
)
_NUMBERS = (
    ("tuning_share", "a share in (0, 1]", lambda value: 0 < value <= 1),
    ("max_grad_norm", "a number above 0", lambda value: value > 0),
    ("weight_noise", "a finite number of at least 0", lambda x: 0 <= x < math.inf),
    ("timing_rounds", "an integer of at least 0", lambda value: value >= 0),
    *(
        (
            f"{collection}_kernel_deviation",
            "a finite number of at least 0",
            lambda value: 0 <= value < math.inf,
        )
        for collection in ("jsb", "nottingham")
    ),
    ("dropout", "a probability in [0, 1)", lambda value: 0 <= value < 1),
)
_PAPER = {
    "optimizer": "rmsprop",
    "schedule": "constant",
    "learning_rates": PAPER_RATES,
    "weight_noise": 0.075,
    "dropout": 0.0,
    "jsb_epochs": 1000,
    "nottingham_epochs": 200,
    "tuning_share": 1.0,
}
