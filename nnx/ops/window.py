"""Sliding windows, their adjoint, and padding, which the standard lacks.

`windows` and `fold` are each other's derivative, as are `pad` and a slice. Backends override them
with what their library does best; NumPy's windows are a view.
"""

from __future__ import annotations

from ..errors import OptionError, ShapeError
from ..op import op
from ._geometry import check_fit, checked, count, span
from ._options import axis_of, shape_of


@op
def windows(xp, x, *, size, axis=-1, stride=1, dilation=1):
    """y[..., i, j, ...] = x[..., stride i + dilation j, ...]: windows along axis.

    x      shape before + (length,) + after
    y      shape before + (count, size) + after
    size   entries of a window; count = floor((length - dilation (size - 1) - 1) / stride) + 1
    """
    axis, length = axis % x.ndim, x.shape[axis]
    last = stride * (count(length, size, stride, dilation) - 1) + 1
    before, pieces = (slice(None),) * axis, []
    for j in range(size):
        at = slice(dilation * j, dilation * j + last, stride)
        pieces.append(x[(*before, at, ...)])
    return xp.stack(pieces, axis=axis + 1), {"length": length, "ndim": x.ndim}


@windows.d("x")
def _(xp, dy, length, ndim, axis, stride, dilation):
    return fold(dy, length=length, axis=axis % ndim, stride=stride, dilation=dilation)


@windows.check
def _(backend, x, size, axis=-1, stride=1, dilation=1):
    axis_of("windows", axis, getattr(x, "ndim", 0))
    for name, value in (("size", size), ("stride", stride), ("dilation", dilation)):
        checked("windows", name, value, 1, 1)
    shape = tuple(x.shape)[: axis % x.ndim + 1]
    check_fit("windows", shape, (size,), (dilation,), ((0, 0),))


@op
def fold(xp, x, *, length, axis, stride=1, dilation=1):
    """y[..., k, ...] = sum of the x[..., i, j, ...] with stride i + dilation j = k.

    The adjoint of `windows`: overlapping windows add up.

    x       shape before + (count, size) + after, axis >= 0 the one of count
    y       shape before + (length,) + after
    """
    before, after = x.shape[:axis], x.shape[axis + 2 :]
    n, size = x.shape[axis], x.shape[axis + 1]
    every, last, y = (slice(None),) * axis, stride * (n - 1) + 1, None
    for j in range(size):
        piece = x[(*every, slice(None), j, ...)]
        if stride > 1:
            gaps = xp.zeros((*before, n, stride - 1, *after), dtype=x.dtype)
            piece = xp.concat([xp.expand_dims(piece, axis=axis + 1), gaps], axis=axis + 1)
            piece = xp.reshape(piece, (*before, n * stride, *after))
            piece = piece[(*every, slice(0, last), ...)]
        start = dilation * j
        widths = ((start, length - start - last), *((0, 0),) * len(after))
        piece = pad(piece, widths=widths)
        y = piece if y is None else y + piece
    return y, {"size": size}


@fold.d("x")
def _(xp, dy, size, axis, stride, dilation):
    return windows(dy, size=size, axis=axis, stride=stride, dilation=dilation)


@fold.check
def _(backend, x, length, axis, stride=1, dilation=1):
    shape = shape_of(x)
    if not 0 <= axis < len(shape) - 1:
        raise ShapeError(
            f"fold: x has shape {shape}, axis={axis}; expected an axis of windows, followed by one "
            f"of their entries"
        )
    n, size = shape[axis : axis + 2]
    if min(n, size) < 1 or count(length, size, stride, dilation) != n:
        least = stride * (n - 1) + span(size, dilation)
        raise ShapeError(
            f"fold: {n} windows of {size} entries, stride {stride} and dilation {dilation}, fill "
            f"{least} to {least + stride - 1} entries, given length={length}"
        )


@op
def pad(xp, x, /, widths, *, value=0.0):
    """y = x with entries of that value put before and after it.

    widths   (before, after) for each of the last axes
    """
    first = x.ndim - len(widths)
    for i in range(len(widths)):
        parts = []
        for j in range(2):
            if widths[i][j]:
                edge = (*x.shape[: first + i], widths[i][j], *x.shape[first + i + 1 :])
                parts.append(xp.full(edge, value, dtype=x.dtype))
            if j == 0:
                parts.append(x)
        if len(parts) > 1:
            x = xp.concat(parts, axis=first + i)
    return x


@pad.d("x")
def _(xp, dy, widths):
    return unpadded(dy, widths)


def unpadded(y, widths):
    """What lies within the padding."""
    ends = tuple(y.shape[y.ndim - len(widths) + i] - widths[i][1] for i in range(len(widths)))
    return y[(..., *(slice(w[0], end) for w, end in zip(widths, ends, strict=True)))]


@pad.check
def _(backend, x, widths, value=0.0):
    shape = shape_of(x)
    pairs = [checked("pad", "a pair of widths", w, 2, 0) for w in widths]
    if len(pairs) > len(shape):
        raise OptionError(f"pad: {len(pairs)} pairs of widths for x of shape {shape}")
