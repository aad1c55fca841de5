"""What is measured: cells that are trained, and ways in which cells may start."""

import dataclasses
from typing import Any, NamedTuple

import jax

from experiments.cells import LABELS, count_cell_parameters, make_cell, match_units
from experiments.gradient_flow.config import Config
from gated_rnn import initializers
from gated_rnn.initializers import (
    Chrono,
    Constant,
    ForgetBias,
    GlorotUniform,
    Identity,
    Joint,
    PerGate,
    Zeros,
)
from gated_rnn.types import Cell

#: The cells that are trained; all start as Keras' do.
TRAINED = {
    "elman": "Elman",
    "gru": "GRU",
    "lstm": "LSTM",
    "gru_matched": "GRU, matched parameters",
}
#: Whose gate keeps the past, and which gate that is.
GATED = ("gru", "lstm")


class Start(NamedTuple):
    """A way in which a cell may start, one of several.

    Attributes:
        cell: Name of the cell.
        label: What a person reads.
        settings: Initialisers beside Keras'.
    """

    cell: str
    label: str
    settings: dict[str, Any]


def initial_starts(config: Config) -> dict[str, Start]:
    """List the initialisers whose gradients are measured, one factor at a time.

    Args:
        config: The longest lag, which chrono initialisation asks for.

    Returns:
        By name.
    """
    glorot = {"recurrent_init": Joint(GlorotUniform())}
    blocks = {"recurrent_init": initializers.Orthogonal()}
    torch = dict(initializers.TORCH)
    chrono = {"bias_init": Chrono(config.length)}
    relu = {
        "recurrent_init": Identity(),
        "activation": jax.nn.relu,
    }
    starts = {"elman_irnn": Start("elman", "Elman, identity and relu", relu)}
    for cell in ("elman", *GATED):
        label = LABELS[cell]
        starts[f"{cell}_glorot"] = Start(cell, f"{label}, all Glorot", glorot)
        starts[f"{cell}_torch"] = Start(cell, f"{label}, PyTorch's", torch)
    for cell in GATED:
        label = LABELS[cell]
        starts[f"{cell}_blocks"] = Start(cell, f"{label}, orthogonal blocks", blocks)
        starts[f"{cell}_chrono"] = Start(cell, f"{label}, chrono", chrono)
    return starts


def cell_of(config: Config, name: str, in_features: int) -> Cell:
    """Build a cell that is trained.

    Args:
        config: Units.
        name: Of `TRAINED`.
        in_features: F, which parameters are matched for.

    Returns:
        The cell.
    """
    kind, units = name.removesuffix("_matched"), config.hidden_features
    if kind != name:
        wanted = count_cell_parameters(make_cell("lstm", units), in_features)
        units = match_units(kind, in_features, wanted)
    return make_cell(kind, units, **initializers.KERAS)


def start_cell(config: Config, start: Start) -> Cell:
    """Build a cell that starts in its own way.

    Args:
        config: Units.
        start: The way.

    Returns:
        The cell.
    """
    settings = {**initializers.KERAS, **start.settings}
    return make_cell(start.cell, config.hidden_features, **settings)


def biased_cell(config: Config, name: str, bias: Any) -> Cell:
    """Build a cell whose gate that keeps the past has a bias; else it starts as Keras'.

    Args:
        config: Units.
        name: Of `GATED`.
        bias: The bias; may be traced.

    Returns:
        The cell.
    """
    biases = ForgetBias(bias) if name == "lstm" else PerGate(Zeros(), z=Constant(bias))
    return start_cell(config, Start(name, "", {"bias_init": biases}))


def without_initializers(cell: Cell) -> Cell:
    """Build the cell that runs like another: equal for all that differ in their start.

    Args:
        cell: Of this file.

    Returns:
        The cell with its default initialisers.
    """
    own = {field.name: field for field in dataclasses.fields(cell)}
    defaults = {name: own[name].default for name in initializers.KERAS}
    return dataclasses.replace(cell, **defaults)
