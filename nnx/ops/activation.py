"""Activations.   x, y: float arrays of any shape (relu: ints too), of one shape and dtype"""

from __future__ import annotations

import math

from ..op import op
from ._options import one_of as _one_of
from .special import erf


@op
def relu(xp, x):
    """y = max(x, 0). The derivative at 0 is 0; NaN stays NaN."""
    return xp.maximum(x, 0)


@relu.d("x")
def _(xp, dy, y):
    return dy * xp.astype(y > 0, dy.dtype)


@op
def leaky_relu(xp, x, *, slope=0.01):
    """y = x where x > 0, else slope * x. The derivative at 0 is slope.   Maas et al. (2013)"""
    return xp.where(x > 0, x, slope * x)


@leaky_relu.d("x")
def _(xp, dy, x, slope):
    return xp.where(x > 0, dy, slope * dy)


@op
def sigmoid(xp, x):
    """y = 1 / (1 + e^-x), computed from e^-|x| so that nothing overflows"""
    z = xp.exp(-xp.abs(x))
    return xp.where(x >= 0, xp.ones_like(z), z) / (1 + z)


@sigmoid.d("x")
def _(xp, dy, y):
    return dy * (y * (1 - y))


@op
def tanh(xp, x):
    """y = (e^x - e^-x) / (e^x + e^-x)"""
    return xp.tanh(x)


@tanh.d("x")
def _(xp, dy, y):
    return dy * (1 - y * y)


@op
def softplus(xp, x):
    """y = ln(1 + e^x) = max(x, 0) + ln(1 + e^-|x|)   Dugas et al. (2001)"""
    return xp.maximum(x, 0) + xp.log1p(xp.exp(-xp.abs(x)))


@softplus.d("x")
def _(xp, dy, x):
    return dy * sigmoid(x)


@op
def elu(xp, x, *, alpha=1.0):
    """y = x where x > 0, else alpha * (e^x - 1)   Clevert et al. (2016)"""
    return xp.where(x > 0, x, alpha * xp.expm1(xp.minimum(x, 0)))


@elu.d("x")
def _(xp, dy, x, y, alpha):
    return xp.where(x > 0, dy, dy * (y + alpha))


@op
def silu(xp, x):
    """y = x * sigmoid(x), 0 at -inf   Elfwing et al. (2018)"""
    return xp.maximum(x, -_FAR["sigmoid"]) * sigmoid(x)


@silu.d("x")
def _(xp, dy, x):
    s = sigmoid(x)
    return dy * (s * (1 + _near(xp, x, "sigmoid") * (1 - s)))


@op
def gelu(xp, x, *, approximate="none"):
    """y = x * Phi(x), Phi the normal distribution function; 0 at -inf   Hendrycks and Gimpel (2016)

    approximate="none"   Phi(x) = (1 + erf(x / sqrt(2))) / 2
    approximate="tanh"   Phi(x) = (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))) / 2
    """
    return xp.maximum(x, -_FAR[approximate]) * _phi(xp, x, approximate)


@gelu.d("x")
def _(xp, dy, x, approximate):
    x = _near(xp, x, approximate)
    phi = _phi(xp, x, approximate)
    if approximate == "tanh":
        density = 2 * phi * (1 - phi) * (_TANH * (1 + 3 * 0.044715 * x * x))
    else:
        density = xp.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
    return dy * (phi + x * density)


_TANH = math.sqrt(2 / math.pi)
# From where on sigmoid and Phi, of either kind, are 0 and 1, and their slopes 0, also in float64.
# There x is kept from infinity, which times 0 is NaN.
_FAR = {"sigmoid": 800.0, "none": 40.0, "tanh": 10.0}


def _near(xp, x, kind):
    return xp.minimum(xp.maximum(x, -_FAR[kind]), _FAR[kind])


def _phi(xp, x, approximate):
    if approximate == "tanh":
        return 0.5 * (1 + xp.tanh(_TANH * (x + 0.044715 * x * x * x)))
    return 0.5 * (1 + erf(x / math.sqrt(2)))


@gelu.check
def _(backend, x, approximate="none"):
    _one_of("gelu", "approximate", approximate, ("none", "tanh"))


@op
def softmax(xp, x, *, axis=-1):
    """y = e^x / sum of e^x over axis, shifted by the maximum so that nothing overflows.

    A row of -inf alone gives NaN.
    """
    e = xp.exp(x - xp.max(x, axis=axis, keepdims=True))
    return e / xp.sum(e, axis=axis, keepdims=True)


@softmax.d("x")
def _(xp, dy, y, axis):
    g = dy * y
    return g - y * xp.sum(g, axis=axis, keepdims=True)


@op
def log_softmax(xp, x, *, axis=-1):
    """y = x - ln(sum of e^x over axis)"""
    shifted = x - xp.max(x, axis=axis, keepdims=True)
    return shifted - xp.log(xp.sum(xp.exp(shifted), axis=axis, keepdims=True))


@log_softmax.d("x")
def _(xp, dy, y, axis):
    return dy - xp.exp(y) * xp.sum(dy, axis=axis, keepdims=True)
