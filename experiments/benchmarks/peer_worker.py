"""Peers in a process of their own, at default settings, timed when they are told to.

    python -m experiments.benchmarks.peer_worker CASE     (started by this package)

Our seeds need JAX with a device a core, which is no setting of the peers'. The process
answers one line of JSON for each line it reads, and sleeps in between.
"""

import json
import math
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple, TextIO

from experiments.benchmarks.cases import Case
from experiments.benchmarks.data import STANDARD, make_data
from experiments.benchmarks.implementations import load
from experiments.benchmarks.memory import ROOT, child_environment
from experiments.benchmarks.model import Program
from experiments.benchmarks.one_case import prepare
from experiments.benchmarks.parity import References
from experiments.benchmarks.rows import make_row

MODULE = "experiments.benchmarks.peer_worker"
SUITE = "seeds"


class Built(NamedTuple):
    """What the process says when it is ready.

    Attributes:
        reasons: Of each peer why it cannot be timed, or None.
        first_losses: Of our reference, of each seed.
    """

    reasons: dict[str, str | None]
    first_losses: list[float]


class PeerWorker:
    """The process, as seen from the one that started it; a context manager."""

    def __init__(self, case: Case, names: Sequence[str], min_seconds: float):
        request = {"case": case._asdict(), "names": names, "min_seconds": min_seconds}
        self._process = subprocess.Popen(
            [sys.executable, "-m", MODULE, json.dumps(request)],
            cwd=ROOT,
            env=child_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> "PeerWorker":
        return self

    def __exit__(self, *exception: object) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            stream.close()
        self._process.wait()

    def built(self) -> Built:
        """Wait until the peers are built."""
        return Built(**self._read())

    def sample(self, name: str) -> float:
        """Have a peer timed; return seconds a call."""
        self._process.stdin.write(f"{name}\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> Any:
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{MODULE} ended with {self._process.wait()}.")
        return json.loads(line)


def _build(case: Case, names: Sequence[str]) -> tuple[Built, dict[str, Program]]:
    """Build and compare; return what there is to say, and the programs."""
    data = make_data(case)
    references = References(case, data)
    reasons, programs = {}, {}
    for name in names:
        implementation = load(name)
        if isinstance(implementation, str):
            reasons[name] = implementation
            continue
        reasons[name] = implementation.refuses(case)
        if reasons[name] is None:
            row = make_row(SUITE, case, name)
            row, program = prepare(row, implementation, data, references)
            reasons[name] = row.reason
            if program is not None:
                programs[name] = program
    first_losses = references.results(STANDARD)["losses"][:, 0].tolist()
    return Built(reasons, first_losses), programs


def _time(program: Program, calls: int) -> float:
    program.run()
    started = time.perf_counter()
    for _ in range(calls):
        program.run()
    return (time.perf_counter() - started) / calls


def serve(request: dict[str, Any], orders: TextIO, answers: TextIO) -> None:
    """Build the peers, then time the one whose name comes, until no more come.

    Args:
        request: The case, the names, and what a sample lasts at least.
        orders: Names, one a line.
        answers: JSON, one a line: `Built`, then seconds a call.
    """

    def answer(value: Any) -> None:
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    built, programs = _build(Case.from_json(request["case"]), request["names"])
    calls = {}
    for name, program in programs.items():
        calls[name] = math.ceil(request["min_seconds"] / _time(program, 1))
    answer(built._asdict())
    for order in orders:
        name = order.strip()
        answer(_time(programs[name], calls[name]))


if __name__ == "__main__":
    serve(json.loads(sys.argv[1]), sys.stdin, sys.stdout)
