"""What is measured: cells, and the readings of what the text leaves open."""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

from experiments.cells import make_cell
from gated_rnn import initializers
from gated_rnn.activations import hard_sigmoid
from gated_rnn.initializers import Constant, GlorotUniform, Joint, PerGate, Zeros
from gated_rnn.types import Cell


class Setup(NamedTuple):
    """A cell as it starts.

    Attributes:
        label: What a person reads.
        cell: Name of the cell, of `experiments.cells`.
        published: Whose published table it may be: "lstm", "gru" or None.
        hard: Whether gates are Keras 2's piecewise linear sigmoid.
        initial: Initialisers of the cell, those of Keras where none is given: the
            kernel Glorot uniform, the recurrent kernel orthogonal, both of all gates
            at once, and a bias of 1 on the LSTM's forget gate.
    """

    label: str
    cell: str
    published: str | None = None
    hard: bool = False
    initial: Mapping[str, Any] = {}

    @property
    def settings(self) -> dict[str, Any]:
        """Keyword arguments of the cell that make it run."""
        return {"gate_activation": hard_sigmoid} if self.hard else {}

    @property
    def kind(self) -> tuple[str, bool]:
        """Cells of one kind run as one program."""
        return self.cell, self.hard


_GLOROT = {"recurrent_init": Joint(GlorotUniform())}

#: By name. The first four are the cells as Keras' CuDNN layers, which the author used a
#: month before, start them; then what makes a difference, and other readings.
SETUPS: dict[str, Setup] = {
    "lstm": Setup("LSTM", "lstm", "lstm"),
    "gru": Setup("GRU", "gru", "gru"),
    "gru_reset_before": Setup("GRU, reset before", "gru_reset_before", "gru"),
    "elman": Setup("Elman", "elman"),
    "lstm_forget_0": Setup(
        "LSTM, forget bias 0", "lstm", initial={"bias_init": Zeros()}
    ),
    "gru_update_1": Setup(
        "GRU, update bias 1",
        "gru",
        initial={"bias_init": PerGate(Zeros(), z=Constant(1.0))},
    ),
    "lstm_glorot": Setup("LSTM, all Glorot", "lstm", "lstm", initial=_GLOROT),
    "gru_glorot": Setup("GRU, all Glorot", "gru", "gru", initial=_GLOROT),
    "lstm_hard": Setup("LSTM, hard gates", "lstm", "lstm", hard=True),
    "lstm_hard_glorot": Setup(
        "LSTM, hard gates, all Glorot", "lstm", "lstm", hard=True, initial=_GLOROT
    ),
    "gru_hard": Setup(
        "GRU, reset before, hard gates", "gru_reset_before", "gru", hard=True
    ),
}
MAIN = ("lstm", "gru", "gru_reset_before", "elman")
ALTERED = ("lstm_forget_0", "gru_update_1")


@functools.cache
def initial_cell(name: str, hidden_features: int) -> Cell:
    """Build the cell that draws a set-up's parameters.

    Args:
        name: Of `SETUPS`.
        hidden_features: H.

    Returns:
        The cell.
    """
    setup = SETUPS[name]
    settings = {**initializers.KERAS, **setup.initial, **setup.settings}
    return make_cell(setup.cell, hidden_features, **settings)


@functools.cache
def running_cell(kind: tuple[str, bool], hidden_features: int) -> Cell:
    """Build the cell that runs all set-ups of a kind: it knows no initialisers.

    Args:
        kind: `Setup.kind`.
        hidden_features: H.

    Returns:
        The cell.
    """
    name, hard = kind
    return make_cell(name, hidden_features, **Setup("", name, hard=hard).settings)
