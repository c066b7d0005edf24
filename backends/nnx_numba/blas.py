"""Matrix products as NumPy's `dot` calls the BLAS, from compiled code, so that the bits agree."""

from __future__ import annotations

import ctypes
import functools
from typing import Any

import llvmlite.binding
import numpy as np
from numba import types

from nnx.threads import numpys_own

Array = np.ndarray[Any, Any]
Operands = list[Any]  # ints, and arrays, which stand for their addresses
ROWS, COLUMNS = 101, 102  # CBLAS's layouts of a matrix
AS_IT_IS, TURNED = 111, 112  # whether it is transposed

# How a function is called with operands o: three enums (one for gemv, beside the layout), sizes,
# then matrices with the distance between their rows, alpha before them and beta before the result.
SOURCES = {
    "gemm": (
        "def {name}(o, t):\n"
        "    f(e(o[0]), e(o[1]), e(o[2]), n(o[3]), n(o[4]), n(o[5]), x(1), o[6], n(o[7]),\n"
        "      o[8], n(o[9]), x(0), o[10], n(o[11]))\n"
    ),
    "gemv": (
        "def {name}(o, t):\n"
        "    f(e(o[0]), e(o[1]), n(o[2]), n(o[3]), x(1), o[4], n(o[5]), o[6], n(o[7]),\n"
        "      x(0), o[8], n(1))\n"
    ),
}


@functools.cache
def bits() -> int:
    """Bits of the sizes of the OpenBLAS that NumPy's wheels bring: 64 or 32; 0 if it is not there.

    Only by the very library that NumPy calls are replayed products equal to eager ones.
    """
    for library in numpys_own():
        if library.internal_api == "openblas":
            return next((n for n in (64, 32) if _named(library.dynlib, n)), 0)
    return 0


def _named(library: Any, size: int) -> bool:
    """Whether the library has the functions with such sizes; they get names for compiled code."""
    found = {}
    for kind in "sd":
        for what in SOURCES:
            suffix = "64_" if size == 64 else ""
            names = [f"{prefix}cblas_{kind}{what}{suffix}" for prefix in ("scipy_", "")]
            there = [getattr(library, n) for n in names if hasattr(library, n)]
            if not there:
                return False
            found[_symbol(kind, what, size)] = ctypes.cast(there[0], ctypes.c_void_p).value
    for name, address in found.items():
        llvmlite.binding.add_symbol(name, address)
    return True


def _symbol(kind: str, what: str, size: int) -> str:
    return f"nnx_{kind}{what}{size}"


def size() -> Any:
    """0 in the BLAS's own ints."""
    return (np.int64 if bits() == 64 else np.int32)(0)


def external(what: str, dtype: Any) -> Any:
    """gemm or gemv, to be called by compiled code.

    The BLAS takes pointers; as arguments, 64-bit addresses are the same.
    """
    single = dtype == np.float32
    size = types.int64 if bits() == 64 else types.int32
    x = types.float32 if single else types.float64
    e, p = types.int32, types.int64
    arguments: tuple[Any, ...] = (e, e, e, size, size, size, x, p, size, p, size, x, p, size)
    if what == "gemv":
        arguments = (e, e, size, size, x, p, size, p, size, x, p, size)
    name = _symbol("s" if single else "d", what, bits())
    return types.ExternalFunction(name, types.void(*arguments))


def source(what: str, dtype: Any) -> tuple[str, str, dict[str, Any]]:
    """Name, text and globals of an instruction that calls gemm or gemv."""
    called = external(what, dtype)
    name = f"call_{called.symbol}"
    scope = {
        "f": called, "e": np.int32, "n": type(size()),
        "x": np.float32 if dtype == np.float32 else np.float64,
    }  # fmt: skip
    return name, SOURCES[what].format(name=name), scope


def product(a: Array, b: Array, out: Array) -> tuple[str, Operands] | None:
    """How `np.dot(a, b, out)` calls the BLAS, b a matrix; None where it does otherwise.

    As NumPy's cblasfuncs.c decides it: gemv where one factor is a row or a column, gemm else. Left
    out are scalars, products of two vectors, a matrix with its own transpose (syrk), and matrices
    that are contiguous in neither way, which it copies.
    """
    fits = bits() and a.ndim in (1, 2) and b.ndim == 2 and a.size and b.size
    if not fits or np.may_share_memory(a, b) or not all(map(_contiguous, (a, b))):
        return None
    kinds = _kind(a), _kind(b)
    if "scalar" in kinds or (kinds[1] == "column" and kinds[0] != "matrix"):
        return None
    if kinds == ("matrix", "column"):
        return "gemv", _with_vector(a, AS_IT_IS, b, out)
    if kinds[1] == "matrix" and kinds[0] != "matrix":
        return "gemv", _with_vector(b, TURNED, a, out)
    (m, k), n = a.shape, b.shape[1]
    turned = [TURNED if x.flags.f_contiguous else AS_IT_IS for x in (a, b)]
    leads = [x.shape[0] if x.flags.f_contiguous else x.shape[1] for x in (a, b)]
    return "gemm", [ROWS, *turned, m, n, k, a, leads[0], b, leads[1], out, n]


def stacked(a: Array, b: Array, out: Array) -> tuple[str, Operands] | None:
    """How `np.matmul` calls the BLAS for one product of a stack: rows may lie apart.

    Left out are rows and columns, for which it has other ways, a matrix with its own transpose, and
    matrices in whose rows and columns entries lie apart.
    """
    (m, k), n = a.shape, b.shape[1]
    if not bits() or min(m, k, n) < 2 or np.may_share_memory(a, b):
        return None
    found = [_lead(x) for x in (a, b, out)]
    if None in found or found[2][0] != AS_IT_IS:
        return None
    (turned_a, lead_a), (turned_b, lead_b), (_, lead) = found
    return "gemm", [ROWS, turned_a, turned_b, m, n, k, a, lead_a, b, lead_b, out, lead]


def _lead(m: Array) -> Any:
    """Whether it is transposed, and the distance between its rows; None if entries lie apart."""
    (rows, columns), (down, across), item = m.shape, m.strides, m.itemsize
    if not m.flags.aligned:
        return None
    if across == item and down % item == 0 and down >= columns * item:
        return AS_IT_IS, down // item
    if down == item and across % item == 0 and across >= rows * item:
        return TURNED, across // item
    return None


def _contiguous(m: Array) -> bool:
    return bool(m.flags.aligned and (m.flags.c_contiguous or m.flags.f_contiguous))


def _kind(m: Array) -> str:
    rows, columns = m.shape if m.ndim == 2 else (m.shape[0], 1)
    if rows > 1:
        return "column" if columns == 1 else "matrix"
    return "scalar" if columns == 1 else "row"


def _with_vector(m: Array, turned: int, v: Array, out: Array) -> Operands:
    """The call for a matrix, transposed or not, and a row or column, which is contiguous."""
    layout, across = (ROWS, m.shape[1]) if m.flags.c_contiguous else (COLUMNS, m.shape[0])
    return [layout, turned, *m.shape, m, across, v, 1, out]
