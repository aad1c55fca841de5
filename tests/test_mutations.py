"""Wrong implementations that the contract must tell apart from the right one.

A mutant is the oracle with one thing wrong: in the parameters it reads, in its step, or
in what it does along time. Each is compared with the package by the comparison, problem
and tolerance of `tests/test_contract.py`; a mutant that passed there would be a wrong
line nobody sees.
"""

import functools
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gated_rnn import GRU, LSTM, Scan
from tests import cases, reference
from tests.cases import H

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


# Mutants of the parameters: (gates, params as a dict) -> params


def split_gates(leaf, gates):
    return np.split(leaf, len(gates), axis=-1)


def packed_names(params, gates):
    """Names of the parameters that hold one block per gate."""
    return [
        name
        for name, leaf in params.items()
        if leaf is not None and leaf.shape[-1] == len(gates) * H
    ]


def with_blocks(params, gates, name, change):
    """Change the list of the gates' blocks of one parameter."""
    blocks = change(split_gates(params[name], gates))
    return {**params, name: np.concatenate(blocks, axis=-1)}


def swap(blocks, a, b):
    blocks = list(blocks)
    blocks[a], blocks[b] = blocks[b], blocks[a]
    return blocks


def scale_block(blocks, index, factor):
    return [block * factor if at == index else block for at, block in enumerate(blocks)]


def params_mutants(cell_id):
    """All mutants of one cell's parameters, by name."""
    case = cases.CELLS[cell_id]
    gates = case.gates
    params = reference.as_arrays(cases.make_problem(cell_id).params)
    names = packed_names(params, gates)
    mutants = {}

    def add(name, mutated):
        assert name not in mutants
        mutants[name] = mutated

    for a, b in itertools.combinations(range(len(gates)), 2):
        everywhere = params
        for name in names:
            change = functools.partial(swap, a=a, b=b)
            everywhere = with_blocks(everywhere, gates, name, change)
            add(
                f"gates {gates[a]} and {gates[b]} of {name} swapped",
                with_blocks(params, gates, name, change),
            )
        add(f"gates {gates[a]} and {gates[b]} swapped", everywhere)
    for index, gate in enumerate(gates):
        negated = params
        for name in names:
            change = functools.partial(scale_block, index=index, factor=-1.0)
            negated = with_blocks(negated, gates, name, change)
            drop = functools.partial(scale_block, index=index, factor=0.0)
            add(
                f"gate {gate} of {name} dropped",
                with_blocks(params, gates, name, drop),
            )
        add(f"1 - {gate} for {gate}", negated)
    for name, leaf in params.items():
        if leaf is not None and leaf.ndim == 1:
            add(f"{name} dropped", {**params, name: np.zeros_like(leaf)})
            add(f"{name} added twice", {**params, name: 2.0 * leaf})
    add(
        "recurrent kernel transposed",
        with_blocks(
            params, gates, "recurrent_kernel", lambda blocks: [b.T for b in blocks]
        ),
    )
    for name in ("kernel", "recurrent_kernel"):
        add(f"rows of {name} reversed", {**params, name: params[name][::-1]})
    return mutants


# Mutants of the step: oracle step -> wrong step of the same cell


def lstm_variant(*, candidate=np.tanh, output=np.tanh, forget=None, peephole=False):
    def step(params, carry, inputs):
        h, c = carry["hidden"], carry["cell"]
        projected = reference.affine(inputs, params["kernel"], params["bias"])
        gates = np.split(projected + h @ params["recurrent_kernel"], 4)
        i, f, o = (reference.sigmoid(gates[index]) for index in (0, 1, 3))
        f = f if forget is None else forget(i, gates[1])
        new_c = f * c + i * candidate(gates[2])
        if peephole:
            o = reference.sigmoid(gates[3] + new_c)
        new_h = o * output(new_c)
        return {"hidden": new_h, "cell": new_c}, new_h

    return step


def gru_variant(*, reset="after", update=lambda z, n, h: (1 - z) * n + z * h):
    def step(params, carry, inputs):
        h = carry["hidden"]
        projected = reference.affine(inputs, params["kernel"], params["bias"])
        x_r, x_z, x_n = np.split(projected, 3)
        u_r, u_z, u_n = np.split(params["recurrent_kernel"], 3, axis=1)
        bias = params["recurrent_bias"]
        bias = np.zeros_like(h) if bias is None else bias
        r = reference.sigmoid(x_r + h @ u_r)
        z = reference.sigmoid(x_z + h @ u_z)
        recurrent = {
            "after": r * (h @ u_n + bias),
            "before": (r * h) @ u_n + bias,
            "after, bias outside": r * (h @ u_n) + bias,
            "before, bias inside": (r * h) @ u_n + r * bias,
            "never": h @ u_n + bias,
            "by 1 - r": (1 - r) * (h @ u_n + bias),
        }[reset]
        new_h = update(z, np.tanh(x_n + recurrent), h)
        return {"hidden": new_h}, new_h

    return step


