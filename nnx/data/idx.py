"""IDX, the format of MNIST and its relatives.

    two zero bytes, a byte for the dtype, a byte for the number of dimensions,
    each dimension as a big-endian uint32, then the values, big-endian, last index fastest

Source: the description of the file format on MNIST's page (LeCun, Cortes, Burges).
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedIOBase
from typing import IO

import numpy as np

from ..errors import DataError
from .dataset import HostArray

DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
MAX_DIMENSIONS = 64  # NumPy's limit; the format itself could say 255
CHUNK = 1 << 20


def read_idx(path: str | os.PathLike[str]) -> HostArray:
    """The array in an IDX file, plain or gzip (told apart by content, not by name).

    Returns a writable array of its own in native byte order: uint8, int8, int16, int32, float32
    or float64, of the file's shape.

    Raises DataError, naming the file, if it cannot be opened, is not IDX, is a damaged gzip, or
    holds fewer or more bytes than its header says. Memory grows with what the file holds, never
    with what its header claims.
    """
    name = os.fspath(path)
    with _opened(name) as file:
        dtype, shape = _header(name, file)
        expected = math.prod(shape) * dtype.itemsize
        values = read_up_to(file, expected)
        if len(values) < expected:
            raise DataError(
                f"{name} is truncated: its header says {_spell(shape)} of {_native(dtype)}, "
                f"{expected} bytes, and {len(values)} follow; get the file again"
            )
        if file.read(1):
            raise DataError(
                f"{name} goes on after the {expected} bytes of {_spell(shape)} {_native(dtype)} "
                f"that its header says; get the file again"
            )
    return np.frombuffer(values, dtype).reshape(shape).astype(_native(dtype), copy=False)


@contextmanager
def _opened(name: str) -> Iterator[BufferedIOBase]:
    """The file's bytes, unpacked if it is a gzip; errors of reading them become DataErrors."""
    import gzip
    import zlib

    try:
        with open(name, "rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            if packed:
                with gzip.GzipFile(fileobj=raw) as unpacked:
                    yield unpacked
            else:
                yield raw
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{name} is a damaged gzip file ({error}); get it again") from error
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"{name} cannot be read ({reason}); expected an IDX file") from error


def _header(name: str, file: BufferedIOBase) -> tuple[np.dtype[np.generic], tuple[int, ...]]:
    magic = file.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in DTYPES:
        known = ", ".join(f"{code:02x}" for code in DTYPES)
        raise DataError(
            f"{name} is not an IDX file: it begins with {magic.hex(' ') or 'nothing'}, expected "
            f"00 00, a dtype ({known}) and the number of dimensions"
        )
    ndim = magic[3]
    if not 1 <= ndim <= MAX_DIMENSIONS:
        raise DataError(
            f"{name}: its header says {ndim} dimensions, expected 1 to {MAX_DIMENSIONS}"
        )
    sizes = file.read(4 * ndim)
    if len(sizes) < 4 * ndim:
        raise DataError(
            f"{name} is truncated: {ndim} dimensions take {4 * ndim} bytes of header, "
            f"{len(sizes)} are there; get the file again"
        )
    shape = tuple(int(n) for n in np.frombuffer(sizes, ">u4"))
    dtype = np.dtype(DTYPES[magic[2]])
    # An axis of length 0 makes the product 0, but NumPy refuses the shape all the same.
    if math.prod(max(n, 1) for n in shape) * dtype.itemsize > sys.maxsize:
        raise DataError(
            f"{name}: its header says {_spell(shape)} of {_native(dtype)}, more than an address "
            f"space holds; it is damaged or not an IDX file"
        )
    return dtype, shape


def read_up_to(file: BufferedIOBase | IO[bytes], expected: int) -> bytearray:
    """At most `expected` bytes, in pieces: `read(expected)` would allocate them at once."""
    values = bytearray()
    while len(values) < expected:
        chunk = file.read(min(CHUNK, expected - len(values)))
        if not chunk:
            break
        values += chunk
    return values


def _native(dtype: np.dtype[np.generic]) -> np.dtype[np.generic]:
    return dtype.newbyteorder("=")


def _spell(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
