"""Pooling: a thread for each window forward, for each entry of the image back."""

from __future__ import annotations

from typing import Any

from nnx.calls import calls
from nnx.ops import avg_pool2d, max_pool2d
from nnx.ops._geometry import count, pairs, per_axis

from .launch import THREADS, Source, blocks_for
from .table import Array, Run, contiguous, overrides, plain, slope, with_extras

_source = Source("pool.cu")


def _sizes(
    shape: tuple[int, ...], size: Any, stride: Any, padding: Any
) -> tuple[tuple[int, ...], list[int]]:
    """Of the result; and what the kernels are told."""
    length, sizes = shape[2:], per_axis(size, 2)
    steps = sizes if stride is None else per_axis(stride, 2)
    pads = pairs(padding, sizes, (1, 1))
    out = [count(length[i] + sum(pads[i]), sizes[i], steps[i], 1) for i in range(2)]
    before = (pads[0][0], pads[1][0])
    told = [shape[0] * shape[1], *length, *sizes, *out, *steps, *before]
    return (*shape[:2], *out), told


@calls(otherwise=with_extras(max_pool2d, "where"))
def _max_pool2d(run: Run, x: Array, *, size: Any, stride: Any = None, padding: Any = 0) -> Any:
    if not plain(x):
        return None
    shape, told = _sizes(x.shape, size, stride, padding)
    y, where = run.new(shape, x.dtype), run.new(shape, "int32")
    run(_source("max_pool", x.dtype), blocks_for(y.size), THREADS, x, y, where, *told)
    return y, {"where": where, "place": None, "length": x.shape[2:]}


_fused = overrides.fused(max_pool2d)(_max_pool2d)


@slope(_fused, max_pool2d, "x")
def _max_pool2d_x(
    run: Run, dy: Array, where: Any, place: Any, length: Any, size: Any, stride: Any, padding: Any
) -> Any:
    if where is None:
        return None
    dx = run.new((*dy.shape[:2], *length), dy.dtype)
    _, told = _sizes(dx.shape, size, stride, padding)
    given = contiguous(run, dy)
    run(_source("max_pool_slope", dy.dtype), blocks_for(dx.size), THREADS, given, where, dx, *told)
    return dx


@overrides.forward(avg_pool2d)
@calls
def _avg_pool2d(
    run: Run, x: Array, *, size: Any, stride: Any = None, padding: Any = 0,
    count_include_pad: bool = True,
) -> Any:  # fmt: skip
    if not plain(x):
        return None
    shape, told = _sizes(x.shape, size, stride, padding)
    y, kernel = run.new(shape, x.dtype), _source("avg_pool", x.dtype)
    run(kernel, blocks_for(y.size), THREADS, x, y, *told, int(count_include_pad))
    return y, {"length": x.shape[2:]}


@overrides.derivative(avg_pool2d, "x")
@calls
def _avg_pool2d_x(
    run: Run, dy: Array, length: Any, size: Any, stride: Any, padding: Any, count_include_pad: bool
) -> Any:
    if not dy.size:
        return None
    dx = run.new((*dy.shape[:2], *length), dy.dtype)
    _, told = _sizes(dx.shape, size, stride, padding)
    given, kernel = contiguous(run, dy), _source("avg_pool_slope", dy.dtype)
    run(kernel, blocks_for(dx.size), THREADS, given, dx, *told, int(count_include_pad))
    return dx
