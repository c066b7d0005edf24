"""Softmax cross-entropy of class ids: the gradient comes with the loss, no one-hot matrix."""

from __future__ import annotations

import functools

import numpy as np

from nnx.ops import softmax_cross_entropy
from nnx.override import calls

from .table import FLOATS, dot_for, ones, overrides, row_max

_portable = softmax_cross_entropy.derivatives[0].kernel


def _otherwise(xp, x, t, weight=None, *, label_smoothing=0.0, ignore_index=-100, reduction="mean"):
    with np.errstate(invalid="ignore"):  # no row to count: NaN, as documented
        y, extras = softmax_cross_entropy.forward(
            xp, x, t, weight, label_smoothing=label_smoothing, ignore_index=ignore_index,
            reduction=reduction,
        )  # fmt: skip
    return y, {"d": None, **extras}


def _gradient_otherwise(xp, dy, d, p, q, count, reduction):
    with np.errstate(invalid="ignore", divide="ignore"):
        return _portable(xp, dy, p, q, count, reduction)


@calls(otherwise=_otherwise)
def cross_entropy(
    new, empty, x, t, weight=None, *, label_smoothing=0.0, ignore_index=-100, reduction="mean"
):
    """d is the gradient for a cotangent of 1."""
    ids = t.ndim == x.ndim - 1 and weight is None and not label_smoothing and t.size > 0
    if not (ids and x.dtype in FLOATS and x.flags.c_contiguous and t.flags.c_contiguous):
        return None
    y = new(t.shape if reduction == "none" else (), dtype=x.dtype)
    d = new(x.shape, dtype=x.dtype)
    n, classes = t.size, x.shape[-1]
    rows, ids, flat = x.reshape(n, classes), t.reshape(-1), d.reshape(-1)
    m, total = empty((n, 1), dtype=x.dtype), empty((n, 1), dtype=x.dtype)
    picked, losses = empty((n,), dtype=x.dtype), empty((n,), dtype=x.dtype)
    given = (
        rows, d.reshape(n, classes), y, ids, ids.view(f"u{t.itemsize}"), _starts(n, classes),
        empty((n,), dtype=np.intp), flat.take, flat.put, m, row_max(rows, m, empty), total,
        total[:, 0], picked, losses, ones(classes, x.dtype), ones(n, x.dtype),
        dot_for(2 * x.size, 3), ignore_index, 0 <= ignore_index < classes, reduction,
    )  # fmt: skip
    return (y, {"d": d, "p": None, "q": None, "count": None}), [(_into, given, {})]


@functools.lru_cache(maxsize=16)
def _starts(rows, classes):
    """Where each row starts in the flat logits."""
    return np.arange(0, rows * classes, classes)


def _into(
    x, d, y, ids, unsigned, starts, index, take, put, m, find_max, total, totals, picked, losses,
    a_row, a_column, dot, ignore_index, is_class, reduction,
):  # fmt: skip
    """take, put: of the flat d; a_row, a_column: ones; is_class: whether the id to ignore is one.

    Ids that are no classes are ignored ones: others have been refused. As unsigned numbers negative
    ids are huge, so one pass finds both kinds.
    """
    add(ids, starts, index, casting="unsafe")
    n, left_out = x.shape[0], None
    if is_class or unsigned.max() >= x.shape[1]:
        left_out = ids == ignore_index
        np.copyto(index, starts, where=left_out)
        n -= np.count_nonzero(left_out)
    for f, args, options in find_max:
        f(*args, **options)
    subtract(x, m, d)
    take(index, None, picked, "clip")
    exp(d, d)
    dot(d, a_row, totals)
    log(totals, losses)
    subtract(losses, picked, losses)
    one = 1
    if reduction == "mean":
        one = 1 / n if n else np.nan
        multiply(total, n or np.nan, total)
    divide(d, total, d)
    take(index, None, picked, "clip")
    subtract(picked, one, picked)
    put(index, picked)
    if left_out is not None:
        losses[left_out] = 0
        d[left_out] = 0 * one
    if reduction == "none":
        y[...] = losses.reshape(y.shape)
    else:
        np.dot(losses, a_column, y)
        if reduction == "mean":
            multiply(y, one, y)


add, divide, exp, log, multiply, subtract = (
    np.add, np.divide, np.exp, np.log, np.multiply, np.subtract
)  # fmt: skip


@overrides.fused(softmax_cross_entropy)(cross_entropy).d("x")
@calls(otherwise=_gradient_otherwise)
def _gradient(new, empty, dy, d, p, q, count, reduction):
    if d is None:
        return None
    dx = new(d.shape, dtype=d.dtype)
    return dx, [(np.multiply, (d, dy[..., None] if dy.ndim else dy, dx), {})]
