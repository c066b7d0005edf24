"""Activations, their slopes, and softmax, in pieces that stay in the cache."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnx.calls import calls
from nnx.ops import log_softmax, relu, sigmoid, softmax, tanh

from .layout import gapless, like
from .table import (
    BLOCK,
    UNTHREADED_VECTOR,
    dot_for,
    ones,
    overrides,
    pieces,
    plain,
    row_max,
    scratch,
    zeros,
)

_ZERO = {np.dtype(t): np.zeros((), t) for t in (np.float32, np.float64)}
_ONE = {np.dtype(t): np.ones((), t) for t in (np.float32, np.float64)}


@overrides.forward(relu)
@calls(inplace=("x",))
def _relu(run, x):
    if not gapless(x):
        return None
    y = like(run, x)
    for a, b in pieces(x, y):
        run(np.maximum, a, zeros(a), out=b)
    return y


@overrides.derivative(relu, "x")
@calls(inplace=("dy",))
def _relu_slope(run, dy, y):
    """The mask becomes floats before it is multiplied: NumPy casts slowly within a product."""
    if not gapless(y, dy):
        return None
    dx = like(run, y)
    mask, factor, zero = scratch(run, y, np.bool_), scratch(run, y), _ZERO[y.dtype]
    for d, v, out in pieces(dy, y, dx):
        m, f = mask(v), factor(v)
        run(np.greater, v, zero, m)
        run(np.copyto, f, m)
        run(np.multiply, d, f, out)
    return dx


@overrides.forward(sigmoid)
@calls(inplace=("x",))
def _sigmoid(run, x):
    if not gapless(x):
        return None
    y = like(run, x)
    for a, b in pieces(x, y):
        run(_sigmoid_into, a, b)
    return y


def _sigmoid_into(x, y):
    """e^-x may overflow to infinity, which 1 / (1 + inf) = 0 turns into the right limit."""
    with np.errstate(over="ignore"):
        np.negative(x, y)
        np.exp(y, y)
        np.add(y, 1, y)
        np.divide(1, y, y)


@overrides.derivative(sigmoid, "x")
@calls(inplace=("dy",))
def _sigmoid_slope(run, dy, y):
    if not gapless(y, dy):
        return None
    dx, factor, one = like(run, y), scratch(run, y), _ONE[y.dtype]
    for d, v, out in pieces(dy, y, dx):
        f = factor(v)
        run(np.subtract, one, v, f)
        run(np.multiply, v, f, f)
        run(np.multiply, d, f, out)
    return dx


@overrides.derivative(tanh, "x")
@calls(inplace=("dy",))
def _tanh_slope(run, dy, y):
    if not gapless(y, dy):
        return None
    dx, factor, one = like(run, y), scratch(run, y), _ONE[y.dtype]
    for d, v, out in pieces(dy, y, dx):
        f = factor(v)
        run(np.multiply, v, v, f)
        run(np.subtract, one, f, f)
        run(np.multiply, d, f, out)
    return dx


# Softmax


def _fits(axis: int, x: Any, y: Any = None) -> bool:
    """Whether the axis is the last of arrays that are matrices of rows."""
    return plain(x, y) and x.size > 0 and x.ndim > 0 and axis in (-1, x.ndim - 1)


def _bands(*arrays: Any) -> Any:
    """Matrices in bands of rows that stay in the cache."""
    columns = arrays[0].shape[-1]
    flat, step = [a.reshape(-1, columns) for a in arrays], max(1, BLOCK // columns)
    return [tuple([a[i : i + step] for a in flat]) for i in range(0, flat[0].shape[0], step)]


def _exp(run, x, shifted, e):
    """shifted = x - max, e = e^shifted; gives the sums of the rows (rows, 1)."""
    m, total = run.empty((x.shape[0], 1), x.dtype), run.empty((x.shape[0], 1), x.dtype)
    row_max(run, x, m)
    run(np.subtract, x, m, shifted)
    run(np.exp, shifted, e)
    _row_sums(run, e, total)
    return total


def _row_sums(run, x, total):
    dot = dot_for(2 * x.size, UNTHREADED_VECTOR)
    run(dot, x, ones(x.shape[1], x.dtype), total[:, 0])


@overrides.forward(softmax)
@calls(inplace=("x",))
def _softmax(run, x, *, axis=-1):
    if not _fits(axis, x):
        return None
    y = run.new(x.shape, x.dtype)
    for a, b in _bands(x, y):
        run(np.divide, b, _exp(run, a, b, b), b)
    return y


@overrides.derivative(softmax, "x")
@calls(inplace=("dy",))
def _softmax_slope(run, dy, y, axis):
    """dx = (dy - sum of dy y) y"""
    if not _fits(axis, y, dy):
        return None
    dx = run.new(y.shape, y.dtype)
    for d, v, out in _bands(dy, y, dx):
        total = run.empty((v.shape[0], 1), v.dtype)
        run(np.vecdot, d, v, out=total[:, 0])
        run(np.subtract, d, total, out)
        run(np.multiply, out, v, out)
    return dx


@overrides.forward(log_softmax)
@calls(inplace=("x",))
def _log_softmax(run, x, *, axis=-1):
    if not _fits(axis, x):
        return None
    y, bands = run.new(x.shape, x.dtype), _bands(x)
    e = run.empty(bands[0][0].shape, x.dtype)
    for a, b in _bands(x, y):
        total = _exp(run, a, b, e[: a.shape[0]])
        run(np.log, total, total)
        run(np.subtract, b, total, b)
    return y


@overrides.derivative(log_softmax, "x")
@calls(inplace=("dy",))
def _log_softmax_slope(run, dy, y, axis):
    """dx = dy - e^y sum of dy"""
    if not _fits(axis, y, dy):
        return None
    dx, bands = run.new(y.shape, y.dtype), _bands(y)
    e = run.empty(bands[0][0].shape, y.dtype)
    for d, v, out in _bands(dy, y, dx):
        p, total = e[: v.shape[0]], run.empty((v.shape[0], 1), v.dtype)
        _row_sums(run, d, total)
        run(np.exp, v, p)
        run(np.multiply, p, total, p)
        run(np.subtract, d, p, out)
    return dx
