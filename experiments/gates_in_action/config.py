"""Every setting of the experiment, each a flag of the command, with its reason."""

import dataclasses
import math
from pathlib import Path
from typing import Literal

from experiments.data.price_process import PriceProcess
from experiments.run_config import ComparisonConfig, RunConfig
from gated_rnn.networks.dropout import check_rate
from gated_rnn.types import check_positive, invalid

#: Of Singhal (2020): what comes before, and what the review is to be judged by.
NEUTRAL_PART = "It was late at night when I reached here."
DECISIVE_PART = (
    "I enjoyed the stay as the room was comfortable. The staff was friendly."
)
RESORT_LAST = f"{NEUTRAL_PART} {DECISIVE_PART}"
RESORT_FIRST = f"{DECISIVE_PART} {NEUTRAL_PART}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(ComparisonConfig):
    """Gates of GRU and LSTM over the words of reviews and over prices.

    G. Singhal, "LSTM versus GRU Units in RNN", Pluralsight, 2020, below "the text",
    says of a resort review whose decisive sentences come last that the model will
    "assign a reset gate vector value close to '0'. That means it will neglect the past
    lines"; and where they come first, "the model would set the update gate vector value
    close to 1 [...] and it will ignore the chunk of the last part".

    Trains a small sentiment model and a small price model of each cell, and measures
    this: over the words of all test reviews; over pairs of a decisive and a neutral
    test review put one after the other, both ways round; and on the resort review
    itself. In our GRU, as in the text, the new hidden is (1 - z) n + z h. The text
    gives no model, so that there is no published size. Writes results.json, pictures
    and summary.md.

    Attributes:
        cells: Whose gates are looked at; the text speaks of the GRU's.
        data_dir: Folder with rt-polarity.neg and rt-polarity.pos; None: they are
            fetched, or found by GATED_RNN_DATA.
        text: A review of yours, whose gates are shown in place of the resort review.
            With --resume, nothing is trained again.
        learning_rates: Adam's; of several, each cell and task gets its best on
            validation data. One is given: what gates do is asked, not who wins. It is
            the one that the experiment on reviews chose for both cells; at a third of
            it gates hardly leave where they start.
        num_updates: Updates of a sentiment model, about three and a half epochs: from
            then on the training reviews are learned by heart.
        num_words: Words of a review at most; both parts of a pair fit in together.
        embedding_features: Features of a word.
        hidden_features: Units of a sentiment model.
        dropout: Of the features of the words and of the last output.
        batch_size: Reviews an update.
        max_grad_norm: Gradients are clipped to this norm over all parameters together.
        validate_every: Updates between two validations, which choose the parameters
            that are looked at.
        decisive_share: Of the words of all test reviews, those with the largest weight,
            of either sign, in a linear classifier (naive Bayes) are called decisive:
            this share.
        num_pairs: Pairs of a decisive and a neutral review: those that the linear
            classifier is surest of, half of each label and rightly, and those that it
            cannot judge.
        price_updates: Updates of a price model.
        price_steps: Steps of a price series.
        price_sequences: Series an update, drawn anew.
        price_features: Units of a price model.
        periods: Periods of the price's two waves, in steps, shorter than those of the
            experiment on long sequences: a series then has several of each.
        angle_step: How far the mixture of the waves turns a step, in radians.
        noise_sd: Standard deviation of the noise on the price.
    """

    cells: tuple[Literal["gru", "lstm"], ...] = ("gru", "lstm")
    data_dir: Path | None = None
    text: str | None = None
    learning_rates: tuple[float, ...] = (1e-2,)
    num_updates: int = 400
    num_words: int = 40
    embedding_features: int = 32
    hidden_features: int = 32
    dropout: float = 0.2
    batch_size: int = 64
    max_grad_norm: float = 1.0
    validate_every: int = 25
    decisive_share: float = 0.1
    num_pairs: int = 200
    price_updates: int = 400
    price_steps: int = 128
    price_sequences: int = 16
    price_features: int = 16
    periods: tuple[float, float] = (100.0, 12.0)
    angle_step: float = 0.01
    noise_sd: float = 0.01
    output_dir: Path = Path("outputs/gates_in_action")

    _MAY_DIFFER = RunConfig._MAY_DIFFER | {
        *("data_dir", "text", "decisive_share", "num_pairs"),
    }

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        super().__post_init__()
        if not self.cells or len(set(self.cells)) < len(self.cells):
            raise invalid("cells", "each cell at most once, at least one", self.cells)
        if self.text is not None and not self.text.strip():
            raise invalid("text", "at least one word", repr(self.text))
        for name in _POSITIVE_INTEGERS:
            check_positive(name, getattr(self, name))
        for name in ("num_updates", "price_updates"):
            if getattr(self, name) < self.validate_every:
                expected = f"at least validate_every, {self.validate_every}"
                raise invalid(name, expected, getattr(self, name))
        check_rate("dropout", self.dropout)
        if not 0 < self.max_grad_norm < math.inf:
            raise invalid("max_grad_norm", "a number above 0", self.max_grad_norm)
        if not 0 < self.decisive_share < 1:
            raise invalid("decisive_share", "a share in (0, 1)", self.decisive_share)
        if self.num_pairs % 2:
            raise invalid("num_pairs", "an even number", self.num_pairs)
        if len(self.learning_rates) > 1 and not self.tuning_seeds:
            expected = "one rate where nothing is tuned"
            raise invalid("learning_rates", expected, self.learning_rates)
        if min(self.periods) <= 2 or not all(map(math.isfinite, self.periods)):
            expected = "two finite numbers above 2 steps"
            raise invalid("periods", expected, self.periods)
        for name in ("angle_step", "noise_sd"):
            if not 0 <= getattr(self, name) < math.inf:
                raise invalid(name, "a number of at least 0", getattr(self, name))

    @property
    def process(self) -> PriceProcess:
        """The price process of these settings."""
        return PriceProcess(self.periods, self.angle_step, self.noise_sd)


_POSITIVE_INTEGERS = (
    *("num_updates", "num_words", "embedding_features", "hidden_features"),
    *("batch_size", "validate_every", "num_pairs", "price_updates", "price_steps"),
    *("price_sequences", "price_features"),
)
