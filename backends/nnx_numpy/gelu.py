"""gelu, whose slope is computed with it: both need the same exponentials, or the same tanh."""

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
_portable_slope = gelu.derivatives[0].kernel


def _otherwise(xp, x, *, approximate="none"):
    slope = _portable_slope(xp, 1.0, x, approximate)
    return gelu.forward(xp, x, approximate=approximate), {"slope": slope}


@functools.lru_cache(64)
def _far(shape):
    made = np.full(shape if math.prod(shape) <= BLOCK else (), FAR, np.float32)
    made.flags.writeable = False
    return made


@calls(otherwise=_otherwise)
def _gelu(run, x, *, approximate="none"):
    """slope: dy / dx"""
    if not gapless(x) or (approximate == "none" and x.dtype != np.float32):
        return None
    y, slope = like(run, x), like(run, x)
    if approximate == "tanh":
        _by_tanh(run, x, y, slope)
    else:
        _exact(run, x, y, slope)
    return y, {"slope": slope}


def _exact(run, x, y, slope):
    """With q = Phi(-|x|): y = max(x, 0) - |x| q; the slope is w = q - |x| density below 0, else
    1 - w.
    """
    sizes, ts, es, qs = (scratch(run, x) for _ in range(4))
    signs = scratch(run, x, np.int32)
    for v, out, w in pieces(x, y, slope):
        a, t, e, q, sign = sizes(v), ts(v), es(v), qs(v), signs(v)
        run(np.abs, v, a)
        run(np.minimum, a, _far(a.shape), out=a)
        run(np.multiply, a, STEP, t)
        run(np.add, t, 1, t)
        run(np.divide, 1, t, t)
        run(np.multiply, a, a, e)
        run(np.multiply, e, -0.5, e)
        run(np.exp, e, e)
        polynomial(run, t, _R, q)
        run(np.multiply, q, t, q)
        run(np.multiply, a, _DENSITY, w)
        run(np.subtract, q, w, w)
        run(np.multiply, w, e, w)
        run(np.multiply, q, e, q)
        run(np.multiply, q, a, q)
        run(np.maximum, v, zeros(v), out=out)
        run(np.subtract, out, q, out)
        # 0.5 - w >= 0 with the sign of x
        run(np.subtract, 0.5, w, w)
        run(np.bitwise_and, v.view(np.int32), _SIGN, sign)
        run(np.bitwise_or, w.view(np.int32), sign, w.view(np.int32))
        run(np.add, w, 0.5, w)


def _by_tanh(run, x, y, slope):
    """With u = TANH (x + CUBE x^3): y = x Phi, Phi = (1 + tanh u) / 2, and the slope is
    Phi + 2 x Phi (1 - Phi) du/dx.
    """
    squares, others = scratch(run, x), scratch(run, x)
    for v, out, s in pieces(x, y, slope):
        square, phi = squares(v), others(v)
        run(np.multiply, v, v, square)
        run(np.multiply, square, _TANH * _CUBE, phi)
        run(np.add, phi, _TANH, phi)
        run(np.multiply, phi, v, phi)
        run(np.tanh, phi, phi)
        run(np.multiply, phi, 0.5, phi)
        run(np.add, phi, 0.5, phi)
        run(np.multiply, square, 6 * _TANH * _CUBE, square)
        run(np.add, square, 2 * _TANH, square)
        run(np.multiply, v, phi, out)
        run(np.subtract, 1, phi, s)
        run(np.multiply, s, out, s)
        run(np.multiply, s, square, s)
        run(np.add, s, phi, s)


@overrides.fused(gelu)(_gelu).d("x")
@calls(inplace=("dy",))
def _gelu_slope(run, dy, slope):
    dx = like(run, slope)
    run(np.multiply, dy, slope, dx)
    return dx
