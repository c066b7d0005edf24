"""Saving and loading parameters and buffers: safetensors files, which hold no code."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .errors import DataError
from .files import pack, read_file, unpack, write_file

if TYPE_CHECKING:
    from .layers import Layer

FORMAT, VERSION = "nnx", "1"


def save(layer: Layer, path: str | os.PathLike[str]) -> None:
    """Write the layer's parameters and buffers to `path`: all, or the old file stays as it is.

    The file is a safetensors file with the names of `state_dict()`, of any backend's arrays.
    Raises DataError if it cannot be written, or if a dtype has no place in such a file.
    """
    about = {"format": FORMAT, "version": VERSION}
    write_file(path, pack("save", layer.state_dict(), about))


def load(layer: Layer, path: str | os.PathLike[str]) -> None:
    """Read what `save` wrote into the layer's parameters and buffers, on whichever backend it is.

    Values are cast to the dtypes that are there. A safetensors file that another program wrote
    loads too if its names and shapes fit. Raises DataError for a missing, damaged or foreign file
    or an unknown dtype, StateError if the names or shapes do not fit; the layer is then unchanged.
    """
    given = os.fspath(path)
    arrays, about = unpack("load", read_file("load", given), given)
    version = about.get("version")
    if about.get("format") == FORMAT and version != VERSION:
        raise DataError(
            f"load: {given!r} has version {version!r} of nnx's format, this nnx reads {VERSION!r}: "
            f"load it with the nnx that wrote it, or upgrade"
        )
    layer.load_state_dict(arrays)
