"""Softmax over the last axis: a warp or a block for each row."""

from __future__ import annotations

from nnx.calls import calls
from nnx.op import Op
from nnx.ops import log_softmax, softmax

from .launch import Source, blocks_for_rows
from .table import Array, Run, overrides, plain

_source = Source("softmax.cu")


def _over_rows(run: Run, name: str, *arrays: Array) -> None:
    columns = arrays[0].shape[-1]
    rows = arrays[0].size // columns
    run(_source(name, arrays[0].dtype), *blocks_for_rows(rows, columns), *arrays, rows, columns)


def _register(op: Op[...]) -> None:
    """The op, and its slope, which reads the result."""

    @overrides.forward(op)
    @calls
    def forward(run: Run, x: Array, *, axis: int = -1) -> Array | None:
        if not (plain(x) and x.ndim and axis in (-1, x.ndim - 1)):
            return None
        y = run.new(x.shape, x.dtype)
        _over_rows(run, op.name, x, y)
        return y

    @overrides.derivative(op, "x")
    @calls
    def slope(run: Run, dy: Array, y: Array, axis: int) -> Array | None:
        if not (plain(y, dy) and axis in (-1, y.ndim - 1)):
            return None
        dx = run.new(y.shape, y.dtype)
        _over_rows(run, f"{op.name}_slope", dy, y, dx)
        return dx

    forward.__name__, slope.__name__ = op.name, f"{op.name}_slope"


_register(softmax)
_register(log_softmax)
