"""Memory that begins where vector instructions like it."""

from __future__ import annotations

from typing import Any

import numpy as np

ALIGNMENT = 64  # bytes: a cache line, and the widest vector


class Memory(np.ndarray[Any, Any]):
    """Memory of arrays of which a view keeps the array itself.

    The base of a view of a view is otherwise the array that owns the memory; NumPy stops before one
    of another type.
    """

    def part(self, offset: int, shape: tuple[int, ...], dtype: Any, strides: Any = None) -> Any:
        return np.ndarray(shape, dtype, self, offset, strides)


def owned(size: int, dtype: Any) -> np.ndarray[Any, Any]:
    """Zeros in a `Memory`, aligned."""
    memory = Memory(size * np.dtype(dtype).itemsize + ALIGNMENT, np.uint8)
    memory.fill(0)
    start = -memory.__array_interface__["data"][0] % ALIGNMENT
    made: np.ndarray[Any, Any] = memory.part(start, (size,), dtype)
    return made


def offset(array: np.ndarray[Any, Any], root: np.ndarray[Any, Any]) -> int:
    """Bytes from the root's first element to the array's."""
    return int(array.__array_interface__["data"][0] - root.__array_interface__["data"][0])


def aligned(size: int) -> np.ndarray[Any, Any]:
    """Zero bytes that start at a multiple of the alignment."""
    memory = np.zeros(size + ALIGNMENT, np.uint8)
    start = -memory.__array_interface__["data"][0] % ALIGNMENT
    return memory[start : start + size]
