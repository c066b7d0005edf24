"""NPZ, NumPy's archive of arrays: a zip whose members are `.npy` files, one for each array."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Sequence
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError, NnxError
from ..files import reason
from .dataset import ArrayDataset, HostArray
from .idx import read_up_to

if TYPE_CHECKING:
    from zipfile import ZipFile

FREE = 1 << 30  # bytes that an array may take whatever the file's size
RATIO = 100  # above that, how many times the file's size


def read_npz(
    path: str | os.PathLike[str],
    x: str = "x",
    t: str = "t",
    classes: int | Sequence[str] | None = None,
    *,
    image_shape: tuple[int, ...] | None = None,
) -> ArrayDataset:
    """The data set in a file that `np.savez(path, x=x, t=t)` or `np.savez_compressed` wrote.

    x, t                  the names of its arrays in the file, which may hold others too
    classes, image_shape  see `ArrayDataset`, which also says what dtypes become. Shapes stay

    Nothing in the file can run code: arrays of Python objects, which NumPy would unpickle, are
    refused. Memory grows with what the file holds, not with what its headers claim; an array that
    unpacks to more than 1 GiB and 100 times the file's size is refused too.

    Raises DataError, naming the file, if it cannot be opened, is no such archive, is damaged, or
    lacks an array or holds another thing than numbers there; and what `ArrayDataset` raises.
    """
    name = os.fspath(path)
    inputs, targets = read_arrays(name, x, t)
    return ArrayDataset(
        inputs, targets, classes, name=os.path.basename(name), image_shape=image_shape
    )


def read_arrays(name: str, *keys: str) -> list[HostArray]:
    """Those arrays of the archive, of the dtypes that they have in it; raises as `read_npz`."""
    from zipfile import ZipFile

    try:
        limit = max(FREE, RATIO * os.path.getsize(name))
        with open(name, "rb") as file, ZipFile(file) as archive:
            file.seek(0)
            if file.read(2) != b"PK":  # zipfile would also take an archive behind other content
                raise ValueError("it does not begin as a zip file does")
            return [_array(name, archive, key, limit) for key in keys]
    except (NnxError, MemoryError):
        raise
    except OSError as error:
        raise DataError(
            f"{name} cannot be read ({reason(error)}); expected an .npz file"
        ) from error
    except Exception as error:  # zipfile and NumPy's parser of headers raise of every kind
        raise DataError(
            f"{name} is damaged or not an .npz file ({reason(error)}); expected what np.savez wrote"
        ) from error


def _array(name: str, archive: ZipFile, key: str, limit: int) -> HostArray:
    keys = [member.removesuffix(".npy") for member in archive.namelist()]
    if key not in keys:
        held = ", ".join(map(repr, keys[:20])) or "nothing"
        raise DataError(
            f"{name} has no array {key!r}, it holds {held}; say which are the inputs and the "
            f"targets: read_npz(path, x=NAME, t=NAME)"
        )
    member = archive.infolist()[keys.index(key)]
    if member.file_size > limit:
        raise DataError(
            f"{name}: the array {key!r} would unpack to {member.file_size:,} bytes, more than "
            f"1 GiB and {RATIO} times the file; if it is meant so, load it with np.load and give "
            f"ArrayDataset(x, t) the arrays"
        )
    with archive.open(member) as file:
        dtype, shape, order = _header(name, key, file)
        expected = math.prod(shape) * dtype.itemsize
        values = read_up_to(file, expected)
        if len(values) < expected or file.read(1):
            raise DataError(
                f"{name}: the array {key!r} holds {'fewer' if len(values) < expected else 'more'} "
                f"bytes than the {expected} of {dtype} and shape {shape} that its header says; "
                f"write it again with np.savez"
            )
    return (
        np.frombuffer(values, dtype)
        .reshape(shape, order=order)
        .astype(dtype.newbyteorder("="), copy=False)
    )


def _header(name: str, key: str, file: IO[bytes]) -> tuple[np.dtype[Any], tuple[int, ...], Any]:
    """The dtype, the shape and the order, "C" or "F", of an .npy file, read up to its values."""
    version = np.lib.format.read_magic(file)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read is None:
        raise DataError(
            f"{name}: the array {key!r} is of version {version} of .npy, expected 1.0 or 2.0"
        )
    shape, fortran, dtype = read(file)
    if dtype.hasobject:
        raise DataError(
            f"{name}: the array {key!r} holds Python objects, which to read may run any code; "
            f"save it as numbers: {key}.astype('float32')"
        )
    if dtype.kind not in "iufb":
        raise DataError(f"{name}: the array {key!r} has dtype {dtype}, expected numbers")
    if any(n < 0 for n in shape) or math.prod(shape) * dtype.itemsize > sys.maxsize:
        raise DataError(f"{name}: the array {key!r} has shape {shape} in its header: it is damaged")
    return dtype, shape, "F" if fortran else "C"
