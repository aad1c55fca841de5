"""Reading named arrays of a format: one check for all of them (layer 4)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gated_rnn.types import DType, invalid

__all__ = ["Entries", "as_array", "flatten", "show_names", "to_jax"]

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
        raise invalid(name, expected, f"dtype {array.dtype}")
    return array if dtype is None else array.astype(dtype)


def flatten(tree: Any, separator: str = "/") -> dict[str, Any]:
    """Return the leaves of nested mappings by their paths; None is no leaf.

    Examples:
        >>> flatten({"cell": {"ii": {"kernel": 1.5}}, "layers": {0: None}})
        {'cell/ii/kernel': 1.5}
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


def show_names(names: Sequence[str]) -> str:
    """Return the first few names in one line."""
    shown = ", ".join(map(repr, names[:_SHOWN_NAMES])) or "none"
    more = len(names) - _SHOWN_NAMES
    return f"{shown} and {more} more" if more > 0 else shown


@dataclass
class _Source:
    """What is left of a mapping, and the dtypes of what is taken."""

    left: dict[str, Any]
    dtype: DType | None
    common: np.dtype | None = None


class Entries:
    """Named arrays of which each is taken once, by its name and its shape.

    What is missing, extra, of another shape, or of another dtype than the first one is
    a `ValueError` of one line that names the entry. Names outside the prefix are left
    alone.

    Attributes:
        prefix: What all names begin with.

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
        self._source = _Source({str(name): source[name] for name in source}, dtype)
        if not list(self):
            expected = f"names that begin with {prefix!r}" if prefix else "entries"
            raise invalid("source", expected, show_names(list(self._source.left)))

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names that were not taken, without the prefix."""
        for name in self._source.left:
            if name.startswith(self.prefix):
                yield name[len(self.prefix) :]

    def __contains__(self, name: str) -> bool:
        """Return whether an entry is there and was not taken."""
        return self.prefix + name in self._source.left

    def within(self, prefix: str) -> "Entries":
        """Return a view of the same entries with a longer prefix."""
        view = object.__new__(Entries)
        view.prefix, view._source = self.prefix + prefix, self._source
        return view

    def children(self, separator: str = "/") -> list[str]:
        """Return what stands before the first separator of each name, once each."""
        return list(dict.fromkeys(name.partition(separator)[0] for name in self))

    def shape(self, name: str, num_axes: int) -> tuple[int, ...]:
        """Return the shape of an entry, which is not taken.

        Raises:
            ValueError: If it is missing, or has not so many axes, none of them empty.
        """
        shape = as_array(self.prefix + name, self._find(name)).shape
        self._check_shape(name, shape, (None,) * num_axes)
        return shape

    def take(self, name: str, shape: Sequence[int | None]) -> np.ndarray:
        """Return an entry.

        Args:
            name: Its name without the prefix.
            shape: Its shape; None: any positive number.

        Raises:
            ValueError: If it is missing, or not such an array.
        """
        full, source = self.prefix + name, self._source
        array = as_array(full, self._find(name), source.dtype)
        self._check_shape(name, array.shape, shape)
        if source.common is not None and array.dtype != source.common:
            expected = f"the dtype of the others, {source.common} (or pass dtype)"
            raise invalid(full, expected, array.dtype)
        source.common = array.dtype
        del source.left[full]
        return array

    def finish(self) -> None:
        """Raise if an entry was not taken."""
        names = [self.prefix + name for name in self]
        if names:
            raise invalid(names[0], "no entry of this name here", show_names(names))

    def _find(self, name: str) -> Any:
        if name not in self:
            names = show_names([self.prefix + other for other in self])
            raise invalid(self.prefix + name, "an entry of this name", names)
        return self._source.left[self.prefix + name]

    def _check_shape(
        self, name: str, shape: tuple[int, ...], wanted: Sequence[int | None]
    ) -> None:
        fits = len(shape) == len(wanted) and all(
            size == each or (each is None and size > 0)
            for size, each in zip(shape, wanted, strict=True)
        )
        if not fits:
            sizes = ", ".join("any" if each is None else str(each) for each in wanted)
            raise invalid(self.prefix + name, f"shape ({sizes})", f"shape {shape}")
