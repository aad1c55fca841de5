"""Wrong implementations that the contract must tell apart from the right one.

A mutant is the oracle with one thing wrong: in its cell (`tests/cell_mutants.py`) or in
what it does along time. Each is compared with the package by the comparison, problem
and tolerance of `tests/test_contract.py`; a mutant that passed there would be a wrong
line nobody sees.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gated_rnn import Scan
from tests import cases, cell_mutants, reference
from tests.cell_mutants import EQUIVALENT

pytestmark = pytest.mark.usefixtures("strict_promotion")

REVERSED_ONLY, BOTH = (True,), (False, True)


@functools.cache
def package_run(cell_id, reverse):
    """What the contract compares with the oracle, in the precision users run."""
    problem = cases.make_problem(cell_id)
    return cases.run_package(cell_id, problem, Scan(), reverse, np.float32)


def assert_told_apart(cell_id, reverse, mutated_run):
    with pytest.raises(AssertionError, match="error"):
        cases.assert_same_run(package_run(cell_id, reverse), mutated_run, cases.FLOAT32)


# Mutants along time: (run, problem, reverse) -> run, where run is the right oracle


class TimeMutant(NamedTuple):
    mutate: object
    directions: tuple[bool, ...] = BOTH


def clean(problem):
    return problem._replace(inputs=np.nan_to_num(problem.inputs))


def unmasked(problem):
    return clean(problem)._replace(mask=np.ones_like(problem.mask))


def forget_mask(run, problem, reverse):
    return run(unmasked(problem), reverse)


def hold_nothing(run, problem, reverse):
    carry, outputs = run(unmasked(problem), reverse)
    return carry, np.where(problem.mask[..., None], outputs, 0.0)


def repeat_outputs_under_mask(run, problem, reverse):
    carry, outputs = run(problem, reverse)
    for t in range(1, len(outputs)):
        outputs[t] = np.where(problem.mask[t][:, None], outputs[t], outputs[t - 1])
    return carry, outputs


def flip_mask(run, problem, reverse):
    return run(clean(problem)._replace(mask=problem.mask[::-1]), reverse)


def zero_rows_without_steps(run, problem, reverse):
    carry, outputs = run(problem, reverse)
    some = problem.mask.any(axis=0)[:, None]
    return {name: np.where(some, leaf, 0.0) for name, leaf in carry.items()}, outputs


def move_resets(run, problem, reverse, by):
    resets = np.roll(problem.resets, by, axis=0)
    resets[: max(by, 0)] = False
    resets[len(resets) + min(by, 0) :] = False
    return run(problem._replace(resets=resets), reverse)


def heed_masked_resets(run, problem, reverse):
    """A flag at a masked step acts at the next step that is not masked."""
    resets = problem.resets.copy()
    for t in range(len(resets) - 1):
        resets[t + 1] |= resets[t] & ~problem.mask[t]
    return run(problem._replace(resets=resets), reverse)


def reset_before_the_step_in_reverse(run, problem, reverse):
    """What flipping all sequences and running forward would do."""
    flipped = problem._replace(
        inputs=problem.inputs[::-1],
        mask=problem.mask[::-1],
        resets=problem.resets[::-1],
    )
    carry, outputs = run(flipped, False)
    return carry, outputs[::-1]


def reset_after_the_last_step_in_reverse(run, problem, reverse):
    carry, outputs = run(problem, reverse)
    rows = np.arange(problem.mask.shape[1])
    first = problem.mask.argmax(axis=0)
    begins = (problem.resets & problem.mask)[first, rows][:, None]
    reset_carry = reference.as_arrays(problem.reset_carry)
    return {
        name: np.where(begins, reset_carry[name], leaf) for name, leaf in carry.items()
    }, outputs


def outputs_before_the_step(run, problem, reverse):
    carry, outputs = run(problem, reverse)
    return carry, np.roll(outputs, -1 if reverse else 1, axis=0)


def drop_last_step(run, problem, reverse):
    mask = problem.mask.copy()
    mask[0 if reverse else -1] = False
    return run(problem._replace(mask=mask), reverse)


def replace(**changes):
    """Change what the oracle is given: field = function of the problem."""

    def mutate(run, problem, reverse):
        changed = {name: change(problem) for name, change in changes.items()}
        return run(problem._replace(**changed), reverse)

    return mutate


def zeros_like(tree):
    return jax.tree.map(np.zeros_like, tree)


TIME = {
    "mask forgotten": TimeMutant(forget_mask),
    "carry not held under the mask": TimeMutant(hold_nothing),
    "outputs under the mask repeated": TimeMutant(repeat_outputs_under_mask),
    "mask in the wrong order": TimeMutant(flip_mask),
    "rows without steps end in zeros": TimeMutant(zero_rows_without_steps),
    "resets ignored": TimeMutant(replace(resets=lambda p: np.zeros_like(p.resets))),
    "reset to zero": TimeMutant(replace(reset_carry=lambda p: zeros_like(p.carry))),
    "reset to the initial carry": TimeMutant(replace(reset_carry=lambda p: p.carry)),
    "reset a step late": TimeMutant(functools.partial(move_resets, by=1)),
    "reset a step early": TimeMutant(functools.partial(move_resets, by=-1)),
    "resets under the mask heeded": TimeMutant(heed_masked_resets),
    "reset before the step": TimeMutant(
        reset_before_the_step_in_reverse, REVERSED_ONLY
    ),
    "reset after the last step": TimeMutant(
        reset_after_the_last_step_in_reverse, REVERSED_ONLY
    ),
    "initial carry ignored": TimeMutant(replace(carry=lambda p: zeros_like(p.carry))),
    "initial carry of the wrong row": TimeMutant(
        replace(carry=lambda p: jax.tree.map(lambda x: np.roll(x, 1, 0), p.carry))
    ),
    "time reversed": TimeMutant(lambda run, p, reverse: run(p, not reverse)),
    "carry of the other direction": TimeMutant(
        lambda run, p, reverse: (run(p, not reverse)[0], run(p, reverse)[1])
    ),
    "outputs in the order of processing": TimeMutant(
        lambda run, p, reverse: (run(p, True)[0], run(p, True)[1][::-1]), REVERSED_ONLY
    ),
    "outputs before the step": TimeMutant(outputs_before_the_step),
    "last step dropped": TimeMutant(drop_last_step),
    "final carry is the initial one": TimeMutant(
        lambda run, p, reverse: (p.carry, run(p, reverse)[1])
    ),
}


# Mutants of carries with two fields of one shape


def swap_fields(carry):
    first, second, *rest = carry
    return type(carry)(second, first, *rest)


def swap_final_fields(run, problem, reverse):
    carry, outputs = run(problem, reverse)
    (a, first), (b, second) = carry.items()
    return {a: second, b: first}, outputs


TWO_FIELDS = {
    "fields of the carry swapped": TimeMutant(
        replace(carry=lambda p: swap_fields(p.carry))
    ),
    "fields of the reset carry swapped": TimeMutant(
        replace(reset_carry=lambda p: swap_fields(p.reset_carry))
    ),
    "fields of the final carry swapped": TimeMutant(swap_final_fields),
}


def mutants(cell_id):
    """Every mutant of a cell as (name, direction, function that returns its run).

    What is wrong in a step is wrong in both directions, so one is enough.
    """
    problem = cases.make_problem(cell_id)
    oracle = functools.partial(cases.run_oracle, cell_id)
    for name, params in cell_mutants.params_mutants(cell_id).items():
        mutated = problem._replace(params=params)
        yield name, False, functools.partial(oracle, mutated)
    for name, edit in cell_mutants.step_edits(cell_id).items():
        yield name, False, functools.partial(cell_mutants.run_edited, cell_id, edit)
    for name, settings in cell_mutants.SETTINGS.get(cell_id, {}).items():
        yield (
            name,
            False,
            functools.partial(cell_mutants.run_with_settings, cell_id, settings),
        )
    of_time = dict(TIME)
    if len({leaf.shape for leaf in problem.carry}) < len(problem.carry):
        of_time |= TWO_FIELDS
    for name, mutant in of_time.items():
        for reverse in mutant.directions:
            yield name, reverse, functools.partial(mutant.mutate, oracle, problem)


def table(equivalent):
    """The mutants of all cells, without those that are none or only those."""
    for cell_id in cases.CELLS:
        for name, reverse, run in mutants(cell_id):
            if ((cell_id, name) in EQUIVALENT) == equivalent:
                direction = "reverse" if reverse else "forward"
                label = f"{cell_id}-{direction}-{name.replace(' ', '_')}"
                yield pytest.param(cell_id, reverse, run, id=label)


@pytest.mark.parametrize(("cell_id", "reverse", "run"), list(table(equivalent=False)))
def test_mutant_is_told_apart(cell_id, reverse, run):
    assert_told_apart(cell_id, reverse, run(reverse=reverse))


@pytest.mark.parametrize(("cell_id", "reverse", "run"), list(table(equivalent=True)))
def test_mutant_said_to_be_equivalent_is(cell_id, reverse, run):
    expected = cases.run_oracle(cell_id, cases.make_problem(cell_id), reverse)
    cases.assert_same_run(run(reverse=reverse), expected, cases.FLOAT64)


def test_every_equivalent_mutant_is_in_the_table():
    assert len(list(table(equivalent=True))) == len(EQUIVALENT)


@cases.each_direction
@cases.each_cell
def test_unmutated_oracle_is_not_told_apart(cell_id, reverse):
    # Through the same edit as the mutants, which here changes nothing.
    step = cases.CELLS[cell_id].step
    function = step.func if isinstance(step, functools.partial) else step
    unchanged = (f"def {function.__name__}(", f"def {function.__name__}(")
    step = cell_mutants.edit_step(step, *unchanged)
    problem = cases.make_problem(cell_id)
    run = cases.run_oracle(cell_id, problem, reverse, step=step)
    cases.assert_same_run(package_run(cell_id, reverse), run, cases.FLOAT32)


# Mutants of the derivative: the values are right, the gradient is not


@jax.tree_util.register_static
class Truncated:
    """A cell whose gradient does not flow through the recurrent matmul."""

    def __init__(self, cell):
        self.cell = cell

    def __getattr__(self, name):
        return getattr(self.cell, name)

    def __eq__(self, other):
        return isinstance(other, Truncated) and self.cell == other.cell

    def __hash__(self):
        return hash(("truncated", self.cell))

    def recur(self, params, carry):
        return self.cell.recur(params, jax.lax.stop_gradient(carry))


@pytest.mark.usefixtures("x64")
@cases.each_core_cell
def test_truncated_gradient_is_told_apart(cell_id):
    problem = cases.make_problem(cell_id)
    cell = Truncated(cases.CELLS[cell_id].cell)
    gradient = cases.run_derivatives(
        cell_id, problem, Scan(), False, cell=cell, order=1
    ).gradient
    expected = cases.finite_differences(cell_id, False)
    with pytest.raises(AssertionError, match="error"):
        cases.assert_close(gradient, expected, cases.FLOAT32, "gradient")


def test_nan_is_told_apart():
    problem = cases.make_problem("lstm")
    carry, outputs = cases.run_oracle("lstm", problem)
    outputs[-1, 0, 0] = np.nan
    assert_told_apart("lstm", False, (carry, outputs))
    with pytest.raises(AssertionError):
        cases.assert_close(jnp.array([jnp.nan]), np.array([np.nan]), 1.0)


def test_missing_axis_is_told_apart():
    problem = cases.make_problem("lstm")
    carry, outputs = cases.run_oracle("lstm", problem)
    with pytest.raises(AssertionError, match="is not"):
        cases.assert_same_run(
            package_run("lstm", False), (carry, outputs[:, :1]), cases.FLOAT32
        )
