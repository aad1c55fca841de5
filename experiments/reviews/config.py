"""Every setting of the experiment, each a flag of the command, with its reason."""

import dataclasses
import math
from pathlib import Path
from typing import Any, Literal, NamedTuple

from experiments.data.reviews import Collection
from experiments.data.splits import check_share
from experiments.reviews.corpus import Unit
from experiments.run_config import ComparisonConfig
from gated_rnn.networks.dropout import check_rate
from gated_rnn.types import check_positive, invalid

ArmName = Literal["lstm", "gru", "elman", "gru_matched", "elman_matched"]
Readout = Literal["last", "mean"]

#: Ends the names of arms that have the LSTM's parameters, not its units.
MATCHED = "_matched"

#: What --paper sets. Bansal (2025) names no model; this is the published pair
#: of the same size for both cells whose numbers are known: IMDb, 10,000 words, reviews
#: of 100, 64 features, 256 units, dropout 0.2, Adam, batches of 128, 4 epochs; best
#: validation accuracy .8516 (LSTM), .8504 (GRU), .8060 (plain); seconds per epoch 34 to
#: 36 and 28 to 31 (J. Krohn, TensorFlow LiveLessons).
PAPER = {
    "collection": "imdb",
    "max_vocabulary": 10_000,
    "num_words": 100,
    "keep": "end",
    "embedding_features": 64,
    "hidden_features": 256,
    "batch_size": 128,
    "num_epochs": (40, 14, 4),
}


