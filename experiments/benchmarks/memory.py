"""The memory one call needs, measured in a fresh process for each implementation.

    python -m experiments.benchmarks.memory REQUEST     (started by this package)

The process compiles, gives back what it can, notes its resident size, resets the peak
and makes the first call. What the call adds to the resident size is its memory; inputs
and parameters are resident before.
"""

import contextlib
import ctypes
import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

MODULE = "experiments.benchmarks.memory"
ROOT = Path(__file__).parents[2]
_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # see proc(5)
_KIB = 1024


class PeakMemory(NamedTuple):
    """Bytes that one call added.

    Attributes:
        host: Peak of the resident size less what it was before the call; None where
            the system does not tell.
        device: The peak that JAX or PyTorch counts on an accelerator since the process
            began; None on CPU.
    """

    host: int | None
    device: int | None


def measure_peak(call: Callable[[], Any]) -> int | None:
    """Measure what a call adds to the resident size at its peak.

    Args:
        call: Made once.

    Returns:
        Bytes, or None where /proc does not tell or its peak cannot be reset.
    """
    gc.collect()
    with contextlib.suppress(AttributeError, OSError, TypeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
    try:
        _CLEAR_REFS.write_text(_RESET_PEAK)
        before = _resident("VmRSS")
    except (OSError, KeyError):
        call()
        return None
    call()
    return max(0, _resident("VmHWM") - before)


def _resident(field: str) -> int:
    lines = (line.partition(":") for line in _STATUS.read_text().splitlines())
    fields = {name: value for name, _, value in lines}
    return int(fields[field].split()[0]) * _KIB


def ask_child(request: dict[str, Any], module: str = MODULE) -> PeakMemory | str:
    """Have a fresh process measure.

    Args:
        request: JSON for the process.
        module: Which module answers.

    Returns:
        What it measured, or the last line of its complaint.
    """
    done = subprocess.run(
        [sys.executable, "-m", module, json.dumps(request)],
        cwd=ROOT,
        env=child_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
        return said[-1]
    return PeakMemory(**json.loads(done.stdout.splitlines()[-1]))


def child_environment() -> dict[str, str]:
    """Return this process's environment, in which the child finds the packages.

    On a GPU the child must not take most of the memory at once, as JAX would: this
    process has done so.
    """
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
    }


def device_peak() -> int | None:
    """Read the peak of the accelerator's memory, the larger of JAX' and PyTorch's."""
    import jax

    if jax.default_backend() == "cpu":
        return None
    peak = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        peak = max(peak, torch.cuda.max_memory_allocated())
    return peak


def _answer(request: dict[str, Any]) -> PeakMemory:
    from experiments.benchmarks.cases import Case
    from experiments.benchmarks.data import make_data
    from experiments.benchmarks.implementations import load

    case = Case.from_json(request["case"])
    program = load(request["implementation"]).build(case, make_data(case))
    return PeakMemory(measure_peak(program.run), device_peak())


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_answer(json.loads(sys.argv[1]))._asdict()) + "\n")
