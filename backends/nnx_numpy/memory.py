"""Memory that begins where vector instructions like it."""

from __future__ import annotations

from typing import Any

import numpy as np

ALIGNMENT = 64  # bytes: a cache line, and the widest vector


def aligned(size: int) -> np.ndarray[Any, Any]:
    """Zero bytes that start at a multiple of the alignment."""
    memory = np.zeros(size + ALIGNMENT, np.uint8)
    start = -memory.__array_interface__["data"][0] % ALIGNMENT
    return memory[start : start + size]
