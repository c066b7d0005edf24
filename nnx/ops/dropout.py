"""Dropout. The random numbers are an input: a kernel draws none."""

from __future__ import annotations

from ..errors import OptionError, ShapeError
from ..op import op


@op
def dropout(xp, x, drawn, *, p=0.5):
    """y = x / (1 - p) where drawn >= p, else 0.   Srivastava et al. (2014)

    x        float
    drawn    uniform in [0, 1), of x's shape and dtype, a constant
    p        probability of dropping, in [0, 1)
    """
    return x * _mask(xp, drawn, p)


@dropout.d("x")
def _(xp, dy, drawn, p):
    return dy * _mask(xp, drawn, p)


def _mask(xp, drawn, p):
    return xp.astype(drawn >= p, drawn.dtype) * (1 / (1 - p))


@dropout.check
def _(backend, x, drawn, p=0.5):
    if not 0 <= p < 1:
        raise OptionError(f"dropout: p={p}, expected a probability of dropping in [0, 1)")
    if x.shape != drawn.shape:
        raise ShapeError(
            f"dropout: x has shape {tuple(x.shape)}, drawn {tuple(drawn.shape)}; expected one "
            f"number for each entry"
        )
