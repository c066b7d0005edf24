"""Normalisation: h = (x - mean) / sqrt(var + eps), then a scale gamma and a shift beta.

var is the mean of the squares (of n values, divided by n), of values less their mean, so that a
large mean costs few digits. Where there is one value h = 0; where all are equal it is 0 but for
the rounding of their mean, which counts beside sqrt(eps). gamma and beta may be None: no scale, no
shift.
"""

from __future__ import annotations

import math

from ..errors import OptionError, ShapeError
from ..op import op
from ._geometry import checked
from ._options import shape_of


@op
def batch_norm(xp, x, gamma=None, beta=None, *, eps=1e-5):
    """y = gamma h + beta, h normalised over the batch and all places.   Ioffe and Szegedy (2015)

    x             (N, C, ...), gamma, beta (C,)
    gives         y, and each channel's mean and var (C,)
    """
    axes = (0, *range(2, x.ndim))
    mean, var, h, inv = _normalised(xp, x, axes, eps)
    y = _scaled(xp, h, _by_channel(xp, gamma, x.ndim), _by_channel(xp, beta, x.ndim))
    results = y, xp.reshape(mean, (x.shape[1],)), xp.reshape(var, (x.shape[1],))
    return results, {"h": h, "inv": inv}


@batch_norm.d("x")
def _(xp, dy, gamma, h, inv):
    dy, dmean, dvar = dy
    ndim, n = dy.ndim, dy.shape[0] * math.prod(dy.shape[2:])
    g = _scaled(xp, dy, _by_channel(xp, gamma, ndim), None)
    dx = _slope(xp, g, h, inv, (0, *range(2, ndim)))
    return dx + (_by_channel(xp, dmean, ndim) + _by_channel(xp, dvar, ndim) * (2 * h / inv)) / n


@batch_norm.d("gamma")
def _(xp, dy, h):
    return xp.sum(dy[0] * h, axis=(0, *range(2, h.ndim)))


@batch_norm.d("beta")
def _(xp, dy):
    dy = dy[0]
    return xp.sum(dy, axis=(0, *range(2, dy.ndim)))


@batch_norm.check
def _(backend, x, gamma=None, beta=None, eps=1e-5):
    shape = shape_of(x)
    if len(shape) < 2:
        raise ShapeError(f"batch_norm: x has shape {shape}, expected (N, C, ...)")
    if shape[1] and not math.prod(shape):
        raise ShapeError(
            f"batch_norm: x has shape {shape}, no value to take a channel's mean of; expected a "
            f"batch of at least one"
        )
    _check_scales("batch_norm", shape, (shape[1],), eps, gamma=gamma, beta=beta)


@op
def layer_norm(xp, x, gamma=None, beta=None, *, ndim=1, eps=1e-5):
    """y = gamma h + beta, h normalised over the last axes.   Ba, Kiros and Hinton (2016)

    x             (..., *shape), gamma, beta (*shape): shape has `ndim` axes
    """
    _, _, h, inv = _normalised(xp, x, tuple(range(x.ndim - ndim, x.ndim)), eps)
    return _scaled(xp, h, gamma, beta), {"h": h, "inv": inv}


@layer_norm.d("x")
def _(xp, dy, gamma, h, inv, ndim):
    g = _scaled(xp, dy, gamma, None)
    return _slope(xp, g, h, inv, tuple(range(dy.ndim - ndim, dy.ndim)))


@layer_norm.d("gamma")
def _(xp, dy, h, ndim):
    return _over_rows(xp, dy * h, ndim)


@layer_norm.d("beta")
def _(xp, dy, ndim):
    return _over_rows(xp, dy, ndim)


@layer_norm.check
def _(backend, x, gamma=None, beta=None, ndim=1, eps=1e-5):
    _check_last_axes("layer_norm", x, ndim, eps, gamma=gamma, beta=beta)


@op
def rms_norm(xp, x, gamma=None, *, ndim=1, eps=1e-6):
    """y = gamma x / sqrt(mean of x^2 + eps), over the last axes.   Zhang and Sennrich (2019)

    x             (..., *shape), gamma (*shape): shape has `ndim` axes
    """
    axes = tuple(range(x.ndim - ndim, x.ndim))
    inv = 1 / xp.sqrt(xp.mean(x * x, axis=axes, keepdims=True) + eps)
    h = x * inv
    return _scaled(xp, h, gamma, None), {"h": h, "inv": inv}


