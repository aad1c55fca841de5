"""Flax nnx: `nnx.RNN` over `OptimizedLSTMCell` or `GRUCell`, time-major.

Split into a graph and its parameters outside `jax.jit`, which spares each call what
`nnx.jit` does in Python. Its GRU has no bias inside the reset product.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from experiments.benchmarks.cases import Case
from experiments.benchmarks.data import NO_RECURRENT_BIAS, Batch
from experiments.benchmarks.jax_programs import JaxPeer, refuse_variants
from experiments.benchmarks.model import Facts, Model
from gated_rnn import lengths_to_mask

CELLS = {"lstm": nnx.OptimizedLSTMCell, "gru": nnx.GRUCell}


def make_model(case: Case) -> Model:
    """State nnx' layer."""
    sizes = case.sizes
    cell = CELLS[case.cell](
        sizes.in_features,
        sizes.hidden_features,
        param_dtype=jnp.dtype(case.dtype),
        rngs=nnx.Rngs(0),
    )
    graph, cell_params, rest = nnx.split(cell, nnx.Param, ...)
    zeros = jnp.zeros((sizes.batch_size, sizes.hidden_features), case.dtype)
    carry = (zeros, zeros) if case.cell == "lstm" else zeros
    bias_of = "dense_h" if case.cell == "lstm" else "dense_i"

    def convert(params: Any) -> Any:
        values = {
            "dense_i": {"kernel": params.kernel},
            "dense_h": {"kernel": params.recurrent_kernel},
        }
        values[bias_of]["bias"] = params.bias
        return values

    def merge(params: Any) -> Any:
        state = jax.tree.map(lambda leaf: leaf, cell_params)
        nnx.replace_by_pure_dict(state, params)
        return nnx.merge(graph, state, rest)

    def apply(params: Any, batch: Batch) -> jax.Array:
        rnn = nnx.RNN(merge(params), time_major=True)
        if batch.lengths is None:
            return rnn(batch.inputs, initial_carry=carry)
        _, outputs = rnn(
            batch.inputs,
            initial_carry=carry,
            seq_lengths=batch.lengths,
            return_carry=True,
        )
        mask = lengths_to_mask(batch.lengths, num_steps=batch.inputs.shape[0])
        return jnp.where(mask[..., None], outputs, 0)

    def step(params: Any, carry: Any, inputs: jax.Array) -> tuple[Any, jax.Array]:
        return merge(params)(carry, inputs)

    facts = Facts()
    if case.cell == "gru":
        note = "no bias inside the reset product"
        facts = Facts(NO_RECURRENT_BIAS, note, same_updates=False)
    return Model(convert, apply, step, carry, facts)


IMPLEMENTATION = JaxPeer(make_model, refuse_variants("resets"))
