"""Windows as views; padding and folding into one array."""

from __future__ import annotations

import numpy as np

from nnx.calls import calls
from nnx.ops import fold, pad, windows
from nnx.ops._geometry import count

from .table import overrides


@overrides.forward(windows)
def _windows(xp, x, *, size, axis=-1, stride=1, dilation=1):
    """A view that cannot be written, because its entries overlap."""
    axis %= x.ndim
    n, step = count(x.shape[axis], size, stride, dilation), x.strides[axis]
    shape = (*x.shape[:axis], n, size, *x.shape[axis + 1 :])
    strides = (*x.strides[:axis], stride * step, dilation * step, *x.strides[axis + 1 :])
    memory = x
    while isinstance(memory.base, np.ndarray):
        memory = memory.base
    memory = memory if memory.flags.c_contiguous else memory.T
    if not memory.flags.c_contiguous:
        return windows.forward(xp, x, size=size, axis=axis, stride=stride, dilation=dilation)
    at = x.__array_interface__["data"][0] - memory.__array_interface__["data"][0]
    y = np.ndarray(shape, x.dtype, memory, at, strides)
    y.flags.writeable = False
    return y, {"length": x.shape[axis], "ndim": x.ndim}


@overrides.forward(fold)
@calls
def _fold(run, x, *, length, axis, stride=1, dilation=1):
    n, size = x.shape[axis : axis + 2]
    y = run.new((*x.shape[:axis], length, *x.shape[axis + 2 :]), x.dtype)
    before = (slice(None),) * axis
    run(np.copyto, y, 0)
    for j in range(size):
        into = y[(*before, slice(dilation * j, dilation * j + stride * (n - 1) + 1, stride))]
        run(np.add, into, x[(*before, slice(None), j)], into)
    return y, {"size": size}


@overrides.forward(pad)
@calls
def _pad(run, x, /, widths, *, value=0.0):
    widths = ((0, 0),) * (x.ndim - len(widths)) + tuple(map(tuple, widths))
    shape = tuple([n + sum(w) for n, w in zip(x.shape, widths, strict=True)])
    y = run.new(shape, x.dtype)
    run(np.copyto, y, value)
    within = tuple([slice(w[0], w[0] + n) for n, w in zip(x.shape, widths, strict=True)])
    run(np.copyto, y[(*within, ...)], x)
    return y
