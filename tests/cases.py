"""The table of cells and engines, their random problems, and the one comparison.

A new cell is one row in CELLS, a new engine one row in ENGINES; the contract and the
mutation table then cover every pair that runs. The comparison is shared: what the
mutation table shows to be told apart is told apart by the contract.
"""

import functools
import itertools
import math
import re
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

from gated_rnn import (
    GRU,
    JANET,
    LSTM,
    MGU,
    MUT,
    Associative,
    CoupledLSTM,
    Elman,
    FusedScan,
    LayerNormGRU,
    LayerNormLSTM,
    MinGRU,
    MinLSTM,
    OpenLSTM,
    PeepholeLSTM,
    ProjectedLSTM,
    Scan,
    unroll,
)
from gated_rnn.activations import hard_sigmoid, identity, positive
from tests import reference, reference_cells

# Pairwise different, so that no axis can stand in for another.
T, B, F, H, R = 7, 6, 3, 5, 4

# float64: rounding, a few hundred operations deep. float32: the same times 2^29.
FLOAT64 = 1e-10
FLOAT32 = 1e-5


class CellCase(NamedTuple):
    """A cell, its oracle, and what the mutation table and the engines ask of it.

    Attributes:
        cell: The cell.
        step: The oracle's step.
        gates: Names of its gates in the order of the columns.
        blocks: The same for a parameter that has other blocks.
        affine: Whether its next carry is affine in the carry, element by element.
    """

    cell: Any
    step: reference.Step
    gates: str
    blocks: Mapping[str, str] = {}
    affine: bool = False


