"""Images of another size."""

from __future__ import annotations

from ..errors import OptionError, ShapeError
from ..op import op
from ._geometry import checked, per_axis
from ._options import one_of, shape_of
from .index import scatter_add, take


@op
def upsample(xp, x, *, scale=None, size=None, mode="nearest", align_corners=False):
    """y[n, c, i, j] = x at (h, w), where i and j lie in x.

    x               (N, C, H, W); y: (N, C, H', W')
    scale, size     H' = scale H, or size = (H', W'): ints, or one per axis
    mode            "nearest": the entry at floor(i H / H')
                    "bilinear": between the two nearest along each axis, by distance
    align_corners   of "bilinear". False: pixels are squares, h = (i + 1/2) H / H' - 1/2, not below
                    0. True: they are points, corner on corner, h = i (H - 1) / (H' - 1)
    """
    length, dtype = tuple(x.shape[2:]), x.dtype
    for i in range(2):
        new = _new_length(length[i], i, scale, size)
        parts = []
        for places, weights in _parts(length[i], new, mode, align_corners):
            part = take(x, xp.asarray(places), axis=2 + i)
            parts.append(part if weights is None else part * _along(xp, weights, dtype, i))
        x = _sum(parts)
    return x, {"length": length}


@upsample.d("x")
def _(xp, dy, length, scale, size, mode, align_corners):
    dtype = dy.dtype
    for i in range(2):
        new = _new_length(length[i], i, scale, size)
        parts = []
        for places, weights in _parts(length[i], new, mode, align_corners):
            part = dy if weights is None else dy * _along(xp, weights, dtype, i)
            parts.append(scatter_add(part, xp.asarray(places), size=length[i], axis=2 + i))
        dy = _sum(parts)
    return dy


def _sum(parts):
    return parts[0] if len(parts) == 1 else parts[0] + parts[1]


def _new_length(length, i, scale, size):
    return per_axis(size, 2)[i] if scale is None else length * per_axis(scale, 2)[i]


def _parts(length, new, mode, align_corners):
    """Of which entries a line of the new length is the sum, and with which weights."""
    if mode == "nearest":
        return [([i * length // new for i in range(new)], None)]
    if align_corners:
        at = [i * (length - 1) / max(new - 1, 1) for i in range(new)]
    else:
        at = [max((i + 0.5) * length / new - 0.5, 0.0) for i in range(new)]
    low = [min(int(h), length - 1) for h in at]
    high = [min(i + 1, length - 1) for i in low]
    part = [h - i for h, i in zip(at, low, strict=True)]
    return [(low, [1 - t for t in part]), (high, part)]


def _along(xp, weights, dtype, i):
    """One number for each place along spatial axis i."""
    return xp.reshape(xp.asarray(weights, dtype=dtype), (-1, 1) if i == 0 else (-1,))


@upsample.check
def _(backend, x, scale=None, size=None, mode="nearest", align_corners=False):
    shape = shape_of(x)
    if len(shape) != 4 or 0 in shape[2:]:
        raise ShapeError(f"upsample: x has shape {shape}, expected (N, C, H, W)")
    if (scale is None) == (size is None):
        raise OptionError(f"upsample: scale={scale!r} and size={size!r}, expected one of the two")
    name, value = ("scale", scale) if size is None else ("size", size)
    checked("upsample", name, value, 2, 1)
    one_of("upsample", "mode", mode, ("nearest", "bilinear"))
    if align_corners and mode == "nearest":
        raise OptionError("upsample: align_corners=True is for mode='bilinear'")
