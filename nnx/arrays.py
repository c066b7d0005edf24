"""Arrays from data and back to NumPy: the only places where nnx moves values between backends."""

from __future__ import annotations

from typing import Any

import numpy as np

from .backend import (
    NUMBERS,
    Array,
    Backend,
    backend_of,
    get_backend,
    load_backend,
    owner,
    recording,
    stand_in,
)
from .errors import DtypeError, NnxError
from .traffic import TO_DEVICE, TO_HOST, crossed


def asarray(data: Any, dtype: str | None = None, *, backend: str | Backend | None = None) -> Array:
    """`data` as an array of `backend` (a name; the current one by default).

    data    nested lists and Python numbers (float32, unless all are ints or bools), NumPy arrays,
            arrays of any backend (moved explicitly by this call), DLPack objects, Tensors
    dtype   a name such as "float32"; by default the data's own is kept
    """
    return placed(data, _resolve(backend), dtype)


def placed(data: Any, target: Backend, dtype: str | None = None, how: str = "") -> Array:
    """As `asarray`; `how` says what asks for it where the user did not (see `nnx.transfers`)."""
    data = getattr(data, "__nnx_data__", data)
    if isinstance(data, (list, tuple, int, float)) and not isinstance(data, np.generic):
        data = target.literal(_from_python(data, dtype))
    elif target.owns(data):
        return target.asarray(data, dtype)
    if not isinstance(data, (np.ndarray, np.generic)) and not target.owns(data):
        source = owner(data)
        if source is not None:
            data = _read(source, data, how)
        elif not hasattr(data, "__dlpack__"):
            raise DtypeError(
                f"asarray: cannot make an array of {type(data).__qualname__!r}; give nested "
                f"lists, a NumPy array, an array of a backend or a DLPack object"
            )
    if not target.on_host and isinstance(data, (np.ndarray, np.generic)):
        crossed(TO_DEVICE, data.nbytes, how)
    try:
        return target.asarray(data, dtype)
    except (BufferError, TypeError, AttributeError, RuntimeError) as error:
        if isinstance(error, NnxError):
            raise
        raise DtypeError(
            f"asarray: backend {target.name!r} cannot take {type(data).__qualname__!r}"
            f"{f' as {dtype!r}' if dtype is not None else ''}: {error}"
        ) from error


def _from_python(data: Any, dtype: str | None) -> np.ndarray[Any, Any]:
    try:
        array = np.asarray(data)
    except ValueError as error:
        raise DtypeError(f"asarray: nested lists of unequal length: {error}") from error
    if array.dtype == np.float64:
        return array if dtype is not None else array.astype(np.float32)
    if array.dtype.kind not in "iub":
        raise DtypeError(f"asarray: expected numbers, got a list of dtype {array.dtype}")
    return array


def to_numpy(array: Any) -> np.ndarray[Any, Any]:
    """The values of an array (or Tensor) of any backend as a NumPy array on the host."""
    return read(array)


def read(array: Any, how: str = "") -> np.ndarray[Any, Any]:
    """As `to_numpy`; `how` says what asks for it where the user did not (see `nnx.transfers`)."""
    array = getattr(array, "__nnx_data__", array)
    recorder = recording()
    if recorder is not None:
        recorder.refuse_reading(array)
    if isinstance(array, np.ndarray):
        return array
    if isinstance(array, (np.generic, *NUMBERS)):
        return np.asarray(array)
    return _read(backend_of(array), array, how)


def _read(source: Backend, array: Array, how: str) -> np.ndarray[Any, Any]:
    values = source.to_numpy(array)
    if not source.on_host:
        crossed(TO_HOST, values.nbytes, how)
    return values


def _resolve(backend: str | Backend | None) -> Backend:
    if backend is None:
        return get_backend()
    return stand_in(load_backend(backend)) if isinstance(backend, str) else backend


def moved(array: Array, backend: Backend) -> Array:
    """`array` on `backend`; itself if it is there already."""
    return array if backend.owns(array) else asarray(array, backend=backend)


def incoming(value: Any, target: Array, backend: Backend) -> Array:
    """What `written` is to write into `target`, so that nothing can fail then.

    It stays on the host if it is there: a device need not hold it twice.
    """
    value = getattr(value, "__nnx_data__", value)
    if isinstance(value, np.ndarray) and value.dtype.kind in "iufb":
        if not backend.on_host:
            crossed(TO_DEVICE, value.nbytes)
        return value
    return asarray(moved(value, backend), backend.dtype_name(target), backend=backend)


def written(target: Array, value: Array, backend: Backend) -> Array:
    """The array that holds the value now, cast to the dtype of `target`."""
    if isinstance(value, np.ndarray):
        return backend.put(target, value)
    return backend.write(target, value)
