"""Recurrent networks: one op goes over all steps in time.

x      what the inputs bring, x_t W + b for all steps at once (see `affine`): (T, N, gates * H)
U      (H, gates * H), from the state to the gates
h, c   the state before the first step (N, H)
lengths   (N,) ints: steps from lengths[n] on are padding, where the state stays as it is and y is
          0; a constant
reverse   from the last step to the first, for the other direction of a bidirectional network

The result is (y, last state ...): y (T, N, H) are the states after each step. The gradient for U is
one matrix product over all steps; only the state's own gradient goes back step by step.
"""

from __future__ import annotations

from ..errors import DtypeError, LabelError, ShapeError
from ..op import op
from ._options import one_of, shape_of
from .activation import sigmoid


@op
def rnn(xp, x, U, h, lengths=None, *, nonlinearity="tanh", reverse=False):
    """h_t = tanh(x_t + h_{t-1} U), or relu.   Elman (1990).   Gives (y, h)

    x, y: (T, N, H); U: (H, H); h: (N, H); lengths: (N,) ints 0..T, behind which y is 0 and h stays
    """
    before, made, shown = [], [], []
    for t in _steps(x.shape[0], reverse):
        before.append(h)
        a = x[t, ...] + xp.matmul(h, U)
        new = xp.tanh(a) if nonlinearity == "tanh" else xp.maximum(a, 0)
        made.append(new)
        h, y = _kept(xp, new, h, lengths, t)
        shown.append(y)
    extras_before, extras_made = _in_time(xp, before, reverse), _in_time(xp, made, reverse)
    return (_in_time(xp, shown, reverse), h), {"before": extras_before, "made": extras_made}


@rnn.d("x", "U", "h")
def _(xp, dy, U, before, made, lengths, nonlinearity, reverse):
    dy, dh = dy
    dx = []
    for t in _steps(made.shape[0], not reverse):
        d, dh = _passed(xp, dy[t, ...], dh, lengths, t)
        new = made[t, ...]
        d = d * (1 - new * new) if nonlinearity == "tanh" else d * xp.astype(new > 0, d.dtype)
        dx.append(d)
        dh = dh + xp.matmul(d, xp.matrix_transpose(U))
    dx = _in_time(xp, dx, not reverse)
    return dx, _outer(xp, before, dx), dh


@rnn.check
def _(backend, x, U, h, lengths=None, nonlinearity="tanh", reverse=False):
    one_of("rnn", "nonlinearity", nonlinearity, ("tanh", "relu"))
    return _checked("rnn", 1, backend, x, U, lengths, h=h)


@op
def lstm(xp, x, U, h, c, lengths=None, *, reverse=False):
    """i, f, o = sigmoid and g = tanh of the parts i, f, g, o of a = x_t + h_{t-1} U;

        c_t = f c_{t-1} + i g;  h_t = o tanh(c_t)

    Gives (y, h, c).   Hochreiter and Schmidhuber (1997), Gers et al. (2000)

    x: (T, N, 4 H), y: (T, N, H); U: (H, 4 H); h, c: (N, H); lengths: (N,) ints, as in `rnn`
    """
    n = U.shape[0]
    before, cells, gates, shown = [], [], [], []
    for t in _steps(x.shape[0], reverse):
        before.append(h)
        cells.append(c)
        a = x[t, ...] + xp.matmul(h, U)
        i, f = sigmoid(a[:, :n]), sigmoid(a[:, n : 2 * n])
        g, o = xp.tanh(a[:, 2 * n : 3 * n]), sigmoid(a[:, 3 * n :])
        gates.append(xp.concat([i, f, g, o], axis=1))
        new = f * c + i * g
        h, y = _kept(xp, o * xp.tanh(new), h, lengths, t)
        c, _ = _kept(xp, new, c, lengths, t)
        shown.append(y)
    extras_before, extras_cells = _in_time(xp, before, reverse), _in_time(xp, cells, reverse)
    extras_gates = _in_time(xp, gates, reverse)
    extras = {"before": extras_before, "cells": extras_cells, "gates": extras_gates}
    return (_in_time(xp, shown, reverse), h, c), extras


@lstm.d("x", "U", "h", "c")
def _(xp, dy, U, before, cells, gates, lengths, reverse):
    dy, dh, dc = dy
    n, dx = U.shape[0], []
    for t in _steps(gates.shape[0], not reverse):
        a, c = gates[t, ...], cells[t, ...]
        i, f, g, o = a[:, :n], a[:, n : 2 * n], a[:, 2 * n : 3 * n], a[:, 3 * n :]
        new = xp.tanh(f * c + i * g)
        d, dh = _passed(xp, dy[t, ...], dh, lengths, t)
        e, dc = _passed(xp, None, dc, lengths, t)
        e = e + d * o * (1 - new * new)
        parts = [
            e * g * i * (1 - i),
            e * c * f * (1 - f),
            e * i * (1 - g * g),
            d * new * o * (1 - o),
        ]
        dx.append(xp.concat(parts, axis=1))
        dh = dh + xp.matmul(dx[-1], xp.matrix_transpose(U))
        dc = dc + e * f
    dx = _in_time(xp, dx, not reverse)
    return dx, _outer(xp, before, dx), dh, dc


@lstm.check
def _(backend, x, U, h, c, lengths=None, reverse=False):
    return _checked("lstm", 4, backend, x, U, lengths, h=h, c=c)


