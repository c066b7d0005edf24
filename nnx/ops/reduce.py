"""Reductions.   axis: an int, a tuple of ints, or None for all; keepdims keeps axes of length 1."""

from __future__ import annotations

import math

from ..op import op


def _spread(xp, dy, shape, axis, keepdims):
    """Repeat a reduction's gradient along the axes that were reduced."""
    return xp.broadcast_to(_keep(xp, dy, shape, axis, keepdims), shape)


def _keep(xp, y, shape, axis, keepdims):
    """A reduction's result with its reduced axes put back as axes of length 1."""
    if keepdims:
        return y
    axes = _axes(axis, len(shape))
    return xp.reshape(y, tuple(1 if i in axes else n for i, n in enumerate(shape)))


def _axes(axis, ndim):
    if axis is None:
        return tuple(range(ndim))
    return tuple(a % ndim for a in (axis if isinstance(axis, tuple) else (axis,)))


def _count(shape, axis):
    return math.prod(shape[a] for a in _axes(axis, len(shape)))


@op
def sum(xp, x, *, axis=None, keepdims=False):
    """y = sum of x over axis"""
    return xp.sum(x, axis=axis, keepdims=keepdims), {"shape": tuple(x.shape)}


@sum.d("x")
def _(xp, dy, shape, axis, keepdims):
    return _spread(xp, dy, shape, axis, keepdims)


@op
def mean(xp, x, *, axis=None, keepdims=False):
    """y = sum of x over axis / number of elements summed; NaN if there are none"""
    return xp.mean(x, axis=axis, keepdims=keepdims), {"shape": tuple(x.shape)}


@mean.d("x")
def _(xp, dy, shape, axis, keepdims):
    return _spread(xp, dy / _divisor(shape, axis), shape, axis, keepdims)


def _divisor(shape, axis):
    """Elements per mean, at least 1: an empty mean has no element to give a gradient to."""
    return _count(shape, axis) or 1


@op
def max(xp, x, *, axis=None, keepdims=False):
    """y = largest x along axis. Elements that tie for it share the gradient equally."""
    return xp.max(x, axis=axis, keepdims=keepdims)


@max.d("x")
def _(xp, dy, x, y, axis, keepdims):
    return _share(xp, dy, x, y, axis, keepdims)


@op
def min(xp, x, *, axis=None, keepdims=False):
    """y = smallest x along axis. Elements that tie for it share the gradient equally."""
    return xp.min(x, axis=axis, keepdims=keepdims)


@min.d("x")
def _(xp, dy, x, y, axis, keepdims):
    return _share(xp, dy, x, y, axis, keepdims)


def _share(xp, dy, x, y, axis, keepdims):
    shape = tuple(x.shape)
    hit = xp.astype(x == _keep(xp, y, shape, axis, keepdims), dy.dtype)
    ties = xp.sum(hit, axis=axis, keepdims=True)
    return hit / ties * _keep(xp, dy, shape, axis, keepdims)


@op
def var(xp, x, *, axis=None, correction=0, keepdims=False):
    """y = sum of (x - mean)^2 / (n - correction), n the number of elements along axis.

    Infinite or NaN where n <= correction; the derivative is NaN there.
    """
    return xp.var(x, axis=axis, correction=correction, keepdims=keepdims)


@var.d("x")
def _(xp, dy, x, axis, correction, keepdims):
    shape = tuple(x.shape)
    centred = x - xp.mean(x, axis=axis, keepdims=True)
    freedom = _count(shape, axis) - correction
    scale = 2 / freedom if freedom > 0 else math.nan
    return centred * (scale * _keep(xp, dy, shape, axis, keepdims))


@op
def logsumexp(xp, x, *, axis=None, keepdims=False):
    """y = ln(sum of e^x over axis), shifted by the maximum so that nothing overflows

    Of -inf alone it is -inf, and the derivative 0.
    """
    top = xp.max(x, axis=axis, keepdims=True)
    top = xp.where(xp.isfinite(top), top, xp.zeros_like(top))
    y = xp.log(xp.sum(xp.exp(x - top), axis=axis, keepdims=True)) + top
    return y if keepdims else xp.reshape(y, _reduced(tuple(x.shape), axis))


def _reduced(shape, axis):
    axes = _axes(axis, len(shape))
    return tuple(n for i, n in enumerate(shape) if i not in axes)


@logsumexp.d("x")
def _(xp, dy, x, y, axis, keepdims):
    shape = tuple(x.shape)
    top = _keep(xp, y, shape, axis, keepdims)
    top = xp.where(top == -math.inf, xp.zeros_like(top), top)
    return xp.exp(x - top) * _keep(xp, dy, shape, axis, keepdims)
