"""The settings that every experiment has: where results go, and how a run goes on."""

import dataclasses
import math
from pathlib import Path
from typing import Any, Literal

from gated_rnn.types import check_positive, invalid

_MIN_SEED_BLOCK = 2  # of gated_rnn.training.train_seeds


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What an experiment's `Config` inherits.

    Attributes:
        seed: Root of all randomness.
        resume: Go on with the run in the output directory: the results are those of a
            run that was never interrupted. More epochs and more seeds may be asked for.
        save_seconds: Seconds between two checkpoints, in the folder checkpoints of the
            output directory; a run that is asked to stop saves before it does.
        tensorboard: Write metrics for TensorBoard as well, in the folder tensorboard.
        save_models: Write each seed's network as a file of its own, to the folder
            models, at the end.
        memory_budget: Bytes that training may take, of one accelerator or of all CPU
            devices together; the width of a block of seeds then follows from it.
        compilation_cache: Folder in which compiled programs are kept from run to run.
        picture_format: How pictures are written.
        output_dir: Folder for the results, made if need be.
    """

    seed: int = 0
    resume: bool = False
    save_seconds: float = 30.0
    tensorboard: bool = False
    save_models: bool = False
    memory_budget: int | None = None
    compilation_cache: Path | None = None
    picture_format: Literal["png", "svg", "pdf"] = "png"
    output_dir: Path = Path("outputs")

    #: Settings that may differ when a run goes on.
    _MAY_DIFFER = frozenset(
        {
            *("resume", "save_seconds", "tensorboard", "save_models", "picture_format"),
            *("compilation_cache", "output_dir", "num_seeds", "num_epochs", "paper"),
            *("cells", "seed_block", "memory_budget", "timing_rounds"),
            "held_out_sequences",
        }
    )

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if not 0 <= self.seed < 2**63:
            raise invalid("seed", "an integer from 0 to 2^63 - 1", self.seed)
        if not self.save_seconds >= 0:
            expected = "a number of at least 0"
            raise invalid("save_seconds", expected, self.save_seconds)
        if self.memory_budget is not None:
            check_positive("memory_budget", self.memory_budget)

    @property
    def identity(self) -> dict[str, Any]:
        """The settings that make it this run, which must be equal when it goes on."""
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in self._MAY_DIFFER
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class ComparisonConfig(RunConfig):
    """What the `Config` of an experiment that compares arms inherits.

    Attributes:
        num_seeds: Seeds of every arm, the same ones; a verdict takes ten.
        seed_block: Seeds that run as one program, on one device. With half of the
            seeds, two cores are busy.
        learning_rates: What is tried for each arm, on validation data.
        tuning_seeds: Seeds that each of these rates has, beside those compared; 0:
            nothing is tuned.
    """

    num_seeds: int = 10
    seed_block: int = 5
    learning_rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3, 1e-2)
    tuning_seeds: int = 2

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        super().__post_init__()
        check_positive("num_seeds", self.num_seeds)
        if self.seed_block < _MIN_SEED_BLOCK:
            expected = f"an integer of at least {_MIN_SEED_BLOCK}"
            raise invalid("seed_block", expected, self.seed_block)
        if self.tuning_seeds < 0:
            expected = "an integer of at least 0"
            raise invalid("tuning_seeds", expected, self.tuning_seeds)
        rates = self.learning_rates
        if not rates or not all(0 < rate < math.inf for rate in rates):
            raise invalid("learning_rates", "numbers above 0, at least one", rates)
