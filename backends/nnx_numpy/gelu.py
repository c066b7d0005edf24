"""gelu, and in training its slope with it: both need the same exponentials, or the same tanh."""

from __future__ import annotations

import functools
import math

import numpy as np

from nnx.calls import calls
from nnx.ops import gelu

from .index import polynomial
from .layout import gapless, like
from .table import BLOCK, overrides, pieces, scratch, zeros

# For a >= 0 the normal distribution has Phi(-a) = e^(-a^2 / 2) R(a), with a slow R. In
# t = 1 / (1 + STEP a) it is t times this polynomial; a Phi(-a) is right to 5e-9.
STEP = 0.28
_R = (
    0.11695879412272929, 0.06476942441298217, 0.27565385246926194, -0.24527267524284616,
    0.3949220397573154, -0.10703145332879199,
)  # fmt: skip
FAR = 14.5  # from where on e^(-a^2 / 2) is 0 in float32
_DENSITY = 1 / math.sqrt(2 * math.pi)
_SIGN = np.iinfo(np.int32).min
_TANH, _CUBE = math.sqrt(2 / math.pi), 0.044715
_FAR_TANH = 10.0  # from where on tanh u is 1 in float64
_portable_slope = gelu.derivatives[0].kernel


def _otherwise(xp, x, *, approximate="none"):
    slope = _portable_slope(xp, 1.0, x, approximate)
    return gelu.forward(xp, x, approximate=approximate), {"slope": slope}


@functools.lru_cache(64)
def _filled(shape, value, dtype):
    made = np.full(shape if math.prod(shape) <= BLOCK else (), value, dtype)
    made.flags.writeable = False
    return made


def _all(value, like):
    """An array of one value, as `zeros`."""
    return _filled(like.shape, value, like.dtype)


@calls(otherwise=_otherwise)
def _gelu(run, x, *, approximate="none"):
    """slope: dy / dx"""
    if not _takes(x, approximate):
        return None
    y, slope = like(run, x), like(run, x)
    _FORMS[approximate](run, x, y, slope)
    return y, {"slope": slope}


def _takes(x, approximate):
    return gapless(x) and (approximate == "tanh" or x.dtype == np.float32)


def _exact(run, x, y, *slope):
    """With q = Phi(-|x|): y = max(x, 0) - |x| q"""
    sizes, ts, es, qs = (scratch(run, x) for _ in range(4))
    signs = scratch(run, x, np.int32)
    for v, out, *w in pieces(x, y, *slope):
        a, t, e, q = sizes(v), ts(v), es(v), qs(v)
        run(np.abs, v, a)
        run(np.minimum, a, _all(FAR, a), out=a)
        run(np.multiply, a, STEP, t)
        run(np.add, t, 1, t)
        run(np.divide, 1, t, t)
        run(np.multiply, a, a, e)
        run(np.multiply, e, -0.5, e)
        run(np.exp, e, e)
        polynomial(run, t, _R, q)
        run(np.multiply, q, t, q)
        if w:
            _exact_slope(run, v, a, e, q, signs(v), *w)
        run(np.multiply, q, e, q)
        run(np.multiply, q, a, q)
        run(np.maximum, v, zeros(v), out=out)
        run(np.subtract, out, q, out)


def _exact_slope(run, v, a, e, r, sign, w):
    """With w = e r - |x| density: w below 0, else 1 - w"""
    run(np.multiply, a, _DENSITY, w)
    run(np.subtract, r, w, w)
    run(np.multiply, w, e, w)
    # 0.5 - w >= 0 with the sign of x
    run(np.subtract, 0.5, w, w)
    run(np.bitwise_and, v.view(np.int32), _SIGN, sign)
    run(np.bitwise_or, w.view(np.int32), sign, w.view(np.int32))
    run(np.add, w, 0.5, w)


def _by_tanh(run, x, y, *slope):
    squares, others = scratch(run, x), scratch(run, x)
    for v, out, *s in pieces(x, y, *slope):
        run(_tanh_piece, v, squares(v), others(v), out, *s)


def _tanh_piece(v, square, phi, out, *slope):
    """With u = TANH (x + CUBE x^3): y = x Phi, Phi = (1 + tanh u) / 2, and the slope is
    Phi + 2 x Phi (1 - Phi) du/dx.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # far out: see below
        np.multiply(v, v, square)
        np.multiply(square, _TANH * _CUBE, phi)
        np.add(phi, _TANH, phi)
        np.multiply(phi, v, phi)
        np.tanh(phi, phi)
        np.multiply(phi, 0.5, phi)
        np.add(phi, 0.5, phi)
        np.multiply(v, phi, out)
        for s in slope:
            np.multiply(square, 6 * _TANH * _CUBE, square)
            np.add(square, 2 * _TANH, square)
            np.subtract(1, phi, s)
            np.multiply(s, out, s)
            np.multiply(s, square, s)
            np.add(s, phi, s)
    last = (*slope, out)[0].reshape(-1)
    largest = last.item(last.argmax()) if last.size else 0.0
    if math.isnan(largest):  # infinity times 0, or a NaN that was given
        far = np.abs(v) > _FAR_TANH
        np.copyto(out, np.maximum(v, 0), where=far)
        for s in slope:
            np.copyto(s, v > 0, where=far)


_FORMS = {"none": _exact, "tanh": _by_tanh}
_fused = overrides.fused(gelu)(_gelu)


@_fused.value
@calls
def _gelu_alone(run, x, *, approximate="none"):
    if not _takes(x, approximate):
        return None
    y = like(run, x)
    _FORMS[approximate](run, x, y)
    return y


@_fused.d("x")
@calls(inplace=("dy",))
def _gelu_slope(run, dy, slope):
    dx = like(run, slope)
    run(np.multiply, dy, slope, dx)
    return dx
