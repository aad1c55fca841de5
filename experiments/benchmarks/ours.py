"""The package under test: one implementation an engine, one line in `ENGINES` each."""

from collections.abc import Callable
from typing import Any

import jax

import gated_rnn
from experiments.benchmarks.cases import Case
from experiments.benchmarks.data import STANDARD, Batch, cell_of
from experiments.benchmarks.jax_programs import JaxPeer
from experiments.benchmarks.model import Facts, Model
from gated_rnn import Engine, lengths_to_mask, unroll

#: By the name on the command line: what makes the engine.
ENGINES: dict[str, Callable[[], Engine]] = {
    "scan": lambda: gated_rnn.Scan(),
    "fused": lambda: gated_rnn.FusedScan(),
}


def implement(name: str, form: str = STANDARD) -> JaxPeer:
    """Make an implementation of the package itself.

    Args:
        name: One of `ENGINES`.
        form: The form of the cells, one of `data.FORMS`.

    Returns:
        The implementation.

    Raises:
        ImportError: If the package has no such engine.
    """
    try:
        engine = ENGINES[name]()
    except AttributeError as error:
        raise ImportError(str(error)) from error

    def refuse(case: Case) -> str | None:
        return engine.refuses(cell_of(case, form))

    return JaxPeer(lambda case: make_model(case, engine, form), refuse)


def make_model(case: Case, engine: Engine, form: str = STANDARD) -> Model:
    """State our layer as a user would call it.

    Args:
        case: The case.
        engine: What runs the cell along time.
        form: The form of the cells.

    Returns:
        The model.
    """
    cell = cell_of(case, form)

    def apply(params: Any, batch: Batch) -> jax.Array:
        mask = None
        if batch.lengths is not None:
            mask = lengths_to_mask(batch.lengths, num_steps=batch.inputs.shape[0])
        _, outputs = unroll(
            cell, params, batch.inputs, mask=mask, resets=batch.resets, engine=engine
        )
        return outputs

    return Model(
        convert=lambda params: params,
        apply=apply,
        step=cell.step,
        carry=cell.init_carry((case.sizes.batch_size,), case.dtype),
        facts=Facts(form),
        maps_seeds=True,
    )
