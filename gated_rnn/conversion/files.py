"""Models in files: a safetensors file with a description of the network (layer 4).

What the metadata of the file hold: the version of this format, the network as JSON, a
digest of everything, and what the user adds. Loading runs no code that a file names.
"""

import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gated_rnn.conversion.descriptions import build_network, describe_network
from gated_rnn.conversion.shapes import (
    in_features_of,
    match_leaves,
    name_leaves,
    shapes_of,
)
from gated_rnn.networks import Network
from gated_rnn.types import Params, invalid

__all__ = ["load_metadata", "load_model", "save_model"]

VERSION = "1"
MAX_DESCRIPTION = 2**18  # characters; a layer takes about a thousand
_VERSION_KEY = "gated_rnn_model"
_DTYPES: Mapping[str, Any] = {
    "BOOL": np.bool_,
    "I8": np.int8,
    "I16": np.int16,
    "I32": np.int32,
    "I64": np.int64,
    "U8": np.uint8,
    "U16": np.uint16,
    "U32": np.uint32,
    "U64": np.uint64,
    "F16": np.float16,
    "BF16": jnp.bfloat16,
    "F32": np.float32,
    "F64": np.float64,
}


class _Content(NamedTuple):
    """What a file holds: its texts, and its arrays by name."""

    network: str
    metadata: str
    tensors: dict[str, np.ndarray]

    def digest(self) -> str:
        """Return the SHA-256 of all of it, whatever the order of the arrays."""
        digest = hashlib.sha256()
        for text in (VERSION, self.network, self.metadata):
            digest.update(f"{len(text)} {text}".encode())
        for name, tensor in sorted(self.tensors.items()):
            digest.update(f"{len(name)} {name} {tensor.dtype} {tensor.shape}".encode())
            digest.update(tensor.tobytes())
        return digest.hexdigest()


def save_model(
    path: str | PathLike[str],
    network: Network,
    params: Params,
    *,
    metadata: Mapping[str, Any] | None = None,
    custom_objects: Mapping[str, Any] | None = None,
) -> None:
    """Write a network and its parameters into one file, at once or not at all.

    The file is written beside `path` and then takes its place: whatever goes wrong,
    what was there before is still there. Any safetensors reader finds the arrays by
    paths such as "0/kernel", the first layer's kernel of a stack.

    Args:
        path: The file; `.safetensors` is the usual end of its name.
        network: The network.
        params: Its parameters; all leaves may have the same leading axes, such as
            `[S]` of a run over seeds.
        metadata: Anything JSON can say, such as the experiment; see `load_metadata`.
        custom_objects: Dataclasses and functions of your own in the network by the
            names that the file shall give them. Loading takes the same mapping.

    Raises:
        ValueError: If a part of the network has no name in the package or in
            `custom_objects`, or the parameters are not those of the network.

    Examples:
        >>> import tempfile
        >>> from gated_rnn import LSTM, RNN, Dense, Stack
        >>> network = Stack(RNN(LSTM(16)), Dense(1))
        >>> params = network.init(jax.random.key(0), in_features=3)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = f"{folder}/model.safetensors"
        ...     save_model(path, network, params, metadata={"epochs": 80})
        ...     again, params_again = load_model(path)
        ...     load_metadata(path)
        {'epochs': 80}
        >>> again == network, bool((params_again[1].kernel == params[1].kernel).all())
        (True, True)
    """
    safetensors = _import_safetensors()
    description = {
        "in_features": in_features_of(network, params),
        "network": describe_network(network, custom_objects),
    }
    text = json.dumps(description, allow_nan=False)
    if len(text) > MAX_DESCRIPTION:
        expected = f"a description of at most {MAX_DESCRIPTION} characters"
        raise invalid("network", expected, f"{len(text)} characters")
    expected_params = shapes_of(network, description["in_features"])
    named = match_leaves("params", expected_params, name_leaves(params))
    tensors = {name: np.asarray(leaf, order="C") for name, leaf in named.items()}
    for name, tensor in tensors.items():
        if tensor.dtype not in [np.dtype(dtype) for dtype in _DTYPES.values()]:
            raise invalid(f"params {name}", "an array of numbers", tensor.dtype)
    content = _Content(text, _dump_metadata(metadata), tensors)
    header = {
        _VERSION_KEY: VERSION,
        "network": content.network,
        "metadata": content.metadata,
        "sha256": content.digest(),
    }
    _replace(Path(path), safetensors.numpy.save(tensors, header))


