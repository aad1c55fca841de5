"""Reading .keras, .weights.h5 and .h5 files of Keras: numbers and JSON (layer 4).

A .keras file is a zip archive of config.json, metadata.json and model.weights.h5.
Nothing is unpacked to a disk, and no class, function or link that a file names is
followed.
"""

import io
import json
import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from gated_rnn.conversion.entries import FLOATS
from gated_rnn.conversion.keras_configs import LayerConfig, show
from gated_rnn.types import invalid

__all__ = ["KerasFile", "read_file", "read_weights"]

MAX_JSON = 2**24  # bytes; a layer takes about two thousand
MAX_RATIO = 100  # of a packed part's size in the archive to its size in memory
MAX_WEIGHTS = 3  # of a layer in one direction
_ZIP, _HDF5, _HEAP = b"PK\x03\x04", b"\x89HDF\r\n\x1a\n", b"GCOL\x01"
_PLACES = {  # below the layer's own place; of a recurrent layer "cell/vars"
    "Bidirectional": ("forward_layer/cell/vars", "backward_layer/cell/vars"),
    "Dense": ("vars",),
    "Embedding": ("vars",),
}
# What h5py raises where a file is not what it says.
_H5_ERRORS = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


class KerasFile(NamedTuple):
    """What a file holds.

    Attributes:
        path: The file.
        config: The model's configuration, or None in a file of weights.
        keras_version: 2 or 3, or None if the file does not say.
        weights: The bytes of its HDF5 part.
        whole: Whether it is an .h5 file from before the .keras format.
    """

    path: str
    config: Any
    keras_version: int | None
    weights: bytes
    whole: bool = False


def read_file(path: str | PathLike[str]) -> KerasFile:
    """Return what a .keras, .weights.h5 or .h5 file holds.

    Only in an .h5 file that is no .weights.h5 attributes are read: HDF5's library can
    crash where their strings are damaged.

    Raises:
        ValueError: If it is no such file, or not as Keras writes it.
        OSError: If it cannot be opened.
    """
    data, name = Path(path).read_bytes(), str(path)
    if data.startswith(_ZIP):
        return _read_archive(name, data)
    if not data.startswith(_HDF5):
        raise _damaged(name, "neither a zip archive nor HDF5")
    if name.endswith((".keras", ".weights.h5")):
        return KerasFile(name, None, None, data)
    try:
        with _open(data) as file:
            config = _attribute(file, "model_config", data)
            version = _attribute(file, "keras_version", data)
    except _H5_ERRORS as error:
        raise _damaged(name, _reason(error)) from None
    parsed = None if config is None else _parse(name, "model_config", _text(config))
    return KerasFile(name, parsed, _major(_text(version)), data, whole=True)


def read_weights(
    file: KerasFile, layers: Sequence[LayerConfig]
) -> list[list[np.ndarray]]:
    """Return the weights of each layer, as its `get_weights()`.

    Raises:
        ValueError: If the file has not what the layers need, or is damaged.
    """
    try:
        with _open(file.weights) as root:
            return [_layer_weights(root, layer, file) for layer in layers]
    except _H5_ERRORS as error:
        raise _damaged(file.path, _reason(error)) from None


def _damaged(path: str, reason: str) -> ValueError:
    return invalid(path, "a .keras, .weights.h5 or .h5 file as Keras writes it", reason)


