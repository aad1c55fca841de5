"""Keras 3 on its JAX backend: `LSTM` or `GRU` layers through `stateless_call`."""

import os
from typing import Any

os.environ["KERAS_BACKEND"] = "jax"  # read once, when Keras is imported

import jax
import jax.numpy as jnp
import keras

from experiments.benchmarks.cases import Case
from experiments.benchmarks.data import Batch
from experiments.benchmarks.jax_programs import JaxPeer, refuse_variants
from experiments.benchmarks.model import Facts, Model
from gated_rnn import lengths_to_mask

if keras.backend.backend() != "jax":
    raise ImportError("keras was imported before with another backend than jax")

LAYERS = {"lstm": keras.layers.LSTM, "gru": keras.layers.GRU}
_BIAS_SHARE = 0.25  # of b in the first of the two biases of Keras' GRU


def make_model(case: Case) -> Model:
    """State Keras' layer."""
    sizes = case.sizes
    layer = LAYERS[case.cell](
        sizes.hidden_features,
        return_sequences=True,
        zero_output_for_mask=True,
        dtype=case.dtype,
    )
    layer.build((sizes.batch_size, sizes.num_steps, sizes.in_features))
    zeros = jnp.zeros((sizes.batch_size, sizes.hidden_features), case.dtype)
    rest = [variable.value for variable in layer.non_trainable_variables]
    cell_rest = [variable.value for variable in layer.cell.non_trainable_variables]

    def apply(params: Any, batch: Batch) -> jax.Array:
        mask = None
        if batch.lengths is not None:
            mask = lengths_to_mask(batch.lengths, num_steps=batch.inputs.shape[1]).T
        outputs, _ = layer.stateless_call(params, rest, batch.inputs, mask=mask)
        return outputs

    def step(params: Any, carry: Any, inputs: jax.Array) -> tuple[Any, jax.Array]:
        (outputs, carry), _ = layer.cell.stateless_call(
            params, cell_rest, inputs, carry
        )
        return carry, outputs

    convert = _convert_lstm if case.cell == "lstm" else _convert_gru
    carry = [zeros, zeros] if case.cell == "lstm" else [zeros]
    facts = Facts(same_updates=case.cell == "lstm")
    return Model(convert, apply, step, carry, facts, batch_major=True)


def _convert_lstm(params: Any) -> list[jax.Array]:
    return [params.kernel, params.recurrent_kernel, params.bias]


def _convert_gru(params: Any) -> list[jax.Array]:
    """Order the gates z r h; the two biases of r and z share what is one of ours."""

    def order(packed: jax.Array) -> jax.Array:
        r, z, n = jnp.split(packed, 3, axis=-1)
        return jnp.concatenate([z, r, n], axis=-1)

    r, z, n = jnp.split(params.bias, 3)
    share, rest = _BIAS_SHARE, 1 - _BIAS_SHARE
    biases = [
        jnp.concatenate([share * z, share * r, n]),
        jnp.concatenate([rest * z, rest * r, params.recurrent_bias]),
    ]
    return [order(params.kernel), order(params.recurrent_kernel), jnp.stack(biases)]


IMPLEMENTATION = JaxPeer(make_model, refuse_variants("resets"))
