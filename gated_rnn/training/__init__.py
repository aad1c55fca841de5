"""Training: an optimiser, one seed, many seeds.

One run is a pure function of one key. `train` makes one; `train_seeds` makes many at
once, over all devices, each with the same bits whichever others run beside it.
"""

from gated_rnn.training.loop import (
    Problem,
    TrainResult,
    TrainState,
    init_train_state,
    make_train_step,
    train,
)
from gated_rnn.training.optimizer import make_optimizer
from gated_rnn.training.seeds import Piece, Seconds, SeedResult, train_seeds

__all__ = [
    "Piece",
    "Problem",
    "Seconds",
    "SeedResult",
    "TrainResult",
    "TrainState",
    "init_train_state",
    "make_optimizer",
    "make_train_step",
    "train",
    "train_seeds",
]
