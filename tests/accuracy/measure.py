"""Errors of the package against the oracle: cell, engine, dtype and row class."""

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from gated_rnn import Associative, FusedScan, Scan, unroll
from tests import cases
from tests.accuracy import oracle
from tests.accuracy.problems import ROW_CLASSES, Draws, RowClass, by_field, draw, resize
from tests.cases import CELLS

DTYPES = ("float64", "float32", "bfloat16")
ENGINES = ("Scan", "Scan, chunks", "FusedScan", "FusedScan, chunks", "Associative")
#: What is compared, values first.
VALUES = ("outputs", "carry")
GRADIENTS = ("params", "inputs", "initial_carry")
QUANTITIES = (*VALUES, *GRADIENTS)

#: Cells whose error is of another kind: at a kink a derivative jumps; what is fed back
#: to the gates without a bound magnifies errors with it; and the spread of a layer
#: norm's few features may be close to zero, which magnifies all errors.
KINDS = {
    "kinks": {"elman_relu", "gru_hard_sigmoid", "min_gru_positive", "projected_lstm"},
    "unbounded": {"lstm_no_output_activation", "peephole_lstm"},
    "layer norm": {"layer_norm_gru", "layer_norm_gru_no_bias", "layer_norm_lstm"},
}
SMOOTH = "smooth"

Errors = dict[str, dict[str, dict[str, dict[str, float]]]]


def kind_of(cell_id: str) -> str:
    """Return the kind of a cell: one of `KINDS`, or `SMOOTH`."""
    return next((kind for kind, ids in KINDS.items() if cell_id in ids), SMOOTH)


def engine_for(engine_id: str, dtype: str, row_class: RowClass) -> Any:
    """Return the engine, or None where it does not run.

    Chunks are for long sequences, and what they compute again is the same in every
    dtype. bfloat16 is the dtype of the matmuls' operands, which FusedScan alone can
    choose; parameters, inputs and carry are float32.
    """
    name, _, chunks = engine_id.partition(", ")
    if chunks and (row_class.chunk_size is None or dtype != "float32"):
        return None
    chunk_size = row_class.chunk_size if chunks else None
    if name == "FusedScan":
        compute_dtype = jnp.bfloat16 if dtype == "bfloat16" else None
        return FusedScan(chunk_size=chunk_size, compute_dtype=compute_dtype)
    if dtype == "bfloat16":
        return None
    return Scan(chunk_size=chunk_size) if name == "Scan" else Associative()


def measure_cell(
    cell_id: str,
    num_draws: int,
    seed: int,
    *,
    engines: Iterable[str] = ENGINES,
    dtypes: Iterable[str] = DTYPES,
    quickly: bool = False,
) -> Errors:
    """Measure a cell: engine -> dtype -> row class -> quantity -> largest error.

    The error of an array is max|a - b| / max|b|; the largest one over the fields of the
    quantity and over all draws is returned, in three significant digits.

    Args:
        cell_id: Row of `tests.cases.CELLS`.
        num_draws: Problems a row class.
        seed: Of the draws.
        engines: Which to measure; those that do not run are left out.
        dtypes: Which to measure.
        quickly: Compile float32 without LLVM's optimisation too, as the others are.
    """
    errors: Errors = {}
    problems = {name: draw(cell_id, name, num_draws, seed) for name in ROW_CLASSES}
    expected = {name: run_oracle(cell_id, draws) for name, draws in problems.items()}
    case = CELLS[cell_id]
    for engine_id in engines:
        if engine_id == "Associative" and not case.affine:
            continue
        for dtype in dtypes:
            with precision_of(dtype):
                for name, draws in problems.items():
                    engine = engine_for(engine_id, dtype, ROW_CLASSES[name])
                    if engine is None:
                        continue
                    cell = resize(case, ROW_CLASSES[name])
                    optimize = dtype == "float32" and not quickly
                    runs = run_package(cell, engine, draws, dtype, optimize)
                    worst = compare(expected[name], runs)
                    errors.setdefault(engine_id, {}).setdefault(dtype, {})[name] = worst
    jax.clear_caches()  # some dozen programs a cell
    return errors


def run_oracle(cell_id: str, draws: Draws) -> oracle.Run:
    """Run the oracle over all draws."""
    return oracle.differentiate(
        CELLS[cell_id].step,
        by_field(draws.params),
        draws.inputs,
        by_field(draws.carry),
        by_field(draws.carry_weights),
        draws.output_weights,
    )


def run_package(
    cell: Any, engine: Any, draws: Draws, dtype: str, optimize: bool
) -> Iterator[dict[str, Any]]:
    """Run the package draw by draw, in one compiled program; yield what is compared."""
    storage = jnp.float64 if dtype == "float64" else jnp.float32
    run = _differentiate if optimize else _differentiate_quickly
    for index in range(len(draws.inputs)):
        one = jax.tree.map(lambda leaf, i=index: jnp.asarray(leaf[i], storage), draws)
        (carry, outputs), gradient = run(cell, engine, one)
        yield {
            "outputs": outputs,
            "carry": carry._asdict(),
            **dict(zip(GRADIENTS, gradient, strict=True)),
        }


def compare(expected: oracle.Run, runs: Iterable[dict[str, Any]]) -> dict[str, float]:
    """Return the largest relative error of each quantity over all draws."""
    worst = dict.fromkeys(QUANTITIES, 0.0)
    for index, run in enumerate(runs):
        for name in QUANTITIES:
            wanted = getattr(expected, name)
            fields = wanted if isinstance(wanted, dict) else {"": wanted}
            for field, arrays in fields.items():
                actual = getattr(run[name], field, None)
                if actual is None:
                    actual = run[name][field] if field else run[name]
                error = cases.relative_error(actual, arrays[index])
                worst[name] = max(worst[name], error)
    return {name: float(f"{error:.2e}") for name, error in worst.items()}


def _weighted_sum(cell: Any, engine: Any, arguments: Any, weights: Any) -> Any:
    params, inputs, carry = arguments
    run = unroll(cell, params, inputs, carry, engine=engine)
    products = jax.tree.map(jnp.vdot, weights, run)
    return sum(jax.tree.leaves(products)), run


def _gradient(cell: Any, engine: Any, one: Draws) -> Any:
    gradient, run = jax.grad(_weighted_sum, argnums=2, has_aux=True)(
        cell,
        engine,
        (one.params, one.inputs, one.carry),
        (one.carry_weights, one.output_weights),
    )
    return run, gradient


# float32 is compiled as users compile it. The others are the same XLA programs without
# LLVM's optimisation, which leaves the roundings between operations as they are.
_differentiate = jax.jit(_gradient)
_differentiate_quickly = cases.quick_jit(_gradient)


@contextlib.contextmanager
def precision_of(dtype: str) -> Iterator[None]:
    """Enable float64 where it is measured."""
    with jax.enable_x64(dtype == "float64"):
        yield
