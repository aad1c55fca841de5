"""The modes of a case, made from a `Model`: forward, gradient, train and step.

Compiled once and called as a user would, through `jax.jit`; every call waits for the
device.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.benchmarks.cases import NUM_CHECKED_STEPS, STEP, Case
from experiments.benchmarks.data import Batch, Data, name_gradients, params_of
from experiments.benchmarks.model import (
    NUM_CHECKED_UPDATES,
    SETTINGS,
    Facts,
    Model,
    Program,
    ProgramMemory,
    Results,
)


@dataclass(frozen=True)
class JaxPeer:
    """A library that computes with JAX.

    Attributes:
        make_model: From a case to the model.
        refuse: Why a case cannot be asked of it, or None.
    """

    make_model: Callable[[Case], Model]
    refuse: Callable[[Case], str | None] = lambda case: None

    def refuses(self, case: Case) -> str | None:
        """Say why a case cannot be asked of it, or None."""
        return self.refuse(case)

    def facts(self, case: Case) -> Facts:
        """Say what distinguishes it from ours."""
        return self.make_model(case).facts

    def build(self, case: Case, data: Data) -> Program:
        """Compile a case."""
        return make_program(self.make_model(case), case, data)

    def derive(self, case: Case, data: Data) -> Results:
        """Compute outputs and gradients of the one seed, those of the inputs too."""
        return derive(self.make_model(case), case, data)


def refuse_variants(*variants: str) -> Callable[[Case], str | None]:
    """Make the `refuse` of a library that cannot do some variants."""

    def refuse(case: Case) -> str | None:
        return f"no {case.variant}" if case.variant in variants else None

    return refuse


def mean_square(outputs: jax.Array) -> jax.Array:
    """Compute mean(outputs ** 2), the objective of all cases, in float32."""
    return jnp.mean(jnp.square(outputs.astype(jnp.float32)))


def make_program(model: Model, case: Case, data: Data) -> Program:
    """Compile a case for a model.

    Args:
        model: The model.
        case: The case.
        data: Its data.

    Returns:
        The program, with its data on the device.
    """
    ours = [_cast(params_of(params, model.facts.form), case) for params in data.params]
    lanes = [model.convert(params) for params in ours]
    maps = model.maps_seeds and len(lanes) > 1
    if maps:
        lanes = [jax.tree.map(lambda *leaves: jnp.stack(leaves), *lanes)]
    batch = _arrange(model, _cast(data.batch, case))
    if case.mode == STEP:
        return _make_step(model, lanes[0], batch)

    def transform(function: Any) -> Any:
        return jax.vmap(function, in_axes=(0, None)) if maps else function

    def by_seed(results: list[Any]) -> Any:
        """Stack what the calls returned; a call of mapped seeds has done it."""
        if maps:
            return jax.device_get(results[0])
        return jax.tree.map(lambda *leaves: np.stack(jax.device_get(leaves)), *results)

    if case.mode == "train":
        return _make_train(model, lanes, batch, transform, by_seed)
    function = model.apply
    if case.mode == "gradient":
        function = jax.value_and_grad(
            lambda params, batch: mean_square(model.apply(params, batch))
        )
    call = jax.jit(transform(function))
    compile_seconds, memory = _compile(call, lanes[0], batch)

    def run() -> None:
        for params in lanes:
            jax.block_until_ready(call(params, batch))

    def results() -> Results:
        found = by_seed([call(params, batch) for params in lanes])
        if case.mode == "forward":
            return {"outputs": _time_major(model, found)}
        losses, gradients = found
        back = [
            name_gradients(_pull_back(model, params, gradient), model.facts.form)
            for params, gradient in zip(ours, _split(gradients, len(ours)), strict=True)
        ]
        stacked = {name: np.stack([each[name] for each in back]) for name in back[0]}
        return {"loss": np.asarray(losses), **stacked}

    return Program(run, results, compile_seconds, memory)


def derive(model: Model, case: Case, data: Data) -> Results:
    """Compute outputs and all gradients of one seed.

    Args:
        model: The model.
        case: The case; its mode does not matter.
        data: Its data.

    Returns:
        The outputs, and the gradients of mean(outputs ** 2) with respect to the
        parameters and the inputs, in our layout.
    """
    ours = _cast(params_of(data.params[0], model.facts.form), case)
    batch = _arrange(model, _cast(data.batch, case))

    @jax.jit
    def compute(params: Any, batch: Batch) -> Any:
        def loss(params: Any, inputs: jax.Array) -> Any:
            outputs = model.apply(params, batch._replace(inputs=inputs))
            return mean_square(outputs), outputs

        return jax.grad(loss, argnums=(0, 1), has_aux=True)(params, batch.inputs)

    (gradient, of_inputs), outputs = compute(model.convert(ours), batch)
    return {
        "outputs": _time_major(model, jax.device_get(outputs)[None])[0],
        "gradient of inputs": _time_major(model, jax.device_get(of_inputs)[None])[0],
        **name_gradients(_pull_back(model, ours, gradient), model.facts.form),
    }


def _make_train(
    model: Model, lanes: list[Any], batch: Batch, transform: Any, by_seed: Any
) -> Program:
    optimizer = optax.chain(
        optax.clip_by_global_norm(SETTINGS.max_grad_norm),
        optax.adam(SETTINGS.learning_rate),
    )

    def update(state: Any, batch: Batch) -> Any:
        params, opt_state = state
        loss, gradient = jax.value_and_grad(
            lambda params: mean_square(model.apply(params, batch))
        )(params)
        updates, opt_state = optimizer.update(gradient, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), loss

    call = jax.jit(transform(update), donate_argnums=0)
    begin = jax.vmap(optimizer.init) if transform(update) is not update else None
    states = [(params, (begin or optimizer.init)(params)) for params in lanes]
    states = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), states)
    compile_seconds, memory = _compile(call, states[0], batch)

    def update_all() -> list[jax.Array]:
        losses = []
        for seed, state in enumerate(states):
            states[seed], loss = call(state, batch)
            losses.append(jax.block_until_ready((states[seed], loss))[1])
        return losses

    def results() -> Results:
        losses = [by_seed(update_all()) for _ in range(NUM_CHECKED_UPDATES)]
        return {"losses": np.stack(losses, axis=-1)}

    return Program(lambda: update_all() and None, results, compile_seconds, memory)


def _make_step(model: Model, params: Any, batch: Batch) -> Program:
    steps = np.moveaxis(batch.inputs, 1, 0) if model.batch_major else batch.inputs
    inputs = [jnp.asarray(steps[number]) for number in range(NUM_CHECKED_STEPS)]
    call = jax.jit(model.step)
    carry = jax.tree.map(jnp.asarray, model.carry)
    compile_seconds, memory = _compile(call, params, carry, inputs[0])

    def run() -> None:
        nonlocal carry
        carry, _ = jax.block_until_ready(call(params, carry, inputs[0]))

    def results() -> Results:
        carry, collected = model.carry, []
        for step_inputs in inputs:
            carry, outputs = call(params, carry, step_inputs)
            collected.append(np.asarray(outputs, np.float32))
        return {"outputs": np.stack(collected)}

    return Program(run, results, compile_seconds, memory)


def _compile(call: Any, *arguments: Any) -> tuple[float, ProgramMemory | None]:
    """Compile what the first call of `call` will find compiled."""
    began = time.perf_counter()
    compiled = call.lower(*arguments).compile()
    seconds = time.perf_counter() - began
    return seconds, read_memory(compiled)


def read_memory(compiled: Any) -> ProgramMemory | None:
    """Read XLA's plan of the memory of a compiled program, None where it has none.

    Args:
        compiled: From `jax.jit(...).lower(...).compile()`.

    Returns:
        Bytes by use.
    """
    plan = compiled.memory_analysis()
    if plan is None:
        return None
    return ProgramMemory(
        temporary=plan.temp_size_in_bytes,
        argument=plan.argument_size_in_bytes,
        output=plan.output_size_in_bytes,
        alias=plan.alias_size_in_bytes,
    )


def _cast(tree: Any, case: Case) -> Any:
    """Put a pytree on the device, its floats in the dtype of the case."""

    def cast(leaf: np.ndarray) -> jax.Array:
        is_float = np.issubdtype(leaf.dtype, np.floating)
        return jnp.asarray(leaf, case.dtype if is_float else None)

    return jax.tree.map(cast, tree)


def _arrange(model: Model, batch: Batch) -> Batch:
    if not model.batch_major:
        return batch
    resets = None if batch.resets is None else jnp.swapaxes(batch.resets, 0, 1)
    return Batch(jnp.swapaxes(batch.inputs, 0, 1), batch.lengths, resets)


def _time_major(model: Model, values: Any) -> np.ndarray:
    """Bring `[S, ...]` into our layout and float32."""
    values = np.asarray(values, np.float32)
    return np.swapaxes(values, 1, 2) if model.batch_major else values


def _pull_back(model: Model, ours: Any, gradient: Any) -> Any:
    """Bring a gradient into our layout, by the transpose of the conversion."""
    _, transpose = jax.vjp(model.convert, ours)
    return transpose(jax.tree.map(jnp.asarray, gradient))[0]


def _split(tree: Any, num_seeds: int) -> list[Any]:
    """Undo `[S, ...]`."""
    return [
        jax.tree.map(lambda leaf, s=seed: leaf[s], tree) for seed in range(num_seeds)
    ]
