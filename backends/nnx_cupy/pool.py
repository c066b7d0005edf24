"""Pooling: a thread for each window, and for each entry of the gradient, which sums its windows.

The largest entry's place in its window is kept, in a byte: reading it costs less than x again.
"""

from __future__ import annotations

from typing import Any

from nnx.calls import calls
from nnx.ops import avg_pool2d, max_pool2d

from .geometry import MOST, Windows, windows
from .launch import THREADS, Source, blocks_for, dtype_name
from .table import Array, Run, contiguous, floats, overrides

_max, _avg = Source("max_pool.cu"), Source("avg_pool.cu")
_PLACES = {"uint8": "unsigned char", "int32": "int"}


def _windows(length: tuple[int, ...], size: Any, stride: Any, padding: Any) -> Windows:
    sizes = tuple(size) if isinstance(size, (tuple, list)) else (size, size)
    return windows(length, sizes, sizes if stride is None else stride, padding, 1)


def _takes(a: Array, w: Windows) -> bool:
    planes = a.shape[0] * a.shape[1]
    return floats(a) and planes * max(w.area, w.many) <= MOST


@overrides.forward(max_pool2d)
@calls
def _max_pool(run: Run, x: Array, *, size: Any, stride: Any = None, padding: Any = 0) -> Any:
    length = tuple(x.shape[2:])
    w = _windows(length, size, stride, padding)
    if not _takes(x, w):
        return None
    shape = (*x.shape[:2], *w.places)
    kind = "uint8" if w.entries <= 256 else "int32"
    y, place = run.new(shape, x.dtype), run.new(shape, kind)
    kernel = _max("max_pool", x.dtype, NNX_PLACE=_PLACES[kind])
    planes = shape[0] * shape[1]
    run(
        kernel,
        blocks_for(planes * w.many),
        THREADS,
        contiguous(run, x),
        y,
        place,
        planes,
        *w.numbers,
    )
    return y, {"place": place, "length": length}


@overrides.derivative(max_pool2d, "x")
@calls
def _max_pool_slope(
    run: Run, dy: Array, place: Array, length: tuple[int, ...], size: Any, stride: Any, padding: Any
) -> Array | None:
    w, kind = _windows(length, size, stride, padding), dtype_name(place.dtype)
    if not (_takes(dy, w) and kind in _PLACES):
        return None
    dx = run.new((*dy.shape[:2], *length), dy.dtype)
    kernel = _max("max_pool_slope", dy.dtype, NNX_PLACE=_PLACES[kind])
    planes = dx.shape[0] * dx.shape[1]
    run(
        kernel,
        blocks_for(planes * w.area),
        THREADS,
        contiguous(run, dy),
        place,
        dx,
        planes,
        *w.numbers,
    )
    return dx


@overrides.forward(avg_pool2d)
@calls
def _avg_pool(
    run: Run, x: Array,
    *, size: Any, stride: Any = None, padding: Any = 0, count_include_pad: bool = True,
) -> Any:  # fmt: skip
    length = tuple(x.shape[2:])
    w = _windows(length, size, stride, padding)
    if not _takes(x, w):
        return None
    y = run.new((*x.shape[:2], *w.places), x.dtype)
    planes, blocks = x.shape[0] * x.shape[1], blocks_for(y.size)
    kernel = _avg("avg_pool", x.dtype)
    run(kernel, blocks, THREADS, contiguous(run, x), y, planes, int(count_include_pad), *w.numbers)
    return y, {"length": length}


@overrides.derivative(avg_pool2d, "x")
@calls
def _avg_pool_slope(
    run: Run, dy: Array, length: tuple[int, ...], size: Any, stride: Any, padding: Any,
    count_include_pad: bool,
) -> Array | None:  # fmt: skip
    w = _windows(length, size, stride, padding)
    if not _takes(dy, w):
        return None
    dx = run.new((*dy.shape[:2], *length), dy.dtype)
    planes, blocks = dx.shape[0] * dx.shape[1], blocks_for(dx.size)
    kernel = _avg("avg_pool_slope", dy.dtype)
    run(
        kernel, blocks, THREADS, contiguous(run, dy), dx, planes, int(count_include_pad), *w.numbers
    )
    return dx
