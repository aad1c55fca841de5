"""docs/accuracy.md, made from the record: made again, it is the same to the byte."""

from collections.abc import Mapping
from typing import Any

from experiments.tables import Table, to_markdown
from tests.accuracy.measure import DTYPES, ENGINES, KINDS, SMOOTH
from tests.accuracy.problems import ROW_CLASSES
from tests.accuracy.promise import (
    GROUPS,
    MARGIN,
    USELESS,
    Row,
    find_largest,
    list_errors,
    promise,
)

MODULE = "tests.accuracy"

HEAD = f"""\
# Accuracy

Made by `python -m {MODULE}`; do not edit.

How far the results of this library are from the equations of the papers, and how far
they will stay. `tests/test_accuracy.py` holds every bound on this page to new draws.

**The oracle.** The steps of `tests/reference_cells.py`, written from the papers in
NumPy and float64; they share no code with the package. Gradients are those of the same
steps, by reverse accumulation in NumPy over a tape (`tests/accuracy/oracle.py`), not by
JAX and not by differences, which end at nine digits. A test compares the tape's values
with the plain loop of `tests/reference.py` and its gradients with differences of that
loop.

**The error** of an array is the largest |a - b| over the largest |b|; that of a row is
the largest over the arrays, the draws, the cells of its kind and the engines. *Values*
are the outputs and the final carry. *Gradients* are those of a randomly weighted sum of
both, by every parameter, the inputs and the initial carry. Problems have numbers that
float32 holds exactly, so what is measured is the computation, not the storage.

**dtypes.** float64 and float32 throughout; *bfloat16* is `compute_dtype` of
`FusedScan`: operands of matmuls are rounded to bfloat16, while parameters, carry, sums
and gradients are float32. float64 rows hold the roundings of the oracle as well.

**Kinds of cells.** *Smooth*; with *kinks* (relu, hard sigmoid, clipping), whose
derivative jumps where a rounding crosses the kink; *unbounded* (peepholes, an LSTM
without output activation), whose gates see a cell that nothing bounds; with *layer
norm*, which divides by the spread of a few features and magnifies every rounding when
that is small.

**A limit.** The derivative of tanh and sigmoid is taken from their value, as everywhere
in JAX. Where that has been rounded to 1, a derivative smaller than the last place of
the dtype is lost, and a gradient that passes through nothing but such places has no
correct digit: with candidates saturated too, the error of float32 gradients reached 1.0
(Elman) and 0.046 (MUT1), and the class was then restated. The class of saturated gates
saturates the gates; the candidates live.

**A fault of a compiler.** On processors with AVX-512, jaxlib 0.10.2 compiles one
operation wrongly: in float64, for a GRU with reset after the matmul and exactly 4
rows and 5 units, the gates' gradients that the backward loop joins. Nothing here works
around it. The program below compares a gradient with a forward derivative; it prints
1.16 there, and 1.0 (to the last digits) with `XLA_FLAGS=--xla_cpu_max_isa=AVX2` or with
jaxlib 0.12.0.1. That operation alone, without this library, is wrong too; a throwaway
script compiled it for 1 to 32 rows and 1 to 32 units, and in float64 no other of these
1,024 sizes was wrong, in float32 none. Other operations were not searched like that.

```python
import jax, jax.numpy as jnp
from gated_rnn import GRU, unroll

jax.config.update("jax_enable_x64", True)
cell = GRU(5)
keys = jax.random.split(jax.random.key(0), 3)
inputs = jax.random.normal(keys[0], (7, 4, 3))
params = cell.init(keys[1], in_features=3, dtype=jnp.float64)
loss = lambda p: jnp.sum(unroll(cell, p, inputs)[1] ** 2)
along = jax.tree.map(jnp.ones_like, params)
by_gradient = sum(jnp.sum(g) for g in jax.grad(loss)(params))
print(by_gradient / jax.jvp(loss, (params,), (along,))[1])
```

**The bound** is a constant per dtype, kind and row class: the smallest of 1, 2 and 5
times a power of ten that is at least {MARGIN} times the largest error measured. Where
that is above {USELESS}, nothing is promised ("none"): there a change of the weights in
bfloat16's last place changes the result as much. A draw worse than {MARGIN} times the
worst one here is possible: this is a measured contract, not a proof.
"""

