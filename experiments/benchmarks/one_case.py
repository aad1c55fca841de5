"""One case: build what can be built, compare it with ours, time what agrees."""

from collections.abc import Mapping

import numpy as np

from experiments.benchmarks.cases import Case
from experiments.benchmarks.data import Data, make_data
from experiments.benchmarks.measure import Limits, time_rounds
from experiments.benchmarks.memory import ask_child
from experiments.benchmarks.model import Implementation, Program
from experiments.benchmarks.parity import References, check_derivatives, tolerance
from experiments.benchmarks.roofline import Machine, count_work, limit_seconds
from experiments.benchmarks.rows import Row, make_row

_ORDER_SEED = 11


def measure_case(
    suite: str,
    case: Case,
    implementations: Mapping[str, Implementation | str],
    limits: Limits,
    machine: Machine,
) -> list[Row]:
    """Measure one case.

    Args:
        suite: Of the case.
        case: The case.
        implementations: By name; a string is the reason why there is none.
        limits: How much is measured.
        machine: The machine's rates.

    Returns:
        A row an implementation.
    """
    data = make_data(case)
    references = References(case, data)
    rows: dict[str, Row] = {}
    programs: dict[str, Program] = {}
    for name, implementation in implementations.items():
        row = make_row(suite, case, name)
        if isinstance(implementation, str):
            rows[name] = row.replace(reason=implementation)
        elif refusal := implementation.refuses(case):
            rows[name] = row.replace(reason=refusal)
        else:
            rows[name], program = prepare(row, implementation, data, references)
            if program is not None:
                programs[name] = program
    runs = {name: program.run for name, program in programs.items()}
    samples = time_rounds(runs, limits, np.random.default_rng(_ORDER_SEED))
    lengths = data.batch.lengths
    work = count_work(case, None if lengths is None else int(lengths.sum()))
    limit = limit_seconds(work, machine, case.dtype)
    for name in samples:
        rows[name] = rows[name].add_samples(samples[name], work, limit)
    return list(rows.values())


def prepare(
    row: Row, implementation: Implementation, data: Data, references: References
) -> tuple[Row, Program | None]:
    """Build a program and compare it.

    Args:
        row: Says which case, of which implementation.
        implementation: Does not refuse the case.
        data: Of the case.
        references: Of the case.

    Returns:
        The row with what was found, and the program; without agreement there is none.
    """
    case, name = row.case, row.implementation
    row = row.add_facts(implementation.facts(case))
    try:
        # First, so that the seconds of compiling are not those of a library's first
        # trace.
        of_derivatives = check_derivatives(name, implementation, case)
        program = implementation.build(case, data)
        of_case = references.compare(implementation, program)
    except RuntimeError as error:  # out of memory, or nothing to run it on
        return row.replace(status="failed", reason=_first_line(error)), None
    error, array = max(of_derivatives, of_case)
    allowed = tolerance(case)
    row = row.add_program(program).replace(
        max_relative_error=error, worst_array=array, tolerance=allowed
    )
    if error > allowed:
        reason = f"{array} differs by {error:.1e}, allowed is {allowed:.0e}"
        return row.replace(status="disagrees", reason=reason), None
    return row, program


def add_peak(row: Row) -> Row:
    """Measure the memory of a row's call in a fresh process.

    Args:
        row: A row that was timed.

    Returns:
        The row with its peak, or with the reason in its note.
    """
    request = {"implementation": row.implementation, "case": row.case._asdict()}
    answer = ask_child(request)
    if isinstance(answer, str):
        return row.replace(note=f"{row.note}; memory: {answer}".removeprefix("; "))
    return row.add_peak(answer)


def _first_line(error: RuntimeError) -> str:
    lines = str(error).splitlines() or [type(error).__name__]
    return lines[0]
