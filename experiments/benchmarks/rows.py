"""A row of the results: one implementation of one case. Its schema is `Row`.

Rows stand in results.json under cells / lstm or gru / rows.
"""

import dataclasses
from typing import Any, Literal

from experiments.benchmarks.cases import Case, Sizes
from experiments.benchmarks.data import RESET_BEFORE
from experiments.benchmarks.measure import Samples, quartiles
from experiments.benchmarks.memory import PeakMemory
from experiments.benchmarks.model import Facts, Program
from experiments.benchmarks.roofline import Work

Status = Literal["timed", "skipped", "disagrees", "failed"]


@dataclasses.dataclass(frozen=True)
class Row:
    """One implementation of one case.

    Times are seconds of one call, which waits for the device; a case of several seeds
    has all of them in one call. What was not measured is None.

    Attributes:
        suite: Of which suite the case is.
        implementation: Name on the command line.
        cell: "lstm" or "gru".
        mode: "forward", "gradient", "train" or "step".
        variant: "plain", "lengths" or "resets".
        dtype: Of parameters and inputs.
        batch_size: B.
        num_steps: T.
        in_features: F.
        hidden_features: H.
        num_seeds: S.
        status: "timed"; "skipped", it cannot be asked or is not installed; "disagrees",
            it computes something else and was not timed; "failed", it broke off.
        reason: Why it is not timed.
        note: What distinguishes it.
        reset_after: Where the GRU's reset gate acts; None for the LSTM.
        max_relative_error: Against our reference engine: the largest of outputs,
            losses and gradients, on the case and on a small cut of it.
        worst_array: Which of them.
        tolerance: What counts as agreement.
        compile_seconds: Tracing and compiling; None for what is not compiled.
        samples: Seconds a call, one a round; sample r of all rows of a case is of one
            round.
        calls: Calls in a sample.
        seconds_low: First quartile of the samples.
        seconds_median: Their median.
        seconds_high: Third quartile.
        temporary_bytes: XLA's plan of the program: scratch memory,
        argument_bytes: inputs and parameters,
        output_bytes: results,
        alias_bytes: and what of the results lies in donated inputs.
        peak_bytes: What one call in a fresh process adds to its resident size.
        device_peak_bytes: The accelerator's peak in that process.
        flops: Counted by `roofline.count_work`.
        min_bytes: The same.
        roofline_multiple: Median over what the machine needs at least.
    """

    suite: str
    implementation: str
    cell: str
    mode: str
    variant: str
    dtype: str
    batch_size: int
    num_steps: int
    in_features: int
    hidden_features: int
    num_seeds: int
    status: Status
    reason: str | None = None
    note: str = ""
    reset_after: bool | None = None
    max_relative_error: float | None = None
    worst_array: str | None = None
    tolerance: float | None = None
    compile_seconds: float | None = None
    samples: list[float] = dataclasses.field(default_factory=list)
    calls: int | None = None
    seconds_low: float | None = None
    seconds_median: float | None = None
    seconds_high: float | None = None
    temporary_bytes: int | None = None
    argument_bytes: int | None = None
    output_bytes: int | None = None
    alias_bytes: int | None = None
    peak_bytes: int | None = None
    device_peak_bytes: int | None = None
    flops: int | None = None
    min_bytes: int | None = None
    roofline_multiple: float | None = None

    @property
    def case(self) -> Case:
        """The case, which rows to compare share."""
        sizes = Sizes(
            self.batch_size, self.num_steps, self.in_features, self.hidden_features
        )
        return Case(
            self.cell, self.mode, sizes, self.variant, self.num_seeds, self.dtype
        )

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "Row":
        """Make a row from what `json.loads` gives of one.

        Raises:
            TypeError: If the fields are not those of a row.
        """
        return cls(**fields)

    def replace(self, **fields: Any) -> "Row":
        """Return the row with other fields."""
        return dataclasses.replace(self, **fields)

    def add_facts(self, facts: Facts) -> "Row":
        """Return the row with what distinguishes the implementation."""
        is_gru = self.cell == "gru"
        return self.replace(
            note=facts.note,
            reset_after=facts.form != RESET_BEFORE if is_gru else None,
        )

    def add_program(self, program: Program) -> "Row":
        """Return the row with what compiling told."""
        row = self.replace(compile_seconds=program.compile_seconds)
        if program.memory is None:
            return row
        return row.replace(
            **{f"{use}_bytes": count for use, count in program.memory._asdict().items()}
        )

    def add_samples(self, samples: Samples, work: Work, limit: float) -> "Row":
        """Return the row, timed; `limit` is the machine's least time in seconds."""
        low, median, high = quartiles(samples.seconds)
        return self.replace(
            status="timed",
            samples=samples.seconds,
            calls=samples.calls,
            seconds_low=low,
            seconds_median=median,
            seconds_high=high,
            flops=work.flops,
            min_bytes=work.bytes,
            roofline_multiple=median / limit,
        )

    def add_peak(self, peak: PeakMemory) -> "Row":
        """Return the row with the memory that a fresh process measured."""
        return self.replace(peak_bytes=peak.host, device_peak_bytes=peak.device)


def make_row(suite: str, case: Case, implementation: str, **fields: Any) -> Row:
    """Begin a row.

    Args:
        suite: Of the case.
        case: The case.
        implementation: Name on the command line.
        **fields: Further ones; the status is "skipped" if none is given.

    Returns:
        The row.
    """
    named = {**case._asdict(), **case.sizes._asdict(), "status": "skipped", **fields}
    del named["sizes"]
    return Row(suite=suite, implementation=implementation, **named)


def read_rows(record: dict[str, Any]) -> list[Row]:
    """Take the rows of all cells out of a record.

    Args:
        record: What `json.loads` gives of results.json.

    Returns:
        The rows, in the order in which they were made.
    """
    return [
        Row.from_json(fields)
        for cell in record["cells"].values()
        for fields in cell["rows"]
    ]
