"""Equinox: a cell, vmapped over the batch, in `lax.scan`, as its documentation does."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from experiments.benchmarks.cases import Case
from experiments.benchmarks.data import Batch
from experiments.benchmarks.jax_programs import JaxPeer, refuse_variants
from experiments.benchmarks.model import Model

CELLS = {"lstm": eqx.nn.LSTMCell, "gru": eqx.nn.GRUCell}


def make_model(case: Case) -> Model:
    """State Equinox' layer."""
    sizes = case.sizes
    empty = CELLS[case.cell](
        sizes.in_features, sizes.hidden_features, key=jax.random.key(0)
    )
    zeros = jnp.zeros((sizes.batch_size, sizes.hidden_features), case.dtype)
    carry = (zeros, zeros) if case.cell == "lstm" else zeros

    def convert(params: Any) -> dict[str, jax.Array]:
        values = {
            "weight_ih": params.kernel.T,
            "weight_hh": params.recurrent_kernel.T,
            "bias": params.bias,
        }
        if case.cell == "gru":
            values["bias_n"] = params.recurrent_bias
        return values

    def step(params: Any, carry: Any, inputs: jax.Array) -> tuple[Any, jax.Array]:
        cell = eqx.tree_at(
            lambda cell: [getattr(cell, name) for name in params],
            empty,
            list(params.values()),
        )
        carry = jax.vmap(cell)(inputs, carry)
        return carry, carry[0] if case.cell == "lstm" else carry

    def apply(params: Any, batch: Batch) -> jax.Array:
        def body(carry: Any, step_inputs: Any) -> tuple[Any, jax.Array]:
            inputs, resets = step_inputs
            if resets is not None:
                carry = jax.tree.map(
                    lambda leaf: jnp.where(resets[:, None], 0, leaf), carry
                )
            return step(params, carry, inputs)

        _, outputs = jax.lax.scan(body, carry, (batch.inputs, batch.resets))
        return outputs

    return Model(convert, apply, step, carry)


IMPLEMENTATION = JaxPeer(make_model, refuse_variants("lengths"))
