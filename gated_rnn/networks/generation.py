"""Sampling from a network that is fed its own samples (layer 3).

A network that has learned to predict the next value of a sequence generates one: it
reads a prompt, and from then on every value drawn from its outputs is its next input.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gated_rnn.arithmetic import at_least_float32
from gated_rnn.networks.network import Network, reduces_time, steps_shape
from gated_rnn.types import Carry, Params, check_positive, invalid

__all__ = [
    "Bernoulli",
    "Categorical",
    "GenerationCarry",
    "continue_generation",
    "generate",
    "read_prompt",
]

Sampler = Callable[[jax.Array, jax.Array], Any]  # (key, outputs [*batch, F]) -> value
Encoder = Callable[[Any], Any]  # value -> inputs of one step


@jax.tree_util.register_static
@dataclass(frozen=True)
class Categorical:
    """Draw a class from softmax(logits / temperature).

        label = argmax(logits + temperature * noise)        noise of a Gumbel(0, 1) law

    which at temperature 0 is the most likely class, without a special case.

    Attributes:
        temperature: At least 0; a number, or inside a trace a scalar array.

    Examples:
        >>> logits = jnp.array([[0.0, 3.0, 1.0], [2.0, -1.0, 0.0]])
        >>> Categorical(temperature=0.0)(jax.random.key(0), logits).tolist()
        [1, 0]

    References:
        E. Gumbel: Statistical theory of extreme values, 1954; C. Maddison, D. Tarlow,
        T. Minka: A* sampling, 2014, arXiv 1411.0030 (the Gumbel-max trick).
    """

    temperature: float | jax.Array = 1.0

    def __post_init__(self) -> None:
        temperature = self.temperature
        if isinstance(temperature, np.generic):
            temperature = temperature.item()
        if isinstance(temperature, int | float) and not 0 <= temperature < math.inf:
            expected = "a finite number of at least 0"
            raise invalid("temperature", expected, repr(temperature))

    def __call__(self, key: jax.Array, logits: jax.Array) -> jax.Array:
        """Return int32 `[*batch]` for logits `[*batch, classes]`; -1 for NaN."""
        dtype = at_least_float32(logits.dtype)
        noise = jax.random.gumbel(key, logits.shape, dtype)
        temperature = jnp.asarray(self.temperature, dtype)
        scores = logits.astype(dtype) + temperature * noise
        labels = jnp.argmax(scores, axis=-1).astype(jnp.int32)
        return jnp.where(jnp.isnan(logits).any(axis=-1), -1, labels)


@jax.tree_util.register_static
@dataclass(frozen=True)
class Bernoulli:
    """Draw each feature for itself: 1 with probability sigmoid(logit), else 0.

    Examples:
        >>> logits = jnp.array([30.0, -30.0])
        >>> Bernoulli()(jax.random.key(0), logits).tolist()
        [1.0, 0.0]
    """

    def __call__(self, key: jax.Array, logits: jax.Array) -> jax.Array:
        """Return 0 or 1 in the dtype and shape of the logits `[*batch, features]`."""
        probabilities = jax.nn.sigmoid(logits.astype(at_least_float32(logits.dtype)))
        return jax.random.bernoulli(key, probabilities).astype(logits.dtype)


class GenerationCarry(NamedTuple):
    """All that the next value depends on.

    Attributes:
        network: The carry of the network, which has read every value drawn so far.
        outputs: `[*batch, out_features]`, what the next value is drawn from.
        step: int32 scalar, how many values have been drawn.
    """

    network: Carry
    outputs: jax.Array
    step: jax.Array


def generate(
    net: Network,
    params: Params,
    key: jax.Array,
    inputs: Any,
    num_steps: int,
    *,
    carry: Carry | None = None,
    mask: jax.Array | None = None,
    sample: Sampler | None = None,
    encode: Encoder | None = None,
) -> tuple[GenerationCarry, Any]:
    """Read a prompt and draw the values that follow it.

        outputs_0 = the outputs at the last real step of the prompt
        value_n = sample(fold_in(key, n), outputs_n)
        outputs_{n+1} = net.step(..., encode(value_n))         n = 0 .. num_steps - 1

    Args:
        net: A network that runs forward; dropout is off.
        params: Its parameters.
        key: Random key; a value depends on it and on how many were drawn before.
        inputs: The prompt, `[T, *batch, F]`, or what else the network reads; T > 0.
        num_steps: How many values to draw; static.
        carry: The carry of the network before the prompt. None: its first one.
        mask: bool `[T, *batch]`, true where a step of the prompt is real, for prompts
            of unequal lengths, padded at either end. A row without
            a real step starts from outputs of zero.
        sample: `(key, outputs) -> value`; the outputs are `[*batch, out_features]`.
            None: `Categorical()`.
        encode: `value -> inputs` of one step, `[*batch, F]`. None: the value itself.

    Returns:
        What `continue_generation` needs to go on, and the values,
        `[num_steps, *batch, ...]`.

    Raises:
        ValueError: If the prompt is empty, if the network reduces time or has a layer
            that runs backward, or if an encoded value is no step of the prompt's shape.

    Examples:
        >>> from gated_rnn import GRU, RNN, Dense, Embedding, Stack
        >>> net = Stack(Embedding(50, 8), RNN(GRU(16)), Dense(50))
        >>> params = net.init(jax.random.key(0))
        >>> prompt = jnp.array([[3, 1], [4, 1]])  # [T, B]
        >>> sampler = Categorical(temperature=0.8)
        >>> key = jax.random.key(1)
        >>> run = jax.jit(generate, static_argnames=("num_steps", "encode"))
        >>> carry, tokens = run(net, params, key, prompt, num_steps=5, sample=sampler)
        >>> tokens.shape
        (5, 2)
        >>> carry, more = continue_generation(
        ...     net, params, key, carry, 3, sample=sampler
        ... )
        >>> more.shape
        (3, 2)

    References:
        A. Graves: Generating sequences with recurrent neural networks, 2013,
        arXiv 1308.0850.
    """
    start = read_prompt(net, params, inputs, carry, mask=mask)
    sample, encode = sample or Categorical(), encode or _identity

    def encode_one(outputs: jax.Array) -> Any:
        return encode(sample(key, outputs))

    encoded = jax.tree.map(jnp.shape, jax.eval_shape(encode_one, start.outputs))
    expected = jax.tree.map(lambda leaf: jnp.shape(leaf)[1:], inputs)
    if encoded != expected:
        raise invalid("encode", f"inputs of shape {expected}", f"shape {encoded}")
    return continue_generation(
        net, params, key, start, num_steps, sample=sample, encode=encode
    )


def read_prompt(
    net: Network,
    params: Params,
    inputs: Any,
    carry: Carry | None = None,
    *,
    mask: jax.Array | None = None,
) -> GenerationCarry:
    """Return what the first value after a prompt depends on; see `generate`.

    Args:
        net: A network that runs forward.
        params: Its parameters.
        inputs: The prompt, `[T, *batch, F]`; T > 0.
        carry: The carry of the network before the prompt. None: its first one.
        mask: bool `[T, *batch]`, true where a step is real. None: all are.

    Raises:
        ValueError: If the prompt is empty or the network reduces time.
    """
    if reduces_time(net):
        raise invalid("net", "a network with outputs at every step", str(net))
    if steps_shape(net, inputs)[0] == 0:
        raise invalid("inputs", "a prompt of at least one step", "none")
    carry, outputs = net.apply(params, inputs, carry, mask=mask)
    if mask is None:
        last = outputs[-1]
    else:
        steps = len(outputs) - 1 - jnp.argmax(mask[::-1], axis=0)
        last = jnp.take_along_axis(outputs, steps[None, ..., None], axis=0)[0]
    return GenerationCarry(carry, last, step=jnp.zeros((), jnp.int32))


def continue_generation(
    net: Network,
    params: Params,
    key: jax.Array,
    carry: GenerationCarry,
    num_steps: int,
    *,
    sample: Sampler | None = None,
    encode: Encoder | None = None,
) -> tuple[GenerationCarry, Any]:
    """Draw more values: with the same key, those that a longer run would have drawn.

    Args:
        net: The network.
        params: Its parameters.
        key: Random key.
        carry: As returned by `read_prompt`, `generate` or this function.
        num_steps: How many values to draw; static.
        sample: As in `generate`.
        encode: As in `generate`.

    Returns:
        The carry to go on from, and the values `[num_steps, *batch, ...]`.

    Raises:
        ValueError: If `num_steps` is not a positive integer.
    """
    check_positive("num_steps", num_steps)
    sample, encode = sample or Categorical(), encode or _identity

    def body(carry: GenerationCarry, _: None) -> tuple[GenerationCarry, Any]:
        value = sample(jax.random.fold_in(key, carry.step), carry.outputs)
        network, outputs = net.step(params, carry.network, encode(value))
        return GenerationCarry(network, outputs, carry.step + 1), value

    return jax.lax.scan(body, carry, length=num_steps)


def _identity(value: Any) -> Any:
    return value
