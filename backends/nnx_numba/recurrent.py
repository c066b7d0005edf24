"""LSTM and GRU: all steps of some sequences in one compiled call."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnx.calls import calls
from nnx.lanes import parts
from nnx.ops import gru, lstm
from nnx.threads import SMALL
from nnx_numpy.recurrent import LEAST, by_columns, flops, outer
from nnx_numpy.table import in_lanes

from . import blas, dense, steps
from .common import Array, Run, overrides, plain


def _takes(x: Array, h: Array, *others: Array) -> bool:
    """x: of all steps. Products that are large, of few rows, are left to `product_together`."""
    arrays = x, h, *others
    if not (blas.bits() and x.size and all(map(plain, arrays))):
        return False
    fits = x.shape[1] >= 2 * LEAST or flops(x, h.shape[-1]) < SMALL * len(x)
    return fits and len({a.dtype for a in arrays}) == 1


def _in_lanes(run: Run, loop: Any, x: Array, n: int, *arrays: Any) -> None:
    """The loop over some sequences in each lane: to the last step none needs another's."""
    lanes = parts(x.shape[1], flops(x, n), LEAST)
    in_lanes(run, lambda run, s: run(loop, blas.size(), *arrays, s.start, s.stop), lanes)


def _columns(run: Run, U: Array, x: Array) -> Array:
    return _contiguous(run, by_columns(run, U, x.shape[1], len(x)))


def _contiguous(run: Run, a: Array) -> Array:
    if a.flags.c_contiguous and a.flags.aligned:
        return a
    made: Array = run.empty(a.shape, a.dtype)
    run(np.copyto, made, a)
    return made


@overrides.forward(lstm)
@calls
def _lstm(
    run: Run, x: Array, U: Array, h: Array, c: Array, lengths: Any = None, *, reverse: bool = False
) -> Any:
    if lengths is not None or not _takes(x, h, c):
        return None
    (count, rows, _), n = x.shape, h.shape[1]
    y, last, end = (run.new(s, x.dtype) for s in ((count, rows, n), h.shape, h.shape))
    before, cells, gates = (run.new(s, x.dtype) for s in (y.shape, y.shape, x.shape))
    arrays = x, _columns(run, U, x), h, c, y, last, end, before, cells, gates, reverse
    _in_lanes(run, steps.lstm, x, n, *arrays)
    return (y, last, end), {"before": before, "cells": cells, "gates": gates}


@overrides.derivative(lstm, "x", "U", "h", "c")
@calls
def _lstm_slopes(
    run: Run, dy: Any, U: Array, before: Array, cells: Array, gates: Array, lengths: Any,
    reverse: bool,
) -> Any:  # fmt: skip
    if lengths is not None or not _takes(gates, before, cells):
        return None
    dx, dU = run.new(gates.shape, gates.dtype), run.new(U.shape, U.dtype)
    dh, dc = (run.new(before.shape[1:], gates.dtype) for _ in range(2))
    run(np.copyto, dh, dy[1])
    run(np.copyto, dc, dy[2])
    given = _contiguous(run, dy[0])
    arrays = given, _columns(run, U.T, gates), dh, dc, cells, gates, dx, reverse
    _in_lanes(run, steps.lstm_slopes, gates, len(U), *arrays)
    outer(run, before, dx, dU)
    return dx, dU, dh, dc


@overrides.forward(gru)
@calls
def _gru(
    run: Run, x: Array, U: Array, b: Array, h: Array, lengths: Any = None, *, reverse: bool = False
) -> Any:
    if lengths is not None or not _takes(x, h, b):
        return None
    (count, rows, _), n = x.shape, h.shape[1]
    y, last = run.new((count, rows, n), x.dtype), run.new(h.shape, x.dtype)
    before, gates = run.new(y.shape, x.dtype), run.new((count, rows, 4 * n), x.dtype)
    products = run.empty((rows, 3 * n), x.dtype)
    arrays = x, _columns(run, U, x), b, h, y, last, before, gates, products, reverse
    _in_lanes(run, steps.gru, x, n, *arrays)
    return (y, last), {"before": before, "gates": gates}


@overrides.derivative(gru, "x", "U", "b", "h")
@calls
def _gru_slopes(
    run: Run, dy: Any, U: Array, before: Array, gates: Array, lengths: Any, reverse: bool
) -> Any:
    if lengths is not None or not _takes(gates, before):
        return None
    (count, rows, n), dtype = before.shape, gates.dtype
    dx, dU, db = (run.new(s, dtype) for s in ((count, rows, 3 * n), U.shape, (3 * n,)))
    dh, ds = run.new((rows, n), dtype), run.empty(dx.shape, dtype)
    run(np.copyto, dh, dy[1])
    given = _contiguous(run, dy[0])
    arrays = given, _columns(run, U.T, dx), dh, before, gates, dx, ds, reverse
    _in_lanes(run, steps.gru_slopes, dx, n, *arrays)
    outer(run, before, ds, dU)
    run(dense.column_sums, ds.reshape(-1, 3 * n), db)
    return dx, dU, db, dh
