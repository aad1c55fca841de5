"""Kill the main job at random instants, resume it, and compare with one left alone.

    python -m tests.experiments.killing [NUMBER OF KILLS]

Prints a line for each kill and a verdict; exit status 1 if anything differs.
"""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).parents[2]
CELLS = ("lstm", "gru")
NUM_SEEDS, NUM_EPOCHS = 3, 40
NUM_LINES = len(CELLS) * NUM_SEEDS * NUM_EPOCHS
OPTIONS = (
    f"--num-seeds {NUM_SEEDS} --num-epochs {NUM_EPOCHS} --num-sequences 4 "
    "--num-steps 60 --hidden-features 3 --periods 50 11 --timing-rounds 0 "
    "--save-seconds 0"
)
# What only costs time on data this small; and all that was compiled is kept.
ENVIRONMENT = {
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
}
POLL_SECONDS = 0.002
LONGEST_DELAY = 0.03  # about what an update and its checkpoint take


class Ended(NamedTuple):
    """A process that is no more: how, how many lines of metrics it left, what it said.

    `status` is the negative number of the signal that killed it.
    """

    asked: str
    status: int
    num_lines: int
    output: str
    errors: str


def start(directory, *arguments):
    return subprocess.Popen(
        [
            *(sys.executable, "-W", "error", "-m", "experiments.long_sequences"),
            *OPTIONS.split(),
            *("--compilation-cache", str(directory.parent / "cache")),
            *("--output-dir", str(directory)),
            *arguments,
        ],
        cwd=REPOSITORY,
        env={**os.environ, **ENVIRONMENT},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def count_lines(directory):
    paths = [directory / f"metrics_{cell}.jsonl" for cell in CELLS]
    return sum(path.read_bytes().count(b"\n") for path in paths if path.exists())


def run_to_end(directory, *arguments):
    output, errors = (process := start(directory, *arguments)).communicate()
    lines = count_lines(directory)
    return Ended("nothing", process.returncode, lines, output, errors)


def interrupt(directory, number, at_line, delay, *arguments):
    """Start the job and send it a signal `delay` seconds after it wrote a line."""
    process = start(directory, *arguments)
    while process.poll() is None and count_lines(directory) < at_line:
        time.sleep(POLL_SECONDS)
    time.sleep(delay)
    process.send_signal(number)
    output, errors = process.communicate()
    lines = count_lines(directory)
    return Ended(number.name, process.returncode, lines, output, errors)


def interrupt_often(directory, numbers, seed):
    """Send one signal after the other, to the job that is resumed each time."""
    rng = random.Random(seed)
    instants = sorted(rng.sample(range(1, NUM_LINES), len(numbers)))
    for number, at_line in zip(numbers, instants, strict=True):
        delay = rng.uniform(0, LONGEST_DELAY)
        yield interrupt(directory, number, at_line, delay, "--resume")


def outcome(directory):
    """Give all that must be equal: the record's cells, and the lines of metrics."""
    record = json.loads((directory / "results.json").read_text())
    lines = {
        cell: sorted((directory / f"metrics_{cell}.jsonl").read_text().splitlines())
        for cell in CELLS
    }
    return record["cells"], lines


def say(text):
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main(num_kills=20):
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        whole, killed = Path(folder) / "whole", Path(folder) / "killed"
        say("Running without a kill.")
        ended = run_to_end(whole)
        if ended.status != 0:
            say(ended.errors)
            return 1
        kills = interrupt_often(killed, [signal.SIGKILL] * num_kills, seed=20)
        for number, ended in enumerate(kills, start=1):
            how = "killed" if ended.status == -signal.SIGKILL else "had ended"
            failed |= ended.status not in (0, -signal.SIGKILL)
            say(
                f"Kill {number} of {num_kills}: {how} with {ended.num_lines} of "
                f"{NUM_LINES} lines of metrics. {ended.errors}".rstrip()
            )
        ended = run_to_end(killed, "--resume")
        failed |= ended.status != 0
        if ended.errors:
            say(ended.errors)
        equal = not failed and outcome(whole) == outcome(killed)
    words = "equal in every seed's every number" if equal else "DIFFERENT"
    say(f"Resumed after {num_kills} kills against never killed: {words}.")
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
