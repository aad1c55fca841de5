"""Networks as programs for machines that have only JAX (layer 4).

A program is StableHLO, for several platforms at once and for any batch. It reads and
returns arrays, and dicts of arrays by name, so that a reader needs no class of ours.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import export

from gated_rnn.networks import RNN, Network
from gated_rnn.networks.network import reads_tokens
from gated_rnn.types import (
    Carry,
    Cell,
    DType,
    Params,
    check_positive,
    invalid,
    params_dtype,
)

__all__ = [
    "PLATFORMS",
    "export_chunk",
    "export_init_carry",
    "export_step",
    "name_leaves",
]

PLATFORMS = ("cpu", "cuda", "tpu")
KNOWN_PLATFORMS = ("cpu", "cuda", "rocm", "tpu")

# What JAX and Python say to a computation that needs a number in place of a symbol.
UNKNOWN_LENGTH = (
    jax.errors.InconclusiveDimensionOperation,
    NotImplementedError,
    TypeError,
)


def export_step(
    network: Network | Cell,
    params: Params,
    in_features: int | None = None,
    *,
    resets: bool = False,
    bake_params: bool = True,
    batch_size: int | None = None,
    dtype: DType | None = None,
    platforms: Sequence[str] = PLATFORMS,
) -> export.Exported:
    """Export one step: `call(carry, inputs) -> (carry, outputs)`.

    Args:
        network: A network that runs forward, or a cell.
        params: Its parameters; their shapes are enough unless they are baked in.
        in_features: F; None for a network that reads tokens, int32 `[batch]`.
        resets: Whether the program also takes `reset=`, bool `[batch]`, true where a
            segment begins with this step.
        bake_params: Whether the parameters are constants of the program. Otherwise they
            come first, `call(params, carry, inputs)`, as `name_leaves` names them.
        batch_size: Rows of the batch. None: any number of them but 0.
        dtype: dtype of the inputs and of the carry. None: that of the parameters.
        platforms: Where the program will run, any of cpu, cuda, rocm and tpu.

    Returns:
        The program; its method `serialize` gives the bytes to store (this needs
        flatbuffers, which the extra `export` installs). The carry is a dict of arrays
        `[batch, ...]` by name, inputs are `[batch, F]`, outputs
        `[batch, out_features]`.

    Raises:
        ValueError: If an option or `in_features` does not fit, or the network has a
            layer that runs backward.

    Examples:
        >>> from gated_rnn import GRU, RNN, Dense, Stack
        >>> net = Stack(RNN(GRU(16)), Dense(2))
        >>> params = net.init(jax.random.key(0), in_features=3)
        >>> begin = export_init_carry(net, params, in_features=3)
        >>> step = export_step(net, params, in_features=3)
        >>> inputs = jnp.ones((4, 3))  # [B, F]
        >>> carry = begin.call(inputs)
        >>> sorted(carry)
        ['layers.0.hidden', 'time']
        >>> carry, outputs = step.call(carry, inputs)
        >>> outputs.shape
        (4, 2)
    """
    (batch,) = _sizes(batch_size=batch_size)
    return _export_run(
        _run_step,
        _as_network(network),
        params,
        in_features,
        leading=(batch,),
        flags=["reset"] * resets,
        bake_params=bake_params,
        dtype=dtype,
        platforms=platforms,
    )


def export_chunk(
    network: Network | Cell,
    params: Params,
    in_features: int | None = None,
    num_steps: int | None = None,
    *,
    masks: bool = False,
    resets: bool = False,
    bake_params: bool = True,
    batch_size: int | None = None,
    dtype: DType | None = None,
    platforms: Sequence[str] = PLATFORMS,
) -> export.Exported:
    """Export a piece of a sequence: `call(carry, inputs) -> (carry, outputs)`.

    With the carry handed on, chunks and steps in any order equal one run over the
    whole. A network that runs backward, or that reduces time, sees one chunk only: for
    it a chunk is a whole sequence.

    Args:
        network: A network, or a cell.
        params: As in `export_step`.
        in_features: As in `export_step`; tokens are int32 `[T, batch]`.
        num_steps: T. None: any number of steps but 0.
        masks: Whether the program also takes `mask=`, bool `[T, batch]`, true where a
            step is real.
        resets: Whether it also takes `resets=`, bool `[T, batch]`, true where a segment
            begins.
        bake_params: As in `export_step`.
        batch_size: As in `export_step`.
        dtype: As in `export_step`.
        platforms: As in `export_step`.

    Returns:
        The program, as `export_step` returns it; inputs are `[T, batch, F]` and outputs
        `[T, batch, out_features]`.

    Raises:
        ValueError: If an option or `in_features` does not fit, or if the network, or an
            engine in it, needs to know the number of steps.

    Examples:
        >>> from gated_rnn import LSTM
        >>> cell = LSTM(16)
        >>> params = cell.init(jax.random.key(0), in_features=3)
        >>> chunk = export_chunk(cell, params, in_features=3, bake_params=False)
        >>> carry = {"hidden": jnp.zeros((4, 16)), "cell": jnp.zeros((4, 16))}
        >>> inputs = jnp.ones((20, 4, 3))  # [T, B, F]
        >>> carry, outputs = chunk.call(name_leaves(params), carry, inputs)
        >>> outputs.shape
        (20, 4, 16)
    """
    steps, batch = _sizes(num_steps=num_steps, batch_size=batch_size)
    try:
        return _export_run(
            _run_chunk,
            _as_network(network),
            params,
            in_features,
            leading=(steps, batch),
            flags=["mask"] * masks + ["resets"] * resets,
            bake_params=bake_params,
            dtype=dtype,
            platforms=platforms,
        )
    except UNKNOWN_LENGTH as error:
        if num_steps is not None:
            raise
        expected = "a number, as a layer or an engine of this network needs to know it"
        raise invalid("num_steps", expected, "None") from error


def export_init_carry(
    network: Network | Cell,
    params: Params,
    in_features: int | None = None,
    *,
    batch_size: int | None = None,
    dtype: DType | None = None,
    platforms: Sequence[str] = PLATFORMS,
) -> export.Exported:
    """Export the carry before the first step: `call(inputs) -> carry`.

    Args:
        network: As in `export_step`, like all that follow.
        params: Only their dtype is used.
        in_features: See there.
        batch_size: See there.
        dtype: See there.
        platforms: See there.

    Returns:
        The program. It takes the inputs of one step, `[batch, F]` or tokens `[batch]`,
        reads nothing of them but the number of rows, and returns the carry that
        `export_step` and `export_chunk` take.

    Raises:
        ValueError: If an option does not fit.
    """
    network = _as_network(network)
    (batch,) = _sizes(batch_size=batch_size)
    dtype = _carry_dtype(params, dtype)

    def run(inputs: jax.Array) -> dict[str, jax.Array]:
        return name_leaves(network.init_carry(inputs.shape[:1], dtype))

    inputs = _inputs_shape(network, (batch,), in_features, dtype)
    return export.export(jax.jit(run), platforms=_check_platforms(platforms))(inputs)


def name_leaves(tree: Any) -> dict[str, Any]:
    """Return the leaves of a pytree by name: fields and indices, joined by dots.

    Args:
        tree: Parameters, or a carry.

    Examples:
        >>> from gated_rnn import GRU, RNN, Dense, Stack
        >>> net = Stack(RNN(GRU(16)), Dense(2))
        >>> params = net.init(jax.random.key(0), in_features=3)
        >>> list(name_leaves(params))[:3]
        ['0.kernel', '0.recurrent_kernel', '0.bias']
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): leaf
        for path, leaf in leaves
    }


