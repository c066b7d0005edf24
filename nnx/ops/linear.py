"""Matrix products."""

from __future__ import annotations

import math

from ..errors import ShapeError
from ..op import op


@op
def matmul(xp, x1, x2):
    """y = x1 @ x2, over the last two axes; leading axes broadcast.

    (n, k) @ (k, m) -> (n, m);   1-D x1 is a row, 1-D x2 a column, and that axis is dropped from y
    """
    return xp.matmul(x1, x2), {"ndims": (x1.ndim, x2.ndim)}


@matmul.d("x1")
def _(xp, dy, x2, ndims):
    n1, n2 = ndims
    right = xp.expand_dims(x2, axis=1) if n2 == 1 else x2
    g = xp.matmul(_matrix(xp, dy, n1, n2), xp.matrix_transpose(right))
    return g[..., 0, :] if n1 == 1 else g


@matmul.d("x2")
def _(xp, dy, x1, ndims):
    n1, n2 = ndims
    left = xp.expand_dims(x1, axis=0) if n1 == 1 else x1
    g = xp.matmul(xp.matrix_transpose(left), _matrix(xp, dy, n1, n2))
    return g[..., 0] if n2 == 1 else g


def _matrix(xp, dy, n1, n2):
    """The gradient with the axes back that a 1-D operand dropped."""
    if n2 == 1:
        dy = xp.expand_dims(dy, axis=-1)
    return xp.expand_dims(dy, axis=-2) if n1 == 1 else dy


@matmul.check
def _(backend, x1, x2):
    shape1, shape2 = getattr(x1, "shape", ()), getattr(x2, "shape", ())
    if not shape1 or not shape2:
        raise ShapeError("matmul: needs arrays of at least one axis; multiply(...) takes numbers")
    if shape1[-1] != shape2[-min(2, len(shape2))]:
        raise ShapeError(
            f"matmul: x1 has shape {tuple(shape1)}, x2 {tuple(shape2)}; the last axis of x1 "
            f"({shape1[-1]}) must be as long as the {'second last' if len(shape2) > 1 else 'only'} "
            f"axis of x2 ({shape2[-min(2, len(shape2))]})"
        )


@op
def affine(xp, x, W, b=None):
    """y = x @ W + b.   x: (..., in), W: (in, out), b: (out,) or None, y: (..., out)"""
    rows = xp.matmul(_rows(xp, x), W)
    if b is not None:
        rows = rows + b
    return rows if x.ndim == 2 else xp.reshape(rows, (*x.shape[:-1], W.shape[1]))


@affine.d("x")
def _(xp, dy, W):
    dx = xp.matmul(_rows(xp, dy), xp.matrix_transpose(W))
    return dx if dy.ndim == 2 else xp.reshape(dx, (*dy.shape[:-1], W.shape[0]))


@affine.d("W")
def _(xp, dy, x):
    return xp.matmul(xp.matrix_transpose(_rows(xp, x)), _rows(xp, dy))


@affine.d("b")
def _(xp, dy):
    return xp.sum(_rows(xp, dy), axis=0)


def _rows(xp, x):
    """Leading axes as one: a matrix of rows."""
    return x if x.ndim == 2 else xp.reshape(x, (math.prod(x.shape[:-1]), x.shape[-1]))


@affine.check
def _(backend, x, W, b=None):
    x_shape, W_shape = tuple(getattr(x, "shape", ())), tuple(getattr(W, "shape", ()))
    if len(W_shape) != 2:
        raise ShapeError(f"affine: W has shape {W_shape}, expected (in, out)")
    if not x_shape or x_shape[-1] != W_shape[0]:
        raise ShapeError(
            f"affine: x has shape {x_shape}, expected (..., {W_shape[0]}), because W has shape "
            f"{W_shape} = (in, out)"
        )
    if b is not None and tuple(getattr(b, "shape", ())) != W_shape[1:]:
        raise ShapeError(
            f"affine: b has shape {tuple(getattr(b, 'shape', ()))}, expected {W_shape[1:]}, "
            f"because W has shape {W_shape} = (in, out)"
        )