def _reason(error: BaseException) -> str:
    """Return what an error says, in one short line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:197]}..."


def _parse(path: str, name: str, text: str | bytes) -> Any:
    if len(text) > MAX_JSON:
        raise _damaged(path, f"a {name} of more than {MAX_JSON} bytes")
    try:
        return json.loads(text)
    except (RecursionError, ValueError):
        raise _damaged(path, f"a {name} that is no JSON, or too deep") from None


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return value if isinstance(value, str) else ""


def _major(version: Any) -> int | None:
    """Return 2 or 3 of a version such as "3.15.1"; Keras 1 counts as 2."""
    found = re.match(r"([0-9]{1,3})\.", version) if isinstance(version, str) else None
    return None if found is None else min(max(int(found[1]), 2), 3)


# The archive


def _read_archive(path: str, data: bytes) -> KerasFile:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            parts = _check_parts(path, archive.infolist())
            config = _extract(path, archive, parts, "config.json", MAX_JSON)
            metadata = _extract(path, archive, parts, "metadata.json", MAX_JSON)
            limit = MAX_RATIO * len(data)
            weights = _extract(path, archive, parts, "model.weights.h5", limit)
    except (
        EOFError,
        LookupError,
        NotImplementedError,
        OSError,
        RuntimeError,
        UnicodeError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise _damaged(path, _reason(error)) from None
    about = _parse(path, "metadata.json", metadata)
    version = about.get("keras_version") if isinstance(about, Mapping) else None
    parsed = _parse(path, "config.json", config)
    return KerasFile(path, parsed, _major(version), weights)


def _check_parts(
    path: str, parts: Sequence[zipfile.ZipInfo]
) -> dict[str, zipfile.ZipInfo]:
    """Return the parts by name; refuse names that lead out, twice, or packed oddly."""
    named: dict[str, zipfile.ZipInfo] = {}
    for part in parts:
        name = part.filename
        if (
            name.startswith("/")
            or ".." in name.split("/")
            or re.search(r"[\\:\0]", name)
        ):
            raise _damaged(path, f"a part that leads out of it, {show(name)}")
        if name in named:
            raise _damaged(path, f"two parts called {show(name)}")
        named[name] = part
    return named


def _extract(
    path: str,
    archive: zipfile.ZipFile,
    parts: Mapping[str, zipfile.ZipInfo],
    name: str,
    limit: int,
) -> bytes:
    """Return one part, and never more of it than its header and the limit allow."""
    part = parts.get(name)
    if part is None:
        raise _damaged(path, f"no part called {name}")
    if part.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise _damaged(path, f"{name} in a compression that Keras does not use")
    if part.file_size > min(limit, MAX_RATIO * max(part.compress_size, 1)):
        raise _damaged(path, f"{name} of {part.file_size} bytes when unpacked")
    with archive.open(part) as file:
        content = file.read(part.file_size + 1)
    if len(content) != part.file_size:
        raise _damaged(path, f"{name} of another size than its header says")
    return content


# HDF5


def _open(data: bytes) -> Any:
    try:
        import h5py
    except ImportError:
        needed = (
            "h5py is needed for files of Keras: pip install 'gated_rnn[conversion]'"
        )
        raise ImportError(needed) from None
    return h5py.File(io.BytesIO(data), "r")


def _layer_weights(root: Any, layer: LayerConfig, file: KerasFile) -> list[np.ndarray]:
    """Return the weights of a layer, as `layer.get_weights()`."""
    if layer.class_name == "Dropout":
        return []
    data = file.weights
    if file.whole:
        top = root.get("model_weights", root)
        group = _follow(top, layer.name)
        names = np.atleast_1d(_attribute(group, "weight_names", data))
        if names.ndim != 1 or len(names) > 2 * MAX_WEIGHTS:
            raise ValueError(f"{len(names)} weights in layer {show(layer.name)}")
        return [_array(_follow(group, _text(name)), data) for name in names]
    # The first versions of the format called the layers so.
    top = "_layer_checkpoint_dependencies"
    top = top if top in root else "layers"
    arrays = []
    for place in _PLACES.get(layer.class_name, ("cell/vars",)):
        group = _follow(root, f"{top}/{layer.group}/{place}")
        if sorted(group) != [str(index) for index in range(len(group))]:
            raise ValueError(f"other names than 0, 1, 2 in layer {show(layer.name)}")
        if not 0 < len(group) <= MAX_WEIGHTS:
            raise ValueError(f"{len(group)} weights in layer {show(layer.name)}")
        arrays += [_array(_follow(group, name), data) for name in sorted(group)]
    return arrays


def _follow(group: Any, path: str) -> Any:
    """Return what stands at a path below a group, by hard links alone."""
    import h5py

    for name in path.split("/"):
        if not name or name == "." or not isinstance(group, h5py.Group):
            raise ValueError(f"no place {show(path)}")
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise ValueError(f"a link out of {show(path)}")
        group = group[name]
    return group


def _attribute(group: Any, name: str, data: bytes) -> Any:
    """Return an attribute that is no larger than the file, or None."""
    if name not in group.attrs:
        return None
    if group.attrs.get_id(name).get_storage_size() > len(data):
        raise ValueError(f"attribute {name} that is larger than the file")
    _check_heaps(data)
    return group.attrs[name]


def _check_heaps(data: bytes) -> None:
    """Raise if a heap of strings has an empty entry, at which HDF5 2.0 runs for ever.

    The collection and its entries have headers of 16 bytes: signature, version, size of
    all; and index, references, size. An entry of index 0 is the free rest.
    """
    start = data.find(_HEAP)
    while start >= 0:
        size = int.from_bytes(data[start + 8 : start + 16], "little")
        end, place = start + size, start + 16
        if end > len(data):  # HDF5 refuses it, or it is a number that looks like one
            end = place
        while place + 16 <= end:
            length = int.from_bytes(data[place + 8 : place + 16], "little")
            used = data[place : place + 2] != b"\0\0"
            place += 16 + -(-length // 8) * 8 if used else length
            if place > end or (not used and length < 16):
                raise ValueError("a heap of strings that is damaged")
        start = data.find(_HEAP, start + 1)


def _array(dataset: Any, data: bytes) -> np.ndarray:
    """Return the numbers of a dataset that stand in the file as Keras writes them."""
    import h5py

    if not isinstance(dataset, h5py.Dataset):
        raise ValueError("a group in the place of an array")
    plain = dataset.chunks is None and not dataset.external and not dataset.is_virtual
    if not plain or dataset.nbytes > len(data):
        raise ValueError("an array that is not stored whole")
    if dataset.dtype == np.dtype("V2"):  # HDF5 has no bfloat16
        return np.asarray(dataset[()]).view(jnp.bfloat16)
    if dataset.dtype.name not in FLOATS:
        raise ValueError(f"dtype {dataset.dtype}")
    return np.asarray(dataset[()])
