"""Arithmetic and elementary functions, with broadcasting.

x1, x2, y: arrays whose shapes broadcast; int or float, one dtype; Python numbers are weak.
Gradients are summed over broadcast axes by the caller (`nnx.op.vjp`), not here.
"""

from __future__ import annotations

from ..errors import DtypeError
from ..op import op


@op
def add(xp, x1, x2):
    """y = x1 + x2"""
    return x1 + x2


@add.d("x1")
def _(xp, dy):
    return dy


@add.d("x2")
def _(xp, dy):
    return dy


@op
def subtract(xp, x1, x2):
    """y = x1 - x2"""
    return x1 - x2


@subtract.d("x1")
def _(xp, dy):
    return dy


@subtract.d("x2")
def _(xp, dy):
    return -dy


@op
def multiply(xp, x1, x2):
    """y = x1 * x2"""
    return x1 * x2


@multiply.d("x1")
def _(xp, dy, x2):
    return dy * x2


@multiply.d("x2")
def _(xp, dy, x1):
    return dy * x1


@op
def divide(xp, x1, x2):
    """y = x1 / x2. Division by zero gives an infinity or NaN, as IEEE 754 has it."""
    return x1 / x2


@divide.d("x1")
def _(xp, dy, x2):
    return dy / x2


@divide.d("x2")
def _(xp, dy, x2, y):
    return -dy * y / x2


@op
def negative(xp, x):
    """y = -x"""
    return -x


@negative.d("x")
def _(xp, dy):
    return -dy


@op
def pow(xp, x1, x2):
    """y = x1 ** x2. The derivative for x1 is 0 where x2 = 0, for x2 it is 0 where 0 = x1 <= x2."""
    return x1**x2


@pow.d("x1")
def _(xp, dy, x1, x2):
    if isinstance(x2, (int, float)):
        return dy * 0 if x2 == 0 else dy * (x2 * x1 ** (x2 - 1))
    zero = x2 == 0
    inner = x2 * x1 ** xp.where(zero, xp.ones_like(x2), x2 - 1)
    return dy * xp.where(zero, xp.zeros_like(inner), inner)


@pow.d("x2")
def _(xp, dy, x1, x2, y):
    base = x1 + xp.zeros_like(dy)
    safe = xp.where((base == 0) & (x2 >= 0), xp.ones_like(base), base)
    return dy * (y * xp.log(safe))


@op
def exp(xp, x):
    """y = e ** x"""
    return xp.exp(x)


@exp.d("x")
def _(xp, dy, y):
    return dy * y


@op
def expm1(xp, x):
    """y = e ** x - 1, exact for small x."""
    return xp.expm1(x)


@expm1.d("x")
def _(xp, dy, y):
    return dy * (y + 1)


@op
def log(xp, x):
    """y = ln x;   -inf at 0, NaN below."""
    return xp.log(x)


@log.d("x")
def _(xp, dy, x):
    return dy / x


@op
def log1p(xp, x):
    """y = ln(1 + x), exact for small x."""
    return xp.log1p(x)


@log1p.d("x")
def _(xp, dy, x):
    return dy / (x + 1)


@op
def sqrt(xp, x):
    """y = x ** 0.5;   NaN below 0, derivative infinite at 0."""
    return xp.sqrt(x)


@sqrt.d("x")
def _(xp, dy, y):
    return dy * 0.5 / y


@op
def abs(xp, x):
    """y = |x|. The derivative at 0 is 0."""
    return xp.abs(x)


@abs.d("x")
def _(xp, dy, x):
    return dy * xp.sign(x)


@op
def maximum(xp, x1, x2):
    """y = max(x1, x2); NaN if either is. Where they are equal, each gets half the gradient."""
    return xp.maximum(x1, x2)


@maximum.d("x1", "x2")
def _(xp, dy, x1, x2):
    return _share(xp, dy, x1 > x2, x1 == x2, x1 < x2)


@op
def minimum(xp, x1, x2):
    """y = min(x1, x2); NaN if either is. Where they are equal, each gets half the gradient."""
    return xp.minimum(x1, x2)


@minimum.d("x1", "x2")
def _(xp, dy, x1, x2):
    return _share(xp, dy, x1 < x2, x1 == x2, x1 > x2)


def _share(xp, dy, first, tie, second):
    half = 0.5 * xp.astype(tie, dy.dtype)
    return dy * (xp.astype(first, dy.dtype) + half), dy * (xp.astype(second, dy.dtype) + half)


@op
def clip(xp, x, /, min=None, max=None):
    """y = x limited to [min, max], numbers or None. The derivative is 1 in the closed range."""
    y = x
    if min is not None:
        y = xp.maximum(y, min)
    if max is not None:
        y = xp.minimum(y, max)
    return y


@clip.d("x")
def _(xp, dy, x, min, max):
    if min is not None:
        dy = dy * xp.astype(x >= min, dy.dtype)
    if max is not None:
        dy = dy * xp.astype(x <= max, dy.dtype)
    return dy


@op
def where(xp, condition, x1, x2):
    """y = x1 where condition else x2.   condition: bool, a constant"""
    return xp.where(condition, x1, x2)


@where.d("x1")
def _(xp, dy, condition):
    return xp.where(condition, dy, xp.zeros_like(dy))


@where.d("x2")
def _(xp, dy, condition):
    return xp.where(condition, xp.zeros_like(dy), dy)


@op
def astype(xp, x, /, dtype):
    """y = x in another dtype: a name ("float32") or a dtype of the array's library.

    The derivative is 0 where y is not of a float dtype: rounding has steps, no slope.
    """
    kind = getattr(xp, dtype) if isinstance(dtype, str) else dtype
    return xp.astype(x, kind), {"source": (x.dtype,)}


@astype.d("x")
def _(xp, dy, source):
    dx = xp.astype(dy, source[0])
    return dx if "float" in str(dy.dtype) else xp.zeros_like(dx)


@astype.check
def _(backend, x, dtype):
    if isinstance(dtype, str) and (dtype not in DTYPES or not hasattr(backend.xp, dtype)):
        raise DtypeError(f"astype: dtype={dtype!r}, expected one of {', '.join(DTYPES)}")


DTYPES = (
    "float16", "float32", "float64", "bfloat16", "bool", "int8", "int16", "int32", "int64",
    "uint8", "uint16", "uint32", "uint64",
)  # fmt: skip
