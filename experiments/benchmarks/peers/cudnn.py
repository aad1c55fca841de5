"""cuDNN through `jax.experimental.rnn`: LSTM only, batch-major, on NVIDIA's GPUs."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import rnn

from experiments.benchmarks.cases import STEP, Case
from experiments.benchmarks.data import Batch
from experiments.benchmarks.jax_programs import JaxPeer
from experiments.benchmarks.model import Facts, Model
from gated_rnn import LSTMParams, lengths_to_mask

_BIAS_SHARE = 0.25  # of b in the first of cuDNN's two biases


def make_model(case: Case) -> Model:
    """State cuDNN's layer."""
    sizes = case.sizes
    zeros = jnp.zeros((1, sizes.batch_size, sizes.hidden_features), case.dtype)
    whole = jnp.full((sizes.batch_size,), sizes.num_steps, jnp.int32)

    def apply(params: jax.Array, batch: Batch) -> jax.Array:
        outputs, _, _ = rnn.lstm(
            batch.inputs,
            zeros,
            zeros,
            params,
            whole if batch.lengths is None else batch.lengths,
            sizes.in_features,
            sizes.hidden_features,
            num_layers=1,
            dropout=0.0,
            bidirectional=False,
        )
        if batch.lengths is None:
            return outputs
        mask = lengths_to_mask(batch.lengths, num_steps=sizes.num_steps).T
        return jnp.where(mask[..., None], outputs, 0)

    def step(params: Any, carry: Any, inputs: jax.Array) -> tuple[Any, jax.Array]:
        raise NotImplementedError("cuDNN's layer has no step")

    facts = Facts(same_updates=False)
    return Model(convert, apply, step, None, facts, batch_major=True)


def convert(params: LSTMParams) -> jax.Array:
    """Flatten as cuDNN does: both matrices transposed, then both biases."""
    share = _BIAS_SHARE * params.bias
    parts = (params.kernel.T, params.recurrent_kernel.T, share, params.bias - share)
    return jnp.concatenate([part.ravel() for part in parts])


def refuse(case: Case) -> str | None:
    """Say why a case cannot be asked of cuDNN, or None."""
    if jax.default_backend() != "gpu":
        return "runs on NVIDIA GPUs only"
    if case.cell != "lstm":
        return "jax.experimental.rnn has no GRU"
    if case.variant == "resets":
        return "no resets"
    return "no single step" if case.mode == STEP else None


IMPLEMENTATION = JaxPeer(make_model, refuse)
