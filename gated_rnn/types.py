"""Dimensions, the protocols of cells and engines, and shape checks (layer 0).

T time, B batch, F input features, H hidden features, G gates, S seeds. Sequences are
time-major, `[T, *batch, F]`; `*batch` may be empty or have several axes.
"""

from collections.abc import Callable
from numbers import Integral
from typing import Any, Protocol

import jax
import jax.numpy as jnp

__all__ = [
    "Activation",
    "Carry",
    "Cell",
    "DType",
    "Engine",
    "Initializer",
    "Params",
    "Shape",
    "check_carry",
    "check_features",
    "check_flags",
    "check_kernel",
    "check_positive",
    "check_sequence",
    "check_sequences",
    "invalid",
    "params_dtype",
]

Activation = Callable[[jax.Array], jax.Array]
Carry = Any  # a NamedTuple of arrays [*batch, features]
DType = Any  # anything jnp.dtype accepts
Initializer = Callable[..., jax.Array]  # (key, shape, dtype) -> array
Params = Any  # a NamedTuple of arrays, nested for wrapped cells
Shape = tuple[int, ...]


class Cell(Protocol):
    """One step of a recurrence, split by what needs the past.

    `step` is the composition of the other three:

        projected = project(params, inputs)                   needs no past
        recurrent = recur(params, carry)                      needs the past
        carry, outputs = gate(params, projected, recurrent, carry)

    `projected` and `recurrent` are arrays or pytrees of arrays whose leading axes are
    those of `inputs` and `carry`. `pointwise` promises that `gate` has no matmul and
    mixes no two hidden features, which is what the fastest engines ask for.

    A cell may say more of itself: `affine`, that its next carry is affine in the carry,
    element by element; `recurs_in_gate`, that `gate` multiplies by the recurrent
    kernel. Without such an attribute it is not so.
    """

    @property
    def out_features(self) -> int:
        """Number of features of `outputs`."""
        ...

    @property
    def pointwise(self) -> bool:
        """Whether `gate` is elementwise over the hidden features."""
        ...

    def init(self, key: jax.Array, in_features: int, dtype: DType = ...) -> Params:
        """Draw parameters for inputs of `in_features` features."""
        ...

    def init_carry(self, batch_shape: Shape = ..., dtype: DType = ...) -> Carry:
        """Return the zero carry, each leaf `[*batch_shape, features]`."""
        ...

    def project(self, params: Params, inputs: Any) -> Any:
        """Return what the step needs of its inputs `[*leading, F]`."""
        ...

    def recur(self, params: Params, carry: Carry) -> Any:
        """Return what the step needs of the previous carry through a matmul."""
        ...

    def gate(
        self, params: Params, projected: Any, recurrent: Any, carry: Carry
    ) -> tuple[Carry, Any]:
        """Join both into the next carry and the outputs."""
        ...

    def step(self, params: Params, carry: Carry, inputs: Any) -> tuple[Carry, Any]:
        """Run one time step, in the argument order of a `lax.scan` body."""
        ...


class Engine(Protocol):
    """One way of running a cell along time: a frozen, hashable dataclass."""

    def __call__(
        self,
        cell: Cell,
        params: Params,
        inputs: Any,
        carry: Carry,
        *,
        reverse: bool,
        collect: bool,
    ) -> tuple[Carry, Any]:
        """Return the final carry and the outputs `[T, *batch, out_features]`."""
        ...

    def refuses(self, cell: Cell) -> str | None:
        """Return why this engine cannot run `cell`, or None if it can."""
        ...


def invalid(name: str, expected: str, got: Any) -> ValueError:
    """Return the one error every check raises: name, expectation, what came."""
    return ValueError(
        f"Received an invalid value for {name}: expected {expected}, got {got}."
    )


def check_positive(name: str, value: Any) -> None:
    """Raise unless `value` is a positive integer, Python's or NumPy's."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise invalid(name, "a positive integer", repr(value))


def check_features(name: str, inputs: jax.Array, features: int) -> None:
    """Raise unless the last axis of `inputs` has `features` entries."""
    if jnp.ndim(inputs) == 0 or inputs.shape[-1] != features:
        raise invalid(
            name, f"{features} features on the last axis", f"shape {jnp.shape(inputs)}"
        )


def check_kernel(name: str, kernel: jax.Array, columns: int) -> None:
    """Raise unless `kernel` is a matrix with `columns` columns."""
    if jnp.ndim(kernel) != 2 or kernel.shape[1] != columns:
        raise invalid(
            name,
            f"a matrix with {columns} columns (gates x hidden_features)",
            f"shape {jnp.shape(kernel)}",
        )


def check_sequence(name: str, inputs: jax.Array) -> None:
    """Raise unless `inputs` has at least a time and a feature axis."""
    if jnp.ndim(inputs) < 2:
        raise invalid(
            name,
            "a time-major array [T, *batch, F]",
            f"shape {jnp.shape(inputs)}",
        )


def check_sequences(name: str, inputs: Any) -> Shape:
    """Raise unless all leaves are sequences of the same `[T, *batch]`; return that."""
    leaves = jax.tree.leaves(inputs)
    if not leaves:
        raise invalid(name, "a time-major array [T, *batch, F]", repr(inputs))
    for leaf in leaves:
        check_sequence(name, leaf)
        if leaf.shape[:-1] != leaves[0].shape[:-1]:
            shapes = ", ".join(str(leaf.shape) for leaf in leaves)
            raise invalid(name, "arrays of the same [T, *batch]", f"shapes {shapes}")
    return leaves[0].shape[:-1]


def check_carry(name: str, carry: Carry, zeros: Carry, batch_shape: Shape) -> None:
    """Raise unless `carry` has the structure of `zeros` and fits the batch.

    Args:
        name: Name of the argument, for the message.
        carry: The carry to check; each leaf `[*batch, features]` or `[features]`.
        zeros: A carry of the cell with batch shape `()`.
        batch_shape: Batch axes of the inputs.
    """
    if jax.tree.structure(carry) != jax.tree.structure(zeros):
        expected, got = type(zeros).__name__, type(carry).__name__
        if expected == got:
            expected, got = jax.tree.structure(zeros), jax.tree.structure(carry)
        raise invalid(name, f"a carry of this cell ({expected})", got)
    for leaf, zero in zip(jax.tree.leaves(carry), jax.tree.leaves(zeros), strict=True):
        shape, features = jnp.shape(leaf), jnp.shape(zero)
        batch = shape[: len(shape) - len(features)]
        if shape[len(batch) :] != features or batch not in ((), batch_shape):
            raise invalid(
                name,
                f"arrays of shape {(*batch_shape, *features)} or {features}"
                " (is the batch axis of the inputs first? the core is time-major,"
                " [T, *batch, F])",
                f"shape {shape}",
            )


def check_flags(name: str, flags: jax.Array, shape: Shape) -> None:
    """Raise unless `flags` is a bool array of the given shape."""
    if not hasattr(flags, "dtype"):
        raise invalid(name, "a bool array", f"a {type(flags).__name__}")
    if jnp.result_type(flags) != jnp.bool_:
        raise invalid(name, "a bool array", f"dtype {jnp.result_type(flags)}")
    if jnp.shape(flags) != shape:
        raise invalid(
            name,
            f"shape [T, *batch] = {shape} (batch-major? the core is time-major)",
            f"shape {jnp.shape(flags)}",
        )


def params_dtype(params: Params) -> Any:
    """Return the dtype of the first parameter, the kernel's in every cell."""
    leaves = jax.tree.leaves(params)
    return jnp.result_type(leaves[0]) if leaves else jnp.dtype(jnp.float32)
