"""Softmax over the last axis: a warp or a block for each row."""

from __future__ import annotations

from nnx.calls import calls
from nnx.ops import log_softmax, softmax

from .launch import Source, blocks_for_rows
from .table import Array, Run, overrides, plain

_source = Source("softmax.cu")


def _forward(run: Run, name: str, x: Array, axis: int) -> Array | None:
    if not (plain(x) and x.ndim and axis in (-1, x.ndim - 1)):
        return None
    y = run.new(x.shape, x.dtype)
    columns = x.shape[-1]
    rows = x.size // columns
    run(_source(name, x.dtype), *blocks_for_rows(rows, columns), x, y, rows, columns)
    return y


def _slope(run: Run, name: str, dy: Array, y: Array, axis: int) -> Array | None:
    if not (plain(y, dy) and axis in (-1, y.ndim - 1)):
        return None
    dx = run.new(y.shape, y.dtype)
    columns = y.shape[-1]
    rows = y.size // columns
    run(_source(name, y.dtype), *blocks_for_rows(rows, columns), dy, y, dx, rows, columns)
    return dx


@overrides.forward(softmax)
@calls
def _softmax(run: Run, x: Array, *, axis: int = -1) -> Array | None:
    return _forward(run, "softmax", x, axis)


@overrides.derivative(softmax, "x")
@calls
def _softmax_slope(run: Run, dy: Array, y: Array, axis: int) -> Array | None:
    return _slope(run, "softmax_slope", dy, y, axis)


@overrides.forward(log_softmax)
@calls
def _log_softmax(run: Run, x: Array, *, axis: int = -1) -> Array | None:
    return _forward(run, "log_softmax", x, axis)


@overrides.derivative(log_softmax, "x")
@calls
def _log_softmax_slope(run: Run, dy: Array, y: Array, axis: int) -> Array | None:
    return _slope(run, "log_softmax_slope", dy, y, axis)
