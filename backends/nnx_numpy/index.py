"""Adding at indices, and erf, which NumPy lacks."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnx.calls import calls
from nnx.ops import erf, getitem_adjoint, scatter_add

from .table import overrides, pieces, plain, scratch


@overrides.forward(getitem_adjoint)
@calls
def _getitem_adjoint(run, x, *, index, shape):
    y = run.new(shape, x.dtype)
    run(np.copyto, y, 0)
    run(_put, y, index, x)
    return y


def _put(y, index, x):
    parts = index if isinstance(index, tuple) else (index,)
    if any(isinstance(i, (np.ndarray, list)) for i in parts):
        np.add.at(y, index, x)
    else:
        y[index] = x


SLICE = 128  # entries at one index, from which on a call for each is faster than `add.at`


@overrides.forward(scatter_add)
@calls
def _scatter_add(run, x, indices, *, size, axis=0):
    before, after = x.shape[:axis], x.shape[axis + indices.ndim :]
    y = run.new((*before, size, *after), x.dtype)
    run(np.copyto, y, 0)
    if indices.ndim > 1 and indices.flags.c_contiguous and x.flags.c_contiguous:
        x, indices = x.reshape(*before, indices.size, *after), indices.reshape(-1)
    if indices.ndim == 1 and x.size >= SLICE * indices.size:
        run(_add_slices, np.moveaxis(y, axis, 0), indices, np.moveaxis(x, axis, 0))
    else:
        at: Any = (*[slice(None)] * axis, indices)
        run(np.add.at, y, at, x)
    return y


def _add_slices(y, indices, x):
    """In the order of `add.at`."""
    for i, part in zip(indices.tolist(), x, strict=True):
        into = y[i]
        np.add(into, part, into)


# erf(x) = x P(x^2) / Q(x^2) for |x| <= 4, where float32 has reached 1; a least-squares fit of the
# relative error, 2.5e-8 at most, so that rounding is what remains: 3 units.
_P = (1.12837914, 0.193533737, 0.0531002155, 0.00388285134, 0.000284553701, 1.98685331e-06)
_Q = (1.0, 0.504847367, 0.115345289, 0.0152062632, 0.00118544974, 3.74202754e-05)


@overrides.forward(erf)
@calls
def _erf(run, x):
    """In float32 a quotient of polynomials, ten times as fast as the portable series."""
    if x.dtype != np.float32 or not plain(x):
        return None
    y = run.new(x.shape, x.dtype)
    cut, square, divisor = (scratch(run, x) for _ in range(3))
    for v, out in pieces(x, y):
        a, s, q = cut(v), square(v), divisor(v)
        run(np.clip, v, -4, 4, out=a)
        run(np.multiply, a, a, s)
        polynomial(run, s, _P, out)
        polynomial(run, s, _Q, q)
        run(np.multiply, out, a, out)
        run(np.divide, out, q, out)
        run(np.clip, out, -1, 1, out=out)
    return y


def polynomial(run, x, coefficients, y):
    """y = c0 + c1 x + c2 x^2 + ..., by Horner's rule"""
    first, *rest, last = coefficients
    run(np.multiply, x, last, y)
    for c in reversed(rest):
        run(np.add, y, c, y)
        run(np.multiply, y, x, y)
    run(np.add, y, first, y)
