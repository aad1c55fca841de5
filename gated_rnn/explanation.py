"""What will run, in words (layer 3)."""

from typing import Any

from gated_rnn.types import Carry, Cell, Engine, Params
from gated_rnn.unrolling import DEFAULT_ENGINE

__all__ = ["explain"]


def explain(
    engine: Engine | None,
    cell: Cell,
    params: Params | None = None,
    inputs: Any = None,
    carry: Carry | None = None,
) -> str:
    """Say which path a run takes and why.

    Args:
        engine: The engine; None: the default engine.
        cell: The cell.
        params: Its parameters, or their shapes; with `inputs` for more detail.
        inputs: `[T, *batch, F]`, or its shape.
        carry: The initial carry, or its shape. None: zeros.

    Returns:
        A line that names engine and cell or says why the engine refuses the cell, and
        what the engine tells of its plan for these shapes.

    Examples:
        >>> from gated_rnn import LSTM, Associative, FusedScan
        >>> print(explain(Associative(), LSTM(16)))
        Associative() refuses LSTM: the next carry is not affine in the carry, so \
steps do not compose
        >>> import jax
        >>> cell = LSTM(16)
        >>> params = cell.init(jax.random.key(0), in_features=3)
        >>> inputs = jax.ShapeDtypeStruct((20_000, 40, 3), "float32")
        >>> print(explain(FusedScan(chunk_size=200), cell, params, inputs))
        FusedScan runs LSTM
        20000 steps, one recurrent matmul each; the gate is elementwise: derived in \
bulk, a few products a step
        kept for the gradient: one carry per chunk of 200 steps, which run again
        derivatives are computed for 200 steps at once
        a gradient takes about 10.3 MiB beyond the inputs, the outputs and their \
cotangents
    """
    engine = DEFAULT_ENGINE if engine is None else engine
    name = type(cell).__name__
    refusal = engine.refuses(cell)
    if refusal is not None:
        return f"{engine} refuses {name}: {refusal}"
    lines = [f"{type(engine).__name__} runs {name}"]
    describe = getattr(engine, "describe", None)
    if describe is not None and params is not None and inputs is not None:
        lines.append(describe(cell, params, inputs, carry))
    return "\n".join(lines)
