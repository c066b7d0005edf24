"""Windows that slide along an axis, and their adjoint, in one pass each."""

from __future__ import annotations

import math
from typing import Any

from nnx.calls import calls
from nnx.ops import fold, windows
from nnx.ops._geometry import count

from .launch import THREADS, Source, blocks_for
from .table import Array, Run, overrides, plain

_source = Source("window.cu")


def _launch(run: Run, name: str, x: Array, y: Array, *sizes: int) -> None:
    run(_source(name, x.dtype), blocks_for(y.size), THREADS, x, y, *sizes)


@overrides.forward(windows)
@calls
def _windows(
    run: Run, x: Array, *, size: int, axis: int = -1, stride: int = 1, dilation: int = 1
) -> Any:
    if not plain(x):
        return None
    axis %= x.ndim
    before, length, after = x.shape[:axis], x.shape[axis], x.shape[axis + 1 :]
    n = count(length, size, stride, dilation)
    y = run.new((*before, n, size, *after), x.dtype)
    sizes = math.prod(before), length, n, size, math.prod(after)
    _launch(run, "windows", x, y, *sizes, stride, dilation)
    return y, {"length": length, "ndim": x.ndim}


@overrides.forward(fold)
@calls
def _fold(run: Run, x: Array, *, length: int, axis: int, stride: int = 1, dilation: int = 1) -> Any:
    if not plain(x):
        return None
    before, (n, size), after = x.shape[:axis], x.shape[axis : axis + 2], x.shape[axis + 2 :]
    y = run.new((*before, length, *after), x.dtype)
    sizes = math.prod(before), length, n, size, math.prod(after)
    _launch(run, "fold", x, y, *sizes, stride, dilation)
    return y, {"size": size}