@rms_norm.d("x")
def _(xp, dy, gamma, h, inv, ndim):
    g = _scaled(xp, dy, gamma, None)
    axes = tuple(range(dy.ndim - ndim, dy.ndim))
    return inv * (g - h * xp.mean(g * h, axis=axes, keepdims=True))


@rms_norm.d("gamma")
def _(xp, dy, h, ndim):
    return _over_rows(xp, dy * h, ndim)


@rms_norm.check
def _(backend, x, gamma=None, ndim=1, eps=1e-6):
    _check_last_axes("rms_norm", x, ndim, eps, gamma=gamma)


@op
def group_norm(xp, x, gamma=None, beta=None, *, groups, eps=1e-5):
    """y = gamma h + beta, h normalised over the channels and places of a group.   Wu and He (2018)

    x             (N, C, ...), gamma, beta (C,); groups of C / groups channels
    """
    grouped = xp.reshape(x, (x.shape[0], groups, math.prod(x.shape[1:]) // groups))
    _, _, h, inv = _normalised(xp, grouped, (2,), eps)
    h = xp.reshape(h, tuple(x.shape))
    y = _scaled(xp, h, _by_channel(xp, gamma, x.ndim), _by_channel(xp, beta, x.ndim))
    return y, {"h": h, "inv": inv}


@group_norm.d("x")
def _(xp, dy, gamma, h, inv, groups):
    shape = tuple(dy.shape)
    rows = (shape[0], groups, math.prod(shape[1:]) // groups)
    g = xp.reshape(_scaled(xp, dy, _by_channel(xp, gamma, dy.ndim), None), rows)
    return xp.reshape(_slope(xp, g, xp.reshape(h, rows), inv, (2,)), shape)


@group_norm.d("gamma")
def _(xp, dy, h):
    return xp.sum(dy * h, axis=(0, *range(2, dy.ndim)))


@group_norm.d("beta")
def _(xp, dy):
    return xp.sum(dy, axis=(0, *range(2, dy.ndim)))


@group_norm.check
def _(backend, x, gamma=None, beta=None, groups=1, eps=1e-5):
    shape = shape_of(x)
    if len(shape) < 2 or 0 in shape[1:]:
        raise ShapeError(
            f"group_norm: x has shape {shape}, expected (N, C, ...), all but N at least 1"
        )
    checked("group_norm", "groups", groups, 1, 1)
    if shape[1] % groups:
        raise ShapeError(
            f"group_norm: x has shape {shape}: {shape[1]} channels do not fall into {groups} groups"
        )
    _check_scales("group_norm", shape, (shape[1],), eps, gamma=gamma, beta=beta)


def _normalised(xp, x, axes, eps):
    """mean, var, h and 1 / sqrt(var + eps); of the axes one entry is left."""
    mean = xp.mean(x, axis=axes, keepdims=True)
    centred = x - mean
    var = xp.mean(centred * centred, axis=axes, keepdims=True)
    inv = 1 / xp.sqrt(var + eps)
    return mean, var, centred * inv, inv


def _slope(xp, g, h, inv, axes):
    """The gradient for x, from that for h: less its mean, less its part along h."""
    mean = xp.mean(g, axis=axes, keepdims=True)
    along = xp.mean(g * h, axis=axes, keepdims=True)
    return inv * (g - mean - h * along)


def _scaled(xp, h, gamma, beta):
    y = h if gamma is None else h * gamma
    return y if beta is None else y + beta


def _by_channel(xp, v, ndim):
    """One number per channel beside an array (N, C, ...)."""
    return None if v is None else xp.reshape(v, (v.shape[0], *(1,) * (ndim - 2)))


def _over_rows(xp, g, ndim):
    lead = tuple(range(g.ndim - ndim))
    return xp.sum(g, axis=lead) if lead else g


def _check_last_axes(op, x, ndim, eps, **scales):
    shape = shape_of(x)
    checked(op, "ndim", ndim, 1, 1)
    if len(shape) < ndim or 0 in shape[len(shape) - ndim :]:
        raise ShapeError(
            f"{op}: x has shape {shape}, expected at least {ndim} axes, the last {ndim} not empty"
        )
    _check_scales(op, shape, shape[len(shape) - ndim :], eps, **scales)


def _check_scales(op, shape, expected, eps, **scales):
    for name, v in scales.items():
        if v is not None and shape_of(v) != expected:
            raise ShapeError(
                f"{op}: {name} has shape {shape_of(v)}, expected {expected}, "
                f"because x has shape {shape}"
            )
    if not eps > 0:
        raise OptionError(f"{op}: eps={eps!r}, expected a small number above 0")
