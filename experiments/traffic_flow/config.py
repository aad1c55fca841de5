"""Every setting of the experiment, each a flag of the command, with its reason."""

import dataclasses
import math
from pathlib import Path
from typing import Any, Literal

from experiments.data.splits import check_share
from experiments.data.traffic import WINDOW_STEPS
from experiments.run_config import ComparisonConfig
from gated_rnn.types import check_positive, invalid

ArmName = Literal[
    *("lstm", "gru", "gru_matched", "elman", "elman_matched", "gru_reset_before"),
    *("lstm_no_dropout", "gru_no_dropout", "lstm_time_of_day", "gru_time_of_day"),
]

#: What --paper sets: the published protocol, of Keras 2.1.3.
PUBLISHED: dict[str, Any] = {
    "arms": ("lstm", "gru_reset_before"),
    "num_epochs": 600,
    "optimizer": "rmsprop",
    "learning_rate": 1e-3,
    "tuning_seeds": 0,
    "decay": "none",
    "gates": "hard_sigmoid",
    "parameters": "last",
    "valid_share": 0.05,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(ComparisonConfig):
    """The past hour of a road's traffic to the next five minutes.

    Repeats what R. Fu, Z. Zhang and L. Li compared in "Using LSTM and GRU neural
    network methods for traffic flow prediction", YAC 2016, in the protocol of its
    public reimplementation, xiaochus/TrafficFlowPrediction: below, "the published".

    Attributes:
        arms: What is compared. A matched arm has as many units as give each of its
            layers the parameters of the LSTM's. An arm with the time of day reads its
            sine and cosine beside the flow.
        num_epochs: Passes through the training windows. The default fits, with the
            tuning, into seven minutes on two cores.
        optimizer: RMSprop as published, or Adam.
        learning_rate: Of every arm where nothing is tuned, that is with --tuning-seeds
            0; the published 0.001.
        learning_rates: What is tried for each arm, on validation data. The published
            0.001 takes the published 600 epochs.
        tuning_seeds: Seeds that each of these rates has, beside those compared; 0:
            nothing is tuned.
        decay: With cosine the learning rate rises over a tenth of the run and falls to
            zero over the rest, so that one ten times the published can be used and a
            short run suffices. The published has none.
        parameters: Which of each seed are tested: those of the epoch with the best
            validation, or the last ones, as published.
        gates: Activation of the gates. The published Keras had the hard one.
        paper: The published protocol: 600 epochs of RMSprop at one rate, hard gates, a
            GRU that resets before its matmul, the last parameters.
        data_dir: Folder with train.csv and test.csv, also of another detector; fetched
            if not given.
        window_steps: Steps that are read; 12 are an hour.
        valid_share: The last share of the training flow, in time, which is not trained
            on: learning rates, epochs and ARIMA's order are chosen there. The published
            takes a twentieth, at random; of a twentieth in time, a day and a third, the
            noise is larger than the differences.
        hidden_features: Units of both layers.
        dropout: Share of the second layer's units that is dropped before the readout.
        batch_size: Windows of an update.
    """

    arms: tuple[ArmName, ...] = ("lstm", "gru", "gru_matched", "elman")
    learning_rates: tuple[float, ...] = (5e-3, 1e-2, 2e-2)
    tuning_seeds: int = 2
    num_epochs: int = 20
    optimizer: Literal["rmsprop", "adam"] = "rmsprop"
    learning_rate: float = 1e-3
    decay: Literal["cosine", "none"] = "cosine"
    parameters: Literal["best", "last"] = "best"
    gates: Literal["sigmoid", "hard_sigmoid"] = "sigmoid"
    paper: bool = False
    data_dir: Path | None = None
    window_steps: int = WINDOW_STEPS
    valid_share: float = 0.15
    hidden_features: int = 64
    dropout: float = 0.2
    batch_size: int = 256
    output_dir: Path = Path("outputs/traffic_flow")

    def __post_init__(self) -> None:
        """Refuse what cannot be trained; `paper` sets the published protocol."""
        super().__post_init__()
        if self.paper:
            self._take_published()
        if not self.arms or len(set(self.arms)) < len(self.arms):
            raise invalid("arms", "each arm at most once, at least one", self.arms)
        for name in ("num_epochs", "window_steps", "hidden_features", "batch_size"):
            check_positive(name, getattr(self, name))
        if not 0 < self.learning_rate < math.inf:
            expected = "a finite number above 0"
            raise invalid("learning_rate", expected, self.learning_rate)
        if not 0 <= self.dropout < 1:
            raise invalid("dropout", "a share in [0, 1)", self.dropout)
        check_share("valid_share", self.valid_share)
        if not self.valid_share:
            raise invalid("valid_share", "a share above 0, to choose on", 0)

    @property
    def identity(self) -> dict[str, Any]:
        """As of every run; where the learning rate decays, also how many epochs."""
        identity = super().identity
        identity.pop("arms")  # each has its own checkpoints
        if self.decay != "none":
            identity["num_epochs"] = self.num_epochs
        return identity

    def _take_published(self) -> None:
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        for name, value in PUBLISHED.items():
            given = getattr(self, name)
            if given not in (defaults[name], value):
                raise invalid(name, "none beside --paper", given)
            object.__setattr__(self, name, value)
