"""How exactly float32 matrix products are computed where the hardware offers less."""

from __future__ import annotations

from .backend import loaded_backends
from .errors import OptionError

PRECISIONS = ("float32", "tf32", "bfloat16")
_precision = "float32"


def set_matmul_precision(precision: str) -> None:
    """Let products of float32 matrices round their factors, in the whole process.

    "float32"    do not: the default
    "tf32"       to TensorFloat-32: 10 bits after the leading one, float32's range
    "bfloat16"   to bfloat16: 7 bits, float32's range; or to something finer

    Sums are float32 in any case, and so is what is stored. Only products of float32 arrays on a GPU
    are concerned: products of other dtypes, all else that is computed, and the backends `numpy` and
    `numba` stay as they are. A captured function has a plan for each precision.

    On `cupy` it sets CuPy's own compute type of float32 products, which the environment variable
    CUPY_TF32 no longer does then. GPUs older than compute capability 8.0 compute in float32;
    so do products of more than two axes that are not replayed, because CuPy has no other.
    Outside a replay CuPy has no bfloat16 factors: there "bfloat16" is "tf32".

    Raises OptionError for another name.
    """
    global _precision
    if precision not in PRECISIONS:
        names = ", ".join(map(repr, PRECISIONS))
        raise OptionError(f"set_matmul_precision({precision!r}): expected one of {names}")
    _precision = PRECISIONS[PRECISIONS.index(precision)]  # one object for each: compared by `is`
    for backend in loaded_backends():
        backend.set_matmul_precision(precision)


def get_matmul_precision() -> str:
    """What `set_matmul_precision` set; "float32" by default."""
    return _precision
