"""Does an implementation compute what ours does? Asked before anything is timed."""

import functools

import jax
import numpy as np

from experiments.benchmarks import ours
from experiments.benchmarks.cases import Case
from experiments.benchmarks.data import Data, make_data, make_small
from experiments.benchmarks.model import Implementation, Program, Results

#: Largest difference over the largest value of an array. On an accelerator matmuls of
#: float32 have, by default, the 10 bits of TF32.
TOLERANCES = {
    ("float32", "cpu"): 2e-4,
    ("float32", "gpu"): 1e-2,
    ("float32", "tpu"): 2e-2,
    ("bfloat16", "cpu"): 5e-2,
    ("bfloat16", "gpu"): 5e-2,
    ("bfloat16", "tpu"): 5e-2,
}
_REFERENCE = "scan"


def tolerance(case: Case) -> float:
    """Return the error that still counts as agreement.

    Args:
        case: Its dtype counts, and the kind of device.

    Returns:
        A relative error.
    """
    return TOLERANCES[case.dtype, jax.default_backend()]


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    """Compare two arrays.

    Args:
        found: An array.
        expected: What it should be.

    Returns:
        max|found - expected| / max|expected|, infinite where the shapes differ or
        something is not finite.

    Examples:
        >>> relative_error(np.array([1.0, 2.0]), np.array([1.0, 4.0]))
        0.5
    """
    if found.shape != expected.shape or not np.isfinite(found).all():
        return float("inf")
    scale = np.abs(expected).max(initial=0.0)
    difference = np.abs(found.astype(np.float64) - expected).max(initial=0.0)
    return float(difference / scale) if scale else float(difference > 0)


def largest_error(found: Results, expected: Results) -> tuple[float, str]:
    """Find the array that differs most.

    Args:
        found: Arrays by name.
        expected: The same names.

    Returns:
        The largest relative error, and the name of its array.

    Raises:
        KeyError: If the names differ.
    """
    if found.keys() != expected.keys():
        raise KeyError(f"{sorted(found)} against {sorted(expected)}")
    errors = {name: relative_error(found[name], expected[name]) for name in expected}
    name = max(errors, key=errors.get)
    return errors[name], name


def check_derivatives(name: str, implementation: Implementation, case: Case) -> tuple:
    """Compare outputs and all gradients on a small cut of a case.

    Args:
        name: Of the implementation.
        implementation: The implementation.
        case: The case; its mode does not matter.

    Returns:
        As `largest_error`.
    """
    return _check_small(name, implementation, make_small(case))


@functools.cache
def _check_small(name: str, implementation: Implementation, small: Case) -> tuple:
    data = make_data(small)
    found = implementation.derive(small, data)
    reference = ours.implement(_REFERENCE, implementation.facts(small).form)
    with jax.default_matmul_precision("highest"):
        expected = reference.derive(small, data)
    return largest_error(found, expected)


class References:
    """What the reference computes of one case, once a form."""

    def __init__(self, case: Case, data: Data):
        self._case, self._data = case, data
        self._results: dict[str, Results] = {}

    def results(self, form: str) -> Results:
        """Compute the case in a form, once.

        Args:
            form: One of `data.FORMS`.

        Returns:
            What the reference computes.
        """
        if form not in self._results:
            reference = ours.implement(_REFERENCE, form)
            with jax.default_matmul_precision("highest"):
                built = reference.build(self._case, self._data)
                self._results[form] = built.results()
        return self._results[form]

    def compare(
        self, implementation: Implementation, program: Program
    ) -> tuple[float, str]:
        """Compare what a program of the case computes, by what will be timed.

        Args:
            implementation: Whose program it is.
            program: The program, not run yet.

        Returns:
            As `largest_error`.
        """
        facts = implementation.facts(self._case)
        found, expected = program.results(), self.results(facts.form)
        if self._case.mode == "train" and not facts.same_updates:
            found, expected = (
                {"first loss": results["losses"][:, 0]} for results in (found, expected)
            )
        return largest_error(found, expected)
