"""Compiled loops: elementwise ones on flat arrays, the others on matrices of rows.

Each writes its last argument(s). Arrays are C-contiguous, of one float dtype, in which all is
computed. Sums may be reordered and products fused with additions; NaN and infinity are kept.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from .compiler import FUSE, SUM, compiled
from .scalars import (
    above,
    erf,
    exp,
    log1p,
    sigmoid_of,
    sigmoid_slope_of,
    tanh_of,
    tanh_slope_of,
    within,
)

FAR = 1000.0  # from where on e^-x and e^(-x^2 / 2) are 0 and tanh(x) is 1 in float64; see `within`

# Activations


@compiled()
def relu(x, y):
    zero = x.dtype.type(0)
    for i in range(x.size):
        y[i] = zero if x[i] <= zero else x[i]


@compiled()
def relu_slope(dy, y, dx):
    of = y.dtype.type
    for i in range(y.size):
        dx[i] = dy[i] * (of(1) if y[i] > of(0) else of(0))


@compiled(fastmath=FUSE)
def sigmoid(x, y):
    for i in range(x.size):
        y[i] = sigmoid_of(x[i])


@compiled(fastmath=FUSE)
def sigmoid_slope(dy, y, dx):
    for i in range(y.size):
        dx[i] = sigmoid_slope_of(dy[i], y[i])


@compiled(fastmath=FUSE)
def tanh(x, y):
    for i in range(x.size):
        y[i] = tanh_of(x[i])


@compiled(fastmath=FUSE)
def tanh_slope(dy, y, dx):
    for i in range(y.size):
        dx[i] = tanh_slope_of(dy[i], y[i])


@compiled(fastmath=FUSE)
def softplus(x, y):
    zero = x.dtype.type(0)
    for i in range(x.size):
        y[i] = (zero if x[i] <= zero else x[i]) + log1p(exp(-abs(x[i])))


@compiled(fastmath=FUSE)
def softplus_slope(dy, x, dx):
    for i in range(x.size):
        dx[i] = dy[i] * sigmoid_of(x[i])


@compiled(fastmath=FUSE)
def silu(x, y):
    for i in range(x.size):
        y[i] = above(x[i], FAR) * sigmoid_of(x[i])


@compiled(fastmath=FUSE)
def silu_slope(dy, x, dx):
    one = x.dtype.type(1)
    for i in range(x.size):
        a = within(x[i], FAR)
        s = sigmoid_of(a)
        dx[i] = dy[i] * (s * (one + a * (one - s)))


@compiled(fastmath=FUSE)
def gelu(x, y):
    of = x.dtype.type
    for i in range(x.size):
        y[i] = above(x[i], FAR) * (of(0.5) * (of(1) + erf(x[i] * of(math.sqrt(0.5)))))


@compiled(fastmath=FUSE)
def gelu_slope(dy, x, dx):
    of = x.dtype.type
    for i in range(x.size):
        a = within(x[i], FAR)
        phi = of(0.5) * (of(1) + erf(a * of(math.sqrt(0.5))))
        density = exp(of(-0.5) * a * a) * of(1 / math.sqrt(2 * math.pi))
        dx[i] = dy[i] * (phi + a * density)


@compiled(fastmath=FUSE)
def gelu_tanh(x, y):
    of = x.dtype.type
    for i in range(x.size):
        u = of(math.sqrt(2 / math.pi)) * (x[i] + of(0.044715) * x[i] * x[i] * x[i])
        y[i] = above(x[i], FAR) * (of(0.5) * (of(1) + tanh_of(u)))


@compiled(fastmath=FUSE)
def gelu_tanh_slope(dy, x, dx):
    of, c = x.dtype.type, x.dtype.type(math.sqrt(2 / math.pi))
    for i in range(x.size):
        a = within(x[i], FAR)
        u = c * (a + of(0.044715) * a * a * a)
        phi = of(0.5) * (of(1) + tanh_of(u))
        slope = of(2) * phi * (of(1) - phi) * (c * (of(1) + of(3 * 0.044715) * a * a))
        dx[i] = dy[i] * (phi + a * slope)


# Rows


def _row_max(x, i) -> Any:
    """The maximum of row i; a row with a NaN may give any.

    Floats as integers, negative ones with the other bits flipped, have the floats' order, and the
    maximum of integers is vectorised without a promise that there are no NaNs.
    """
    raise NotImplementedError


@overload(_row_max, jit_options={"error_model": "numpy"})
def _(x, i):
    return _row_max32 if x.dtype == types.float32 else _row_max64


def _row_max32(x, i):
    f, n = np.float32, np.int32
    m = n(-0x80000000)
    for j in range(x.shape[1]):
        k = f(x[i, j]).view(np.int32)
        m = max(m, n(k ^ (n(k >> n(31)) & n(0x7FFFFFFF))))
    return n(m ^ (n(m >> n(31)) & n(0x7FFFFFFF))).view(np.float32)


def _row_max64(x, i):
    f, n = np.float64, np.int64
    m = n(-0x8000000000000000)
    for j in range(x.shape[1]):
        k = f(x[i, j]).view(np.int64)
        m = max(m, n(k ^ ((k >> 63) & 0x7FFFFFFFFFFFFFFF)))
    return n(m ^ ((m >> 63) & 0x7FFFFFFFFFFFFFFF)).view(np.float64)


@compiled(fastmath=SUM)
def _row_sum(x, i):
    total = x.dtype.type(0)
    for j in range(x.shape[1]):
        total += x[i, j]
    return total


@compiled(fastmath=SUM)
def _row_dot(x, y, i):
    total = x.dtype.type(0)
    for j in range(x.shape[1]):
        total += x[i, j] * y[i, j]
    return total


@compiled(fastmath=FUSE)
def _row_exp(x, i, m, y):
    """y = e^(x - m) in row i, and its sum"""
    for j in range(x.shape[1]):
        y[i, j] = exp(x[i, j] - m)
    return _row_sum(y, i)


@compiled(fastmath=FUSE)
def softmax(x, y):
    for i in range(x.shape[0]):
        scale = x.dtype.type(1) / _row_exp(x, i, _row_max(x, i), y)
        for j in range(x.shape[1]):
            y[i, j] *= scale


@compiled(fastmath=FUSE)
def softmax_slope(dy, y, dx):
    for i in range(y.shape[0]):
        total = _row_dot(dy, y, i)
        for j in range(y.shape[1]):
            dx[i, j] = y[i, j] * (dy[i, j] - total)


@compiled(fastmath=FUSE)
def log_softmax(x, y):
    for i in range(x.shape[0]):
        m = _row_max(x, i)
        log = math.log(_row_exp(x, i, m, y))
        for j in range(x.shape[1]):
            y[i, j] = (x[i, j] - m) - log


@compiled(fastmath=FUSE)
def log_softmax_slope(dy, y, dx):
    for i in range(y.shape[0]):
        total = _row_sum(dy, i)
        for j in range(y.shape[1]):
            dx[i, j] = dy[i, j] - exp(y[i, j]) * total


@compiled(fastmath=FUSE)
def cross_entropy(x, ids, ignore_index, mean, losses, total, d):
    """Each row's loss, their sum or mean, and d of that by x: softmax(x) less the one-hot row."""
    of, classes = x.dtype.type, x.shape[1]
    kept, added = 0, 0.0
    for i in range(x.shape[0]):
        kept += ids[i] != ignore_index
    scale = of(1) / of(kept) if mean else of(1)
    for i in range(x.shape[0]):
        k = ids[i]
        counts = k != ignore_index and 0 <= k < classes
        m = _row_max(x, i)
        s = _row_exp(x, i, m, d)
        factor = scale / s
        for j in range(classes):
            d[i, j] = d[i, j] * factor if counts else scale * of(0)
        losses[i] = 0
        if counts:
            d[i, k] -= scale
            losses[i] = of(math.log(s)) - (x[i, k] - m)
        added += losses[i]
    total[()] = added / kept if mean else added


@compiled(fastmath=FUSE)
def scaled_rows(d, dy, dx):
    """dx = d dy, dy one number per row"""
    for i in range(d.shape[0]):
        for j in range(d.shape[1]):
            dx[i, j] = d[i, j] * dy[i]


@compiled(fastmath=FUSE)
def scaled(d, dy, dx):
    """dx = d dy, dy a 0-d array"""
    for i in range(d.size):
        dx[i] = d[i] * dy[()]


@compiled()
def scale(x, factor):
    """x = x factor, factor a 0-d array"""
    for i in range(x.size):
        x[i] *= factor[()]


@compiled()
def copied(x, y):
    for i in range(x.size):
        y[i] = x[i]


@compiled()
def below(ids, n):
    """Whether all ids are 0..n-1."""
    outside = False
    for i in ids.flat:
        outside |= i < 0 or i >= n
    return not outside
