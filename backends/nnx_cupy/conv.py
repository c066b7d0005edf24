"""Convolutions: windows as columns of a matrix, times the kernels; depthwise ones without.

A batch is taken in blocks of images whose matrices fit into SCRATCH.

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
from .table import Array, Run, contiguous, floats, overrides, stacked

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


def _turned(a: Array) -> Array:
    return sys.modules["cupy"].transpose(a, (0, 2, 1))


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


def _convolve(
    run: Run, a: Array, W: Array, b: Array | None, y: Array, w: Windows, groups: int,
    back: bool = False,
) -> None:  # fmt: skip
    """y = b + the convolution of a; or `back`, the adjoint by its images."""
    images, out = y if back else a, W.shape[0]
    a, W = contiguous(run, a), contiguous(run, W)
    b = None if b is None else contiguous(run, b)
    if _depthwise(W, groups):
        sizes = (*images.shape[:2], out // groups, *w.numbers)
        _launch(run, "depthwise_spread" if back else "depthwise", y.size, a, W, b, y, *sizes)
        return
    kernels = W.reshape(groups, out // groups, -1)
    for at, columns, results in _blocks(run, images.shape[0], W, w, groups):
        if back:
            _results(run, a[at], results, w)
            run(stacked, _turned(kernels), results, out=columns)
            _images_of(run, columns, b, y[at], w)
        else:
            _columns(run, a[at], columns, w)
            run(stacked, kernels, columns, out=results)
            _exchange(run, results, b, y[at], out, at.stop - at.start, w.many)


def _correlate(run: Run, x: Array, dy: Array, dW: Array, w: Windows, groups: int) -> None:
    """The adjoint by the kernels, of images x."""
    out = dW.shape[0]
    x, dy = contiguous(run, x), contiguous(run, dy)
    if _depthwise(dW, groups):
        sizes = (*x.shape[:2], out // groups, *w.numbers)
        kernel = _source("depthwise_correlate", x.dtype)
        run(kernel, min(MOST_ROWS, dW.size), THREADS, x, dy, dW, *sizes)
        return
    total = dW.reshape(groups, out // groups, -1)
    part, add = total, sys.modules["cupy"].add
    for at, columns, results in _blocks(run, x.shape[0], dW, w, groups):
        _columns(run, x[at], columns, w)
        _results(run, dy[at], results, w)
        if at.start:
            part = run.empty(total.shape, dW.dtype) if part is total else part
        run(stacked, results, _turned(columns), out=part)
        if at.start:
            run(add, total, part, total)


def _made(
    run: Run, shape: tuple[int, ...], a: Array, W: Array, b: Any, w: Windows, groups: int,
    back: bool = False,
) -> Array | None:  # fmt: skip
    """As `_convolve`, into a new array."""
    if not _takes(groups, w, W, a, b):
        return None
    y = run.new(shape, a.dtype)
    _convolve(run, a, W, b, y, w, groups, back)
    return y


def _by_kernel(op: Op[...], back: bool) -> None:
    """The derivative by W.   back: whether the images are what the op makes"""

    @overrides.derivative(op, "W")
    @calls
    def by_kernel(
        run: Run, dy: Array, x: Array, W: Array, stride: Any, padding: Any, dilation: Any,
        groups: int,
    ) -> Any:  # fmt: skip
        images, results = (dy, x) if back else (x, dy)
        w = windows(images.shape[2:], W.shape[2:], stride, padding, dilation)
        if not _takes(groups, w, W, x, dy):
            return None
        dW = run.new(W.shape, W.dtype)
        _correlate(run, images, results, dW, w, groups)
        return dW

    by_kernel.__name__ = f"{op.name}_W"


def _convolution(op: Op[...]) -> None:
    @overrides.forward(op)
    @calls
    def forward(
        run: Run, x: Array, W: Array, b: Any = None,
        *, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1,
    ) -> Any:  # fmt: skip
        w = windows(x.shape[2:], W.shape[2:], stride, padding, dilation)
        shape = (x.shape[0], W.shape[0], *w.places[4 - x.ndim :])
        y = _made(run, shape, x, W, b, w, groups)
        return None if y is None else (y, {"length": tuple(x.shape[2:])})

    @overrides.derivative(op, "x")
    @calls
    def by_input(
        run: Run, dy: Array, W: Array, length: Any, stride: Any, padding: Any, dilation: Any,
        groups: int,
    ) -> Any:  # fmt: skip
        w = windows(length, W.shape[2:], stride, padding, dilation)
        shape = (dy.shape[0], W.shape[1] * groups, *length)
        return _made(run, shape, dy, W, None, w, groups, back=True)

    forward.__name__, by_input.__name__ = op.name, f"{op.name}_x"
    _by_kernel(op, back=False)


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
    shape = (x.shape[0], W.shape[1] * groups, *length)
    return _made(run, shape, x, W, b, w, groups, back=True)


@overrides.derivative(conv_transpose2d, "x")
@calls
def _transpose_x(
    run: Run, dy: Array, W: Array, stride: Any, padding: Any, dilation: Any, groups: int
) -> Any:
    w = windows(dy.shape[2:], W.shape[2:], stride, padding, dilation)
    return _made(run, (dy.shape[0], W.shape[0], *w.places), dy, W, None, w, groups)


_by_kernel(conv_transpose2d, back=True)
