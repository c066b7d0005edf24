"""Dropout in one pass over the drawn numbers, which `philox` makes."""

from __future__ import annotations

from nnx.calls import calls
from nnx.ops import dropout

from .launch import THREADS, Source, blocks_for, per_pack
from .table import Array, Run, overrides, plain

_source = Source("dropout.cu")


def _masked(run: Run, x: Array, drawn: Array, p: float) -> Array | None:
    if not plain(drawn, x):
        return None
    y, kernel = run.new(x.shape, x.dtype), _source("dropout", x.dtype)
    blocks = blocks_for(x.size, per_pack(x))
    run(kernel, blocks, THREADS, x, drawn, y, float(p), 1 / (1 - p), x.size)
    return y


@overrides.forward(dropout)
@calls
def _dropout(run: Run, x: Array, drawn: Array, *, p: float = 0.5) -> Array | None:
    return _masked(run, x, drawn, p)


@overrides.derivative(dropout, "x")
@calls
def _dropout_slope(run: Run, dy: Array, drawn: Array, p: float) -> Array | None:
    return _masked(run, dy, drawn, p)
