"""Every setting of the experiment, each a flag of the command, with its reason."""

import dataclasses
import math
from pathlib import Path

from experiments.data.splits import check_share
from experiments.run_config import ComparisonConfig, RunConfig
from gated_rnn.types import check_positive, invalid

#: The network and the training of the code that published the text: karpathy/char-rnn.
PAPER = {
    "hidden_features": 128,
    "num_layers": 2,
    "num_steps": 50,
    "batch_size": 50,
    "num_updates": 20_000,  # its 50 epochs of nine tenths of the text, nearly
    "validate_every": 200,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(ComparisonConfig):
    """Characters against the amount of text: GRU and LSTM, beside n-grams.

    Tests the answer, in a Q&A thread on the two cells, that "GRUs train faster and
    perform better than LSTMs on less training data if you are doing language modeling".
    The thread has no settings: those of the paper form are the defaults of
    karpathy/char-rnn, which published the text, with Adam for RMSprop.

    Every network makes the same number of updates, whatever the amount of text, and is
    tested with the parameters that were best on validation. Writes results.json,
    pictures and summary.md, with text that the networks wrote.

    Attributes:
        data_dir: A folder with input.txt, or any text file in UTF-8; None to download
            tiny shakespeare.
        amounts: Shares of the training text, its beginning, in rising order; the claim
            is about the first against the last. With 1 % the text is read about forty
            times, with all of it less than half a time.
        num_updates: Updates of each network. The default fits seven minutes on two
            cores.
        num_steps: Characters in a window, all backpropagated through; each window
            starts without a past, at a place drawn at random.
        batch_size: Windows an update. On a CPU many small updates learn more a second
            than few large ones.
        embedding_features: Features of a character.
        hidden_features: Units of the LSTM, and of the GRU with equal units; a second
            GRU has as many as give the recurrent layers equally many parameters.
        num_layers: Recurrent layers.
        max_grad_norm: Gradients are clipped to this norm over all parameters together.
        shared_learning_rate: Of the comparison in which both cells get one rate, that
            of karpathy/char-rnn; in the other each cell and amount gets its own of
            learning_rates, chosen on validation.
        learning_rates: What is tried for each cell and amount.
        tuning_seeds: Seeds that each of these rates has, beside those compared.
        validate_every: Updates between two validations.
        valid_share: Share of the text to validate on, before the test part.
        test_share: Share of the text to test on, its end.
        valid_characters: At most so many of the validation part, its beginning, are
            read at each validation; networks and n-grams are chosen on the same ones.
        num_streams: Streams in which validation and test text are read side by side,
            each from its beginning to its end with the carry handed on.
        max_order: Longest n-gram; which order is best is chosen on validation.
        timing_rounds: Rounds in which the cells are timed in turn, at the end; 0 leaves
            them out.
        temperature: Of the text that networks write: below 1 more likely characters are
            preferred, at 0 only the likeliest is taken.
        sample_characters: How much they write; 0: nothing.
        prompt: What they are given to go on from.
        paper: The size of karpathy/char-rnn: 2 layers of 128 units, 50 windows of 50
            characters an update, 20,000 updates; for an accelerator, or for days.
    """

    data_dir: Path | None = None
    amounts: tuple[float, ...] = (0.01, 0.1, 1.0)
    num_updates: int = 500
    num_steps: int = 50
    batch_size: int = 16
    embedding_features: int = 32
    hidden_features: int = 64
    num_layers: int = 1
    max_grad_norm: float = 1.0
    shared_learning_rate: float = 2e-3
    learning_rates: tuple[float, ...] = (2e-3, 5e-3, 1e-2, 2e-2, 4e-2)
    validate_every: int = 25
    valid_share: float = 0.05
    test_share: float = 0.05
    valid_characters: int = 10_000
    num_streams: int = 16
    max_order: int = 7
    timing_rounds: int = 9
    temperature: float = 0.8
    sample_characters: int = 300
    prompt: str = "\n"
    paper: bool = False
    output_dir: Path = Path("outputs/language_model")

    _MAY_DIFFER = RunConfig._MAY_DIFFER | {
        *("data_dir", "temperature", "sample_characters", "prompt", "max_order"),
    }

    def __post_init__(self) -> None:
        """Refuse what cannot be; `paper` sets the sizes."""
        super().__post_init__()
        if self.paper:
            for name, value in PAPER.items():
                object.__setattr__(self, name, value)
        for name in _POSITIVE_INTEGERS:
            check_positive(name, getattr(self, name))
        rising = all(
            a < b for a, b in zip(self.amounts, self.amounts[1:], strict=False)
        )
        if not self.amounts or not rising:
            raise invalid("amounts", "shares in rising order", self.amounts)
        for share in self.amounts:
            check_share("amounts", share, whole=True)
        for name in ("valid_share", "test_share"):
            if not 0 < getattr(self, name) < 1:
                raise invalid(name, "a share in (0, 1)", getattr(self, name))
        for name in ("max_grad_norm", "shared_learning_rate"):
            if not 0 < getattr(self, name) < math.inf:
                raise invalid(name, "a number above 0", getattr(self, name))
        if self.tuning_seeds < 1:
            raise invalid("tuning_seeds", "an integer of at least 1", self.tuning_seeds)
        if self.validate_every > self.num_updates:
            expected = f"at most the {self.num_updates} updates"
            raise invalid("validate_every", expected, self.validate_every)
        if not 0 <= self.temperature < math.inf:
            raise invalid("temperature", "a number of at least 0", self.temperature)
        for name in ("sample_characters", "timing_rounds"):
            if getattr(self, name) < 0:
                raise invalid(name, "an integer of at least 0", getattr(self, name))
        if not self.prompt:
            raise invalid("prompt", "at least one character", repr(self.prompt))


_POSITIVE_INTEGERS = (
    *("num_updates", "num_steps", "batch_size", "embedding_features"),
    *("hidden_features", "num_layers", "validate_every", "valid_characters"),
    *("num_streams", "max_order"),
)
