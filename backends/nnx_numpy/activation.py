"""Activations, their slopes, and softmax, in pieces that stay in the cache."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnx.ops import log_softmax, relu, sigmoid, softmax, tanh
from nnx.override import calls

from .table import BLOCK, ones, overrides, pieces, plain, product, row_max, scratch, zeros


@overrides.forward(relu)
@calls(inplace=("x",))
def _relu(new, empty, x):
    if not plain(x):
        return None
    y = new(x.shape, dtype=x.dtype)
    return y, [(np.maximum, (a, zeros(a)), {"out": b}) for a, b in pieces(x, y)]


@overrides.derivative(relu, "x")
@calls(inplace=("dy",))
def _relu_slope(new, empty, dy, y):
    """The mask becomes floats before it is multiplied: NumPy casts slowly within a product."""
    if not plain(dy, y):
        return None
    dx = new(y.shape, dtype=y.dtype)
    mask, factor = scratch(empty, y, np.bool_), scratch(empty, y)
    runs = []
    for d, v, out in pieces(dy, y, dx):
        m, f = mask(v), factor(v)
        runs += [
            (np.greater, (v, _ZERO[v.dtype], m), {}),
            (np.copyto, (f, m), {}),
            (np.multiply, (d, f, out), {}),
        ]
    return dx, runs


_ZERO = {np.dtype(t): np.zeros((), t) for t in (np.float32, np.float64)}
_ONE = {np.dtype(t): np.ones((), t) for t in (np.float32, np.float64)}


@overrides.forward(sigmoid)
@calls(inplace=("x",))
def _sigmoid(new, empty, x):
    if not plain(x):
        return None
    y = new(x.shape, dtype=x.dtype)
    return y, [(_sigmoid_into, (a, b), {}) for a, b in pieces(x, y)]


def _sigmoid_into(x, y):
    """e^-x may overflow to infinity, which 1 / (1 + inf) = 0 turns into the right limit."""
    with np.errstate(over="ignore"):
        np.negative(x, y)
        np.exp(y, y)
        np.add(y, 1, y)
        np.divide(1, y, y)


@overrides.derivative(sigmoid, "x")
@calls(inplace=("dy",))
def _sigmoid_slope(new, empty, dy, y):
    if not plain(dy, y):
        return None
    dx = new(y.shape, dtype=y.dtype)
    factor, runs = scratch(empty, y), []
    for d, v, out in pieces(dy, y, dx):
        f = factor(v)
        runs += [
            (np.subtract, (_ONE[v.dtype], v, f), {}),
            (np.multiply, (v, f, f), {}),
            (np.multiply, (d, f, out), {}),
        ]
    return dx, runs


@overrides.derivative(tanh, "x")
@calls(inplace=("dy",))
def _tanh_slope(new, empty, dy, y):
    if not plain(dy, y):
        return None
    dx = new(y.shape, dtype=y.dtype)
    factor, runs = scratch(empty, y), []
    for d, v, out in pieces(dy, y, dx):
        f = factor(v)
        runs += [
            (np.multiply, (v, v, f), {}),
            (np.subtract, (_ONE[v.dtype], f, f), {}),
            (np.multiply, (d, f, out), {}),
        ]
    return dx, runs


# Softmax


def _rows(axis: int, *arrays: Any) -> Any:
    """Matrices in bands of rows that stay in the cache; None if the axis is not the last."""
    first = arrays[0]
    if first.ndim == 0 or axis not in (-1, first.ndim - 1) or not first.size or not plain(*arrays):
        return None
    columns = first.shape[-1]
    flat, step = [a.reshape(-1, columns) for a in arrays], max(1, BLOCK // columns)
    return [tuple([a[i : i + step] for a in flat]) for i in range(0, flat[0].shape[0], step)]


@overrides.forward(softmax)
@calls(inplace=("x",))
def _softmax(new, empty, x, *, axis=-1):
    if _rows(axis, x) is None:
        return None
    y, runs = new(x.shape, dtype=x.dtype), []
    for a, b in _rows(axis, x, y):
        runs += _shifted_exp(empty, a, b, b)
        runs.append((np.divide, (b, runs[-1][1][2][:, None], b), {}))
    return y, runs


def _shifted_exp(empty, x, shifted, e):
    """shifted = x - max, e = e^shifted, and the sum of each row, which is the last call's result"""
    m, total = empty((x.shape[0], 1), dtype=x.dtype), empty((x.shape[0],), dtype=x.dtype)
    return [
        *row_max(x, m, empty),
        (np.subtract, (x, m, shifted), {}),
        (np.exp, (shifted, e), {}),
        product(e, ones(x.shape[1], x.dtype), total),
    ]


@overrides.derivative(softmax, "x")
@calls(inplace=("dy",))
def _softmax_slope(new, empty, dy, y, axis):
    """dx = (dy - sum of dy y) y"""
    if _rows(axis, dy, y) is None:
        return None
    dx, runs = new(y.shape, dtype=y.dtype), []
    for d, v, out in _rows(axis, dy, y, dx):
        total = empty((v.shape[0],), dtype=v.dtype)
        runs += [
            (np.vecdot, (d, v), {"out": total}),
            (np.subtract, (d, total[:, None], out), {}),
            (np.multiply, (out, v, out), {}),
        ]
    return dx, runs


@overrides.forward(log_softmax)
@calls(inplace=("x",))
def _log_softmax(new, empty, x, *, axis=-1):
    bands = _rows(axis, x)
    if bands is None:
        return None
    y, runs = new(x.shape, dtype=x.dtype), []
    e = empty(bands[0][0].shape, dtype=x.dtype)
    for a, b in _rows(axis, x, y):
        runs += _shifted_exp(empty, a, b, e[: a.shape[0]])
        total = runs[-1][1][2]
        runs += [(np.log, (total, total), {}), (np.subtract, (b, total[:, None], b), {})]
    return y, runs


@overrides.derivative(log_softmax, "x")
@calls(inplace=("dy",))
def _log_softmax_slope(new, empty, dy, y, axis):
    """dx = dy - e^y sum of dy"""
    bands = _rows(axis, dy, y)
    if bands is None:
        return None
    dx, runs = new(y.shape, dtype=y.dtype), []
    e = empty(bands[0][0].shape, dtype=y.dtype)
    for d, v, out in _rows(axis, dy, y, dx):
        p, total = e[: v.shape[0]], empty((v.shape[0],), dtype=v.dtype)
        runs += [
            product(d, ones(v.shape[1], v.dtype), total),
            (np.exp, (v, p), {}),
            (np.multiply, (p, total[:, None], p), {}),
            (np.subtract, (d, p, out), {}),
        ]
    return dx, runs
