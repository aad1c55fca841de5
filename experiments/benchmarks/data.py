"""Weights and sequences of a case, the same for every implementation; and its forms.

A form says which of our cells an implementation is: most compute the standard form, in
which the GRU resets after the matmul and has a bias inside the reset product.
"""

import math
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.benchmarks.cases import Case, Sizes
from gated_rnn import GRU, LSTM, Cell, GRUParams, LSTMParams

DATA_SEED = 20_260_913
STANDARD = "standard"
RESET_BEFORE = "reset before"
NO_RECURRENT_BIAS = "no recurrent bias"
FORMS = (STANDARD, RESET_BEFORE, NO_RECURRENT_BIAS)

NUM_GATES = {"lstm": 4, "gru": 3}
_RESET_SHARE = 0.1
#: Of the check of all derivatives, pairwise different; what is timed is checked at its
#: own sizes too.
_SMALL_SIZES = Sizes(5, 7, 3, 4)


class Batch(NamedTuple):
    """What an implementation reads.

    Attributes:
        inputs: `[T, B, F]`, or `[B, T, F]` where a library is batch-major.
        lengths: int32 `[B]`, of sequences padded at the end, or None.
        resets: bool `[T, B]`, true where a segment begins, or None.
    """

    inputs: Any
    lengths: Any = None
    resets: Any = None


class Data(NamedTuple):
    """A problem in NumPy: our parameters of every seed, and the time-major batch."""

    params: list[LSTMParams | GRUParams]
    batch: Batch


def make_data(case: Case) -> Data:
    """Draw weights and sequences, none of them zero.

    Args:
        case: What for; the draw depends on nothing else.

    Returns:
        float32 data, cast to the dtype of the case where it is used.
    """
    generator = np.random.default_rng([DATA_SEED, *case.sizes, case.num_seeds])
    batch_size, num_steps, in_features, hidden_features = case.sizes
    columns = NUM_GATES[case.cell] * hidden_features
    bound = 1 / math.sqrt(hidden_features)

    def draw(*shape: int) -> np.ndarray:
        return generator.uniform(-bound, bound, shape).astype(np.float32)

    def draw_params() -> LSTMParams | GRUParams:
        packed = (
            draw(in_features, columns),
            draw(hidden_features, columns),
            draw(columns),
        )
        if case.cell == "lstm":
            return LSTMParams(*packed)
        return GRUParams(*packed, draw(hidden_features))

    params = [draw_params() for _ in range(case.num_seeds)]
    inputs = generator.standard_normal((num_steps, batch_size, in_features), np.float32)
    lengths = resets = None
    if case.variant == "lengths":
        lengths = generator.integers(1, num_steps + 1, batch_size, dtype=np.int32)
        lengths[0] = num_steps
    if case.variant == "resets":
        resets = generator.random((num_steps, batch_size)) < _RESET_SHARE
    return Data(params, Batch(inputs, lengths, resets))


def make_small(case: Case) -> Case:
    """Cut a case to what a check of its mathematics needs.

    Args:
        case: The case.

    Returns:
        The same cell, variant and dtype on few short sequences.
    """
    return case._replace(mode="gradient", sizes=_SMALL_SIZES, num_seeds=1)


def cell_of(case: Case, form: str) -> Cell:
    """Return our cell that computes a form.

    Args:
        case: Says which cell, and how large.
        form: One of `FORMS`.

    Returns:
        The cell.
    """
    if case.cell == "lstm":
        return LSTM(case.sizes.hidden_features)
    return GRU(case.sizes.hidden_features, reset_after=form != RESET_BEFORE)


def params_of(params: Any, form: str) -> Any:
    """Take from our parameters those that a form has.

    Args:
        params: `LSTMParams` or `GRUParams` of NumPy arrays.
        form: One of `FORMS`.

    Returns:
        The parameters, without a recurrent bias or with one of zeros where the form
        has none.
    """
    if not isinstance(params, GRUParams) or form == STANDARD:
        return params
    if form == RESET_BEFORE:
        return params._replace(recurrent_bias=None)
    return params._replace(recurrent_bias=np.zeros_like(params.recurrent_bias))


def name_gradients(gradients: Any, form: str) -> dict[str, np.ndarray]:
    """Name the parts of a gradient in our layout that a form has.

    Args:
        gradients: `LSTMParams` or `GRUParams`.
        form: One of `FORMS`.

    Returns:
        float32 arrays by name.
    """
    fields = jax.device_get(gradients)._asdict()
    if form != STANDARD:
        fields.pop("recurrent_bias", None)
    return {
        f"gradient of {name}": np.asarray(value, np.float32)
        for name, value in fields.items()
        if value is not None
    }
