"""NumPy: the namespace that kernels see, and the few kernels that NumPy does better another way."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy as xp

from nnx.backend import Backend
from nnx.errors import DtypeError
from nnx.threads import blas_name, get_num_threads

from . import (  # noqa: F401 - they fill the table
    activation,
    attention,
    conv,
    cross_entropy,
    fusions,
    gelu,
    index,
    linear,
    norm,
    optim,
    pool,
    recurrent,
    window,
)
from .memory import offset, owned
from .table import overrides

__all__ = ["NumpyBackend"]


_dtype_name = functools.cache(str)  # NumPy takes 3 us to spell one


class NumpyBackend(Backend):
    """Arrays are `numpy.ndarray`; results of 0-d operations are arrays, not NumPy scalars."""

    name = "numpy"
    on_host = True
    xp = xp
    kernels = overrides

    def owns(self, array: object) -> bool:
        return isinstance(array, np.ndarray)

    def asarray(self, data: Any, dtype: str | None = None) -> np.ndarray[Any, Any]:
        if not isinstance(data, (np.ndarray, np.generic)) and hasattr(data, "__dlpack__"):
            data = np.from_dlpack(data)
        array = np.asarray(data, dtype=dtype)
        if array.dtype.kind not in "iufb":
            raise DtypeError(f"numpy: dtype {array.dtype} is not supported; give numbers or bools")
        return array

    def to_numpy(self, array: Any) -> np.ndarray[Any, Any]:
        return np.asarray(array)

    def copy(self, array: Any) -> np.ndarray[Any, Any]:
        return np.array(array)

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray[Any, Any]:
        return np.zeros(shape, dtype)

    def buffer(self, size: int, dtype: Any) -> np.ndarray[Any, Any]:
        return owned(size, dtype)

    def part(
        self, buffer: np.ndarray[Any, Any], start: int, stop: int, shape: tuple[int, ...]
    ) -> np.ndarray[Any, Any]:
        memory: Any = buffer.base
        at = offset(buffer, memory) + start * buffer.itemsize
        made: np.ndarray[Any, Any] = memory.part(at, shape, buffer.dtype)
        return made

    def result(self, y: Any) -> Any:
        return np.asarray(y) if isinstance(y, np.generic) else y

    def dtype_name(self, array: Any) -> str:
        return _dtype_name(array.dtype)

    def replay(self) -> Any:
        from .replay import NUMPY  # only `nnx.capture` needs it

        return NUMPY

    def describe(self) -> dict[str, str]:
        return {
            "numpy": np.__version__, "blas": blas_name(), "threads": str(get_num_threads()),
        }  # fmt: skip
