"""numba's table of kernels, and which arrays the compiled loops take."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnx.override import Overrides
from nnx_numpy.table import overrides as numpy_overrides

Array = np.ndarray[Any, Any]
Run = Any  # what kernels call through: see nnx.override.Calls
_FLOATS = frozenset((np.dtype(np.float32), np.dtype(np.float64)))

overrides = Overrides(parent=numpy_overrides)


def plain(*arrays: Array) -> bool:
    """Whether they are C-contiguous float32 or float64 arrays of one dtype and shape."""
    first = arrays[0]
    if type(first) is not np.ndarray or first.dtype not in _FLOATS:
        return False
    dtype, shape = first.dtype, first.shape
    for a in arrays:
        if type(a) is not np.ndarray or a.dtype is not dtype or a.shape != shape:
            return False
        if not a.flags.c_contiguous or not a.flags.aligned:
            return False
    return True
