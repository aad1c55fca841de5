"""What is timed: an update, a step at batch 1, and a stream of steps at batch 1."""

import importlib.util
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.cases import Sizes
from experiments.benchmarks.jax_programs import read_memory
from experiments.benchmarks.model import ProgramMemory
from experiments.cells import count_cell_parameters, make_cell, match_units
from gated_rnn import RNN, Dense, Stack, losses, summarize
from gated_rnn.networks import Network
from gated_rnn.training import init_train_state, make_optimizer, make_train_step

#: What takes part, and what a person reads.
ARMS = {
    "lstm": "LSTM",
    "gru": "GRU",
    "elman": "plain RNN",
    "gru_matched": "GRU, equal parameters",
    "gru_wide": "GRU, 4/3 of the units",
}
#: What is timed of each, and the unit of one call.
MODES = {
    "update": "an update",
    "step": "a step at batch 1, called from Python",
    "stream": "a step at batch 1, in a compiled loop",
}
_DATA_SEED = 20_200_909


class Facts(NamedTuple):
    """What is counted, not timed, of the recurrent layer.

    Attributes:
        units: H of the arm.
        parameters: Numbers that are learned.
        matmul_operations: Of one step of one row, multiplications and additions.
        operations: All of one step of one row.
        saved_bytes: Of the layer in a safetensors file, its description included; None
            where safetensors is not installed.
    """

    units: int
    parameters: int
    matmul_operations: int
    operations: int
    saved_bytes: int | None


class Program(NamedTuple):
    """A compiled program.

    Attributes:
        run: One call, until its work is done; a state is handed on from call to call.
            Returns the loss before an update, or the outputs.
        units_per_call: How many of what is counted a call does.
        compile_seconds: Tracing and compiling.
        memory: As XLA planned it; None where it does not say.
    """

    run: Callable[[], Any]
    units_per_call: int
    compile_seconds: float
    memory: ProgramMemory | None


def units_of(arm: str, sizes: Sizes) -> int:
    """Count the units of an arm.

    Args:
        arm: One of `ARMS`.
        sizes: H of the LSTM, and F.

    Returns:
        H of the arm.

    Examples:
        >>> sizes = Sizes(1, 1, 30, 60)
        >>> [units_of(arm, sizes) for arm in ARMS]
        [60, 60, 60, 71, 80]
    """
    width = sizes.hidden_features
    if arm == "gru_wide":
        return round(4 * width / 3)
    if arm == "gru_matched":
        lstm = count_cell_parameters(make_cell("lstm", width), sizes.in_features)
        return match_units("gru", sizes.in_features, lstm)
    return width


def make_layer(arm: str, sizes: Sizes) -> RNN:
    """Build the recurrent layer of an arm."""
    return RNN(make_cell(arm.partition("_")[0], units_of(arm, sizes)))


def count(arm: str, sizes: Sizes) -> Facts:
    """Count what needs no clock.

    Args:
        arm: One of `ARMS`.
        sizes: F and H.

    Returns:
        The counts.
    """
    layer = make_layer(arm, sizes)
    total = summarize(layer, sizes.in_features).total
    return Facts(
        units_of(arm, sizes),
        total.num_parameters,
        total.matmul_operations,
        total.operations,
        _saved_bytes(layer, sizes),
    )


def build(arm: str, sizes: Sizes, mode: str, stream_steps: int) -> Program:
    """Compile a program and draw its data.

    Args:
        arm: One of `ARMS`.
        sizes: B, T, F, H.
        mode: One of `MODES`.
        stream_steps: Steps of a call of the mode "stream".

    Returns:
        The program.
    """
    layer = make_layer(arm, sizes)
    if mode == "update":
        return _build_update(Stack(layer, Dense(1)), sizes)
    if mode == "step":
        return _build_inference(layer, layer.step, sizes, ())
    return _build_inference(layer, layer.apply, sizes, (stream_steps,))


def _build_update(network: Network, sizes: Sizes) -> Program:
    """Forward, gradient, clipping and Adam on one batch, a target at every step."""
    inputs = _draw(sizes.num_steps, sizes.batch_size, sizes.in_features)
    targets = _draw(sizes.num_steps, sizes.batch_size, 1)
    optimizer = make_optimizer(1e-3, 1.0)

    def loss(params: Any, batch: Any, key: jax.Array) -> tuple[jax.Array, dict]:
        _, outputs = network.apply(params, batch[0])
        return losses.mean_squared_error(outputs, batch[1]), {}

    call = jax.jit(make_train_step(loss, optimizer), donate_argnums=0)
    params = network.init(jax.random.key(0), sizes.in_features)
    state = init_train_state(params, optimizer)
    batch, key = (inputs, targets), jax.random.key(1)
    seconds, memory = _compile(call, state, batch, key)

    def run() -> jax.Array:
        nonlocal state
        state, metrics = jax.block_until_ready(call(state, batch, key))
        return metrics["loss"]

    return Program(run, 1, seconds, memory)


def _build_inference(
    layer: RNN, function: Callable, sizes: Sizes, steps: tuple[int, ...]
) -> Program:
    """One row, the carry handed on from call to call."""
    params = layer.init(jax.random.key(0), sizes.in_features)
    inputs = _draw(*steps, 1, sizes.in_features)
    carry = layer.init_carry((1,))
    if steps:

        def advance(params: Any, carry: Any, inputs: jax.Array) -> Any:
            return function(params, inputs, carry)
    else:
        advance = function
    call = jax.jit(advance)
    seconds, memory = _compile(call, params, carry, inputs)

    def run() -> jax.Array:
        nonlocal carry
        carry, outputs = jax.block_until_ready(call(params, carry, inputs))
        return outputs

    return Program(run, steps[0] if steps else 1, seconds, memory)


def _compile(call: Any, *arguments: Any) -> tuple[float, ProgramMemory | None]:
    """Compile what the first call will find compiled."""
    began = time.perf_counter()
    compiled = call.lower(*arguments).compile()
    return time.perf_counter() - began, read_memory(compiled)


def _draw(*shape: int) -> jax.Array:
    generator = np.random.default_rng([_DATA_SEED, *shape])
    return jnp.asarray(generator.standard_normal(shape, np.float32))


def _saved_bytes(layer: RNN, sizes: Sizes) -> int | None:
    if importlib.util.find_spec("safetensors") is None:
        return None
    # Here: of the experiments' libraries, this alone may be missing.
    from gated_rnn.conversion.files import save_model

    params = layer.init(jax.random.key(0), sizes.in_features)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "layer.safetensors"
        save_model(path, layer, params)
        return path.stat().st_size
