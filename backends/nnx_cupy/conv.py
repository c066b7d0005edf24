"""Convolutions as matrix products: kernels times what the windows see, for all images at once.

What the windows see takes size * size times the memory of the images: above SCRATCH bytes, some
images are done after the others.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from typing import Any

from nnx.calls import calls
from nnx.ops import conv1d, conv2d, conv_transpose2d
from nnx.ops._geometry import count, pairs, per_axis
from nnx.ops.conv import transposed_length

from .launch import THREADS, Source, blocks_for, blocks_of_rows
from .table import Array, Run, contiguous, overrides, plain

SCRATCH = 1 << 28
_source = Source("conv.cu")


class Convolution:
    """The sizes of one, in two dimensions: of one dimension images are one high.

    image   of x: (channels, height, width)
    """

    def __init__(
        self, length: tuple[int, ...], W: Array, stride: Any, padding: Any, dilation: Any,
        groups: int,
    ) -> None:  # fmt: skip
        sizes = tuple(W.shape[2:])
        dilations = per_axis(dilation, len(sizes))
        pads, strides = pairs(padding, sizes, dilations), per_axis(stride, len(sizes))
        self.places = tuple(
            count(length[i] + sum(pads[i]), sizes[i], strides[i], dilations[i])
            for i in range(len(sizes))
        )
        self.groups, self.out, self.channels = groups, W.shape[0], W.shape[1] * groups
        self.kernel = (groups, self.out // groups, math.prod(W.shape[1:]))  # a matrix a group
        before = tuple(p[0] for p in pads)
        options = (length, sizes, self.places, strides, before, dilations)
        ones = (1, 1, 1, 1, 0, 1)
        self.options = [
            v for own, one in zip(options, ones, strict=True)
            for v in ((one, *own) if len(sizes) == 1 else own)
        ]  # fmt: skip
        self.lines = self.channels * math.prod(sizes)

    def parts(self, n: int, itemsize: int) -> Iterator[tuple[int, int]]:
        """Images that are done together: from, to."""
        of_one = self.lines * math.prod(self.places) * itemsize
        together = max(1, SCRATCH // max(of_one, 1))
        return ((i, min(i + together, n)) for i in range(0, n, together))

    def columns(self, run: Run, x: Array) -> Array:
        """What the windows see of these images: (groups, lines of a group, images x places)."""
        n, places = x.shape[0], math.prod(self.places)
        made = run.empty((self.groups, self.lines // self.groups, n * places), x.dtype)
        blocks = blocks_for(self.channels * n * places)
        kernel = _source("im2col", x.dtype)
        run(kernel, blocks, THREADS, x, made, n, self.channels, *self.options)
        return made

    def images(self, run: Run, columns: Array, bias: Array | None, x: Array) -> None:
        """The adjoint: x is where the windows' entries come together."""
        kernel, n = _source("col2im", x.dtype), x.shape[0]
        run(kernel, blocks_for(x.size), THREADS, columns, bias, x, n, self.channels, *self.options)

    def rows(self, run: Run, y: Array) -> Array:
        """Results (N, out, places) as matrices (groups, out of a group, images x places)."""
        n, places = y.shape[0], math.prod(self.places)
        made = run.empty((self.groups, self.out // self.groups, n * places), y.dtype)
        kernel = _source("from_images", y.dtype)
        run(kernel, *blocks_of_rows(n * self.out, places), y, made, n, self.out, places)
        return made


def _product(run: Run, a: Array, b: Array, y: Array) -> None:
    """y = a @ b, group by group. CuPy copies stacks of matrices that do not lie in order."""
    if a.shape[0] == 1:
        a, b, y = a[0], b[0], y[0]
    run(sys.modules["cupy"].matmul, a, b, out=y)


def _turned(a: Array) -> Array:
    return sys.modules["cupy"].permute_dims(a, (0, 2, 1))


def _convolved(run: Run, x: Array, W: Array, b: Any, at: Convolution) -> Array:
    n, places = x.shape[0], math.prod(at.places)
    y, kernels = run.new((n, at.out, *at.places), x.dtype), W.reshape(at.kernel)
    for i, j in at.parts(n, x.itemsize):
        columns = at.columns(run, x[i:j])
        rows = run.empty((at.groups, at.kernel[1], (j - i) * places), x.dtype)
        _product(run, kernels, columns, rows)
        kernel, blocks = _source("to_images", x.dtype), blocks_of_rows((j - i) * at.out, places)
        run(kernel, *blocks, rows, b, y[i:j], j - i, at.out, places)
    return y


def _spread(
    run: Run, dy: Array, W: Array, b: Any, length: tuple[int, ...], at: Convolution
) -> Array:
    """The adjoint of `_convolved` by x, which has that length, plus b."""
    dx, kernels = run.new((dy.shape[0], at.channels, *length), dy.dtype), W.reshape(at.kernel)
    for i, j in at.parts(dy.shape[0], dy.itemsize):
        rows = at.rows(run, dy[i:j])
        columns = run.empty((at.groups, at.kernel[2], rows.shape[2]), dy.dtype)
        _product(run, _turned(kernels), rows, columns)
        at.images(run, columns, b, dx[i:j])
    return dx


def _correlated(run: Run, x: Array, dy: Array, W: Array, at: Convolution) -> Array:
    """The adjoint of `_convolved` by W."""
    dW = run.new(W.shape, x.dtype)
    total = dW.reshape(at.kernel)
    for i, j in at.parts(x.shape[0], x.itemsize):
        columns, rows = at.columns(run, x[i:j]), at.rows(run, dy[i:j])
        if i == 0:
            _product(run, rows, _turned(columns), total)
        else:
            part = run.empty(at.kernel, x.dtype)
            _product(run, rows, _turned(columns), part)
            run(sys.modules["cupy"].add, total, part, total)
    return dW


def _takes(x: Array, W: Array, b: Any = None) -> bool:
    return plain(x) and plain(W) and (b is None or plain(b))


def _define(op: Any) -> None:
    """conv1d and conv2d are the same but for the axes."""

    @overrides.forward(op)
    @calls
    def forward(
        run: Run, x: Array, W: Array, b: Any = None,
        *, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1,
    ) -> Any:  # fmt: skip
        if not _takes(x, W, b):
            return None
        at = Convolution(x.shape[2:], W, stride, padding, dilation, groups)
        return _convolved(run, x, W, b, at), {"length": x.shape[2:]}

    @overrides.derivative(op, "x")
    @calls
    def by_x(
        run: Run, dy: Array, W: Array, length: Any, stride: Any, padding: Any, dilation: Any,
        groups: int,
    ) -> Any:  # fmt: skip
        if not _takes(W, W) or not dy.size:
            return None
        at = Convolution(length, W, stride, padding, dilation, groups)
        return _spread(run, contiguous(run, dy), W, None, length, at)

    @overrides.derivative(op, "W")
    @calls
    def by_W(
        run: Run, dy: Array, x: Array, W: Array, stride: Any, padding: Any, dilation: Any,
        groups: int,
    ) -> Any:  # fmt: skip
        if not _takes(x, W):
            return None
        at = Convolution(x.shape[2:], W, stride, padding, dilation, groups)
        return _correlated(run, x, contiguous(run, dy), W, at)

    forward.__name__, by_x.__name__, by_W.__name__ = op.name, f"{op.name}_x", f"{op.name}_W"


_define(conv1d)
_define(conv2d)


@overrides.forward(conv_transpose2d)
@calls
def _conv_transpose2d(
    run: Run, x: Array, W: Array, b: Any = None, *, stride: Any = 1, padding: Any = 0,
    output_padding: Any = 0, dilation: Any = 1, groups: int = 1,
) -> Any:  # fmt: skip
    if not _takes(x, W, b):
        return None
    sizes, gaps = tuple(W.shape[2:]), per_axis(dilation, 2)
    options = per_axis(stride, 2), pairs(padding, sizes, gaps), gaps, groups
    length = transposed_length(tuple(x.shape[2:]), sizes, options, output_padding)
    return _spread(run, x, W, b, length, Convolution(length, W, stride, padding, dilation, groups))


@overrides.derivative(conv_transpose2d, "x")
@calls
def _conv_transpose2d_x(
    run: Run, dy: Array, W: Array, stride: Any, padding: Any, dilation: Any, groups: int
) -> Any:
    if not _takes(W, W) or not dy.size:
        return None
    at = Convolution(dy.shape[2:], W, stride, padding, dilation, groups)
    return _convolved(run, contiguous(run, dy), W, None, at)


@overrides.derivative(conv_transpose2d, "W")
@calls
def _conv_transpose2d_W(
    run: Run, dy: Array, x: Array, W: Array, stride: Any, padding: Any, dilation: Any, groups: int
) -> Any:
    if not _takes(x, W):
        return None
    at = Convolution(dy.shape[2:], W, stride, padding, dilation, groups)
    return _correlated(run, contiguous(run, dy), x, W, at)
