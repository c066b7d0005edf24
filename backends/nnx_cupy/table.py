"""CuPy's table of kernels, and what several of them need."""

from __future__ import annotations

from typing import Any

from nnx.override import Overrides

from .launch import TYPES, dtype_name

Array = Any
Run = Any  # what kernels call through: see nnx.calls

overrides = Overrides()


def plain(x: Array, y: Array = None) -> bool:
    """Whether they are C-contiguous, not empty, of one shape and of one dtype that kernels take."""
    if dtype_name(x.dtype) not in TYPES or not x.flags.c_contiguous or not x.size:
        return False
    if y is None:
        return True
    return bool(y.dtype == x.dtype and y.shape == x.shape and y.flags.c_contiguous)
