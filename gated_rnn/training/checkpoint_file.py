"""Named arrays and a description in one file that shows any damage (layer 5).

A prefix, a header in JSON, the arrays' bytes. The prefix has a digest of all the rest:
what is read is what was written, or it is refused before it is understood.
"""

import hashlib
import json
import math
import os
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

__all__ = ["read_arrays", "write_arrays"]

_MAGIC = b"gated_rnn checkpoint 1\n"
_LENGTHS = struct.Struct("<QQ")  # of the header, of the arrays
_PREFIX_BYTES = len(_MAGIC) + hashlib.sha256().digest_size + _LENGTHS.size


def write_arrays(
    path: Path, description: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> None:
    """Write a file, and have the disk keep it before returning.

    Args:
        path: The file.
        description: JSON's types.
        arrays: By name; of any shape, of a dtype that JAX knows.

    Raises:
        OSError: If it cannot be written.
        TypeError: If the description has something else than JSON's types.
    """
    native = {name: _native(np.asarray(array)) for name, array in arrays.items()}
    index = [
        [name, array.dtype.name, list(array.shape)] for name, array in native.items()
    ]
    header = json.dumps({"description": description, "arrays": index}).encode()
    num_bytes = sum(array.nbytes for array in native.values())
    lengths = _LENGTHS.pack(len(header), num_bytes)
    digest = hashlib.sha256(lengths + header)
    for array in native.values():
        digest.update(array.tobytes())
    with path.open("wb") as file:
        file.write(_MAGIC + digest.digest() + lengths + header)
        for array in native.values():
            file.write(array.tobytes())
        file.flush()
        os.fsync(file.fileno())


def read_arrays(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Read a file of `write_arrays`.

    Never takes more memory than the file is long.

    Args:
        path: The file.

    Returns:
        The description and the arrays, to the bit.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is not what was written.
    """
    if not path.is_file():
        raise ValueError(f"it has no file {path.name}")
    with path.open("rb") as file:
        prefix = file.read(_PREFIX_BYTES)
        if len(prefix) < _PREFIX_BYTES or not prefix.startswith(_MAGIC):
            raise ValueError(f"its file {path.name} is of another kind")
        digest, lengths = prefix[len(_MAGIC) : -_LENGTHS.size], prefix[-_LENGTHS.size :]
        header_bytes, num_bytes = _LENGTHS.unpack(lengths)
        expected = _PREFIX_BYTES + header_bytes + num_bytes
        size = os.fstat(file.fileno()).st_size
        if size != expected:
            raise ValueError(f"its file has {size} bytes, expected {expected}")
        content = file.read()
    actual = hashlib.sha256(lengths)
    actual.update(content)
    if actual.digest() != digest:
        raise ValueError("its bytes are not those that were written")
    header = json.loads(content[:header_bytes])
    return header["description"], dict(_take(content, header_bytes, header["arrays"]))


def _native(array: np.ndarray) -> np.ndarray:
    """Return the array in the byte order of the machine, the one that is read."""
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _take(
    content: bytes, first: int, index: list[tuple[str, str, list[int]]]
) -> Iterator[tuple[str, np.ndarray]]:
    for name, dtype_name, shape in index:
        dtype = jnp.dtype(dtype_name)  # knows bfloat16 too
        count = math.prod(shape)
        array = np.empty(shape, dtype)
        if count:
            array[...] = np.frombuffer(content, dtype, count, first).reshape(shape)
        yield name, array
        first += count * dtype.itemsize
