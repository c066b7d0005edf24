"""LSTM: all steps of some sequences in one compiled call."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnx.calls import calls
from nnx.lanes import parts
from nnx.ops import lstm
from nnx.threads import SMALL
from nnx_numpy.recurrent import LEAST, by_columns, flops, outer
from nnx_numpy.table import in_lanes

from . import blas, steps
from .common import Array, Run, overrides, plain


def _takes(x: Array, *others: Array) -> bool:
    """x or gates. Products that are large, of few rows, are left to several threads of the BLAS."""
    arrays = x, *others
    if not (blas.bits() and x.size and all(map(plain, arrays))):
        return False
    rows, gates = x.shape[1:]
    fits = rows >= 2 * LEAST or rows * gates * gates // 2 < SMALL
    return fits and len({a.dtype for a in arrays}) == 1


def _lanes(x: Array, n: int) -> list[slice]:
    """Sequences for each lane: to the last step none needs another's."""
    return parts(x.shape[1], flops(x, n), LEAST)


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
    columns, size = _contiguous(run, by_columns(run, U, rows, count)), blas.size()
    arrays = size, x, columns, h, c, y, last, end, before, cells, gates, reverse
    in_lanes(run, lambda run, s: run(steps.lstm, *arrays, s.start, s.stop), _lanes(x, n))
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
    columns = _contiguous(run, by_columns(run, U.T, gates.shape[1], len(gates)))
    arrays = blas.size(), _contiguous(run, dy[0]), columns, dh, dc, cells, gates, dx, reverse
    lanes = _lanes(gates, len(U))
    in_lanes(run, lambda run, s: run(steps.lstm_slopes, *arrays, s.start, s.stop), lanes)
    outer(run, before, dx, dU)
    return dx, dU, dh, dc
