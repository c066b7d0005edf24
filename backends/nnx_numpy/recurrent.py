"""LSTM without a new array per step: each step is written where it stays."""

from __future__ import annotations

import functools

import numpy as np

from nnx.calls import calls
from nnx.ops import lstm

from .table import FLOATS, Array, Run, at_a_time, dot_for, matmul_for, on_lanes, overrides


def _steps(count, backward):
    return range(count - 1, -1, -1) if backward else range(count)


LEAST = 8  # rows of a product that is worth being made by columns
CALL = 1 << 14  # entries of a call that is worth a lane: threads wait for each other's calls


def by_columns(run: Run, U: Array, rows: int, steps: int) -> Array:
    """U (k, n) as (parts, k, columns), for x U with so many rows of x, so many times.

    A few columns of U at a time are almost twice as fast.
    """
    k, n = U.shape
    often = rows >= LEAST and steps >= 4
    width = at_a_time(rows, k, n) if often else n
    if width == n and not (often and U.flags.f_contiguous):
        return U[None]
    parts: Array = run.empty((n // width, k, width), U.dtype)
    run(np.copyto, parts, U.reshape(k, -1, width).transpose(1, 0, 2))
    return parts


def _product(run, x, parts, out):
    """out = x U"""
    _, k, width = parts.shape
    flops = 2 * len(x) * k * width
    if len(parts) == 1:
        run(dot_for(flops), x, parts[0], out)
    else:
        run(matmul_for(flops), x, parts, out.reshape(len(x), -1, width).transpose(1, 0, 2))


def _by_gate(x):
    """(rows, 4 n) as (4, rows, n)"""
    return x.reshape(x.shape[0], 4, -1).transpose(1, 0, 2)


@functools.lru_cache(32)
def _halves(n, dtype):
    """sigmoid(a) = (1 + tanh(a / 2)) / 2: the factors of the gates i, f, g, o, and what is added"""
    return np.repeat(np.array([[0.5, 0.5, 1, 0.5], [0.5, 0.5, 0, 0.5]], dtype), n, axis=1)


def _cell(run, rows, n, dtype):
    """f(a, x, c, new, y): the gates in place of a, the new states in new and y."""
    part, (half, more) = run.empty((rows, n), dtype), _halves(n, dtype)

    def cell(a, x, c, new, y):
        run(np.add, a, x, a)
        run(np.multiply, a, half, a)
        run(np.tanh, a, a)
        run(np.multiply, a, half, a)
        run(np.add, a, more, a)
        run(np.multiply, a[:, n : 2 * n], c, new)
        run(np.multiply, a[:, :n], a[:, 2 * n : 3 * n], part)
        run(np.add, new, part, new)
        run(np.tanh, new, part)
        run(np.multiply, a[:, 3 * n :], part, y)

    return cell


def _slope(run, rows, n, dtype):
    """f(gates, c, after, dh, dc, dx): dx of a step's gates, dc of c in place of that of after.

    after   the new c; None where it is not at hand
    """
    new, part, e = (run.empty((rows, n), dtype) for _ in range(3))
    a, parts, slope = (run.empty((4, rows, n), dtype) for _ in range(3))
    (i, f, g, o), (di, df, dg, do) = a, parts

    def slope_of(gates, c, after, dh, dc, dx):
        # Where they lie, rows of one gate may be a page apart, all in one set of the cache.
        run(np.copyto, a, _by_gate(gates))
        if after is None:
            run(np.multiply, f, c, new)
            run(np.multiply, i, g, part)
            run(np.add, new, part, new)
            run(np.tanh, new, new)
        else:
            run(np.tanh, after, new)
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
        run(np.multiply, parts, slope, _by_gate(dx))
        run(np.multiply, e, f, dc)

    return slope_of


def _least(x):
    """Sequences for a lane; x is of all gates."""
    return max(LEAST, -(-CALL // x.shape[2]))


def flops(x: Array, n: int) -> int:
    """Of all steps' products with U."""
    return 2 * x.size * n


def outer(run: Run, before: Array, dx: Array, dU: Array) -> None:
    """dU = the sum of before^T dx, of all steps at once"""
    left, right = before.reshape(-1, len(dU)).T, dx.reshape(-1, dU.shape[1])
    total = flops(dx, len(dU))
    product = matmul_for(total)

    def columns(run: Run, s: slice) -> None:
        run(product, left, right[:, s], dU[:, s])

    on_lanes(run, columns, dU.shape[1], total)


@overrides.forward(lstm)
@calls
def _lstm(run, x, U, h, c, lengths=None, *, reverse=False):
    (steps, rows, _), n, dtype = x.shape, U.shape[0], x.dtype
    if lengths is not None or dtype not in FLOATS or not x.size:
        return None
    y, last, end = (run.new(s, dtype) for s in ((steps, rows, n), (rows, n), (rows, n)))
    before, cells = run.new((steps, rows, n), dtype), run.new((steps, rows, n), dtype)
    gates, order = run.new(x.shape, dtype), _steps(steps, reverse)
    columns = by_columns(run, U, rows, steps)

    def sequences(run, s):
        cell, h_s = _cell(run, s.stop - s.start, n, dtype), h[s]
        run(np.copyto, cells[order[0], s], c[s])
        for t, after in zip(order, [*order[1:], None], strict=True):
            run(np.copyto, before[t, s], h_s)
            _product(run, before[t, s], columns, gates[t, s])
            new = end[s] if after is None else cells[after, s]
            cell(gates[t, s], x[t, s], cells[t, s], new, y[t, s])
            h_s = y[t, s]
        run(np.copyto, last[s], h_s)

    on_lanes(run, sequences, rows, flops(gates, n), _least(gates))
    return (y, last, end), {"before": before, "cells": cells, "gates": gates}


@overrides.derivative(lstm, "x", "U", "h", "c")
@calls
def _lstm_slopes(run, dy, U, before, cells, gates, lengths, reverse):
    (steps, rows, _), n, dtype = gates.shape, U.shape[0], gates.dtype
    if lengths is not None or dtype not in FLOATS or not gates.size:
        return None
    dx, dU = run.new(gates.shape, dtype), run.new((n, 4 * n), dtype)
    dh, dc = run.new((rows, n), dtype), run.new((rows, n), dtype)
    columns = by_columns(run, U.T, rows, steps)

    def sequences(run, s):
        slope, after = _slope(run, s.stop - s.start, n, dtype), None
        run(np.copyto, dh[s], dy[1][s])
        run(np.copyto, dc[s], dy[2][s])
        for t in _steps(steps, not reverse):
            run(np.add, dh[s], dy[0][t, s], dh[s])
            slope(gates[t, s], cells[t, s], after, dh[s], dc[s], dx[t, s])
            _product(run, dx[t, s], columns, dh[s])
            after = cells[t, s]

    on_lanes(run, sequences, rows, flops(gates, n), _least(gates))
    outer(run, before, dx, dU)
    return dx, dU, dh, dc