def _unname_leaves(named: dict[str, Any], like: Any) -> Any:
    """Return the pytree of the structure of `like` that `name_leaves` took apart."""
    leaves = [named[name] for name in name_leaves(like)]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _run_step(
    network: Network, params: Params, carry: Carry, inputs: jax.Array, flags: Any
) -> tuple[Carry, jax.Array]:
    return network.step(params, carry, inputs, **flags)


def _run_chunk(
    network: Network, params: Params, carry: Carry, inputs: jax.Array, flags: Any
) -> tuple[Carry, jax.Array]:
    return network.apply(params, inputs, carry, **flags)


def _export_run(
    run: Callable[..., tuple[Carry, jax.Array]],
    network: Network,
    params: Params,
    in_features: int | None,
    *,
    leading: tuple[Any, ...],
    flags: Sequence[str],
    bake_params: bool,
    dtype: DType | None,
    platforms: Sequence[str],
) -> export.Exported:
    """Export `run` as a function of arrays by name.

    Args:
        run: `(network, params, carry, inputs, flags) -> (carry, outputs)`.
        network: The network.
        params: Its parameters.
        in_features: F.
        leading: `[batch]` or `[T, batch]`, numbers or symbols.
        flags: Names of the bool arrays `[*leading]` that the program takes.
        bake_params: Whether the program takes no parameters.
        dtype: dtype of inputs and carry; None: that of the parameters.
        platforms: Where it will run.
    """
    dtype = _carry_dtype(params, dtype)
    inputs = _inputs_shape(network, leading, in_features, dtype)
    carry = jax.eval_shape(lambda: network.init_carry(leading[-1:], dtype))

    def call(params: Params, named: Any, inputs: jax.Array, flags: Any) -> Any:
        after, outputs = run(
            network, params, _unname_leaves(named, carry), inputs, flags
        )
        return name_leaves(after), outputs

    def call_baked(carry: Any, inputs: jax.Array, **flags: jax.Array) -> Any:
        return call(params, carry, inputs, flags)

    def call_with(
        named_params: Any, carry: Any, inputs: jax.Array, **flags: jax.Array
    ) -> Any:
        return call(_unname_leaves(named_params, params), carry, inputs, flags)

    arguments = (name_leaves(carry), inputs)
    if not bake_params:
        arguments = (name_leaves(_shapes(params)), *arguments)
    program = jax.jit(call_baked if bake_params else call_with)
    return export.export(program, platforms=_check_platforms(platforms))(
        *arguments,
        **{name: jax.ShapeDtypeStruct(leading, jnp.bool_) for name in flags},
    )