def identity(x):
    return x


LSTM_STEPS = {
    "output without tanh": lstm_variant(output=identity),
    "candidate without tanh": lstm_variant(candidate=identity),
    "candidate through the sigmoid": lstm_variant(candidate=reference.sigmoid),
    "forget gate 1 - i": lstm_variant(forget=lambda i, _: 1.0 - i),
    "forget gate plus one": lstm_variant(
        forget=lambda _, f: reference.sigmoid(f + 1.0)
    ),
    "no forget gate": lstm_variant(forget=lambda i, _: np.ones_like(i)),
    "peephole": lstm_variant(peephole=True),
}
GRU_UPDATES = {
    "z for 1 - z": gru_variant(update=lambda z, n, h: z * n + (1.0 - z) * h),
    "all of the candidate written": gru_variant(update=lambda z, n, h: n + z * h),
    "nothing erased": gru_variant(update=lambda z, n, h: (1.0 - z) * n + h),
    "reset by 1 - r": gru_variant(reset="by 1 - r"),
    "no reset gate": gru_variant(reset="never"),
}
STEPS = {
    "lstm": LSTM_STEPS,
    "lstm_no_bias": LSTM_STEPS,
    "gru": {
        **GRU_UPDATES,
        "reset before": gru_variant(reset="before"),
        "reset before, bias inside": gru_variant(reset="before, bias inside"),
        "recurrent bias outside the reset": gru_variant(reset="after, bias outside"),
    },
    "gru_reset_before": {**GRU_UPDATES, "reset after": gru_variant(reset="after")},
}


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
    "fields of the carry swapped": replace(carry=lambda p: swap_fields(p.carry)),
    "fields of the reset carry swapped": replace(
        reset_carry=lambda p: swap_fields(p.reset_carry)
    ),
    "fields of the final carry swapped": swap_final_fields,
}


def table():
    """Every mutant as (cell, direction, function that returns its run)."""
    for cell_id in cases.CELLS:
        problem = cases.make_problem(cell_id)
        runs = {}
        for name, params in params_mutants(cell_id).items():
            mutated = problem._replace(params=params)
            runs[name] = functools.partial(cases.run_oracle, cell_id, mutated)
        for name, step in STEPS[cell_id].items():
            runs[name] = functools.partial(
                cases.run_oracle, cell_id, problem, step=step
            )
        oracle = functools.partial(cases.run_oracle, cell_id)
        for name, mutant in TIME.items():
            runs[name] = functools.partial(mutant.mutate, oracle, problem)
        if len(problem.carry) == 2:
            for name, mutate in TWO_FIELDS.items():
                runs[name] = functools.partial(mutate, oracle, problem)
        for (name, run), (direction, reverse) in itertools.product(
            runs.items(), cases.DIRECTIONS.items()
        ):
            if reverse in TIME.get(name, TimeMutant(None)).directions:
                label = f"{cell_id}-{direction}-{name.replace(' ', '_')}"
                yield pytest.param(cell_id, reverse, run, id=label)


@pytest.mark.parametrize(("cell_id", "reverse", "run"), list(table()))
def test_mutant_is_told_apart(cell_id, reverse, run):
    assert_told_apart(cell_id, reverse, run(reverse=reverse))


@cases.each_direction
@cases.each_cell
def test_unmutated_oracle_is_not_told_apart(cell_id, reverse):
    # The variants above, unvaried, are the oracle: each mutant has one thing wrong.
    step = {
        "lstm": lstm_variant(),
        "lstm_no_bias": lstm_variant(),
        "gru": gru_variant(),
        "gru_reset_before": gru_variant(reset="before"),
    }[cell_id]
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
@pytest.mark.parametrize(
    ("cell_id", "cell"),
    [("lstm", LSTM(H)), ("gru", GRU(H))],
    ids=["lstm", "gru"],
)
def test_truncated_gradient_is_told_apart(cell_id, cell):
    problem = cases.make_problem(cell_id)
    cell = Truncated(cell)
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
