"""The error function, which the Array API standard lacks."""

from __future__ import annotations

import math

from ..op import op

# (1 + 2a) exp(a^2) erfc(a) as a Chebyshev series in t = (a - 3.75) / (a + 3.75), for a >= 0:
# M. M. Shepherd and J. G. Laframboise, Mathematics of Computation 36 (1981), 249-253.
_CHEBYSHEV = (
    1.1775789345674017541, -0.0045900545806464773309, -0.084249133366517915584,
    0.059209939998191890498, -0.026658668435305752277, 0.0090749976707052650939,
    -0.0024131635404176081909, 0.00049077583652580863229, -0.000069169733025012063671,
    4.1390279860730101675e-6, 7.7403830661984906686e-7, -2.1886401049234395661e-7,
    1.0764999465670910377e-8, 4.521959811218286898e-9, -7.754400208831351106e-10,
    -6.3180883408866844893e-11, 2.8687950109306699032e-11, 1.945586854577735224e-13,
    -9.6546967484334384099e-13, 3.2525481481487447465e-14, 3.3478119482868102359e-14,
    -1.8645628804192652158e-15, -1.2507950530688174448e-15, 7.4182352566287050109e-17,
)  # fmt: skip
# Near 0, where 1 - erfc(x) loses digits: erf(x) = 2/sqrt(pi) * sum (-1)^n x^(2n+1) / (n! (2n+1)).
_TAYLOR = tuple(
    2 / math.sqrt(math.pi) * (-1) ** n / (math.factorial(n) * (2 * n + 1)) for n in range(13)
)


@op
def erf(xp, x):
    """y = 2/sqrt(pi) * integral of exp(-t^2) from 0 to x, to 4 units of float64's rounding."""
    a = xp.minimum(xp.abs(x), 6.0)
    t = 2 * ((a - 3.75) / (a + 3.75))
    b, last = 0 * a, 0 * a
    for c in _CHEBYSHEV[:0:-1]:
        b, last = t * b - last + c, b
    far = 1 - (0.5 * t * b - last + _CHEBYSHEV[0]) * xp.exp(-(a * a)) / (1 + 2 * a)
    small = xp.minimum(a, 0.5)
    near, square = 0 * a + _TAYLOR[-1], small * small
    for c in _TAYLOR[-2::-1]:
        near = near * square + c
    return xp.sign(x) * xp.where(a < 0.5, near * a, far)


@erf.d("x")
def _(xp, dy, x):
    return dy * (2 / math.sqrt(math.pi) * xp.exp(-(x * x)))
