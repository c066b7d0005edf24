"""The compute type of CuPy's own matrix products."""

from __future__ import annotations

from importlib import import_module
from typing import Any

AMPERE = 80  # the compute capability from which on there is TF32, and bfloat16


def effective(cupy: Any, device: int, precision: str) -> str:
    """What products on that device round their factors to."""
    able = int(cupy.cuda.Device(device).compute_capability) >= AMPERE
    return precision if able else "float32"


def set_compute_type(precision: str) -> None:
    """Of float32 products in this process. CuPy knows no bfloat16 factors of float32 products."""
    linalg = import_module("cupy._core._routines_linalg")
    full, tf32 = linalg.COMPUTE_TYPE_DEFAULT, linalg.COMPUTE_TYPE_TF32
    linalg.set_compute_type("float32", full if precision == "float32" else tf32)
