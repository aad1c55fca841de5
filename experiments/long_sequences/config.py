"""Every setting of the experiment, each a flag of the command, with its reason."""

import dataclasses
import math
from pathlib import Path
from typing import Literal

from experiments.data.price_process import PriceProcess
from experiments.data.published_curves import NUM_EPOCHS as PAPER_EPOCHS
from experiments.run_config import RunConfig
from gated_rnn.training import PieceSchedule
from gated_rnn.types import check_positive, invalid

#: As many as two cores train in five minutes; chosen by measurement, see the README.
DEFAULT_EPOCHS = 90
#: What --curriculum changes of the settings that were left alone: so much of four arms
#: two cores train in five minutes.
CURRICULUM_SIZES = {
    "num_seeds": 10,
    "num_epochs": 300,
    "num_sequences": 15,
    "num_steps": 2000,
    "held_out_sequences": 15,
    "output_dir": Path("outputs/long_sequences_curriculum"),
}
#: With --paper: those of the author's earlier post.
CURRICULUM_PAPER_SIZES = {
    "num_epochs": 800,
    "num_sequences": 15,
    "held_out_sequences": 15,
    "output_dir": Path("outputs/long_sequences_curriculum"),
}
_MIN_SEED_BLOCK = 2  # of gated_rnn.training.train_seeds
_MIN_PERIOD = 2.0  # steps: anything faster looks like a slower wave


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(RunConfig):
    """LSTM against GRU on long sequences of prices, over several random seeds.

    Repeats the experiment of E. Muccino, "LSTM vs GRU: Experimental Comparison",
    Mindboard, 2019: below, "the text".

    Trains both cells on the same data with the same seeds, shows the loss as it falls,
    and writes results.json, loss_curves.png and summary.md.

    Attributes:
        cells: Cells to train, in this order.
        num_seeds: Number of seeds per cell. Both cells get the same ones.
        num_epochs: Epochs of one update each. The default fits into five minutes on
            two cores.
        paper: The full 1000 epochs of the published figure. Only so long a run gives a
            verdict on the text's claims.
        curriculum: Instead, compare full backpropagation with the schedule of the
            author's earlier post ("Training Recurrent Neural Networks on Long
            Sequences"), which he found to end lower: the sequences are cut into pieces,
            the hidden state is carried from one to the next, and there are fewer
            pieces when the loss has stopped falling. Sizes that are left alone are
            then smaller: 10 seeds, 300 epochs, 15 sequences of 2,000 steps; with
            --paper 800 epochs and 15 sequences of 20,000.
        piece_counts: Of the curriculum: into how many pieces to cut, phase by phase.
        piece_patience: Of the curriculum: after how many epochs in a row without a new
            lowest loss a seed goes to the next number of pieces.
        num_sequences: Sequences in the one batch.
        num_steps: Length of a sequence, all of it backpropagated through.
        hidden_features: Units of the one recurrent layer.
        preset: What training starts from. cudnn: as the text's Keras layers for cuDNN
            did, the recurrent kernel of all gates orthogonal as a whole, and Keras'
            epsilon of 1e-7 in Adam. ours: this library's own defaults, each gate's
            recurrent block orthogonal, and optax' epsilon of 1e-8. In both, kernels are
            Glorot's and the LSTM's forget bias is 1.
        learning_rate: Adam's learning rate, constant.
        max_grad_norm: Gradients are clipped to this norm over all parameters together;
            inf: not at all.
        input_window: Input features of a step, the latest price changes. The text does
            not give it. With 1, all that a network knows of the past is what it
            remembers, which is what the comparison is about; the author's other posts
            used 1 to 32, and 128.
        periods: Periods of the price's two sinusoids in steps. The author's plot shows
            a wave of several thousand steps and one of a few hundred or less.
        angle_step: How far the angle that mixes the two sinusoids walks in a step, in
            radians (standard deviation). At 0.01 a mixture lasts some thousand steps.
        noise_sd: Standard deviation of the noise on the price. The text says "variance
            0.01", which would be 0.1; the plot shows a band that fits 0.01.
        discount: The trader's discount a step. At 0.99 the next 100 steps count, half a
            period of the fast wave.
        cost: Price of one change of position. At 0.5, a quarter of the fast wave's
            largest swing, the direction of the next move weighs as much in the values
            as its size; the smaller the cost, the more the seven values are one.
        target_scaling: Zscore takes each value less its mean, over its standard
            deviation, as the author did with his; raw is in price units.
        loss: The sum of the mean squared errors of the three heads flat, long and
            short, or the mean over all seven values. The text does not say; a Keras
            model with three outputs takes the sum.
        shared_data: All seeds train on one data set, as the text's one run did. Without
            it each seed draws its own, and intervals speak of the process, not of one
            draw.
        seed_block: Seeds that run side by side in one program, on one device. With 2,
            four seeds keep two cores busy.
        chunk_size: Steps between two checkpoints in time, which save memory for a
            second forward pass; 0 keeps everything.
        held_out_sequences: Fresh sequences of each seed on which its network is scored
            and trades after training; of the same length, scaled as its training data.
        timing_rounds: Rounds of one epoch of each cell in turn, at the end, to compare
            their speed on equal terms; 0 leaves them out.
    """

    cells: tuple[Literal["lstm", "gru"], ...] = ("lstm", "gru")
    num_seeds: int = 4
    num_epochs: int = DEFAULT_EPOCHS
    paper: bool = False
    curriculum: bool = False
    piece_counts: tuple[int, ...] = (100, 50, 10, 2, 1)
    piece_patience: int = 20
    num_sequences: int = 40
    num_steps: int = 20_000
    hidden_features: int = 16
    preset: Literal["cudnn", "ours"] = "cudnn"
    learning_rate: float = 1e-3
    max_grad_norm: float = 1.0
    input_window: int = 1
    periods: tuple[float, float] = (4000.0, 200.0)
    angle_step: float = 0.01
    noise_sd: float = 0.01
    discount: float = 0.99
    cost: float = 0.5
    target_scaling: Literal["zscore", "raw"] = "zscore"
    loss: Literal["sum", "mean"] = "sum"
    shared_data: bool = False
    seed_block: int = 2
    chunk_size: int = 0
    held_out_sequences: int = 40
    timing_rounds: int = 5
    output_dir: Path = Path("outputs/long_sequences")

    def __post_init__(self) -> None:
        """Refuse what cannot be trained; `paper` and `curriculum` set sizes."""
        super().__post_init__()
        if self.curriculum:
            self._shrink()
        if not self.cells or len(set(self.cells)) < len(self.cells):
            raise invalid("cells", "each cell at most once, at least one", self.cells)
        for name in _POSITIVE_INTEGERS:
            check_positive(name, getattr(self, name))
        for name in _NOT_NEGATIVE:
            self._check(name, "a number of at least 0", lambda value: value >= 0)
        for name in _POSITIVE:
            self._check(name, "a number above 0", lambda value: value > 0)
        for name in _FINITE:
            self._check(name, "a finite number", math.isfinite)
        for period in self.periods:
            if not _MIN_PERIOD <= period < math.inf:
                expected = f"two numbers of at least {_MIN_PERIOD:g} steps"
                raise invalid("periods", expected, self.periods)
        self._check("discount", "a number in [0, 1)", lambda value: 0 <= value < 1)
        self._check(
            "seed_block",
            f"an integer of at least {_MIN_SEED_BLOCK}",
            lambda value: value >= _MIN_SEED_BLOCK,
        )
        PieceSchedule(self.piece_counts, self.piece_patience)  # refuses what cannot be
        if self.curriculum and self.memory_budget is not None:
            raise invalid("memory_budget", "none beside --curriculum", "one")
        if self.paper and not self.curriculum:
            if self.num_epochs not in (DEFAULT_EPOCHS, PAPER_EPOCHS):
                raise invalid("num_epochs", "none beside --paper", self.num_epochs)
            object.__setattr__(self, "num_epochs", PAPER_EPOCHS)

    def _shrink(self) -> None:
        sizes = CURRICULUM_PAPER_SIZES if self.paper else CURRICULUM_SIZES
        for field in dataclasses.fields(self):
            if field.name in sizes and getattr(self, field.name) == field.default:
                object.__setattr__(self, field.name, sizes[field.name])

    def _check(self, name, expected, allows) -> None:
        value = getattr(self, name)
        if not allows(value):
            raise invalid(name, expected, value)

    @property
    def process(self) -> PriceProcess:
        """The price process of these settings."""
        return PriceProcess(self.periods, self.angle_step, self.noise_sd)


_POSITIVE_INTEGERS = (
    *("num_seeds", "num_epochs", "num_sequences", "num_steps", "hidden_features"),
    *("input_window", "held_out_sequences"),
)
_NOT_NEGATIVE = (
    "chunk_size",
    "timing_rounds",
    "angle_step",
    "noise_sd",
    "cost",
)
_POSITIVE = ("learning_rate", "max_grad_norm")
_FINITE = ("learning_rate", "angle_step", "noise_sd", "cost")
