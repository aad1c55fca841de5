"""Flax linen: `nn.RNN` over `OptimizedLSTMCell` or `GRUCell`, time-major.

`OptimizedLSTMCell` is what linen recommends: it joins the four matmuls of a step.
Resets are the usual `nn.scan` over a cell whose carry is replaced.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from experiments.benchmarks.cases import Case
from experiments.benchmarks.data import Batch
from experiments.benchmarks.jax_programs import JaxPeer
from experiments.benchmarks.model import Model
from gated_rnn import GRUParams, LSTMParams, lengths_to_mask

CELLS = {"lstm": nn.OptimizedLSTMCell, "gru": nn.GRUCell}


class ResetRNN(nn.Module):
    """A cell whose carry becomes zero where a segment begins."""

    cell: nn.Module

    @nn.compact
    def __call__(self, carry: Any, inputs: Any) -> tuple[Any, jax.Array]:
        """Run the cell over `(inputs [T, B, F], resets [T, B])`."""

        def step(cell: nn.Module, carry: Any, step_inputs: Any) -> tuple[Any, Any]:
            values, resets = step_inputs
            carry = jax.tree.map(
                lambda leaf: jnp.where(resets[:, None], 0, leaf), carry
            )
            return cell(carry, values)

        scan = nn.scan(step, variable_broadcast="params", split_rngs={"params": False})
        return scan(self.cell, carry, inputs)


def make_model(case: Case) -> Model:
    """State linen's layer."""
    cell = CELLS[case.cell](case.sizes.hidden_features)
    module = ResetRNN(cell) if case.variant == "resets" else nn.RNN(cell)
    shape = (case.sizes.batch_size, case.sizes.hidden_features)
    zeros = jnp.zeros(shape, case.dtype)
    carry = (zeros, zeros) if case.cell == "lstm" else zeros

    def apply(params: Any, batch: Batch) -> jax.Array:
        variables = {"params": {"cell": params}}
        if batch.resets is not None:
            _, outputs = module.apply(variables, carry, (batch.inputs, batch.resets))
            return outputs
        with_lengths = {}
        if batch.lengths is not None:
            with_lengths = {"seq_lengths": batch.lengths, "return_carry": True}
        outputs = module.apply(
            variables,
            batch.inputs,
            initial_carry=carry,
            time_major=True,
            **with_lengths,
        )
        if batch.lengths is None:
            return outputs
        mask = lengths_to_mask(batch.lengths, num_steps=batch.inputs.shape[0])
        return jnp.where(mask[..., None], outputs[1], 0)

    def step(params: Any, carry: Any, inputs: jax.Array) -> tuple[Any, jax.Array]:
        return cell.apply({"params": params}, carry, inputs)

    convert = _convert_lstm if case.cell == "lstm" else _convert_gru
    return Model(convert, apply, step, carry)


def _convert_lstm(params: LSTMParams) -> dict[str, Any]:
    kernels = jnp.split(params.kernel, 4, axis=1)
    recurrent = jnp.split(params.recurrent_kernel, 4, axis=1)
    biases = jnp.split(params.bias, 4)
    converted = {}
    for gate, w, u, b in zip("ifgo", kernels, recurrent, biases, strict=True):
        converted[f"i{gate}"] = {"kernel": w}
        converted[f"h{gate}"] = {"kernel": u, "bias": b}
    return converted


def _convert_gru(params: GRUParams) -> dict[str, Any]:
    kernels = jnp.split(params.kernel, 3, axis=1)
    recurrent = jnp.split(params.recurrent_kernel, 3, axis=1)
    biases = jnp.split(params.bias, 3)
    converted = {}
    for gate, w, u, b in zip("rzn", kernels, recurrent, biases, strict=True):
        converted[f"i{gate}"] = {"kernel": w, "bias": b}
        converted[f"h{gate}"] = {"kernel": u}
    converted["hn"]["bias"] = params.recurrent_bias
    return converted


IMPLEMENTATION = JaxPeer(make_model)
