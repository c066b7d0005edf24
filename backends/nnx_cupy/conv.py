"""Convolutions: windows as columns of a matrix, times the kernels; depthwise ones without.

A batch is taken in blocks of images whose matrices fit into SCRATCH. Products are CuPy's, of two
axes, one for each group: with more axes CuPy copies what is transposed.

An image has W.shape[1] * groups channels, what is made of its windows W.shape[0], in either
direction: a transposed convolution goes from the latter to the former.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from nnx.calls import calls
from nnx.op import Op
from nnx.ops import conv1d, conv2d, conv_transpose2d
from nnx.ops._geometry import pairs, per_axis
from nnx.ops.conv import transposed_length

from .geometry import MOST, Windows, windows
from .launch import MOST_ROWS, THREADS, Source, blocks_for, blocks_of_rows
from .table import Array, Run, contiguous, floats, overrides

SCRATCH = 128 << 20  # bytes
_source = Source("conv.cu")


def _takes(groups: int, w: Windows, W: Array, a: Array, b: Array | None = None) -> bool:
    if not floats(W, a, *([] if b is None else [b])):
        return False
    return bool(W.size <= MOST and _at_once(a.shape[0], W, w, groups))


def _depthwise(W: Array, groups: int) -> bool:
    return groups > 1 and bool(W.shape[1] == 1)


def _at_once(batch: int, W: Array, w: Windows, groups: int) -> int:
    """How many images a launch may take: 0 if it may not take one, or all of a depthwise one."""
    channels, out = int(W.shape[1]) * groups, int(W.shape[0])
    if _depthwise(W, groups):
        return batch if batch * max(channels * w.area, out * w.many) <= MOST else 0
    return min(batch, MOST // max((channels * w.entries + out) * w.many, channels * w.area))


def _launch(run: Run, name: str, entries: int, x: Array, *args: Any) -> None:
    run(_source(name, x.dtype), blocks_for(entries), THREADS, x, *args)


def _blocks(
    run: Run, batch: int, W: Array, w: Windows, groups: int
) -> Iterator[tuple[slice, Array, Array]]:
    """Images, and scratch for their columns and results, images side by side in both.

    columns   (groups, channels of a group * entries of a window, images * places)
    results   (groups, results of a group, images * places)
    """
    rows = W.shape[1] * w.entries, W.shape[0] // groups
    each = sum(rows) * groups * w.many
    fit = max(1, SCRATCH // (each * W.dtype.itemsize))
    most = min(fit, _at_once(batch, W, w, groups))
    # Of few sizes, so that the calls of a replay, which share what is alike, share it.
    scratch = run.empty((1 << (most * each - 1).bit_length(),), W.dtype)
    for start in range(0, batch, most):
        images = min(most, batch - start)
        width, begin, made = images * w.many, 0, []
        for r in rows:
            end = begin + groups * r * width
            made.append(scratch[begin:end].reshape(groups, r, width))
            begin = end
        yield slice(start, start + images), made[0], made[1]


def _products(run: Run, a: Array, b: Array, out: Array, turned: str = "") -> None:
    """out = a @ b for each group, the one named in `turned` transposed."""
    cupy = sys.modules["cupy"]
    for g in range(out.shape[0]):
        left = cupy.transpose(a[g]) if turned == "a" else a[g]
        right = cupy.transpose(b[g]) if turned == "b" else b[g]
        run(cupy.matmul, left, right, out=out[g])


def _exchange(run: Run, x: Array, b: Array | None, y: Array, n: int, m: int, places: int) -> None:
    """y (m, n, places) = x (n, m, places) + b (n)"""
    kernel = _source("exchange", x.dtype)
    run(kernel, *blocks_of_rows(n * m, places), x, b, y, n, m, places)


def _columns(run: Run, x: Array, columns: Array, w: Windows) -> None:
    n, channels = x.shape[:2]
    if w.pointwise:
        _exchange(run, x, None, columns, n, channels, w.many)
    else:
        _launch(run, "im2col", n * channels * w.many, x, columns, n, channels, *w.numbers)


def _images_of(run: Run, columns: Array, b: Array | None, x: Array, w: Windows) -> None:
    """The adjoint of `_columns`, plus b."""
    n, channels = x.shape[:2]
    if w.pointwise:
        _exchange(run, columns, b, x, channels, n, w.many)
    else:
        _launch(run, "col2im", x.size, columns, b, x, n, channels, *w.numbers)


def _results(run: Run, dy: Array, results: Array, w: Windows) -> None:
    _exchange(run, dy, None, results, dy.shape[0], dy.shape[1], w.many)


def convolve(
    run: Run, x: Array, W: Array, b: Array | None, y: Array, w: Windows, groups: int
) -> None:
    batch, channels, out = x.shape[0], x.shape[1], W.shape[0]
    x, W = contiguous(run, x), contiguous(run, W)
    b = None if b is None else contiguous(run, b)
    if _depthwise(W, groups):
        sizes = (batch, channels, out // groups, *w.numbers)
        _launch(run, "depthwise", y.size, x, W, b, y, *sizes)
        return
    kernels = W.reshape(groups, out // groups, -1)
    for images, columns, results in _blocks(run, batch, W, w, groups):
        made = y[images]
        _columns(run, x[images], columns, w)
        _products(run, kernels, columns, results)
        _exchange(run, results, b, made, out, made.shape[0], w.many)


def spread(
    run: Run, dy: Array, W: Array, b: Array | None, dx: Array, w: Windows, groups: int
) -> None:
    """The adjoint by x."""
    batch, channels, out = dx.shape[0], dx.shape[1], W.shape[0]
    dy, W = contiguous(run, dy), contiguous(run, W)
    b = None if b is None else contiguous(run, b)
    if _depthwise(W, groups):
        sizes = (batch, channels, out // groups, *w.numbers)
        _launch(run, "depthwise_spread", dx.size, dy, W, b, dx, *sizes)
        return
    kernels = W.reshape(groups, out // groups, -1)
    for images, columns, results in _blocks(run, batch, W, w, groups):
        made = dx[images]
        _results(run, dy[images], results, w)
        _products(run, kernels, results, columns, turned="a")
        _images_of(run, columns, b, made, w)


def correlate(run: Run, x: Array, dy: Array, W: Array, dW: Array, w: Windows, groups: int) -> None:
    """The adjoint by W."""
    batch, channels, out = x.shape[0], x.shape[1], W.shape[0]
    x, dy = contiguous(run, x), contiguous(run, dy)
    if _depthwise(W, groups):
        sizes = (batch, channels, out // groups, *w.numbers)
        kernel = _source("depthwise_correlate", x.dtype)
        run(kernel, min(MOST_ROWS, W.size), THREADS, x, dy, dW, *sizes)
        return
    total = dW.reshape(groups, out // groups, -1)
    part, add = total, sys.modules["cupy"].add
    for images, columns, results in _blocks(run, batch, W, w, groups):
        _columns(run, x[images], columns, w)
        _results(run, dy[images], results, w)
        if images.start:
            part = run.empty(total.shape, W.dtype) if part is total else part
        _products(run, results, columns, part, turned="b")
        if images.start:
            run(add, total, part, total)


def _convolution(op: Op[...]) -> None:
    @overrides.forward(op)
    @calls
    def forward(
        run: Run, x: Array, W: Array, b: Any = None,
        *, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1,
    ) -> Any:  # fmt: skip
        w = windows(x.shape[2:], W.shape[2:], stride, padding, dilation)
        if not _takes(groups, w, W, x, b):
            return None
        y = run.new((x.shape[0], W.shape[0], *w.places[4 - x.ndim :]), x.dtype)
        convolve(run, x, W, b, y, w, groups)
        return y, {"length": tuple(x.shape[2:])}

    @overrides.derivative(op, "x")
    @calls
    def by_input(
        run: Run, dy: Array, W: Array, length: Any, stride: Any, padding: Any, dilation: Any,
        groups: int,
    ) -> Any:  # fmt: skip
        w = windows(length, W.shape[2:], stride, padding, dilation)
        if not _takes(groups, w, W, dy):
            return None
        dx = run.new((dy.shape[0], W.shape[1] * groups, *length), dy.dtype)
        spread(run, dy, W, None, dx, w, groups)
        return dx

    @overrides.derivative(op, "W")
    @calls
    def by_kernel(
        run: Run, dy: Array, x: Array, W: Array, stride: Any, padding: Any, dilation: Any,
        groups: int,
    ) -> Any:  # fmt: skip
        w = windows(x.shape[2:], W.shape[2:], stride, padding, dilation)
        if not _takes(groups, w, W, x, dy):
            return None
        dW = run.new(W.shape, W.dtype)
        correlate(run, x, dy, W, dW, w, groups)
        return dW

    forward.__name__ = op.name
    by_input.__name__, by_kernel.__name__ = f"{op.name}_x", f"{op.name}_W"


_convolution(conv1d)
_convolution(conv2d)


@overrides.forward(conv_transpose2d)
@calls
def _transpose(
    run: Run, x: Array, W: Array, b: Any = None,
    *, stride: Any = 1, padding: Any = 0, output_padding: Any = 0, dilation: Any = 1,
    groups: int = 1,
) -> Any:  # fmt: skip
    size = tuple(W.shape[2:])
    gaps = per_axis(dilation, 2)
    options = per_axis(stride, 2), pairs(padding, size, gaps), gaps, groups
    length = transposed_length(x.shape[2:], size, options, output_padding)
    w = windows(length, size, stride, padding, dilation)
    if not _takes(groups, w, W, x, b):
        return None
    y = run.new((x.shape[0], W.shape[1] * groups, *length), x.dtype)
    spread(run, x, W, b, y, w, groups)
    return y


@overrides.derivative(conv_transpose2d, "x")
@calls
def _transpose_x(
    run: Run, dy: Array, W: Array, stride: Any, padding: Any, dilation: Any, groups: int
) -> Any:
    w = windows(dy.shape[2:], W.shape[2:], stride, padding, dilation)
    if not _takes(groups, w, W, dy):
        return None
    dx = run.new((dy.shape[0], W.shape[0], *w.places), dy.dtype)
    convolve(run, dy, W, None, dx, w, groups)
    return dx


@overrides.derivative(conv_transpose2d, "W")
@calls
def _transpose_W(
    run: Run, dy: Array, x: Array, W: Array, stride: Any, padding: Any, dilation: Any, groups: int
) -> Any:
    w = windows(dy.shape[2:], W.shape[2:], stride, padding, dilation)
    if not _takes(groups, w, W, x, dy):
        return None
    dW = run.new(W.shape, W.dtype)
    correlate(run, dy, x, W, dW, w, groups)
    return dW
