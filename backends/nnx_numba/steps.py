"""Compiled loops over the steps of an LSTM and of a GRU, with the matrix products between them.

Arrays (T, N, ...) and (N, ...) are whole; the rows from start to stop of N are computed. parts are
U (forward) or U^T (backward) by columns; size is 0 in the BLAS's own ints. See nnx.ops.recurrent.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from . import blas
from .compiler import FUSE, compiled
from .scalars import sigmoid_of, tanh_of


def _gemm(size, like, a, m, b, n, y, width, k, kept) -> Any:
    """y = a b + kept y at these addresses: a (m, k), b (k, n), rows of y width apart."""
    raise NotImplementedError


@overload(_gemm)
def _(size, like, a, m, b, n, y, width, k, kept):
    dtype = np.dtype(np.float32 if like.dtype == types.float32 else np.float64)
    f, of, x = blas.external("gemm", dtype), size, like.dtype
    e = types.int32

    def multiply(size, like, a, m, b, n, y, width, k, kept):
        f(
            e(101), e(111), e(111), of(m), of(n), of(k), x(1), a, of(k), b, of(n),
            x(kept), y, of(width),
        )  # fmt: skip

    return multiply


@compiled()
def _product(size, x, parts, y, kept):
    """y = x U + kept y, some columns of U at a time"""
    count, k, n = parts.shape
    for i in range(count):
        into = y.ctypes.data + i * n * y.itemsize
        _gemm(size, x, x.ctypes.data, len(x), parts[i].ctypes.data, n, into, y.shape[1], k, kept)


@compiled(fastmath=FUSE)
def _gates(a_i, a_f, a_g, a_o, x_i, x_f, x_g, x_o, c, new, y):
    """A row of a step: the gates in place of their products."""
    for j in range(c.size):
        i, f = sigmoid_of(a_i[j] + x_i[j]), sigmoid_of(a_f[j] + x_f[j])
        g, o = tanh_of(a_g[j] + x_g[j]), sigmoid_of(a_o[j] + x_o[j])
        m = f * c[j] + i * g
        a_i[j], a_f[j], a_g[j], a_o[j] = i, f, g, o
        new[j] = m
        y[j] = o * tanh_of(m)


@compiled()
def lstm(size, x, parts, h, c, y, last, end, before, cells, gates, reverse, start, stop):
    steps, n = len(y), h.shape[1]
    for k in range(steps):
        t = steps - 1 - k if reverse else k
        after = t - 1 if reverse else t + 1
        for r in range(start, stop):
            if k == 0:
                before[t, r], cells[t, r] = h[r], c[r]
            else:
                before[t, r] = y[t + 1 if reverse else t - 1, r]
        _product(size, before[t, start:stop], parts, gates[t, start:stop], 0)
        for r in range(start, stop):
            a, b = gates[t, r], x[t, r]
            new = end[r] if k == steps - 1 else cells[after, r]
            _gates(
                a[:n], a[n : 2 * n], a[2 * n : 3 * n], a[3 * n :],
                b[:n], b[n : 2 * n], b[2 * n : 3 * n], b[3 * n :], cells[t, r], new, y[t, r],
            )  # fmt: skip
            if k == steps - 1:
                last[r] = y[t, r]


@compiled(fastmath=FUSE)
def _slopes(i, f, g, o, c, dy, dh, dc, di, df, dg, do):
    """A row of a step; dc of the new c becomes that of c."""
    one = c.dtype.type(1)
    for j in range(c.size):
        s, d = tanh_of(f[j] * c[j] + i[j] * g[j]), dh[j] + dy[j]
        e = d * o[j] * (one - s * s) + dc[j]
        di[j] = e * g[j] * (i[j] * (one - i[j]))
        df[j] = e * c[j] * (f[j] * (one - f[j]))
        dg[j] = e * i[j] * (one - g[j] * g[j])
        do[j] = d * s * (o[j] * (one - o[j]))
        dc[j] = e * f[j]


@compiled()
def lstm_slopes(size, dy, parts, dh, dc, cells, gates, dx, reverse, start, stop):
    """dh, dc   of the last states, then of the first"""
    steps, n = len(dy), dh.shape[1]
    for k in range(steps):
        t = k if reverse else steps - 1 - k
        for r in range(start, stop):
            a, d = gates[t, r], dx[t, r]
            _slopes(
                a[:n], a[n : 2 * n], a[2 * n : 3 * n], a[3 * n :], cells[t, r], dy[t, r],
                dh[r], dc[r], d[:n], d[n : 2 * n], d[2 * n : 3 * n], d[3 * n :],
            )  # fmt: skip
        _product(size, dx[t, start:stop], parts, dh[start:stop], 0)


@compiled(fastmath=FUSE)
def _gru_gates(x_r, x_z, x_n, s_r, s_z, s_n, b_r, b_z, b_n, h, r, z, new, q, y):
    """A row of a step."""
    one = h.dtype.type(1)
    for j in range(h.size):
        a, b = sigmoid_of(x_r[j] + (s_r[j] + b_r[j])), sigmoid_of(x_z[j] + (s_z[j] + b_z[j]))
        c = s_n[j] + b_n[j]
        n = tanh_of(x_n[j] + a * c)
        r[j], z[j], new[j], q[j] = a, b, n, c
        y[j] = (one - b) * n + b * h[j]


@compiled()
def gru(size, x, parts, b, h, y, last, before, gates, products, reverse, start, stop):
    """products   scratch (N, 3 H)"""
    steps, n = len(y), h.shape[1]
    for k in range(steps):
        t = steps - 1 - k if reverse else k
        for i in range(start, stop):
            before[t, i] = h[i] if k == 0 else y[t + 1 if reverse else t - 1, i]
        _product(size, before[t, start:stop], parts, products[start:stop], 0)
        for i in range(start, stop):
            a, s, g = x[t, i], products[i], gates[t, i]
            _gru_gates(
                a[:n], a[n : 2 * n], a[2 * n :], s[:n], s[n : 2 * n], s[2 * n :],
                b[:n], b[n : 2 * n], b[2 * n :], before[t, i],
                g[:n], g[n : 2 * n], g[2 * n : 3 * n], g[3 * n :], y[t, i],
            )  # fmt: skip
            if k == steps - 1:
                last[i] = y[t, i]


@compiled(fastmath=FUSE)
def _gru_slopes(r, z, new, q, h, dy, dh, dr, dz, dn, er, ez, en):
    """A row of a step; d by x's parts and by those of the product; dh becomes what passes by."""
    one = h.dtype.type(1)
    for j in range(h.size):
        d = dh[j] + dy[j]
        n = d * (one - z[j]) * (one - new[j] * new[j])
        a = n * q[j] * (r[j] * (one - r[j]))
        b = d * (h[j] - new[j]) * (z[j] * (one - z[j]))
        dr[j], dz[j], dn[j] = a, b, n
        er[j], ez[j], en[j] = a, b, n * r[j]
        dh[j] = d * z[j]


@compiled()
def gru_slopes(size, dy, parts, dh, before, gates, dx, ds, reverse, start, stop):
    """dh   of the last state, then of the first"""
    steps, n = len(dy), dh.shape[1]
    for k in range(steps):
        t = k if reverse else steps - 1 - k
        for i in range(start, stop):
            g, d, e = gates[t, i], dx[t, i], ds[t, i]
            _gru_slopes(
                g[:n], g[n : 2 * n], g[2 * n : 3 * n], g[3 * n :], before[t, i], dy[t, i], dh[i],
                d[:n], d[n : 2 * n], d[2 * n :], e[:n], e[n : 2 * n], e[2 * n :],
            )  # fmt: skip
        _product(size, ds[t, start:stop], parts, dh[start:stop], 1)