WHY_TESTS = f"""\
The command stands in `tests/` because it needs the tests' oracle and the experiments'
records: the package knows neither, the experiments do not know the tests.

```
pip install -e '.[test]'
python -m {MODULE} --output-dir docs/results/accuracy --page docs/accuracy.md
```
"""


def make_page(record: Mapping[str, Any]) -> str:
    """Write the page of a record."""
    cells = record["cells"]
    parts = [
        HEAD,
        to_markdown(_classes()),
        "## What is promised",
        *(to_markdown(_promises(cells, dtype)) for dtype in DTYPES),
        "## By cell",
        "Largest error over the engines: values, then gradients.",
        *(to_markdown(_by_cell(cells, dtype)) for dtype in DTYPES),
        "## By engine",
        "Largest error over the smooth cells: values, then gradients. Chunks are for"
        " long sequences, and measured there; Associative runs the minimal cells.",
        to_markdown(_by_engine(cells)),
        "## How to repeat it",
        _place(record),
        WHY_TESTS,
    ]
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def _classes() -> Table:
    rows = [
        (
            name,
            f"{each.num_steps} x {each.batch_size} x {each.in_features} x"
            f" {each.hidden_features}",
            each.text,
        )
        for name, each in ROW_CLASSES.items()
    ]
    return Table("Row classes", ("class", "T x B x F x H", "what is drawn"), rows)


def _promises(cells: Mapping[str, Any], dtype: str) -> Table:
    largest = find_largest(cells)
    rows = []
    for kind in (SMOOTH, *KINDS):
        for row_class in ROW_CLASSES:
            entries = [f"{kind}, {row_class}"]
            for group in GROUPS:
                found = largest.get(Row(dtype, row_class, kind, group))
                if found is None:
                    entries += ["-", "-", "-"]
                    continue
                bound = promise(found.error)
                entries += [
                    "**none**" if bound is None else f"**{bound:.0e}**",
                    show_error(found.error),
                    f"{found.cell}, {found.engine}",
                ]
            rows.append(entries)
    columns = ["kind, class"]
    for group in GROUPS:
        columns += [f"{group}: bound", "measured", "of"]
    return Table(dtype, columns, rows)


def _by_cell(cells: Mapping[str, Any], dtype: str) -> Table:
    found: dict[tuple[str, str, str], float] = {}
    for row, largest in list_errors(cells):
        if row.dtype == dtype:
            key = (largest.cell, row.row_class, row.group)
            found[key] = max(found.get(key, 0.0), largest.error)
    rows = [
        (cell, *(_pair(found, (cell, row_class)) for row_class in ROW_CLASSES))
        for cell in cells
    ]
    return Table(dtype, ("cell", *ROW_CLASSES), rows)


def _by_engine(cells: Mapping[str, Any]) -> Table:
    found: dict[tuple[str, str, str, str], float] = {}
    for row, largest in list_errors(cells):
        if row.kind == SMOOTH:
            key = (row.dtype, largest.engine, row.row_class, row.group)
            found[key] = max(found.get(key, 0.0), largest.error)
    measured = {key[:2] for key in found}
    rows = [
        (
            f"{engine}, {dtype}",
            *(_pair(found, (dtype, engine, row_class)) for row_class in ROW_CLASSES),
        )
        for dtype in DTYPES
        for engine in ENGINES
        if (dtype, engine) in measured
    ]
    return Table("Smooth cells", ("engine, dtype", *ROW_CLASSES), rows)


def _pair(found: Mapping[Any, float], key: tuple[str, ...]) -> str:
    errors = [found.get((*key, group)) for group in GROUPS]
    if None in errors:
        return "-"
    return ", ".join(show_error(error) for error in errors if error is not None)


def show_error(error: float) -> str:
    """Show an error in two digits, rounded as it is."""
    return f"{error:.1e}"


def _place(record: Mapping[str, Any]) -> str:
    place, config = record["environment"], record["config"]
    versions = ", ".join(
        f"{name} {place['packages'][name]}" for name in ("jax", "jaxlib", "numpy")
    )
    return (
        f"{config['num_draws']} draws a row, seed {config['seed']}; {versions}, Python"
        f" {place['python']}; {place['devices'][0]} ({place['processor']}),"
        f" {place['platform']}. Ten to fifteen minutes on one core;"
        " `--cells lstm gru` takes one, and `--resume` goes on after a break. Another"
        " machine rounds differently in the last place, within the margin."
    )
