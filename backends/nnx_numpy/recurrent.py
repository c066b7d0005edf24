"""LSTM without a new array per step: each step is written where it stays."""

from __future__ import annotations

import numpy as np

from nnx.calls import calls
from nnx.ops import lstm

from .table import FLOATS, dot_for, overrides


def _steps(count, backward):
    return range(count - 1, -1, -1) if backward else range(count)


def _sigmoid(x, y):
    """NumPy's `negative` gives wrong values for a float32 column that is its own `out`."""
    with np.errstate(over="ignore"):
        np.multiply(x, -1, y)
        np.exp(y, y)
        np.add(y, 1, y)
        np.divide(1, y, y)


@overrides.forward(lstm)
@calls
def _lstm(run, x, U, h, c, lengths=None, *, reverse=False):
    (steps, rows, _), n, dtype = x.shape, U.shape[0], x.dtype
    if lengths is not None or dtype not in FLOATS or not x.size:
        return None
    y, last, end = (run.new(s, dtype) for s in ((steps, rows, n), (rows, n), (rows, n)))
    before, cells = run.new((steps, rows, n), dtype), run.new((steps, rows, n), dtype)
    gates, part = run.new((steps, rows, 4 * n), dtype), run.empty((rows, n), dtype)
    product, order = dot_for(8 * rows * n * n), _steps(steps, reverse)
    for t, after in zip(order, [*order[1:], None], strict=True):
        run(np.copyto, before[t], h)
        if t == order[0]:
            run(np.copyto, cells[t], c)
        a, new = gates[t], end if after is None else cells[after]
        run(product, before[t], U, a)
        run(np.add, a, x[t], a)
        run(_sigmoid, a[:, : 2 * n], a[:, : 2 * n])
        run(np.tanh, a[:, 2 * n : 3 * n], a[:, 2 * n : 3 * n])
        run(_sigmoid, a[:, 3 * n :], a[:, 3 * n :])
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
    slope = run.empty((rows, 4 * n), dtype)
    product = dot_for(8 * rows * n * n)
    run(np.copyto, dh, dy[1])
    run(np.copyto, dc, dy[2])
    for t in _steps(steps, not reverse):
        a, d, c = gates[t], dx[t], cells[t]
        i, f, g, o = (a[:, k * n : (k + 1) * n] for k in range(4))
        di, df, dg, do = (d[:, k * n : (k + 1) * n] for k in range(4))
        run(np.multiply, f, c, new)
        run(np.multiply, i, g, part)
        run(np.add, new, part, new)
        run(np.tanh, new, new)
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
        for k in (slice(0, 2 * n), slice(3 * n, 4 * n)):
            run(np.subtract, a[:, k], slope[:, k], slope[:, k])
        run(np.subtract, 1, slope[:, 2 * n : 3 * n], slope[:, 2 * n : 3 * n])
        run(np.multiply, d, slope, d)
        run(product, d, U.T, dh)
        run(np.multiply, e, f, dc)
    left, right = before.reshape(-1, n), dx.reshape(-1, 4 * n)
    run(dot_for(8 * steps * rows * n * n), left.T, right, dU)
    return dx, dU, dh, dc
