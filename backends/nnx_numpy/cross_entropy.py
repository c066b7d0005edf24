"""Softmax cross-entropy of class ids: the gradient comes with the loss, no one-hot matrix."""

from __future__ import annotations

import functools

import numpy as np

from nnx.ops import softmax_cross_entropy
from nnx.override import calls

from .table import FLOATS, dot_for, ones, overrides

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


@overrides.fused(softmax_cross_entropy)
@calls(otherwise=_otherwise)
def _cross_entropy(
    new, empty, x, t, weight=None, *, label_smoothing=0.0, ignore_index=-100, reduction="mean"
):
    """d is the gradient for a cotangent of 1."""
    ids = t.ndim == x.ndim - 1 and weight is None and not label_smoothing and t.size > 0
    if not (ids and x.dtype in FLOATS and x.flags.c_contiguous and t.flags.c_contiguous):
        return None
    y = new(t.shape if reduction == "none" else (), dtype=x.dtype)
    d = new(x.shape, dtype=x.dtype)
    n, classes = t.size, x.shape[-1]

    def made(*shape, dtype=x.dtype):
        return empty(shape, dtype=dtype)

    given = (
        x.reshape(n, classes), t.reshape(-1), t.reshape(-1).view(f"u{t.itemsize}"), y,
        d.reshape(n, classes), d.reshape(-1), _starts(n, classes), made(n, dtype=np.intp),
        made(n, 1), made(n), made(n, 1), made(n), ones(classes, x.dtype), ones(n, x.dtype),
        dot_for(2 * x.size, 3), ignore_index, 0 <= ignore_index < classes, reduction,
    )  # fmt: skip
    return (y, {"d": d, "p": None, "q": None, "count": None}), [(_into, given, {})]


@functools.lru_cache(maxsize=16)
def _starts(rows, classes):
    """Where each row starts in the flat logits."""
    return np.arange(0, rows * classes, classes)


def _into(
    x, ids, unsigned, y, d, flat, starts, index, m, picked, total, losses, classes, rows, dot,
    ignore_index, a_class, reduction,
):  # fmt: skip
    """classes, rows: ones; a_class: whether the id to ignore is a class.

    Ids that are no classes are ignored ones: others have been refused. As unsigned numbers negative
    ids are huge, so one pass finds both kinds.
    """
    np.add(ids, starts, index, casting="unsafe")
    n, left_out = x.shape[0], None
    if a_class or unsigned.max() >= x.shape[1]:
        left_out = ids == ignore_index
        np.copyto(index, starts, where=left_out)
        n -= np.count_nonzero(left_out)
    np.maximum.reduce(x, axis=1, keepdims=True, out=m)
    np.subtract(x, m, d)
    flat.take(index, out=picked, mode="clip")
    np.exp(d, d)
    dot(d, classes, total[:, 0])
    np.log(total[:, 0], losses)
    np.subtract(losses, picked, losses)
    one = 1
    if reduction == "mean":
        one = 1 / n if n else np.nan
        np.multiply(total, n or np.nan, total)
    np.divide(d, total, d)
    flat.take(index, out=picked, mode="clip")
    np.subtract(picked, one, picked)
    flat[index] = picked
    if left_out is not None:
        losses[left_out] = 0
        d[left_out] = 0 * one
    if reduction == "none":
        y[...] = losses.reshape(y.shape)
    else:
        np.dot(losses, rows, y)
        if reduction == "mean":
            np.multiply(y, one, y)


@_cross_entropy.d("x")
@calls(otherwise=_gradient_otherwise)
def _gradient(new, empty, dy, d, p, q, count, reduction):
    if d is None:
        return None
    dx = new(d.shape, dtype=d.dtype)
    return dx, [(np.multiply, (d, dy[..., None] if dy.ndim else dy, dx), {})]
