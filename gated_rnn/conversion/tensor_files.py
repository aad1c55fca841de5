"""Reading safetensors files, and nothing that could run code (layer 4).

Header: https://github.com/huggingface/safetensors; the extra `conversion` has it.
"""

from os import PathLike
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from gated_rnn.types import invalid

__all__ = ["read_safetensors"]

_DTYPES: dict[str, Any] = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": jnp.bfloat16,
}
# A zip archive, as torch.save writes, and pickles of protocol 2 and later.
_PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def read_safetensors(path: str | PathLike[str]) -> dict[str, np.ndarray]:
    """Return the arrays of a safetensors file by name.

    Arrays that are not floating-point numbers come as bytes, `[number of bytes]`.

    Args:
        path: The file.

    Raises:
        ValueError: If it is no safetensors file. A pickle is not read, whatever its
            name: loading one can run any code.
        OSError: If it cannot be opened.
    """
    from safetensors import SafetensorError, deserialize

    data = Path(path).read_bytes()
    if data.startswith(_PICKLES):
        expected = (
            "a safetensors file (in PyTorch:"
            " safetensors.torch.save_file(model.state_dict(), 'model.safetensors'))"
        )
        raise invalid(str(path), expected, "a pickle, which could run any code")
    try:
        entries = deserialize(data)
    except SafetensorError as error:
        reason = " ".join(str(error).split())
        raise invalid(str(path), "a safetensors file", reason) from None
    return {
        name: np.frombuffer(entry["data"], _DTYPES[entry["dtype"]]).reshape(
            entry["shape"]
        )
        if entry["dtype"] in _DTYPES
        else np.frombuffer(entry["data"], np.uint8)
        for name, entry in entries
    }
