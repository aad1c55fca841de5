"""The settings that every experiment has: where results go, and how a run goes on."""

import dataclasses
from pathlib import Path
from typing import Any

from gated_rnn.types import check_positive, invalid


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
        output_dir: Folder for the results, made if need be.
    """

    seed: int = 0
    resume: bool = False
    save_seconds: float = 30.0
    tensorboard: bool = False
    save_models: bool = False
    memory_budget: int | None = None
    compilation_cache: Path | None = None
    output_dir: Path = Path("outputs")

    #: Settings that may differ when a run goes on.
    _MAY_DIFFER = frozenset(
        {
            *("resume", "save_seconds", "tensorboard", "save_models"),
            *("compilation_cache", "output_dir", "num_seeds", "num_epochs", "paper"),
            *("cells", "seed_block", "memory_budget", "timing_rounds"),
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
