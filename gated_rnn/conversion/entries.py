"""Reading named arrays of a format: one check for all of them (layer 4)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gated_rnn.types import DType, invalid

__all__ = ["Entries", "as_array", "flatten", "to_jax"]

FLOATS = ("float16", "bfloat16", "float32", "float64")
_SHOWN_NAMES = 12


def as_array(name: str, value: Any, dtype: DType | None = None) -> np.ndarray:
    """Return floating-point numbers as a NumPy array, without importing a framework.

    Args:
        name: What messages call it.
        value: What `np.asarray` takes, or a PyTorch tensor on any device, with a
            gradient or without.
        dtype: dtype of the result; None: its own.

    Raises:
        ValueError: If it holds no float16, bfloat16, float32 or float64 numbers.

    Examples:
        >>> as_array("bias", [0.5, 1.0], np.float32)
        array([0.5, 1. ], dtype=float32)
    """
    expected = f"an array of {', '.join(FLOATS)}"
    try:
        if hasattr(value, "detach"):
            value = value.detach().cpu()
            if str(value.dtype) == "torch.bfloat16":  # NumPy has none of its own
                value = np.asarray(value.float()).astype(jnp.bfloat16)
        array = np.asarray(value)
    except (AttributeError, TypeError, ValueError, RuntimeError):
        raise invalid(name, expected, f"a {type(value).__name__}") from None
    if array.dtype.name not in FLOATS:
        got = f"dtype {array.dtype}" if hasattr(value, "dtype") else repr(type(value))
        raise invalid(name, expected, got)
    return array if dtype is None else array.astype(dtype)


def flatten(tree: Any, separator: str = "/") -> dict[str, Any]:
    """Return the leaves of nested mappings by their paths; None is no leaf.

    Examples:
        >>> flatten({"cell": {"ii": {"kernel": 1}}, "layers": {0: None}})
        {'cell/ii/kernel': 1}
    """
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            inner = flatten(value, separator)
            flat |= {f"{key}{separator}{name}": leaf for name, leaf in inner.items()}
        elif value is not None:
            flat[str(key)] = value
    return flat


def to_jax(array: np.ndarray) -> jax.Array:
    """Return a JAX array of the dtype, or of float32 where float64 is disabled."""
    return jnp.asarray(array, jax.dtypes.canonicalize_dtype(array.dtype))


class Entries:
    """Named arrays of which each is taken once, by its name and its shape.

    What is missing, extra, of another shape, or of another dtype than the first one is
    a `ValueError` of one line that names the entry.

    Attributes:
        prefix: What all names begin with.
        dtype: The dtype that `take` casts to; None: the one they all have.

    Examples:
        >>> entries = Entries({"lstm.weight": np.ones((8, 3)), "other": 1}, "lstm.")
        >>> list(entries)
        ['weight']
        >>> entries.take("weight", (None, 3)).shape
        (8, 3)
        >>> entries.finish()
    """

    def __init__(
        self, source: Mapping[str, Any], prefix: str = "", dtype: DType | None = None
    ) -> None:
        if not isinstance(source, Mapping):
            expected = "a mapping from names to arrays"
            raise invalid("source", expected, f"a {type(source).__name__}")
        self.prefix = prefix
        self.dtype = dtype
        self._left = {
            str(name)[len(prefix) :]: value
            for name, value in source.items()
            if str(name).startswith(prefix)
        }
        self._common: np.dtype | None = None
        if not self._left:
            expected = f"names that begin with {prefix!r}" if prefix else "entries"
            raise invalid("source", expected, show_names(list(map(str, source))))

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names that were not taken, without the prefix."""
        return iter(self._left)

    def __contains__(self, name: str) -> bool:
        """Return whether an entry is there and was not taken."""
        return name in self._left

    def take(self, name: str, shape: Sequence[int | None]) -> np.ndarray:
        """Return an entry.

        Args:
            name: Its name without the prefix.
            shape: Its shape; None: any positive number.

        Raises:
            ValueError: If it is missing, or not such an array.
        """
        full = self.prefix + name
        if name not in self._left:
            names = [self.prefix + other for other in self._left]
            raise invalid(full, "an entry of this name", show_names(names))
        array = as_array(full, self._left.pop(name), self.dtype)
        fits = len(array.shape) == len(shape) and all(
            size == wanted or (wanted is None and size > 0)
            for size, wanted in zip(array.shape, shape, strict=True)
        )
        if not fits:
            sizes = ["any" if size is None else str(size) for size in shape]
            raise invalid(full, f"shape ({', '.join(sizes)})", f"shape {array.shape}")
        self._common = self._common or array.dtype
        if array.dtype != self._common:
            expected = f"the dtype of the others, {self._common} (or pass dtype)"
            raise invalid(full, expected, array.dtype)
        return array

    def finish(self) -> None:
        """Raise if an entry was not taken."""
        if self._left:
            names = [self.prefix + name for name in self._left]
            raise invalid(names[0], "no entry of this name here", show_names(names))


def show_names(names: Sequence[str]) -> str:
    """Return some names in one line."""
    shown = ", ".join(map(repr, names[:_SHOWN_NAMES])) or "none"
    more = len(names) - _SHOWN_NAMES
    return f"{shown} and {more} more" if more > 0 else shown
