"""Matrix products through `dot`, which takes 1 to 2 us less than `matmul` on small matrices."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nnx.ops import affine
from nnx.override import calls

from .table import FLOATS, overrides, ones, product


def _rows(x: Any) -> Any:
    """Leading axes as one; None if that is no view."""
    if x.ndim == 2:
        return x
    return x.reshape(-1, x.shape[-1]) if x.flags.c_contiguous and x.size else None


def _fits(*arrays: Any) -> bool:
    return all(type(a) is np.ndarray and a.dtype in FLOATS and _rows(a) is not None for a in arrays)


@overrides.forward(affine)
@calls
def _affine(new, empty, x, W, b=None):
    if not _fits(x, W):
        return None
    y = new((*x.shape[:-1], W.shape[1]), dtype=x.dtype)
    out = _rows(y)
    runs = [product(_rows(x), W, out)]
    if b is not None:
        runs.append((np.add, (out, b, out), {}))
    return y, runs


@overrides.derivative(affine, "x")
@calls
def _affine_x(new, empty, dy, W):
    if not _fits(dy):
        return None
    dx = new((*dy.shape[:-1], W.shape[0]), dtype=dy.dtype)
    return dx, [product(_rows(dy), W.T, _rows(dx))]


@overrides.derivative(affine, "W")
@calls
def _affine_W(new, empty, dy, x):
    if not _fits(dy, x):
        return None
    dW = new((x.shape[-1], dy.shape[-1]), dtype=dy.dtype)
    return dW, [product(_rows(x).T, _rows(dy), dW)]


@overrides.derivative(affine, "b")
@calls
def _affine_b(new, empty, dy):
    if not _fits(dy):
        return None
    db = new(dy.shape[-1:], dtype=dy.dtype)
    return db, [product(ones(math.prod(dy.shape[:-1]), dy.dtype), _rows(dy), db)]
