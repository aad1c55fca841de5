"""The initialisers that are compared: Keras', and others that differ in one thing."""

from typing import Any, NamedTuple

from experiments.cells import make_cell
from gated_rnn import initializers
from gated_rnn.initializers import (
    Chrono,
    Constant,
    GlorotUniform,
    HiddenUniform,
    Identity,
    Joint,
    LecunNormal,
    Orthogonal,
    PerGate,
    Zeros,
)
from gated_rnn.types import Cell

#: The gate that keeps the past, and Keras' bias of it.
_KEEP = {"lstm": ("f", 1.0), "gru": ("z", 0.0)}
KERAS = "keras"


class Start(NamedTuple):
    """A way in which a cell may start.

    Attributes:
        factor: What differs from Keras: "kernel", "recurrent", "bias", "all" or "".
        label: What a person reads.
        settings: Arguments of the cell beside Keras'.
    """

    factor: str
    label: str
    settings: dict[str, Any]


def make_starts(
    cell: str, longest: int, keep_biases: tuple[float, ...]
) -> dict[str, Start]:
    """List the starts of a cell, Keras' first.

    Args:
        cell: "lstm" or "gru".
        longest: The longest lag, for chrono initialisation.
        keep_biases: Biases of the gate that keeps the past; Keras' own is left out.

    Returns:
        By name.

    Examples:
        >>> list(make_starts("gru", 100, (0.0, 2.0)))[-3:]
        ['keep_2', 'chrono', 'torch']
    """

    def kernel(label: str, init: Any) -> Start:
        return Start("kernel", label, {"kernel_init": init})

    def recurrent(label: str, init: Any) -> Start:
        return Start("recurrent", label, {"recurrent_init": init})

    def bias(label: str, init: Any) -> Start:
        return Start("bias", label, {"bias_init": init})

    gate, default = _KEEP[cell]
    return {
        KERAS: Start("", "Keras", {}),
        "kernel_lecun": kernel("kernel: LeCun normal", LecunNormal()),
        "kernel_uniform": kernel("kernel: uniform 1/sqrt H", HiddenUniform()),
        "recurrent_blocks": recurrent("recurrent: orthogonal blocks", Orthogonal()),
        "recurrent_glorot": recurrent("recurrent: Glorot", Joint(GlorotUniform())),
        "recurrent_uniform": recurrent("recurrent: uniform 1/sqrt H", HiddenUniform()),
        "recurrent_identity": recurrent("recurrent: identity blocks", Identity()),
        **{
            f"keep_{value:g}": bias(
                f"bias: keep gate {value:g}",
                PerGate(Zeros(), **{gate: Constant(value)}),
            )
            for value in keep_biases
            if value != default
        },
        "chrono": bias(f"bias: chrono {longest}", Chrono(longest)),
        "torch": Start("all", "all: PyTorch", dict(initializers.TORCH)),
    }


def make_start_cell(cell: str, units: int, start: Start) -> Cell:
    """Build a cell that starts in its way.

    Args:
        cell: "lstm" or "gru".
        units: H.
        start: The way.

    Returns:
        The cell.
    """
    return make_cell(cell, units, **{**initializers.KERAS, **start.settings})