def _as_network(network: Any) -> Network:
    if isinstance(network, type) or not hasattr(network, "init_carry"):
        expected = "a network such as RNN(cell), or a cell"
        raise invalid("network", expected, repr(network))
    return RNN(network) if hasattr(network, "gate") else network


def _sizes(**sizes: int | None) -> list[Any]:
    """Return the sizes; where one is None, a symbol with its name."""
    for name, size in sizes.items():
        if size is not None:
            check_positive(name, size)
    symbols = export.symbolic_shape(", ".join(sizes))
    return [
        symbol if size is None else size
        for size, symbol in zip(sizes.values(), symbols, strict=True)
    ]


def _carry_dtype(params: Params, dtype: DType | None) -> DType:
    chosen = params_dtype(params) if dtype is None else jnp.dtype(dtype)
    if not jnp.issubdtype(chosen, jnp.floating):
        raise invalid("dtype", "a floating-point dtype", chosen)
    return chosen


def _inputs_shape(
    network: Network, leading: tuple[Any, ...], in_features: int | None, dtype: DType
) -> jax.ShapeDtypeStruct:
    if reads_tokens(network):
        if in_features is not None:
            raise invalid(
                "in_features", "None, as the network reads tokens", in_features
            )
        return jax.ShapeDtypeStruct(leading, jnp.int32)
    check_positive("in_features", in_features)
    return jax.ShapeDtypeStruct((*leading, in_features), dtype)


def _shapes(tree: Any) -> Any:
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf)), tree
    )


def _check_platforms(platforms: Sequence[str]) -> tuple[str, ...]:
    names = () if isinstance(platforms, str) else tuple(platforms)
    if not names or len(set(names)) < len(names) or set(names) - set(KNOWN_PLATFORMS):
        expected = f"different ones of {', '.join(KNOWN_PLATFORMS)}, at least one"
        raise invalid("platforms", expected, repr(platforms))
    return names
