"""Files that are written whole or not at all, and safetensors files as bytes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np

from .errors import DataError

_DTYPES = {
    "BOOL": "bool",
    "F16": "float16",
    "F32": "float32",
    "F64": "float64",
    "I8": "int8",
    "I16": "int16",
    "I32": "int32",
    "I64": "int64",
    "U8": "uint8",
    "U16": "uint16",
    "U32": "uint32",
    "U64": "uint64",
}


def read_file(what: str, path: str | os.PathLike[str]) -> bytes:
    """The file's content; DataError, which begins with `what`, if it cannot be read."""
    try:
        with open(path, "rb") as file:  # not mapped: Windows cannot overwrite a mapped file
            return file.read()
    except (OSError, ValueError) as error:
        raise DataError(f"{what}: cannot read {os.fspath(path)!r}: {reason(error)}") from error


def write_file(path: str | os.PathLike[str], data: bytes) -> None:
    """Replace the file's content by `data`, whole or not at all.

    The data go to a new file beside it, which takes its place once they are on the disk. Raises
    DataError if that fails; the old file is then untouched.
    """
    given = os.fspath(path)
    try:
        _write(_target(given), data)
    except DataError:
        raise
    except (OSError, ValueError) as error:
        raise DataError(f"cannot write {given!r}: {reason(error)}; nothing was changed") from error


def _target(given: str) -> str:
    """The file that `given` stands for; a link stays a link to what is replaced."""
    target = os.path.realpath(given)
    if os.path.exists(target) and not os.path.isfile(target):
        kind = "a folder" if os.path.isdir(target) else "a device or pipe"
        raise DataError(f"cannot write {given!r}: it is {kind}; give a file's path")
    folder = os.path.dirname(target)
    if not os.path.isdir(folder):
        raise DataError(f"cannot write {given!r}: there is no folder {folder!r}; make it")
    return target


def _write(target: str, data: bytes) -> None:
    temporary = os.path.join(os.path.dirname(target), f".nnx-{os.urandom(6).hex()}.tmp")
    try:
        with open(temporary, "xb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, target)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise
    if os.name == "posix":  # the name, too, is to outlast a power cut
        with suppress(OSError):
            folder = os.open(os.path.dirname(target), os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


def reason(error: BaseException) -> str:
    """An exception's text without its number and file name."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def pack(what: str, arrays: Mapping[str, np.ndarray[Any, Any]], about: dict[str, str]) -> bytes:
    """A safetensors file's bytes: arrays by name, and texts about them by name."""
    from safetensors.numpy import save as serialize

    # safetensors 0.8 writes the memory of a transposed or sliced array as if it were in C order.
    plain = {name: _contiguous(what, name, x) for name, x in arrays.items()}
    return _sorted_header(serialize(plain, about))


def unpack(what: str, data: bytes, path: str) -> tuple[dict[str, np.ndarray[Any, Any]], Any]:
    """The arrays in a safetensors file's bytes, and the texts about them.

    Raises DataError, which begins with `what`, for anything else or an unknown dtype.
    """
    import json

    import safetensors

    deserialize: Any = safetensors.deserialize
    try:
        entries = deserialize(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    except safetensors.SafetensorError as error:
        raise DataError(
            f"{what}: {path!r} ({len(data)} bytes) is not a safetensors file, or it is damaged: "
            f"{error}; expected a file that nnx wrote"
        ) from error
    arrays = {name: _array(what, name, entry, path) for name, entry in entries}
    return arrays, header.get("__metadata__") or {}


def _contiguous(what: str, name: str, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if x.dtype.name not in _DTYPES.values():
        raise DataError(
            f"{what}: {name!r} is {x.dtype}, which nnx does not save; cast the model "
            f"first: model.astype('float32')"
        )
    return np.asarray(x, order="C")


def _sorted_header(data: bytes) -> bytes:
    """The same file for the same model: safetensors writes the metadata in a random order."""
    import json

    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    text = json.dumps(header, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # the data stay aligned
    return len(text).to_bytes(8, "little") + text + data[start:]


def _array(what: str, name: str, entry: dict[str, Any], path: str) -> np.ndarray[Any, Any]:
    dtype = _DTYPES.get(entry["dtype"])
    if dtype is None:
        raise DataError(
            f"{what}: tensor {name!r} in {path!r} has dtype {entry['dtype']}, which NumPy has not; "
            f"nnx reads {', '.join(_DTYPES)}: cast it to F32 where the file was made"
        )
    little = np.dtype(dtype).newbyteorder("<")
    try:
        return np.frombuffer(entry["data"], little).reshape(entry["shape"])
    except ValueError as error:
        raise DataError(f"{what}: tensor {name!r} in {path!r} is damaged: {error}") from error