# A setting has a value that is not its default, so that one who ignores it is seen.
# relu, clip, hard_sigmoid and positive have kinks: the problems drawn here visit both
# sides and come so close to none that a finite difference reaches across.
CELLS = {
    "lstm": CellCase(LSTM(H), reference_cells.lstm_step, "ifgo"),
    "lstm_no_bias": CellCase(
        LSTM(H, use_bias=False), reference_cells.lstm_step, "ifgo"
    ),
    "lstm_no_output_activation": CellCase(
        LSTM(H, output_activation=identity),
        functools.partial(
            reference_cells.lstm_step, output_activation=reference_cells.identity
        ),
        "ifgo",
    ),
    "gru": CellCase(GRU(H), reference_cells.gru_step, "rzn"),
    "gru_no_bias": CellCase(GRU(H, use_bias=False), reference_cells.gru_step, "rzn"),
    "gru_reset_before": CellCase(
        GRU(H, reset_after=False), reference_cells.gru_reset_before_step, "rzn"
    ),
    "gru_hard_sigmoid": CellCase(  # the GRU of Keras up to version 2.2
        GRU(H, reset_after=False, gate_activation=hard_sigmoid),
        functools.partial(
            reference_cells.gru_reset_before_step,
            gate_activation=reference_cells.hard_sigmoid,
        ),
        "rzn",
    ),
    "elman": CellCase(Elman(H), reference_cells.elman_step, "h"),
    "elman_relu": CellCase(
        Elman(H, activation=jax.nn.relu),
        functools.partial(reference_cells.elman_step, activation=reference_cells.relu),
        "h",
    ),
    "peephole_lstm": CellCase(
        PeepholeLSTM(H),
        reference_cells.peephole_lstm_step,
        "ifgo",
        blocks={"peephole": "ifo"},
    ),
    "coupled_lstm": CellCase(CoupledLSTM(H), reference_cells.coupled_lstm_step, "fgo"),
    "open_lstm": CellCase(OpenLSTM(H), reference_cells.open_lstm_step, "ifg"),
    "projected_lstm": CellCase(
        ProjectedLSTM(H, projected_features=R, cell_clip=0.8),
        functools.partial(reference_cells.projected_lstm_step, cell_clip=0.8),
        "ifgo",
    ),
    "layer_norm_lstm": CellCase(
        LayerNormLSTM(H, epsilon=0.02),
        functools.partial(reference_cells.layer_norm_lstm_step, epsilon=0.02),
        "ifgo",
    ),
    "layer_norm_gru": CellCase(
        LayerNormGRU(H, epsilon=0.02),
        functools.partial(reference_cells.layer_norm_gru_step, epsilon=0.02),
        "rzn",
    ),
    "layer_norm_gru_no_bias": CellCase(
        LayerNormGRU(H, use_bias=False), reference_cells.layer_norm_gru_step, "rzn"
    ),
    "mgu": CellCase(MGU(H), reference_cells.mgu_step, "fn"),
    "janet": CellCase(
        JANET(H, beta=0.6),
        functools.partial(reference_cells.janet_step, beta=0.6),
        "fg",
    ),
    "mut1": CellCase(MUT(H, variant=1), reference_cells.mut1_step, "zrn"),
    "mut1_no_bias": CellCase(
        MUT(H, variant=1, use_bias=False), reference_cells.mut1_step, "zrn"
    ),
    "mut2": CellCase(MUT(H, variant=2), reference_cells.mut2_step, "zrn"),
    "mut3": CellCase(MUT(H, variant=3), reference_cells.mut3_step, "zrn"),
    "min_gru": CellCase(MinGRU(H), reference_cells.min_gru_step, "zn", affine=True),
    "min_gru_positive": CellCase(
        MinGRU(H, activation=positive),
        functools.partial(
            reference_cells.min_gru_step, activation=reference_cells.positive
        ),
        "zn",
        affine=True,
    ),
    "min_lstm": CellCase(MinLSTM(H), reference_cells.min_lstm_step, "ifg", affine=True),
    "min_lstm_no_bias": CellCase(
        MinLSTM(H, use_bias=False), reference_cells.min_lstm_step, "ifg", affine=True
    ),
}
ENGINES = {
    "fused": FusedScan(),
    "scan": Scan(),
    "scan_chunk_3": Scan(chunk_size=3),
    "associative": Associative(),
}
# Settings of an engine that no cell can notice; one cell runs on them.
ENGINE_OPTIONS = {
    "scan_unroll_2": Scan(unroll=2),
    "scan_chunk_1": Scan(chunk_size=1),
    "scan_chunk_7": Scan(chunk_size=7),
    "scan_chunk_100": Scan(chunk_size=100),
    "fused_unroll_2": FusedScan(unroll=2),
    "fused_chunk_1": FusedScan(chunk_size=1),
    "fused_chunk_3": FusedScan(chunk_size=3),
    "fused_chunk_100": FusedScan(chunk_size=100),
    "fused_budget": FusedScan(memory_budget=2**20),
    "fused_highest": FusedScan(precision="highest"),
}
DIRECTIONS = {"forward": False, "reverse": True}


def runs(cell_id: str, engine_id: str) -> bool:
    """Whether this table says that the engine runs the cell."""
    return engine_id != "associative" or CELLS[cell_id].affine


PAIRS = list(itertools.product(CELLS, ENGINES))
RUNNING = [pair for pair in PAIRS if runs(*pair)]
REFUSED = [pair for pair in PAIRS if not runs(*pair)]
# Chunks are made around the whole step of any cell, so what a cell can do wrong in them
# it does wrong without them: after the values, three cells are enough.
CORE = ("lstm", "gru", "projected_lstm")
EXAMINED = [
    (cell_id, engine_id)
    for cell_id, engine_id in RUNNING
    if engine_id != "scan_chunk_3" or cell_id in CORE
]
# For claims about engines and about what stands around them, not about cells.
ENGINES_ONCE = [
    ("lstm" if runs("lstm", engine_id) else "min_gru", engine_id)
    for engine_id in ENGINES
]
CORE_AND_ENGINES = [
    *ENGINES_ONCE,
    *((cell_id, "scan") for cell_id in CORE if (cell_id, "scan") not in ENGINES_ONCE),
]