@op
def gru(xp, x, U, b, h, lengths=None, *, reverse=False):
    """r, z = sigmoid of the first two parts of x_t + s, where s = h_{t-1} U + b; of the third parts

        n = tanh(x_t + r s);  h_t = (1 - z) n + z h_{t-1}

    Gives (y, h).   Cho et al. (2014), with the reset gate after the product

    x: (T, N, 3 H), y: (T, N, H); U: (H, 3 H), b: (3 H,); h: (N, H); lengths: (N,) ints, as in `rnn`
    """
    n = U.shape[0]
    before, gates, shown = [], [], []
    for t in _steps(x.shape[0], reverse):
        before.append(h)
        a, s = x[t, ...], xp.matmul(h, U) + b
        r, z = sigmoid(a[:, :n] + s[:, :n]), sigmoid(a[:, n : 2 * n] + s[:, n : 2 * n])
        q = s[:, 2 * n :]
        new = xp.tanh(a[:, 2 * n :] + r * q)
        gates.append(xp.concat([r, z, new, q], axis=1))
        h, y = _kept(xp, new + z * (h - new), h, lengths, t)
        shown.append(y)
    extras_before, extras_gates = _in_time(xp, before, reverse), _in_time(xp, gates, reverse)
    return (_in_time(xp, shown, reverse), h), {"before": extras_before, "gates": extras_gates}


@gru.d("x", "U", "b", "h")
def _(xp, dy, U, before, gates, lengths, reverse):
    dy, dh = dy
    n, dx, ds = U.shape[0], [], []
    for t in _steps(gates.shape[0], not reverse):
        a = gates[t, ...]
        r, z, new, q = a[:, :n], a[:, n : 2 * n], a[:, 2 * n : 3 * n], a[:, 3 * n :]
        d, dh = _passed(xp, dy[t, ...], dh, lengths, t)
        dn = d * (1 - z) * (1 - new * new)
        dr, dz = dn * q * r * (1 - r), d * (before[t, ...] - new) * z * (1 - z)
        dx.append(xp.concat([dr, dz, dn], axis=1))
        ds.append(xp.concat([dr, dz, dn * r], axis=1))
        dh = dh + d * z + xp.matmul(ds[-1], xp.matrix_transpose(U))
    dx, ds = _in_time(xp, dx, not reverse), _in_time(xp, ds, not reverse)
    return dx, _outer(xp, before, ds), xp.sum(ds, axis=(0, 1)), dh


@gru.check
def _(backend, x, U, b, h, lengths=None, reverse=False):
    if len(shape_of(U)) == 2 and shape_of(b) != (3 * U.shape[0],):
        raise ShapeError(
            f"gru: b has shape {shape_of(b)}, expected ({3 * U.shape[0]},), because U has shape "
            f"{shape_of(U)}"
        )
    return _checked("gru", 3, backend, x, U, lengths, h=h)


def _steps(count, backward):
    return range(count - 1, -1, -1) if backward else range(count)


def _in_time(xp, steps, backward):
    """Steps as one array, the first in time first."""
    return xp.stack([*reversed(steps)] if backward else steps, axis=0)


def _valid(xp, lengths, t, dtype):
    """1 where step t is none of padding, else 0: (N, 1)"""
    return xp.expand_dims(xp.astype(lengths > t, dtype), axis=-1)


def _kept(xp, new, old, lengths, t):
    """The state after step t, and what is shown of it."""
    if lengths is None:
        return new, new
    m = _valid(xp, lengths, t, new.dtype)
    return old + m * (new - old), m * new


def _passed(xp, dy, dh, lengths, t):
    """The gradient for the new state of step t, and what goes to the old one beside it."""
    if lengths is None:
        return dh if dy is None else dy + dh, 0
    m = _valid(xp, lengths, t, dh.dtype)
    return m * (dh if dy is None else dy + dh), (1 - m) * dh


def _outer(xp, before, d):
    """The gradient for U: all steps at once."""
    rows = before.shape[0] * before.shape[1]
    left = xp.reshape(before, (rows, before.shape[2]))
    return xp.matmul(xp.matrix_transpose(left), xp.reshape(d, (rows, d.shape[2])))


def _checked(name, gates, backend, x, U, lengths, **states):
    """Shapes; gives the test of the lengths' values."""
    shape, width = shape_of(U), shape_of(U)[:1] or (0,)
    if len(shape) != 2 or shape[1] != gates * shape[0] or not shape[0]:
        expected = "(H, H)" if gates == 1 else f"(H, {gates} H)"
        raise ShapeError(f"{name}: U has shape {shape}, expected {expected}")
    given = shape_of(x)
    if len(given) != 3 or given[2] != shape[1] or not given[0]:
        raise ShapeError(
            f"{name}: x has shape {given}, expected (T, N, {shape[1]}) with T at least 1, because "
            f"U has shape {shape}"
        )
    for state, value in states.items():
        if shape_of(value) != (given[1], *width):
            raise ShapeError(
                f"{name}: {state} has shape {shape_of(value)}, expected {(given[1], *width)}, "
                f"because x has shape {given} and U {shape}"
            )
    if lengths is None:
        return None
    dtype = backend.dtype_name(lengths) if hasattr(lengths, "shape") else type(lengths).__name__
    if shape_of(lengths) != given[1:2] or "int" not in dtype:
        raise DtypeError(
            f"{name}: lengths have shape {shape_of(lengths)} and dtype {dtype}, expected "
            f"{given[1:2]} ints, one for each sequence: nnx.asarray(lengths, 'int64')"
        )
    return check_lengths, lengths, name, given[0]


def check_lengths(lengths, name, steps):
    """Raise LabelError at the first length outside 0..steps."""
    wrong = (lengths < 0) | (lengths > steps)
    if wrong.any():
        n = int(wrong.nonzero()[0][0])
        raise LabelError(
            f"{name}: lengths[{n}] is {int(lengths[n])}, expected 0..{steps}: x has {steps} steps"
        )
