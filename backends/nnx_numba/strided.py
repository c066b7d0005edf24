"""A compiled loop over arrays of any strides: what convolutions copy, add and scale."""

from __future__ import annotations

from .compiler import compiled

FILL, COPY, ADD_TO, ADD, SUBTRACT, SCALE = range(6)


@compiled()
def _line(what, y, a, p, x1, b, q, x2, c, r, value, n):
    """One line of n entries; that of y begins at a and has stride p, ..."""
    if p == q == r == 1:
        u, v, w = y[a : a + n], x1[b : b + n], x2[c : c + n]
        if what == COPY:
            for i in range(n):
                u[i] = v[i]
        elif what == ADD_TO:
            for i in range(n):
                u[i] += v[i]
        elif what == ADD:
            for i in range(n):
                u[i] = v[i] + w[i]
        elif what == SUBTRACT:
            for i in range(n):
                u[i] = v[i] - w[i]
        elif what == SCALE:
            for i in range(n):
                u[i] = v[i] * value
        else:
            for i in range(n):
                u[i] = value
        return
    if what == ADD_TO and p == 1 and q == 0:
        u, bias = y[a : a + n], x1[b]
        for i in range(n):
            u[i] += bias
        return
    for i in range(n):
        e, f = x1[b + i * q], x2[c + i * r]
        if what == COPY:
            e = e
        elif what == ADD_TO:
            e = y[a + i * p] + e
        elif what == ADD:
            e = e + f
        elif what == SUBTRACT:
            e = e - f
        elif what == SCALE:
            e = e * value
        else:
            e = value
        y[a + i * p] = e


@compiled()
def combined(what, n, y, x1, x2, value):
    """y = value, x1, y + x1, x1 + x2, x1 - x2 or x1 value, as `what` says.

    n           five sizes
    y, x1, x2   each (memory, first, strides): a flat array, where the first entry is in it, and
                five strides, in entries
    """
    (u, a, p), (v, b, q), (w, c, r) = y, x1, x2
    factor = u.dtype.type(value)
    for i in range(n[0]):
        for j in range(n[1]):
            for k in range(n[2]):
                for m in range(n[3]):
                    at = a + i * p[0] + j * p[1] + k * p[2] + m * p[3]
                    b_ = b + i * q[0] + j * q[1] + k * q[2] + m * q[3]
                    c_ = c + i * r[0] + j * r[1] + k * r[2] + m * r[3]
                    _line(what, u, at, p[4], v, b_, q[4], w, c_, r[4], factor, n[4])
