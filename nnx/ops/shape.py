"""Rearranging: nothing is computed, so each derivative is the inverse arrangement."""

from __future__ import annotations

import math

from ..errors import ShapeError
from ..op import op
from ._options import axis_of


@op
def reshape(xp, x, /, shape):
    """y = x with its elements in another shape; one length may be -1"""
    return xp.reshape(x, shape), {"was": tuple(x.shape)}


@reshape.d("x")
def _(xp, dy, was):
    return xp.reshape(dy, was)


@op
def permute_dims(xp, x, /, axes):
    """y[i_axes[0], i_axes[1], ...] = x[i_0, i_1, ...]"""
    return xp.permute_dims(x, axes)


@permute_dims.d("x")
def _(xp, dy, axes):
    n = len(axes)
    places = [a % n for a in axes]
    return xp.permute_dims(dy, tuple(places.index(i) for i in range(n)))


@op
def matrix_transpose(xp, x):
    """y = x with its last two axes exchanged"""
    return xp.matrix_transpose(x)


@matrix_transpose.d("x")
def _(xp, dy):
    return xp.matrix_transpose(dy)


@op
def expand_dims(xp, x, *, axis):
    """y = x with an axis of length 1 put in at `axis`"""
    return xp.expand_dims(x, axis=axis), {"was": tuple(x.shape)}


@expand_dims.d("x")
def _(xp, dy, was):
    return xp.reshape(dy, was)


@op
def squeeze(xp, x, /, axis):
    """y = x without the axis (or axes) of length 1 named"""
    return xp.squeeze(x, axis=axis), {"was": tuple(x.shape)}


@squeeze.d("x")
def _(xp, dy, was):
    return xp.reshape(dy, was)


@op
def broadcast_to(xp, x, /, shape):
    """y = x repeated along new axes and along axes of length 1"""
    return xp.broadcast_to(x, shape)


@broadcast_to.d("x")
def _(xp, dy):
    return dy


@op
def concat(xp, *xs, axis=0):
    """y = the xs one after another along axis"""
    lengths = tuple(x.shape[axis] for x in xs)
    return xp.concat(xs, axis=axis), {"lengths": lengths}


@concat.check
def _(backend, *xs, axis=0):
    if not xs or not all(getattr(x, "ndim", 0) for x in xs):
        raise ShapeError(f"concat: expected arrays of at least one axis, got {len(xs)} argument(s)")
    axis_of("concat", axis, xs[0].ndim)


@concat.d("xs")
def _(xp, dy, lengths, axis):
    return _pieces(dy, lengths, axis)


@op
def stack(xp, *xs, axis=0):
    """y = the xs along a new axis; all have one shape"""
    return xp.stack(xs, axis=axis), {"count": len(xs)}


@stack.check
def _(backend, *xs, axis=0):
    if not xs:
        raise ShapeError("stack: expected at least one array, got none")


@stack.d("xs")
def _(xp, dy, count, axis):
    before = (slice(None),) * (axis % dy.ndim)
    return tuple(dy[(*before, i, ...)] for i in range(count))


@op
def split(xp, x, /, sizes, *, axis=0):
    """Pieces of x along axis, a tuple.   sizes: their lengths, or the number of equal pieces"""
    return _pieces(x, _lengths(x.shape[axis], sizes), axis)


@split.d("x")
def _(xp, dy, axis):
    return xp.concat(dy, axis=axis)


@split.check
def _(backend, x, sizes, axis=0):
    axis_of("split", axis, getattr(x, "ndim", 0))
    n = x.shape[axis]
    if isinstance(sizes, int):
        if sizes < 1 or n % sizes:
            raise ShapeError(f"split: axis {axis} of length {n} has no {sizes} equal pieces")
    elif math.fsum(sizes) != n:
        raise ShapeError(
            f"split: sizes {tuple(sizes)} do not add up to {n}, the length of axis {axis}"
        )


def _lengths(n, sizes):
    return (n // sizes,) * sizes if isinstance(sizes, int) else tuple(sizes)


def _pieces(x, lengths, axis):
    before, start, pieces = (slice(None),) * (axis % x.ndim), 0, []
    for n in lengths:
        pieces.append(x[(*before, slice(start, start + n), ...)])
        start += n
    return tuple(pieces)
