"""Training: an optimiser, one seed, many seeds; long sequences; evaluation.

One run is a pure function of one key. `train` makes one; `train_seeds` makes many at
once, over all devices, each with the same bits whichever others run beside it.
`truncated_epoch` trains on a long sequence piece by piece; `evaluate` and `predict` run
what was trained.
"""

from gated_rnn.training.checkpoints import CheckpointError, Checkpoints
from gated_rnn.training.evaluation import evaluate, predict
from gated_rnn.training.guarded import Best, Status, StopReason
from gated_rnn.training.loop import (
    Problem,
    TrainResult,
    TrainState,
    init_train_state,
    make_train_step,
    train,
)
from gated_rnn.training.optimizer import make_optimizer
from gated_rnn.training.piece_schedule import PieceSchedule, PieceState
from gated_rnn.training.processes import Share, gather_seeds, gather_state, share_seeds
from gated_rnn.training.resumable import Stopped, train_resumable
from gated_rnn.training.search import (
    Points,
    choice,
    grid,
    log_uniform,
    random_search,
    uniform,
)
from gated_rnn.training.seed_memory import SeedPlan, plan_block, plan_seeds
from gated_rnn.training.seeds import Piece, Seconds, SeedResult, SeedState, train_seeds
from gated_rnn.training.sharded_loss import shard_batch, shard_loss
from gated_rnn.training.truncated import make_truncated_step, truncated_epoch

__all__ = [
    "Best",
    "CheckpointError",
    "Checkpoints",
    "Piece",
    "PieceSchedule",
    "PieceState",
    "Points",
    "Problem",
    "Seconds",
    "SeedPlan",
    "SeedResult",
    "SeedState",
    "Share",
    "Status",
    "StopReason",
    "Stopped",
    "TrainResult",
    "TrainState",
    "choice",
    "evaluate",
    "gather_seeds",
    "gather_state",
    "grid",
    "init_train_state",
    "log_uniform",
    "make_optimizer",
    "make_train_step",
    "make_truncated_step",
    "plan_block",
    "plan_seeds",
    "predict",
    "random_search",
    "shard_batch",
    "shard_loss",
    "share_seeds",
    "train",
    "train_resumable",
    "train_seeds",
    "truncated_epoch",
    "uniform",
]