def each_of(pairs):
    """Parametrise by (cell_id, engine)."""
    return pytest.mark.parametrize(
        ("cell_id", "engine"),
        [(cell_id, ENGINES[engine_id]) for cell_id, engine_id in pairs],
        ids=["-".join(pair) for pair in pairs],
    )


each_cell = pytest.mark.parametrize("cell_id", CELLS)
CELL_TYPES = list(dict.fromkeys(type(case.cell) for case in CELLS.values()))
each_cell_type = pytest.mark.parametrize("cell_type", CELL_TYPES)
each_core_cell = pytest.mark.parametrize("cell_id", CORE)
each_running_pair = each_of(RUNNING)
each_refused_pair = each_of(REFUSED)
each_examined_pair = each_of(EXAMINED)
each_engine_once = each_of(ENGINES_ONCE)
each_core_cell_and_engine = each_of(CORE_AND_ENGINES)
each_engine_option = pytest.mark.parametrize(
    "engine", ENGINE_OPTIONS.values(), ids=ENGINE_OPTIONS
)
each_direction = pytest.mark.parametrize("reverse", DIRECTIONS.values(), ids=DIRECTIONS)


class Problem(NamedTuple):
    """All arguments of unroll as NumPy arrays in float64; inputs are NaN under mask."""

    params: Any
    inputs: np.ndarray
    carry: Any
    reset_carry: Any
    mask: np.ndarray
    resets: np.ndarray

    @property
    def arrays(self):
        """The arguments that have a gradient."""
        return self.params, self.inputs, self.carry, self.reset_carry

    @property
    def flags(self):
        return {"mask": self.mask, "resets": self.resets}


def random_like(tree, rng, scale=1.0):
    """Fill the shapes of a pytree with normal numbers."""
    return jax.tree.map(lambda leaf: scale * rng.normal(size=leaf.shape), tree)


def random_params(case: CellCase, rng, scale=0.7, in_features=F):
    """Random values in every parameter, biases included."""
    key = jax.random.key(0)
    shapes = jax.eval_shape(lambda key: case.cell.init(key, in_features), key)
    return random_like(shapes, rng, scale)


