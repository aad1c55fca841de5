"""The oracle's loop: a recurrence along time as a float64 NumPy loop.

It shares no code with the package and is written to be read, one row and one step
at a time. Parameters and carries are dictionaries of arrays by field name. A cell is
one step function for one row, which takes vectors and returns vectors; those of
`tests/reference_cells.py`.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

Arrays = dict[str, np.ndarray]
Step = Callable[[Arrays, Arrays, np.ndarray], tuple[Arrays, np.ndarray]]


def sigmoid(x):
    """Return 1 / (1 + exp(-x)) to its last digits, in a form that never overflows."""
    return np.exp(-np.logaddexp(0.0, -x))


def affine(inputs, kernel, bias):
    """Row vector times matrix plus bias, where a missing bias is zero."""
    return inputs @ kernel if bias is None else inputs @ kernel + bias


def as_arrays(fields) -> dict:
    """Convert a NamedTuple or mapping of arrays, nested or not, to float64."""
    if hasattr(fields, "_asdict"):
        fields = fields._asdict()
    if isinstance(fields, Mapping):
        return {name: as_arrays(value) for name, value in fields.items()}
    return None if fields is None else np.asarray(fields, np.float64)


def steps_in_order(mask: Sequence[bool], reverse: bool) -> list[int]:
    """Times of the steps that remain when the masked ones are deleted."""
    remaining = [t for t in range(len(mask)) if mask[t]]
    return remaining[::-1] if reverse else remaining


def unroll_row(step, params, inputs, carry, *, reset_carry, mask, resets, reverse):
    """Run one row over the steps that are not masked; return the outputs by time.

    A flag says that x[t] begins a segment in time. Forward, the carry is reset just
    before that step; backward, that step is the last of its segment to be processed,
    so the carry is reset before the step processed next, if there is one.
    """
    outputs = {}
    previous = None
    for t in steps_in_order(mask, reverse):
        if reverse:
            enters_segment = previous is not None and resets[previous]
        else:
            enters_segment = resets[t]
        if enters_segment:
            carry = reset_carry
        carry, outputs[t] = step(params, carry, inputs[t])
        previous = t
    return carry, outputs


def unroll(
    step: Step,
    params,
    inputs,
    carry,
    *,
    reset_carry=None,
    mask=None,
    resets=None,
    reverse: bool = False,
) -> tuple[Arrays, np.ndarray]:
    """Run all rows, [T, *batch, F] -> carry of [*batch, H] and [T, *batch, H].

    A carry without batch axes is that of every row; no reset carry means zeros.
    """
    params, carry = as_arrays(params), as_arrays(carry)
    inputs = np.asarray(inputs, np.float64)
    num_steps, *batch, in_features = inputs.shape
    mask = np.ones((num_steps, *batch), bool) if mask is None else np.asarray(mask)
    if resets is None:
        resets = np.zeros((num_steps, *batch), bool)
    resets = np.asarray(resets)

    zeros = {name: np.zeros(value.shape[-1]) for name, value in carry.items()}
    reset_carry = zeros if reset_carry is None else as_arrays(reset_carry)
    _, some_outputs = step(params, zeros, np.zeros(in_features))
    outputs = np.zeros((num_steps, *batch, *some_outputs.shape))
    final = {name: np.zeros((*batch, *value.shape)) for name, value in zeros.items()}

    def select(fields, row):
        return {
            name: np.broadcast_to(value, (*batch, value.shape[-1]))[row]
            for name, value in fields.items()
        }

    for row in np.ndindex(*batch):
        rows = (slice(None), *row)
        row_carry, row_outputs = unroll_row(
            step,
            params,
            inputs[rows],
            select(carry, row),
            reset_carry=select(reset_carry, row),
            mask=mask[rows],
            resets=resets[rows],
            reverse=reverse,
        )
        for name, value in row_carry.items():
            final[name][row] = value
        for t, value in row_outputs.items():
            outputs[(t, *row)] = value
    return final, outputs
