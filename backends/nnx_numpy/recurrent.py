"""LSTM without a new array per step: each step is written where it stays."""

from __future__ import annotations

import functools

import numpy as np

from nnx.calls import calls
from nnx.ops import lstm

from .table import FLOATS, dot_for, matmul_for, overrides


def _steps(count, backward):
    return range(count - 1, -1, -1) if backward else range(count)


UNPACKED = 1_000_000  # m n k, up to which OpenBLAS multiplies without copying the factors first


def _product(run, U, rows, steps):
    """f(x, out) = x U, x (rows, k), step after step: by a few columns of U at a time, which is
    almost twice as fast.
    """
    (k, n), few = U.shape, [64, 32, 16]
    width = next((w for w in few if n % w == 0 and rows * k * w <= UNPACKED), None)
    if width is None or rows < 8 or steps < 4:
        dot = dot_for(2 * rows * k * n)
        return lambda x, out: run(dot, x, U, out)
    parts, matmul = run.empty((n // width, k, width), U.dtype), matmul_for(2 * rows * k * width)
    run(np.copyto, parts, U.reshape(k, -1, width).transpose(1, 0, 2))
    return lambda x, out: run(matmul, x, parts, out.reshape(rows, -1, width).transpose(1, 0, 2))


def _by_gate(x):
    """(rows, 4 n) as (4, rows, n)"""
    return x.reshape(x.shape[0], 4, -1).transpose(1, 0, 2)


@functools.lru_cache(32)
def _halves(n, dtype):
    """sigmoid(a) = (1 + tanh(a / 2)) / 2: the factors of the gates i, f, g, o, and what is added"""
    return np.repeat(np.array([[0.5, 0.5, 1, 0.5], [0.5, 0.5, 0, 0.5]], dtype), n, axis=1)


@overrides.forward(lstm)
@calls
def _lstm(run, x, U, h, c, lengths=None, *, reverse=False):
    (steps, rows, _), n, dtype = x.shape, U.shape[0], x.dtype
    if lengths is not None or dtype not in FLOATS or not x.size:
        return None
    y, last, end = (run.new(s, dtype) for s in ((steps, rows, n), (rows, n), (rows, n)))
    before, cells = run.new((steps, rows, n), dtype), run.new((steps, rows, n), dtype)
    gates, part = run.new((steps, rows, 4 * n), dtype), run.empty((rows, n), dtype)
    product, order = _product(run, U, rows, steps), _steps(steps, reverse)
    half, more = _halves(n, dtype)
    for t, after in zip(order, [*order[1:], None], strict=True):
        run(np.copyto, before[t], h)
        if t == order[0]:
            run(np.copyto, cells[t], c)
        a, new = gates[t], end if after is None else cells[after]
        product(before[t], a)
        run(np.add, a, x[t], a)
        run(np.multiply, a, half, a)
        run(np.tanh, a, a)
        run(np.multiply, a, half, a)
        run(np.add, a, more, a)
        run(np.multiply, a[:, n : 2 * n], cells[t], new)
        run(np.multiply, a[:, :n], a[:, 2 * n : 3 * n], part)
        run(np.add, new, part, new)
        run(np.tanh, new, part)
        run(np.multiply, a[:, 3 * n :], part, y[t])
        h = y[t]
    run(np.copyto, last, h)
    return (y, last, end), {"before": before, "cells": cells, "gates": gates}


@overrides.derivative(lstm, "x", "U", "h", "c")
@calls
def _lstm_slopes(run, dy, U, before, cells, gates, lengths, reverse):
    (steps, rows, _), n, dtype = gates.shape, U.shape[0], gates.dtype
    if lengths is not None or dtype not in FLOATS or not gates.size:
        return None
    dx, dU = run.new(gates.shape, dtype), run.new((n, 4 * n), dtype)
    dh, dc = run.new((rows, n), dtype), run.new((rows, n), dtype)
    new, part, e = (run.empty((rows, n), dtype) for _ in range(3))
    a, parts, slope = (run.empty((4, rows, n), dtype) for _ in range(3))
    (i, f, g, o), (di, df, dg, do) = a, parts
    product, last = _product(run, U.T, rows, steps), 0 if reverse else steps - 1
    run(np.copyto, dh, dy[1])
    run(np.copyto, dc, dy[2])
    for t in _steps(steps, not reverse):
        c = cells[t]
        # Where they lie, rows of one gate may be a page apart, all in one set of the cache.
        run(np.copyto, a, _by_gate(gates[t]))
        if t == last:
            run(np.multiply, f, c, new)
            run(np.multiply, i, g, part)
            run(np.add, new, part, new)
            run(np.tanh, new, new)
        else:
            run(np.tanh, cells[t - 1 if reverse else t + 1], new)
        run(np.add, dh, dy[0][t], dh)
        run(np.multiply, dh, new, do)
        run(np.multiply, new, new, e)
        run(np.subtract, 1, e, e)
        run(np.multiply, e, o, e)
        run(np.multiply, e, dh, e)
        run(np.add, e, dc, e)
        run(np.multiply, e, g, di)
        run(np.multiply, e, c, df)
        run(np.multiply, e, i, dg)
        # Of i, f and o the slope is a (1 - a), of g it is 1 - a a.
        run(np.multiply, a, a, slope)
        run(np.subtract, a[:2], slope[:2], slope[:2])
        run(np.subtract, 1, slope[2], slope[2])
        run(np.subtract, o, slope[3], slope[3])
        run(np.multiply, parts, slope, _by_gate(dx[t]))
        product(dx[t], dh)
        run(np.multiply, e, f, dc)
    left, right = before.reshape(-1, n), dx.reshape(-1, 4 * n)
    run(dot_for(8 * steps * rows * n * n), left.T, right, dU)
    return dx, dU, dh, dc