def random_mask(rng, num_steps, batch):
    """Random rows, and one each of: full, right, left, inner, all padding."""
    mask = rng.random((num_steps, *batch)) < 0.7
    rows = mask.reshape(num_steps, math.prod(batch))
    patterns = np.ones((num_steps, 5), bool)
    patterns[num_steps - num_steps // 3 :, 1] = False
    patterns[: num_steps // 3, 2] = False
    patterns[num_steps // 2 : num_steps // 2 + 1, 3] = False
    patterns[:, 4] = False
    if rows.shape[1] > patterns.shape[1]:
        rows[:, : patterns.shape[1]] = patterns
    return rows.reshape(mask.shape)


def random_resets(rng, num_steps, batch):
    """Random flags; in row 0 also the first and the last step, in row 3 the masked one.

    So that a flag under the mask can be seen to act, the step after it has none.
    """
    resets = rng.random((num_steps, *batch)) < 0.3
    rows = resets.reshape(num_steps, math.prod(batch))
    if rows.size:
        rows[[0, -1], 0] = True
    if rows.shape[1] > 5:
        middle = num_steps // 2
        rows[middle : middle + 1, 3] = True
        rows[middle + 1 : middle + 2, 3] = False
    return rows.reshape(resets.shape)


def make_problem(
    cell_id: str, batch=(B,), num_steps=T, scale=0.7, in_features=F
) -> Problem:
    """Draw a problem; the same arguments draw the same numbers."""
    case = CELLS[cell_id]
    rng = np.random.default_rng(zlib.crc32(repr((cell_id, batch, num_steps)).encode()))
    carry_shapes = jax.eval_shape(lambda: case.cell.init_carry(batch))
    mask = random_mask(rng, num_steps, batch)
    inputs = rng.normal(size=(num_steps, *batch, in_features))
    inputs[~mask] = np.nan
    return Problem(
        params=random_params(case, rng, scale, in_features),
        inputs=inputs,
        carry=random_like(carry_shapes, rng),
        reset_carry=random_like(carry_shapes, rng),
        mask=mask,
        resets=random_resets(rng, num_steps, batch),
    )


def cast(tree, dtype):
    """Convert every array of a pytree to JAX arrays of a dtype."""
    return jax.tree.map(lambda leaf: jax.numpy.asarray(leaf, dtype), tree)


# Compiling dominates, and without optimisation takes half to two thirds of the time.
# float32 is compiled as users compile it; all else as quickly as it can be.
quick_jit = functools.partial(
    jax.jit, compiler_options={"xla_backend_optimization_level": 0}
)
STATIC = ("reverse", "collect")
unroll_float32 = jax.jit(unroll, static_argnames=STATIC)
unroll_quickly = quick_jit(unroll, static_argnames=STATIC)


def call(run, cell_id, problem, engine=None, reverse=False, dtype=np.float64, **rest):
    """Call `run`, which is unroll or compiled from it, on a problem."""
    params, inputs, carry, reset_carry = cast(problem.arrays, dtype)
    return run(
        CELLS[cell_id].cell,
        params,
        inputs,
        carry,
        reset_carry=reset_carry,
        reverse=reverse,
        engine=engine,
        **problem.flags,
        **rest,
    )


def run_package(cell_id, problem, engine=None, reverse=False, dtype=np.float64, **rest):
    """Run the package, compiled; return what run_oracle returns."""
    run = unroll_float32 if dtype == np.float32 else unroll_quickly
    return call(run, cell_id, problem, engine, reverse, dtype, **rest)


def run_oracle(cell_id, problem, reverse=False, step=None):
    """Run the float64 loop, with another step function if one is given."""
    return reference.unroll(
        step or CELLS[cell_id].step,
        problem.params,
        problem.inputs,
        problem.carry,
        reset_carry=problem.reset_carry,
        reverse=reverse,
        **problem.flags,
    )


def relative_error(actual, expected) -> float:
    """Return max|a - b| / max|b|, infinite for a NaN, absolute where b is zero."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape, f"{actual.shape} is not {expected.shape}"
    if expected.size == 0:
        return 0.0
    error = np.max(np.abs(actual - expected)) / (np.max(np.abs(expected)) or 1.0)
    return np.inf if np.isnan(error) else error


def assert_close(actual, expected, tolerance, name="value"):
    """Compare two pytrees of arrays of the same structure leaf by leaf."""
    actual_leaves = jax.tree_util.tree_leaves_with_path(actual)
    expected_leaves = jax.tree.leaves(expected)
    assert len(actual_leaves) == len(expected_leaves)
    for (path, leaf), wanted in zip(actual_leaves, expected_leaves, strict=True):
        error = relative_error(leaf, wanted)
        where = name + jax.tree_util.keystr(path)
        assert error <= tolerance, f"{where}: error {error:.3g} > {tolerance:.0e}"


def assert_same_run(actual, expected, tolerance):
    """Compare (carry, outputs), the carry by field name, the outputs by position."""
    (actual_carry, actual_outputs), (carry, outputs) = actual, expected
    actual_carry, carry = reference.as_arrays(actual_carry), reference.as_arrays(carry)
    assert actual_carry.keys() == carry.keys()
    assert_close(actual_carry, carry, tolerance, "carry")
    assert_close(actual_outputs, outputs, tolerance, "outputs")


class Derivatives(NamedTuple):
    """Derivatives of one scalar of (params, inputs, carry, reset_carry)."""

    gradient: Any
    slope: Any  # forward mode, along the tangents
    hessian_times_tangents: Any


def make_weights(cell_id, problem):
    """Random weights of the scalar: one per entry of the outputs and final carry."""
    rng = np.random.default_rng(1)
    return random_like(run_oracle(cell_id, problem), rng)


def make_tangents(problem):
    """A random direction in the space of the arguments."""
    return random_like(problem.arrays, np.random.default_rng(2))


def weigh(weights, run):
    """Return each row's sum of weight times entry of carry and outputs, `[*batch]`."""
    (weights_carry, weights_outputs), (carry, outputs) = weights, run
    carry = carry._asdict() if hasattr(carry, "_asdict") else carry
    total = (weights_outputs * outputs).sum(axis=(0, -1))
    for name, weight in weights_carry.items():
        total = total + (weight * carry[name]).sum(axis=-1)
    return total


def differentiate(cell, engine, arrays, tangents, flags, weights, *, reverse, order):
    """Differentiate the weighted sum of a run in reverse, forward and, if asked, twice.

    Args:
        cell: The cell.
        engine: The engine.
        arrays: The arguments to differentiate by.
        tangents: A direction in their space.
        flags: mask and resets.
        weights: The weight of each entry of the carry and outputs.
        reverse: Direction of the run.
        order: 2 for the product of the Hessian with the tangents, else 1.
    """

    def loss(params, inputs, carry, reset_carry):
        run = unroll(
            cell,
            params,
            inputs,
            carry,
            reset_carry=reset_carry,
            reverse=reverse,
            engine=engine,
            **flags,
        )
        return weigh(weights, run).sum()

    _, slope = jax.jvp(loss, arrays, tangents)
    gradient_of = jax.grad(loss, argnums=(0, 1, 2, 3))
    if order == 1:
        return Derivatives(gradient_of(*arrays), slope, None)
    gradient, hessian_times_tangents = jax.jvp(gradient_of, arrays, tangents)
    return Derivatives(gradient, slope, hessian_times_tangents)


differentiate_float32 = jax.jit(differentiate, static_argnames=("reverse", "order"))
differentiate_quickly = quick_jit(differentiate, static_argnames=("reverse", "order"))


def run_derivatives(
    cell_id, problem, engine, reverse, *, cell=None, order=2, dtype=np.float64
):
    """Differentiate a problem's run along `make_tangents`; another cell if given."""
    run = differentiate_float32 if dtype == np.float32 else differentiate_quickly
    return run(
        cell or CELLS[cell_id].cell,
        engine,
        cast(problem.arrays, dtype),
        cast(make_tangents(problem), dtype),
        problem.flags,
        cast(make_weights(cell_id, problem), dtype),
        reverse=reverse,
        order=order,
    )


@functools.cache
def finite_differences(cell_id, reverse, step_size=1e-5):
    """Central differences of the oracle by every entry of every argument.

    What belongs to one row changes that row alone, so one entry of every row is moved
    at a time and the rows' sums are told apart.
    """
    problem = make_problem(cell_id)
    weights = make_weights(cell_id, problem)

    def differences(leaf, index):  # of each row's sum, by leaf[index]
        value = np.array(leaf[index])
        sums = []
        for shift in (step_size, -step_size):
            leaf[index] = value + shift
            sums.append(weigh(weights, run_oracle(cell_id, problem, reverse)))
        leaf[index] = value
        return (sums[0] - sums[1]) / (2 * step_size)

    def by_shared(leaf):
        slopes = np.zeros_like(leaf)
        for index in np.ndindex(*leaf.shape):
            slopes[index] = differences(leaf, index).sum()
        return slopes

    def by_row(leaf):  # [*time, B, features]
        slopes = np.zeros_like(leaf)
        for *time, feature in np.ndindex(*leaf.shape[:-2], leaf.shape[-1]):
            index = (*time, slice(None), feature)
            slopes[index] = differences(leaf, index)
        return slopes

    shared, *of_rows = problem.arrays
    return jax.tree.map(by_shared, shared), *jax.tree.map(by_row, of_rows)


def assert_says(error, name, *words):
    """Check that a ValueError is one sentence on an argument, with these words."""
    message = str(error.value)
    form = rf"Received an invalid value for {re.escape(name)}: expected .+, got .+\."
    assert re.fullmatch(form, message, re.DOTALL), message
    assert all(word in message for word in words), message
