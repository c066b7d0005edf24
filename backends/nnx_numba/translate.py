"""Calls of a replay as instructions."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnx.calls import Run

from . import blas, dense, loops, strided
from .instructions import DTYPES, SPECS, operands

Array = np.ndarray[Any, Any]
Instruction = tuple[Any, Any, list[Any]]  # the loop or BLAS function, the dtype, its operands
AXES = 5  # of the loop over arrays of any strides
LINE, MANY = 64, 1 << 16  # more entries, in shorter lines, go faster through NumPy's own loops

_BINARY: dict[Any, int] = {np.add: strided.ADD, np.subtract: strided.SUBTRACT}


def translated(run: Run) -> list[Instruction] | None:
    """The call as instructions, where there are some for it."""
    f, args, attrs = run
    arrays = [a for a in args if isinstance(a, np.ndarray)]
    if not arrays or arrays[0].dtype not in DTYPES:
        return None
    dtype = arrays[0].dtype
    if f in SPECS and not attrs:
        return [(f, dtype, operands(f, args))]
    if f == np.add.reduce and attrs.keys() == {"axis", "out"}:
        return _column_sums(dtype, args[0], **attrs)
    if attrs or any(a.dtype != dtype for a in arrays):
        return None
    if f in (np.dot, np.matmul) and len(args) == 3:
        return _products(f, *args)
    if f is np.add and len(args) == 3 and _is_bias(*args):
        return [(dense.add_bias, dtype, operands(dense.add_bias, (args[2], args[1])))]
    return _elementwise(f, args)


def _column_sums(dtype: Any, x: Array, axis: Any, out: Array) -> list[Instruction] | None:
    """NumPy sums one column pairwise, several row by row, as the loop does."""
    if axis != 0 or x.ndim != 2 or not x.size or x.shape[1] < 2:
        return None
    if out.dtype != dtype or not _flat(x, x):
        return None
    return [(dense.column_sums, dtype, operands(dense.column_sums, (x, out)))]


def _products(f: Any, a: Array, b: Array, out: Array) -> list[Instruction] | None:
    """One for each matrix of a stack."""
    if f is np.dot:
        found = blas.product(a, b, out)
        return None if found is None else [(found[0], a.dtype, found[1])]
    lead = out.shape[:-2]
    if min(a.ndim, b.ndim) < 2:
        return None
    stacks = [np.broadcast_to(m, (*lead, *m.shape[-2:])) for m in (a, b)]
    made = []
    for i in np.ndindex(lead):
        one = blas.stacked(stacks[0][i], stacks[1][i], out[i])
        if one is None:
            return None
        made.append((one[0], a.dtype, one[1]))
    return made


def _is_bias(y: Any, b: Any, out: Any) -> bool:
    """y += b, one number a column"""
    if y is not out or y.ndim != 2 or not (isinstance(b, np.ndarray) and b.ndim == 1):
        return False
    return bool(y.flags.c_contiguous and b.flags.c_contiguous and b.size == y.shape[1])


def _flat(a: Array, b: Array) -> bool:
    return bool(a.shape == b.shape and a.flags.c_contiguous and b.flags.c_contiguous)


def _elementwise(f: Any, args: tuple[Any, ...]) -> list[Instruction] | None:
    """Copies, sums, differences, products with a number, of arrays of any strides."""
    if f is np.copyto and len(args) == 2:
        y, x = args
        if not isinstance(x, np.ndarray):
            return _combined(strided.FILL, y, (), float(x))
        if _flat(y, x):
            return [(loops.copied, y.dtype, operands(loops.copied, (x.reshape(-1), y.reshape(-1))))]
        return _combined(strided.COPY, y, (x,))
    if len(args) != 3 or not all(isinstance(a, np.ndarray) for a in (args[0], args[2])):
        return None
    a, b, y = args
    if f in _BINARY and isinstance(b, np.ndarray):
        if f is np.add and _same(a, y):
            return _combined(strided.ADD_TO, y, (b,))
        return _combined(_BINARY[f], y, (a, b))
    if f is np.multiply and isinstance(b, (int, float)):
        return _combined(strided.SCALE, y, (a,), float(b))
    return None


def _same(a: Array, b: Array) -> bool:
    at = (x.__array_interface__["data"][0] for x in (a, b))
    return a.shape == b.shape and a.strides == b.strides and len(set(at)) == 1


def _combined(
    what: int, y: Array, given: tuple[Array, ...], value: float = 0.0
) -> list[Instruction] | None:
    arrays = [y, *(np.broadcast_to(x, y.shape) for x in given)]
    if not all(a.flags.aligned for a in arrays):
        return None
    if not y.size:
        return []
    order = sorted(range(y.ndim), key=lambda i: -abs(y.strides[i]))
    axes = _joined([(y.shape[i], *[a.strides[i] // a.itemsize for a in arrays]) for i in order])
    if len(axes) > AXES or (y.size > MANY and axes[-1][0] < LINE):
        return None
    axes = [(1, *(0,) * len(arrays))] * (AXES - len(axes)) + axes
    sizes, *strides = zip(*axes, strict=True)
    parts = [_memory(a, sizes, s) for a, s in zip(arrays, strides, strict=True)]
    parts += [parts[-1]] * (3 - len(parts))
    f = strided.combined
    return [(f, y.dtype, operands(f, (what, sizes, *parts, value)))]


def _joined(axes: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Axes (size, strides), none of length 1, neighbours as one where all arrays allow it."""
    found: list[tuple[int, ...]] = []
    for n, *strides in axes:
        if n == 1:
            continue
        if found:
            m, *outer = found[-1]
            if all(o == n * s for o, s in zip(outer, strides, strict=True)):
                found[-1] = (m * n, *strides)
                continue
        found.append((n, *strides))
    return found


def _memory(a: Array, sizes: tuple[int, ...], strides: tuple[int, ...]) -> tuple[Any, ...]:
    """The array seen from its lowest address, its span, where in it the first entry is, strides."""
    back = tuple(slice(None, None, -1 if s < 0 else None) for s in a.strides)
    first = sum(-s * (n - 1) for n, s in zip(sizes, strides, strict=True) if s < 0)
    span = 1 + sum(abs(s) * (n - 1) for n, s in zip(sizes, strides, strict=True))
    return a[(*back, ...)], span, first, strides  # a[()] would be a number