def load_model(
    path: str | PathLike[str], *, custom_objects: Mapping[str, Any] | None = None
) -> tuple[Network, Params]:
    """Return the network and the parameters that `save_model` wrote.

    The parameters have the bits they were saved with. Names in the file are looked up
    among the package's own and `custom_objects`; no name is imported or evaluated.

    Args:
        path: The file.
        custom_objects: Those the model was saved with.

    Raises:
        ValueError: If the file is damaged, of another format or of a newer version, if
            it names what is not there, or has 64-bit numbers where `jax_enable_x64` is
            off.
        OSError: If it cannot be opened.
    """
    content = _read(path)
    description = _parse(path, content.network)
    if not isinstance(description, dict) or set(description) != {
        "in_features",
        "network",
    }:
        raise _damaged(path, "another description of the network")
    in_features = description["in_features"]
    size = sum(tensor.size for tensor in content.tensors.values())
    if in_features is not None and (
        type(in_features) is not int or not 0 < in_features <= size
    ):
        raise _damaged(path, "another number of input features than the parameters")
    network = build_network(description["network"], custom_objects, max_features=size)
    expected = shapes_of(network, in_features)
    tensors = match_leaves(str(path), expected, content.tensors)
    for name, tensor in tensors.items():
        if jax.dtypes.canonicalize_dtype(tensor.dtype) != tensor.dtype:
            needed = f"jax_enable_x64 for the {tensor.dtype} numbers of {name!r}"
            raise invalid(str(path), needed, "it disabled")
    leaves = [jnp.asarray(tensors[name]) for name in name_leaves(expected)]
    return network, jax.tree.unflatten(jax.tree.structure(expected), leaves)


def load_metadata(path: str | PathLike[str]) -> dict[str, Any]:
    """Return the `metadata` that `save_model` was given, empty without.

    Raises:
        ValueError: If the file is damaged, of another format or of a newer version.
        OSError: If it cannot be opened.
    """
    metadata = _parse(path, _read(path).metadata)
    if not isinstance(metadata, dict):
        raise _damaged(path, "metadata that are no mapping")
    return metadata


def _import_safetensors() -> Any:
    try:
        import safetensors
        import safetensors.numpy
    except ImportError:
        needed = (
            "safetensors is needed for model files: pip install 'gated_rnn[conversion]'"
        )
        raise ImportError(needed) from None
    return safetensors


def _dump_metadata(metadata: Mapping[str, Any] | None) -> str:
    try:
        return json.dumps(dict(metadata or {}), allow_nan=False)
    except (RecursionError, TypeError, ValueError) as error:
        raise invalid("metadata", "a mapping that JSON can hold", error) from None


def _replace(path: Path, data: bytes) -> None:
    """Write a file beside `path`, then put it there."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _read(path: str | PathLike[str]) -> _Content:
    """Return the texts and arrays of a file whose digest is right."""
    safetensors = _import_safetensors()
    data = Path(path).read_bytes()
    try:
        entries = safetensors.deserialize(data)
    except safetensors.SafetensorError as error:
        raise _damaged(path, " ".join(str(error).split())[:200]) from None
    header = _parse(path, data[8 : 8 + int.from_bytes(data[:8], "little")])
    texts = header.get("__metadata__", {})
    if texts.get(_VERSION_KEY) != VERSION:
        version = repr(texts.get(_VERSION_KEY, "none"))[:40]
        raise _damaged(path, f"version {version} (this reads {VERSION!r})")
    unknown = [entry["dtype"] for _, entry in entries if entry["dtype"] not in _DTYPES]
    if unknown or not {"network", "metadata", "sha256"} <= set(texts):
        raise _damaged(path, f"dtype {unknown[0]}" if unknown else "no description")
    tensors = {
        name: np.frombuffer(entry["data"], _DTYPES[entry["dtype"]]).reshape(
            entry["shape"]
        )
        for name, entry in entries
    }
    content = _Content(texts["network"], texts["metadata"], tensors)
    if content.digest() != texts["sha256"]:
        raise _damaged(path, "another digest: the file was changed")
    if len(content.network) > MAX_DESCRIPTION:
        raise _damaged(path, f"a description above {MAX_DESCRIPTION} characters")
    return content


def _damaged(path: str | PathLike[str], reason: str) -> ValueError:
    return invalid(str(path), "a file that save_model wrote", reason)


def _parse(path: str | PathLike[str], text: str | bytes) -> Any:
    try:
        return json.loads(text)
    except (RecursionError, ValueError):
        raise _damaged(path, "a text that is no JSON, or too deep") from None
