"""One point of the benchmark of seeds: so many seeds, in blocks, on so many devices.

    python -m experiments.benchmarks.seed_points REQUEST     (started by this package)

As a program it measures the memory of a point.
"""

import json
import math
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.cases import Case
from experiments.benchmarks.data import cell_of, make_data
from experiments.benchmarks.jax_programs import mean_square
from experiments.benchmarks.memory import (
    PeakMemory,
    ask_child,
    device_peak,
    measure_peak,
)
from experiments.benchmarks.model import SETTINGS
from experiments.benchmarks.ours import ENGINES
from gated_rnn import Engine, unroll
from gated_rnn.training import (
    Problem,
    SeedResult,
    make_optimizer,
    plan_block,
    train_seeds,
)

MODULE = "experiments.benchmarks.seed_points"
DEFAULT_ENGINE = "default"
MIN_SEED_BLOCK = 2  # of train_seeds
#: Between two returns to the host, `train_seeds`' own default.
UPDATES_PER_PIECE = 10


class Point(NamedTuple):
    """Where the throughput is measured; the number of seeds is that of the case."""

    case: Case
    seed_block: int
    num_devices: int


class Training:
    """`train_seeds` on one case: mean(outputs ** 2) of weights that are given."""

    def __init__(self, case: Case, engine: str = DEFAULT_ENGINE):
        data = make_data(case)
        self.case = case
        self.params = jax.tree.map(lambda *leaves: np.stack(leaves), *data.params)
        self.optimizer = make_optimizer(SETTINGS.learning_rate, SETTINGS.max_grad_norm)
        inputs = jnp.asarray(data.batch.inputs)
        self.problem = Problem(
            init=lambda key, params: params,
            loss=_make_loss(
                case, None if engine == DEFAULT_ENGINE else ENGINES[engine]()
            ),
            batch=jax.tree_util.Partial(_give_inputs, inputs),
        )

    def train(self, point: Point, num_updates: int) -> SeedResult:
        """Train the seeds of a point, the first ones of the case."""
        num_seeds = point.case.num_seeds
        return train_seeds(
            self.problem,
            jax.random.key(0),
            np.arange(num_seeds),
            num_updates,
            optimizer=self.optimizer,
            hyper=jax.tree.map(lambda leaf: leaf[:num_seeds], self.params),
            updates_per_piece=UPDATES_PER_PIECE,
            seed_block=point.seed_block,
            devices=jax.local_devices()[: point.num_devices],
        )

    def plan_memory(self, point: Point) -> int:
        """Predict the bytes of a point: of all CPU devices, or of one accelerator."""
        num_seeds = point.case.num_seeds
        return plan_block(
            self.problem,
            num_seeds,
            point.seed_block,
            optimizer=self.optimizer,
            hyper=jax.tree.map(lambda leaf: leaf[:num_seeds], self.params),
            updates_per_piece=UPDATES_PER_PIECE,
            devices=jax.local_devices()[: point.num_devices],
        ).num_bytes


def _make_loss(case: Case, engine: Engine | None) -> Callable[..., Any]:
    cell = cell_of(case, form="standard")

    def loss(params: Any, inputs: jax.Array, key: jax.Array) -> tuple[jax.Array, dict]:
        _, outputs = unroll(cell, params, inputs, engine=engine)
        return mean_square(outputs), {}

    return loss


def _give_inputs(inputs: jax.Array, key: jax.Array, step: jax.Array) -> jax.Array:
    return inputs


def make_sampler(
    training: Training, point: Point, min_seconds: float
) -> tuple[Callable[[], float], float]:
    """Compile a point.

    Args:
        training: Of the point's cell and sizes, with at least its seeds.
        point: The point.
        min_seconds: What a sample lasts at least.

    Returns:
        What takes a sample, in seconds an update of all seeds; and the seconds of
        tracing and compiling.
    """
    compile_seconds = training.train(point, 1).seconds.compile
    once = float(training.train(point, 1).seconds.pieces.sum())
    num_updates = math.ceil(min_seconds / once)

    def sample() -> float:
        pieces = training.train(point, num_updates).seconds.pieces
        return float(pieces.sum()) / num_updates

    return sample, compile_seconds


def use_devices(number: int) -> None:
    """Make CPU devices, before JAX has started; without effect elsewhere.

    Args:
        number: How many.

    Raises:
        RuntimeError: If JAX has started already.
    """
    jax.config.update("jax_num_cpu_devices", number)


def measure_peak_of(point: Point, engine: str) -> PeakMemory | str:
    """Measure the memory of one update of a point in a fresh process.

    Args:
        point: The point.
        engine: Name of ours.

    Returns:
        What the process measured, or the last line of its complaint.
    """
    request = {**point._asdict(), "case": point.case._asdict(), "engine": engine}
    return ask_child(request, MODULE)


def _answer(request: dict[str, Any]) -> PeakMemory:
    engine = request.pop("engine")
    point = Point(**{**request, "case": Case.from_json(request["case"])})
    use_devices(point.num_devices)
    training = Training(point.case, engine)
    training.train(point, 1)  # compiles; the second time nothing is compiled
    return PeakMemory(measure_peak(lambda: training.train(point, 1)), device_peak())


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_answer(json.loads(sys.argv[1]))._asdict()) + "\n")