class Form(NamedTuple):
    """One way to read the reviews.

    Attributes:
        unit: What a token is.
        num_steps: Tokens of a review at most.
        embedding_features: Features of a token.
        arms: What is compared.
        amounts: Shares of the training part.
        num_epochs: Epochs on each of them.
        learning_rate: Of all arms.
        readout: What of the outputs is judged.
    """

    unit: Unit
    num_steps: int
    embedding_features: int
    arms: tuple[ArmName, ...]
    amounts: tuple[float, ...]
    num_epochs: tuple[int, ...]
    learning_rate: float
    readout: Readout


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(ComparisonConfig):
    """LSTM, GRU and plain network on reviews, over the amount of data and the length.

    Trains every arm on the same seeds with the learning rate of the texts, then with
    one that is tuned for it, on the smallest and the largest amount; writes
    results.json, pictures and summary.md.

    Attributes:
        collection: Which reviews. The snippets of rt-polarity have 22 words and 114
            characters on average: the one kind of sequence that a text calls short, and
            the one it calls long.
        data_dir: Folder with the files; None: they are fetched, or found by
            GATED_RNN_DATA.
        paper: A published size, on IMDb; Bansal (2025) gives none. Takes hours on a
            CPU.
        arms: What reads words. The matched ones have as many units as give their
            recurrent layer the parameters of the LSTM's.
        amounts: Shares of the training part, each drawn anew by every seed, a smaller
            one within a larger one; rising.
        num_epochs: Epochs on each of these amounts. Small ones need more to converge,
            and to show what they overfit to.
        num_words: Words of a review at most; 5 % of the snippets have more than 39.
        keep: Which end of a longer review is kept.
        min_count: A token that comes less often among a seed's training reviews is
            unknown. At 2, the unknown token itself is trained.
        max_vocabulary: Tokens at most; None: no limit.
        embedding_features: Features of a word.
        hidden_features: Units of the LSTM and of what is not matched to it. With more,
            this much data is learned by heart sooner, not better.
        dropout: Of the features of the tokens, one mask for all steps of a review, and
            of the last output.
        batch_size: Reviews in an update.
        learning_rate: Adam's, of all arms: the default that the texts' code leaves.
        max_grad_norm: Gradients are clipped to this norm over all parameters together.
        tune: Train all but the matched arms once more, on the smallest and the largest
            amount, with a rate tuned for each arm and amount. Without tuning seeds:
            not.
        valid_share: Share of the reviews that choices are made on.
        test_share: Share that is reported, where the collection has no test part.
        validations_per_epoch: Of the whole training part; as many updates lie between
            two validations of a smaller one.
        target_accuracy: Validation accuracy whose epochs are counted, and test accuracy
            whose training reviews are. Half-way from guessing to what is reached.
        characters: Read the same reviews as characters too, on the whole training part:
            over 100 steps.
        character_arms: What reads characters.
        num_characters: Characters of a review at most.
        character_features: Features of a character.
        character_epochs: Epochs; spelling is learned late.
        character_rate: Learning rate on characters; below it little is learned in as
            many epochs.
        character_readout: What of the outputs on characters is judged, the last one or
            their mean. From the last one alone nothing is learned in as many epochs.
        timing_rounds: Rounds of training every arm in turn, at the end, to compare
            their speed on equal terms; 0 leaves them out.
    """

    collection: Collection = "polarity"
    data_dir: Path | None = None
    paper: bool = False
    arms: tuple[ArmName, ...] = ("lstm", "gru", "elman", "gru_matched")
    amounts: tuple[float, ...] = (0.1, 0.3, 1.0)
    num_epochs: tuple[int, ...] = (20, 10, 5)
    num_words: int = 40
    keep: Literal["start", "end"] = "start"
    min_count: int = 2
    max_vocabulary: int | None = None
    embedding_features: int = 32
    hidden_features: int = 32
    dropout: float = 0.2
    batch_size: int = 64
    learning_rate: float = 1e-3
    max_grad_norm: float = 1.0
    tune: bool = True
    valid_share: float = 0.1
    test_share: float = 0.2
    validations_per_epoch: int = 3
    target_accuracy: float = 0.7
    characters: bool = True
    character_arms: tuple[ArmName, ...] = ("lstm", "gru")
    num_characters: int = 128
    character_features: int = 16
    character_epochs: int = 6
    character_rate: float = 1e-2
    character_readout: Readout = "mean"
    timing_rounds: int = 10
    output_dir: Path = Path("outputs/reviews")

    def __post_init__(self) -> None:
        """Refuse what cannot be trained; `paper` sets the published size."""
        super().__post_init__()
        if self.paper:
            self._set_paper()
        for name in _POSITIVE_INTEGERS:
            check_positive(name, getattr(self, name))
        for name in ("learning_rate", "character_rate", "max_grad_norm"):
            if not getattr(self, name) > 0:
                raise invalid(name, "a number above 0", getattr(self, name))
        for name in ("learning_rate", "character_rate"):
            if not math.isfinite(getattr(self, name)):
                raise invalid(name, "a finite number", getattr(self, name))
        check_rate("dropout", self.dropout)
        for name in ("valid_share", "test_share"):
            share = getattr(self, name)
            if share == 0:
                raise invalid(name, "a share in (0, 1)", share)
            check_share(name, share)
        if self.max_vocabulary is not None:
            check_positive("max_vocabulary", self.max_vocabulary)
        for name in ("arms", "character_arms"):
            arms = getattr(self, name)
            if not arms or len(set(arms)) < len(arms):
                raise invalid(name, "each arm at most once, at least one", arms)
        for amount in self.amounts:
            check_share("amounts", amount, whole=True)
        if not self.amounts or list(self.amounts) != sorted(set(self.amounts)):
            raise invalid("amounts", "rising shares, at least one", self.amounts)
        if len(self.num_epochs) != len(self.amounts) or min(self.num_epochs) < 1:
            expected = f"{len(self.amounts)} positive integers, one for each amount"
            raise invalid("num_epochs", expected, self.num_epochs)
        if self.timing_rounds < 0:
            expected = "an integer of at least 0"
            raise invalid("timing_rounds", expected, self.timing_rounds)
        if not 0 < self.target_accuracy < 1:
            expected = "a share between 0 and 1"
            raise invalid("target_accuracy", expected, self.target_accuracy)

    def _set_paper(self) -> None:
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        for name, published in PAPER.items():
            given: Any = getattr(self, name)
            if given not in (defaults[name], published):
                raise invalid(name, "none beside --paper", given)
            object.__setattr__(self, name, published)

    @property
    def words(self) -> Form:
        """The reviews word by word."""
        return Form(
            "words",
            self.num_words,
            self.embedding_features,
            self.arms,
            self.amounts,
            self.num_epochs,
            self.learning_rate,
            "last",
        )

    @property
    def letters(self) -> Form:
        """The reviews character by character."""
        return Form(
            "characters",
            self.num_characters,
            self.character_features,
            self.character_arms,
            (1.0,),
            (self.character_epochs,),
            self.character_rate,
            self.character_readout,
        )

    @property
    def tuned_amounts(self) -> tuple[float, ...]:
        """The smallest and the largest amount, or nothing."""
        if not self.tune or not self.tuning_seeds:
            return ()
        return tuple(dict.fromkeys((self.amounts[0], self.amounts[-1])))


_POSITIVE_INTEGERS = (
    *("num_words", "min_count", "embedding_features", "hidden_features"),
    *("batch_size", "validations_per_epoch", "num_characters", "character_features"),
    "character_epochs",
)
