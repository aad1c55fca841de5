"""What an adapter says of its library, and what is made of it to be measured.

A JAX library is a `Model`: pure functions, from which `jax_programs` makes every mode.
One outside JAX makes its `Program`s itself.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np

from experiments.benchmarks.cases import Case
from experiments.benchmarks.data import STANDARD, Batch, Data

Results = dict[str, np.ndarray]


class Facts(NamedTuple):
    """What distinguishes an implementation of a case from ours.

    Attributes:
        form: Which of our cells it is, one of `data.FORMS`.
        note: What a reader of the row should know.
        same_updates: Whether Adam makes of its parameters what it makes of ours; not
            so where two biases stand for one of ours.
    """

    form: str = STANDARD
    note: str = ""
    same_updates: bool = True


class Model(NamedTuple):
    """A recurrent layer of a JAX library as pure functions of its own parameters.

    Attributes:
        convert: From our parameters to the library's, traceable: its transpose brings
            gradients back.
        apply: `(params, batch) -> outputs`, zero beyond the lengths.
        step: `(params, carry, inputs [B, F]) -> (carry, outputs [B, H])`.
        carry: The zero carry of `step`.
        facts: What distinguishes it.
        batch_major: Whether inputs, resets and outputs have the batch first.
        maps_seeds: Whether seeds are lanes of one program; if not they run in a loop.
    """

    convert: Callable[[Any], Any]
    apply: Callable[[Any, Batch], Any]
    step: Callable[[Any, Any, Any], tuple[Any, Any]]
    carry: Any
    facts: Facts = Facts()
    batch_major: bool = False
    maps_seeds: bool = False


class ProgramMemory(NamedTuple):
    """Bytes that XLA says a program needs; `alias` counts outputs in donated inputs."""

    temporary: int
    argument: int
    output: int
    alias: int


class Program(NamedTuple):
    """An implementation of a case, compiled, with its data on the device.

    Attributes:
        run: One call, and the wait until the device is done. A program that trains
            goes on from where it is.
        results: What the program computes, in our layout, time-major, a seed a row;
            called once, before `run`.
        compile_seconds: Tracing and compiling; None where nothing is compiled.
        memory: As XLA planned it; None where XLA is not used.
    """

    run: Callable[[], None]
    results: Callable[[], Results]
    compile_seconds: float | None = None
    memory: ProgramMemory | None = None


class Implementation(Protocol):
    """One way to compute the cases."""

    def refuses(self, case: Case) -> str | None:
        """Say why a case cannot be asked of it, or None."""
        ...

    def facts(self, case: Case) -> Facts:
        """Say what distinguishes it from ours."""
        ...

    def build(self, case: Case, data: Data) -> Program:
        """Compile a case."""
        ...

    def derive(self, case: Case, data: Data) -> Results:
        """Compute outputs and gradients of the one seed, those of the inputs too."""
        ...


class Settings(NamedTuple):
    """Of the optimiser, the same for all."""

    learning_rate: float = 1e-3
    max_grad_norm: float = 1.0


SETTINGS = Settings()
NUM_CHECKED_UPDATES = 3  # the third loss depends on two updates
