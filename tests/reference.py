"""The oracle: gated recurrences as float64 NumPy loops, written from the papers.

It shares no code with the package and is written to be read, one row and one step
at a time. Parameters and carries are dictionaries of arrays by field name. A new
cell is one step function for one row; it takes vectors and returns vectors.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

Arrays = dict[str, np.ndarray]
Step = Callable[[Arrays, Arrays, np.ndarray], tuple[Arrays, np.ndarray]]


def sigmoid(x):
    """Return 1 / (1 + exp(-x)), in a form that no x makes overflow."""
    return 0.5 * (1.0 + np.tanh(0.5 * x))


def affine(inputs, kernel, bias):
    """Row vector times matrix plus bias, where a missing bias is zero."""
    return inputs @ kernel if bias is None else inputs @ kernel + bias


def lstm_step(params, carry, inputs):
    """Hochreiter and Schmidhuber (1997) with the forget gate of Gers et al. (2000)."""
    x, h, c = inputs, carry["hidden"], carry["cell"]
    preactivations = affine(x, params["kernel"], params["bias"])
    preactivations = preactivations + h @ params["recurrent_kernel"]
    i, f, g, o = np.split(preactivations, 4)
    new_c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    new_h = sigmoid(o) * np.tanh(new_c)
    return {"hidden": new_h, "cell": new_c}, new_h


def gru_step(params, carry, inputs):
    """Cho et al. (2014) as in cuDNN: the reset gate acts after the matmul."""
    x, h = inputs, carry["hidden"]
    x_r, x_z, x_n = np.split(affine(x, params["kernel"], params["bias"]), 3)
    u_r, u_z, u_n = np.split(params["recurrent_kernel"], 3, axis=1)
    r = sigmoid(x_r + h @ u_r)
    z = sigmoid(x_z + h @ u_z)
    n = np.tanh(x_n + r * affine(h, u_n, params["recurrent_bias"]))
    new_h = (1.0 - z) * n + z * h
    return {"hidden": new_h}, new_h


def gru_reset_before_step(params, carry, inputs):
    """Cho et al. (2014) as printed: the reset gate acts on the hidden vector."""
    x, h = inputs, carry["hidden"]
    x_r, x_z, x_n = np.split(affine(x, params["kernel"], params["bias"]), 3)
    u_r, u_z, u_n = np.split(params["recurrent_kernel"], 3, axis=1)
    r = sigmoid(x_r + h @ u_r)
    z = sigmoid(x_z + h @ u_z)
    n = np.tanh(x_n + (r * h) @ u_n)
    new_h = (1.0 - z) * n + z * h
    return {"hidden": new_h}, new_h


STEPS: dict[str, Step] = {
    "lstm": lstm_step,
    "gru": gru_step,
    "gru_reset_before": gru_reset_before_step,
}


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
