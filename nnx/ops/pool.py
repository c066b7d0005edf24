"""Pooling: one number for each window of an image.

x              (N, C, H, W), float
size           of a window; stride is the size unless given. Ints, or one per axis
padding        an int, one per axis, or a pair (before, after) per axis; at most half the size
y              (N, C, H', W'), H' = floor((H + both paddings - size) / stride) + 1
"""

from __future__ import annotations

import math

from ..errors import DtypeError, OptionError, ShapeError
from ..op import op
from ._geometry import check_fit, checked, checked_padding, pairs, per_axis
from ._options import shape_of
from .window import fold, pad, unpadded, windows


@op
def max_pool2d(xp, x, *, size, stride=None, padding=0):
    """y = the largest x of each window; NaN if there is one. Padding never is.

    x: (N, C, H, W), y: (N, C, H', W'), H' = floor((H + both paddings - size) / stride) + 1

    Where several are largest, the first of them, row by row, has the gradient, as in PyTorch; of
    several NaNs the first.
    """
    sizes, steps, pads = _options(size, stride, padding)
    length = tuple(x.shape[2:])
    seen = _windows(xp, x, sizes, steps, pads, -math.inf)
    y, place = xp.max(seen, axis=-1), xp.argmax(seen, axis=-1)
    if _padded(pads):
        inside = _windows(xp, xp.ones((1, 1, *length), dtype=x.dtype), sizes, steps, pads, 0.0)
        place = xp.where(y == -math.inf, xp.argmax(inside, axis=-1), place)
    return y, {"place": place, "length": length}


@max_pool2d.d("x")
def _(xp, dy, place, length, size, stride, padding):
    sizes, steps, pads = _options(size, stride, padding)
    hit = xp.expand_dims(place, axis=-1) == xp.arange(sizes[0] * sizes[1])
    dx = xp.expand_dims(dy, axis=-1) * xp.astype(hit, dy.dtype)
    return _folded(xp, dx, sizes, steps, pads, length)


@op
def avg_pool2d(xp, x, *, size, stride=None, padding=0, count_include_pad=True):
    """y = the mean of each window, padding counted as zeros, or not at all.

    x: (N, C, H, W), y: (N, C, H', W'), H' = floor((H + both paddings - size) / stride) + 1

    count_include_pad   whether the mean is over all entries of a window or those within x
    """
    sizes, steps, pads = _options(size, stride, padding)
    total = xp.sum(_windows(xp, x, sizes, steps, pads, 0.0), axis=-1)
    length = tuple(x.shape[2:])
    counts = _counts(xp, x.dtype, length, sizes, steps, pads, count_include_pad)
    return total / counts, {"length": length}


@avg_pool2d.d("x")
def _(xp, dy, length, size, stride, padding, count_include_pad):
    sizes, steps, pads = _options(size, stride, padding)
    dx = dy / _counts(xp, dy.dtype, length, sizes, steps, pads, count_include_pad)
    dx = xp.broadcast_to(xp.expand_dims(dx, axis=-1), (*dy.shape, sizes[0] * sizes[1]))
    return _folded(xp, dx, sizes, steps, pads, length)


def _options(size, stride, padding):
    sizes = per_axis(size, 2)
    return sizes, sizes if stride is None else per_axis(stride, 2), pairs(padding, sizes, (1, 1))


def _padded(pads):
    return any(v for pair in pads for v in pair)


def _windows(xp, x, sizes, steps, pads, value):
    """(N, C, H', W', entries of a window)"""
    x = pad(x, pads, value=value) if _padded(pads) else x
    for i in range(2):
        x = windows(x, size=sizes[i], axis=2 + 2 * i, stride=steps[i])
    x = xp.permute_dims(x, (0, 1, 2, 4, 3, 5))
    return xp.reshape(x, (*x.shape[:4], sizes[0] * sizes[1]))


def _folded(xp, x, sizes, steps, pads, length):
    """The adjoint of `_windows`."""
    x = xp.reshape(x, (*x.shape[:4], *sizes))
    x = xp.permute_dims(x, (0, 1, 2, 4, 3, 5))
    for i in reversed(range(2)):
        x = fold(x, length=length[i] + sum(pads[i]),
                 axis=2 + 2 * i, stride=steps[i])  # fmt: skip
    return unpadded(x, pads)


def _counts(xp, dtype, length, sizes, steps, pads, count_include_pad):
    """How many entries each mean is over: a number, or (1, 1, H', W')."""
    if count_include_pad or not _padded(pads):
        return sizes[0] * sizes[1]
    inside = xp.ones((1, 1, *length), dtype=dtype)
    return xp.sum(_windows(xp, inside, sizes, steps, pads, 0.0), axis=-1)


def _check(op):
    @op.check
    def check(backend, x, size, stride=None, padding=0, count_include_pad=True):
        shape = shape_of(x)
        if len(shape) != 4:
            raise ShapeError(f"{op.name}: x has shape {shape}, expected (N, C, H, W)")
        sizes = checked(op.name, "size", size, 2, 1)
        steps = sizes if stride is None else checked(op.name, "stride", stride, 2, 1)
        pads = checked_padding(op.name, padding, sizes, steps, (1, 1), names=False)
        if any(2 * max(p) > k for p, k in zip(pads, sizes, strict=True)):
            raise OptionError(
                f"{op.name}: padding={padding!r} with size={size!r}, expected at most half the "
                f"size, so that each window sees some of x"
            )
        check_fit(op.name, shape, sizes, (1, 1), pads)
        if _padded(pads) and "float" not in backend.dtype_name(x):
            raise DtypeError(
                f"{op.name}: x is {backend.dtype_name(x)} and padded, expected floats: "
                f"nnx.asarray(x, 'float32')"
            )


_check(max_pool2d)
_check(avg_pool2d)
