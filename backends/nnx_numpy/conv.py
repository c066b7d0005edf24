"""Convolutions, as `patches.py` and `products.py` compute them."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnx.calls import calls
from nnx.ops import conv1d, conv2d, conv_transpose2d
from nnx.ops._geometry import pairs, per_axis
from nnx.ops.conv import transposed_length

from . import winograd
from .layout import IMAGES, ROWS, channels, gapless, in_order
from .patches import Geometry
from .products import convolve, correlate, kernels, spread
from .table import FLOATS, UNTHREADED_VECTOR, Array, Run, dot_for, ones, order_of, overrides


def _takes(*arrays: Any) -> bool:
    return all(type(a) is np.ndarray and a.dtype in FLOATS and a.size for a in arrays)


def _geometry(W: Array, stride: Any, padding: Any, dilation: Any, groups: int) -> Geometry:
    sizes = W.shape[2:]
    n = len(sizes)
    gaps = per_axis(dilation, n)
    steps, pads = per_axis(stride, n), pairs(padding, sizes, gaps)
    if n == 1:  # images of one row
        return Geometry(groups, (1, *sizes), (1, *steps), (1, *gaps), ((0, 0), *pads))
    return Geometry(groups, sizes, steps, gaps, pads)


def _flat(a: Array) -> Array:
    """Lines as images of one row."""
    return a[:, :, None] if a.ndim == 3 else a


def _order(g: Geometry, x: Array) -> tuple[int, ...]:
    """A pointwise product of images leaves them in their order."""
    return IMAGES if g.pointwise and x.flags.c_contiguous else ROWS


def _readable(run: Run, x: Array, g: Geometry, order: tuple[int, ...]) -> Array:
    """x (H, C, W, N), in memory where copies of it are fast, or contiguous if none are made."""
    if g.pointwise or (x.shape[0] > 1 and x.strides[0] != x.itemsize):
        return in_order(run, x, order)
    return x.transpose(order)


def _result(run: Run, like: Array, order: tuple[int, ...], *shape: int) -> tuple[Array, Array]:
    """A new array (N, C, ...) and the same as images (H, C, W, N)."""
    if like.ndim == 3:
        n, c, _, w = shape
        made = run.laid((n, c, w), like.dtype, tuple([i - (i > 2) for i in order if i != 2]))
    else:
        made = run.laid(shape, like.dtype, order)
    return made, _flat(made).transpose(order)


def _forward(
    run: Run, x: Array, W: Array, b: Any, stride: Any, padding: Any, dilation: Any, groups: int,
    keep: bool = False,
) -> Any:  # fmt: skip
    """y, and what was copied of x."""
    if not _takes(x, W, *() if b is None else (b,)):
        return None
    g, image = _geometry(W, stride, padding, dilation, groups), _flat(x)
    order = _order(g, image)
    seen = _readable(run, image, g, order)
    high, wide = g.places(*image.shape[2:])
    y, out = _result(run, x, order, x.shape[0], W.shape[0], high, wide)
    if winograd.fits(g, x.shape[1], W.shape[0]):
        winograd.convolve(run, seen, winograd.kernels(run, _flat(W), g), b, g, out)
        return y, None
    return y, convolve(run, seen, kernels(run, _flat(W), g), b, g, out, keep)


def _by_input(
    run: Run, dy: Array, W: Array, g: Geometry, shape: tuple[int, ...], b: Any = None
) -> Any:
    """The adjoint by x, of that shape as images, plus b."""
    image = _flat(dy)
    order = _order(g, image)
    d = in_order(run, image, order)
    dx, out = _result(run, dy, order, *shape)
    if g.stride == (1, 1) == g.gaps and winograd.fits(g, shape[1], image.shape[1]):
        turned = winograd.kernels(run, _flat(W), g, adjoint=True)
        winograd.convolve(run, d, turned, b, g.turned(), out)
        return dx
    spread(run, d, kernels(run, _flat(W), g, adjoint=True), g, out)
    if b is not None:
        run(np.add, out, b[:, None, None], out)
    return dx


def _by_kernel(run: Run, dy: Array, x: Array, W: Array, g: Geometry, copies: Any = None) -> Any:
    image = _flat(x)
    order = _order(g, image)
    seen = image.transpose(order) if copies is not None else _readable(run, image, g, order)
    d, dW = in_order(run, _flat(dy), order), run.new(W.shape, W.dtype)
    if winograd.fits(g, image.shape[1], dy.shape[1]):
        winograd.correlate(run, seen, d, g, _flat(dW))
    else:
        correlate(run, seen, d, g, _flat(dW), copies)
    return dW


def _by_bias(run: Run, dy: Array) -> Any:
    """Sums of the entries that lie together, as a product with ones; then of these."""
    if not (_takes(dy) and gapless(dy)):
        return None
    d, db = channels(dy, order_of(dy)), run.new((dy.shape[1],), dy.dtype)
    before, n, after = d.shape
    sums = run.empty((before, n), dy.dtype)
    dot = dot_for(2 * dy.size, UNTHREADED_VECTOR)
    run(dot, d.reshape(before * n, after), ones(after, dy.dtype), sums.reshape(-1))
    run(np.add.reduce, sums, axis=0, out=db)
    return db


def _convolution(op: Any) -> None:
    portable = {d.arguments[0]: d.kernel for d in op.derivatives}

    def otherwise(xp, x, W, b=None, **options):
        y, extras = op.forward(xp, x, W, b, **options)
        return y, {**extras, "copies": None}

    def by_kernel_otherwise(xp, dy, x, W, copies, stride, padding, dilation, groups):
        return portable["W"](xp, dy, x, W, stride, padding, dilation, groups)

    @calls(otherwise=otherwise)
    def forward(run, x, W, b=None, *, stride=1, padding=0, dilation=1, groups=1):
        made = _forward(run, x, W, b, stride, padding, dilation, groups, keep=True)
        return made and (made[0], {"length": tuple(x.shape[2:]), "copies": made[1]})

    fused = overrides.fused(op)(forward)

    @fused.d("x")
    @calls(otherwise=portable["x"])
    def by_input(run, dy, W, length, stride, padding, dilation, groups):
        if not _takes(dy, W):
            return None
        g = _geometry(W, stride, padding, dilation, groups)
        return _by_input(run, dy, W, g, (dy.shape[0], W.shape[1] * groups, *(1, *length)[-2:]))

    @fused.d("W")
    @calls(otherwise=by_kernel_otherwise)
    def by_kernel(run, dy, x, W, copies, stride, padding, dilation, groups):
        if not _takes(dy, x):
            return None
        return _by_kernel(run, dy, x, W, _geometry(W, stride, padding, dilation, groups), copies)

    @fused.d("b")
    @calls(otherwise=portable["b"])
    def by_bias(run, dy):
        return _by_bias(run, dy)

    forward.__name__ = op.name
    for kernel, name in ((by_input, "x"), (by_kernel, "W"), (by_bias, "b")):
        kernel.__name__ = f"{op.name}_{name}"


_convolution(conv1d)
_convolution(conv2d)


@overrides.forward(conv_transpose2d)
@calls
def _transpose(run, x, W, b=None, *, stride=1, padding=0, output_padding=0, dilation=1, groups=1):
    if not _takes(x, W, *() if b is None else (b,)):
        return None
    g = _geometry(W, stride, padding, dilation, groups)
    options = (g.stride, g.pads, g.gaps, groups)
    length = transposed_length(x.shape[2:], W.shape[2:], options, output_padding)
    return _by_input(run, x, W, g, (x.shape[0], W.shape[1] * groups, *length), b)


@overrides.derivative(conv_transpose2d, "x")
@calls
def _transpose_x(run, dy, W, stride, padding, dilation, groups):
    made = _forward(run, dy, W, None, stride, padding, dilation, groups)
    return made and made[0]


@overrides.derivative(conv_transpose2d, "W")
@calls
def _transpose_W(run, dy, x, W, stride, padding, dilation, groups):
    if not _takes(dy, x):
        return None
    return _by_kernel(run, x, dy, W, _geometry(W, stride, padding, dilation, groups))


@overrides.derivative(conv_transpose2d, "b")
@calls
def _transpose_b(run, dy):
    return _by_bias(run, dy)
