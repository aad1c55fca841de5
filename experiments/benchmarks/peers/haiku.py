"""Haiku: `hk.LSTM` or `hk.GRU` in `hk.dynamic_unroll`, resets through `hk.ResetCore`.

Its LSTM adds 1 to the forget gate; its GRU resets before the matmul, so it is compared
with that form of ours, and its update gate multiplies the candidate.
"""

from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp

from experiments.benchmarks.cases import Case
from experiments.benchmarks.data import RESET_BEFORE, Batch
from experiments.benchmarks.jax_programs import JaxPeer, refuse_variants
from experiments.benchmarks.model import Facts, Model
from gated_rnn import GRUParams, LSTMParams

CORES = {"lstm": hk.LSTM, "gru": hk.GRU}
FORGET_BIAS = 1.0  # added in the forward pass


def make_model(case: Case) -> Model:
    """State Haiku's layer."""
    shape = (case.sizes.batch_size, case.sizes.hidden_features)
    zeros = jnp.zeros(shape, case.dtype)
    carry = hk.LSTMState(zeros, zeros) if case.cell == "lstm" else zeros

    @hk.without_apply_rng
    @hk.transform
    def unroll(batch: Batch) -> jax.Array:
        core, inputs = CORES[case.cell](case.sizes.hidden_features), batch.inputs
        if batch.resets is not None:
            core, inputs = hk.ResetCore(core), (inputs, batch.resets)
        outputs, _ = hk.dynamic_unroll(core, inputs, carry, time_major=True)
        return outputs

    @hk.without_apply_rng
    @hk.transform
    def run_step(carry: Any, inputs: jax.Array) -> tuple[Any, jax.Array]:
        outputs, carry = CORES[case.cell](case.sizes.hidden_features)(inputs, carry)
        return carry, outputs

    convert, facts = _convert_lstm, Facts()
    if case.cell == "gru":
        convert, facts = _convert_gru, Facts(RESET_BEFORE, "resets before the matmul")
    return Model(convert, unroll.apply, run_step.apply, carry, facts)


def _convert_lstm(params: LSTMParams) -> dict[str, Any]:
    """Order the gates i g f o, inputs above hidden in one matrix."""

    def order(packed: jax.Array) -> jax.Array:
        i, f, g, o = jnp.split(packed, 4, axis=-1)
        return jnp.concatenate([i, g, f, o], axis=-1)

    i, f, g, o = jnp.split(params.bias, 4)
    kernels = jnp.concatenate([params.kernel, params.recurrent_kernel])
    bias = jnp.concatenate([i, g, f - FORGET_BIAS, o])
    return {"lstm/linear": {"w": order(kernels), "b": bias}}


def _convert_gru(params: GRUParams) -> dict[str, Any]:
    """Order the gates z r a, z with the opposite sign."""

    def order(packed: jax.Array) -> jax.Array:
        r, z, n = jnp.split(packed, 3, axis=-1)
        return jnp.concatenate([-z, r, n], axis=-1)

    names = {"w_i": params.kernel, "w_h": params.recurrent_kernel, "b": params.bias}
    return {"gru": {name: order(packed) for name, packed in names.items()}}


IMPLEMENTATION = JaxPeer(make_model, refuse_variants("lengths"))
