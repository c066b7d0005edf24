"""Compiled functions of one number, float32 or float64, which loops in other modules inline.

Written out, because calls of the C library are not vectorised. numba compiles anew only what is in
a file that has changed: after a change here, touch loops.py.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from .compiler import FUSE, compiled

_FUSED: Any = {"fastmath": FUSE, "error_model": "numpy"}


def _power(x) -> Any:
    """2^n and q with e^x = 2^n (1 + q), x <= 0 (or a little above): n = round(x / ln 2).

    Adding 1.5 * 2^23 (2^52) leaves n in the low bits. q by the polynomial of Cephes' expf in
    float32, by Taylor's in float64: |x - n ln 2| <= ln(2) / 2. Below the normal numbers 2^n is 0.
    """
    raise NotImplementedError


@overload(_power, jit_options=_FUSED)
def _(x):
    return _power32 if x == types.float32 else _power64


def _power32(x):
    f, i = np.float32, np.int32
    a = f(-87.3) if x < f(-87.3) else x
    t = a * f(1.44269504) + f(12582912.0)
    n = t - f(12582912.0)
    r = (a - n * f(0.693359375)) - n * f(-2.12194440e-4)
    p = f(1.9875691500e-4)
    p = p * r + f(1.3981999507e-3)
    p = p * r + f(8.3334519073e-3)
    p = p * r + f(4.1665795894e-2)
    p = p * r + f(1.6666665459e-1)
    p = p * r + f(5.0000001201e-1)
    power = i((f(t).view(np.int32) << i(23)) + i(0x3F800000)).view(np.float32)
    return f(0) if x < f(-87.3) else power, p * (r * r) + r


def _power64(x):
    a = -708.3 if x < -708.3 else x
    t = a * 1.4426950408889634 + 6755399441055744.0
    n = t - 6755399441055744.0
    r = (a - n * 6.93147180369123816490e-01) - n * 1.90821492927058770002e-10
    p = 1 / 6227020800
    p = p * r + 1 / 479001600
    p = p * r + 1 / 39916800
    p = p * r + 1 / 3628800
    p = p * r + 1 / 362880
    p = p * r + 1 / 40320
    p = p * r + 1 / 5040
    p = p * r + 1 / 720
    p = p * r + 1 / 120
    p = p * r + 1 / 24
    p = p * r + 1 / 6
    p = p * r + 0.5
    bits = (np.float64(t).view(np.int64) << 52) + 0x3FF0000000000000
    power = np.int64(bits).view(np.float64)
    return 0.0 if x < -708.3 else power, p * (r * r) + r


@compiled()
def above(x, far):
    """x, -far if it is less: infinity times 0 would be NaN"""
    of = type(x)
    return of(-far) if x < of(-far) else x


@compiled()
def within(x, far):
    """x between -far and far; NaN stays NaN"""
    of = type(x)
    a = above(x, far)
    return of(far) if a > of(far) else a


@compiled(fastmath=FUSE)
def exp(x):
    """e^x for x <= 0 (or a little above)"""
    of = type(x)
    power, q = _power(x)
    return power * (of(1) + q)


@compiled(fastmath=FUSE)
def tanh_of(x):
    """-u / (2 + u) with x's sign, u = e^(-2 |x|) - 1"""
    of = type(x)
    power, q = _power(of(-2) * abs(x))
    u = power * q + (power - of(1))
    y = u / (of(-2) - u)
    return -y if x < of(0) else y


def _series(u) -> Any:
    """1 + u / 3 + u^2 / 5 + ... for u <= 1/9"""
    raise NotImplementedError


@overload(_series, jit_options=_FUSED)
def _(u):
    return _series32 if u == types.float32 else _series64


def _series32(u):
    f = np.float32
    p = f(1 / 17) * u + f(1 / 15)
    p = p * u + f(1 / 13)
    p = p * u + f(1 / 11)
    p = p * u + f(1 / 9)
    p = p * u + f(1 / 7)
    p = p * u + f(1 / 5)
    p = p * u + f(1 / 3)
    return p * u + f(1)


def _series64(u):
    p = 1 / 37
    for k in range(35, 0, -2):
        p = p * u + 1 / k
    return p


def erf(x) -> Any:
    """In float32 a quotient of polynomials, as in nnx_numpy; in float64 the C library's."""
    raise NotImplementedError


@overload(erf, jit_options=_FUSED)
def _(x):
    return _erf32 if x == types.float32 else _erf64


def _erf64(x):
    return math.erf(x)


def _erf32(x):
    f = np.float32
    a = f(4) if x > f(4) else (f(-4) if x < f(-4) else x)
    s = a * a
    p = f(1.98685331e-06) * s + f(0.000284553701)
    q = f(3.74202754e-05) * s + f(0.00118544974)
    p, q = p * s + f(0.00388285134), q * s + f(0.0152062632)
    p, q = p * s + f(0.0531002155), q * s + f(0.115345289)
    p, q = p * s + f(0.193533737), q * s + f(0.504847367)
    y = (p * s + f(1.12837914)) * a / (q * s + f(1))
    return f(1) if y > f(1) else (f(-1) if y < f(-1) else y)


@compiled(fastmath=FUSE)
def sigmoid_of(x):
    one = type(x)(1)
    z = exp(-abs(x))
    return (one if x >= 0 else z) / (one + z)


@compiled(fastmath=FUSE)
def log1p(z):
    """ln(1 + z) for 0 <= z <= 1: 2 artanh(s), s = z / (2 + z) <= 1/3, by its series."""
    of = type(z)
    s = z / (of(2) + z)
    return of(2) * s * _series(s * s)


@compiled(fastmath=FUSE)
def sigmoid_slope_of(dy, y):
    return dy * (y * (type(y)(1) - y))


@compiled(fastmath=FUSE)
def tanh_slope_of(dy, y):
    return dy * (type(y)(1) - y * y)
