"""Reading at indices, and its adjoint, adding at indices, which the standard lacks.

Each is the other's derivative. The portable adjoints multiply by a one-hot matrix, which every
library can do; backends override them with what their library does best.
"""

from __future__ import annotations

import math

from ..op import op
from ._options import axis_of


@op
def getitem(xp, x, /, index):
    """y = x[index].   index: ints, slices, None, Ellipsis, int arrays, or a tuple of these"""
    return x[_whole(index, x.ndim)], {"shape": tuple(x.shape)}


@getitem.d("x")
def _(xp, dy, index, shape):
    return getitem_adjoint(dy, index=index, shape=shape)


@op
def getitem_adjoint(xp, x, *, index, shape):
    """y = zeros of `shape` with x added at index (repeated indices add up)"""
    places = xp.reshape(xp.arange(math.prod(shape)), shape)[_whole(index, len(shape))]
    flat = _added(xp, xp.reshape(x, (-1, 1)), xp.reshape(places, (-1,)), math.prod(shape))
    return xp.reshape(flat, shape)


@getitem_adjoint.d("x")
def _(xp, dy, index):
    return dy[_whole(index, dy.ndim)]


def _whole(index, ndim):
    """The index with the Ellipsis that NumPy takes as read and the standard wants written."""
    parts = index if isinstance(index, tuple) else (index,)
    if any(part is ... for part in parts):
        return parts
    return (*parts, ...) if len([part for part in parts if part is not None]) < ndim else parts


@op
def take(xp, x, indices, *, axis=0):
    """y = the entries of x at `indices` along axis.

    indices   ints of any shape, a constant; negative ones count from the end
    y         x.shape[:axis] + indices.shape + the rest
    """
    axis = axis % x.ndim
    y = xp.take(x, xp.reshape(indices, (-1,)), axis=axis)
    y = xp.reshape(y, (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))
    return y, {"size": x.shape[axis], "ndim": x.ndim}


@take.check
def _(backend, x, indices, axis=0):
    axis_of("take", axis, getattr(x, "ndim", 0))


@take.d("x")
def _(xp, dy, indices, size, ndim, axis):
    return scatter_add(dy, indices, size=size, axis=axis % ndim)


@op
def scatter_add(xp, x, indices, *, size, axis=0):
    """y[..., i, ...] = sum of the x whose index is i: the adjoint of `take`; axis >= 0.

    x         shape before + indices.shape + after
    indices   ints of any shape, a constant; negative ones count from the end
    y         shape before + (size,) + after
    """
    before, after = x.shape[:axis], x.shape[axis + indices.ndim :]
    rows, n = math.prod(before), math.prod(indices.shape)
    columns = math.prod(after)
    by_index = xp.permute_dims(xp.reshape(x, (rows, n, columns)), (1, 0, 2))
    y = _added(xp, xp.reshape(by_index, (n, rows * columns)), xp.reshape(indices, (n,)), size)
    y = xp.permute_dims(xp.reshape(y, (size, rows, columns)), (1, 0, 2))
    return xp.reshape(y, (*before, size, *after))


@scatter_add.d("x")
def _(xp, dy, indices, axis):
    return take(dy, indices, axis=axis)


def _added(xp, rows, indices, size):
    """Row i of the result is the sum of the rows whose index is i."""
    at, place = xp.expand_dims(indices, axis=0), xp.expand_dims(xp.arange(size), axis=1)
    hit = (place == at) | (place - size == at)
    return xp.matmul(xp.astype(hit, rows.dtype), rows)
