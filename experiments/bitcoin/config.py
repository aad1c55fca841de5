"""Every setting of the experiment, each a flag of the command, with its reason."""

import dataclasses
import datetime
from pathlib import Path
from typing import Literal

from experiments.data.bitcoin import WINDOW_DAYS, Daily, MissingDays, Target
from experiments.data.scaling import Scaling
from experiments.run_config import ComparisonConfig
from gated_rnn.types import check_positive, invalid

#: As many as two cores train in seven minutes, with all that stands beside.
DEFAULT_EPOCHS = 4
PAPER_EPOCHS = 50


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(ComparisonConfig):
    """Sixty days of Bitcoin's price to the sixty-first: Elman, GRU and LSTM.

    Repeats the experiment of G. Singhal, "LSTM versus GRU Units in RNN", Pluralsight,
    2020: below, "the text". Beside the comparison as the text has it stand the same
    with matched parameters, with tuned learning rates, with returns as target, without
    dropout, with another scaling, and on earlier days.

    Attributes:
        cells: Cells to compare.
        num_epochs: Passes through the training windows. The default fits into seven
            minutes on two cores.
        paper: The 50 epochs of the text; goes on with a default run by --resume.
        data_dir: Folder with the prices, or any csv file of daily or minute prices;
            fetched if not given.
        start_date: First day that is used. The file the text names begins there.
        end_date: Last day that is used, or None for the whole file. The default is
            the day before the text appeared; which days its file had, it does not say.
        daily: The price of a day in a file by the minute: its last, or their mean.
        missing_days: Whether a day without a price gets that of the day before.
        target: What is told: the next close, as in the text, or the next log return.
            The other one stands beside, with fewer seeds.
        scaling: Fitted on the training days; the text has min_max.
        window_days: Days that are read.
        test_days: The last days, which are told.
        valid_days: The days before those, for choices: learning rate and epoch.
        hidden_features: Units of the recurrent layers, the text's.
        dropout: Behind each of them, the text's.
        batch_size: Windows of an update, the text's.
        learning_rate: Keras' default for RMSprop, which is what the text has.
        side_seeds: Seeds of each arm beside the comparison; 0 leaves them all out.
        num_folds: Walk-forward splits, each with later test days, trained for as many
            updates as the comparison; 0 leaves them out.
        fold_days: Test days of each; together they end where the series ends.
        fold_train_days: Days that each trains on, the latest before its validation.
        timing_rounds: Rounds of two updates of each cell in turn, at the end, to
            compare their speed on equal terms; 0 leaves them out.
    """

    cells: tuple[Literal["lstm", "gru", "elman"], ...] = ("lstm", "gru", "elman")
    learning_rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3)
    tuning_seeds: int = 1
    num_epochs: int = DEFAULT_EPOCHS
    paper: bool = False
    data_dir: Path | None = None
    start_date: datetime.date | None = datetime.date(2012, 1, 1)
    end_date: datetime.date | None = datetime.date(2020, 9, 8)
    daily: Daily = "last"
    missing_days: MissingDays = "fill"
    target: Target = "close"
    scaling: Scaling = "min_max"
    window_days: int = WINDOW_DAYS
    test_days: int = 60
    valid_days: int = 60
    hidden_features: tuple[int, ...] = (50, 100)
    dropout: float = 0.2
    batch_size: int = 64
    learning_rate: float = 1e-3
    side_seeds: int = 4
    num_folds: int = 2
    fold_days: int = 120
    fold_train_days: int = 700
    timing_rounds: int = 10
    output_dir: Path = Path("outputs/bitcoin")

    _MAY_DIFFER = ComparisonConfig._MAY_DIFFER | {"side_seeds"}

    def __post_init__(self) -> None:
        """Refuse what cannot be trained; `paper` sets the number of epochs."""
        super().__post_init__()
        if not self.cells or len(set(self.cells)) < len(self.cells):
            raise invalid("cells", "each cell at most once, at least one", self.cells)
        for name in _POSITIVE_INTEGERS:
            check_positive(name, getattr(self, name))
        for name in ("side_seeds", "num_folds", "timing_rounds"):
            if getattr(self, name) < 0:
                expected = "an integer of at least 0"
                raise invalid(name, expected, getattr(self, name))
        if not self.hidden_features or min(self.hidden_features) < 1:
            expected = "positive integers, at least one"
            raise invalid("hidden_features", expected, self.hidden_features)
        if not 0 <= self.dropout < 1:
            raise invalid("dropout", "a probability in [0, 1)", self.dropout)
        if not 0 < self.learning_rate < float("inf"):
            raise invalid("learning_rate", "a number above 0", self.learning_rate)
        if self.paper:
            if self.num_epochs not in (DEFAULT_EPOCHS, PAPER_EPOCHS):
                raise invalid("num_epochs", "none beside --paper", self.num_epochs)
            object.__setattr__(self, "num_epochs", PAPER_EPOCHS)


_POSITIVE_INTEGERS = (
    *("num_epochs", "window_days", "test_days", "valid_days", "batch_size"),
    *("fold_days", "fold_train_days"),
)
