"""Softmax cross-entropy of class ids: the gradient comes with the loss, no one-hot matrix."""

from __future__ import annotations

import functools

import numpy as np

from nnx.calls import calls
from nnx.ops import softmax_cross_entropy

from .table import FLOATS, UNTHREADED_VECTOR, dot_for, ones, overrides, row_max

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
    run, x, t, weight=None, *, label_smoothing=0.0, ignore_index=-100, reduction="mean"
):
    """d, the gradient for a cotangent of 1: p / n, less 1 / n at each row's class."""
    plain = t.ndim == x.ndim - 1 and weight is None and not label_smoothing and t.size > 0
    if not (plain and x.dtype in FLOATS and x.flags.c_contiguous and t.flags.c_contiguous):
        return None
    n, classes, dtype, mean = t.size, x.shape[-1], x.dtype, reduction == "mean"
    y, d = run.new(t.shape if reduction == "none" else (), dtype), run.new(x.shape, dtype)
    rows, e, flat, ids = x.reshape(n, classes), d.reshape(n, classes), d.reshape(-1), t.reshape(-1)
    m, total, index = run.empty((n, 1), dtype), run.empty((n, 1), dtype), run.empty((n,), np.intp)
    picked, losses, sums = run.empty((n,), dtype), run.empty((n,), dtype), total[:, 0]
    counted = Counted(n, ignore_index, classes, dtype, mean)

    run(counted.find, ids, ids.view(_UNSIGNED[t.itemsize]), _starts(n, classes), index)
    row_max(run, rows, m)
    run(np.subtract, rows, m, e)
    run(flat.take, index, None, picked, "clip")
    run(np.exp, e, e)
    run(dot_for(2 * x.size, UNTHREADED_VECTOR), e, ones(classes, dtype), sums)
    run(np.log, sums, losses)
    run(np.subtract, losses, picked, losses)
    if mean:
        run(np.multiply, total, counted.n, total)
    run(np.divide, e, total, e)
    run(flat.take, index, None, picked, "clip")
    run(np.subtract, picked, counted.one, picked)
    run(flat.put, index, picked)
    run(counted.drop, losses, e)
    if reduction == "none":
        run(np.copyto, y, losses.reshape(t.shape))
        return y, {"d": d, "p": None, "q": None, "count": None}
    run(np.dot, losses, ones(n, dtype), y)
    if mean:
        run(np.multiply, y, counted.one, y)
    return y, {"d": d, "p": None, "q": None, "count": None}


_UNSIGNED = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


@functools.lru_cache(maxsize=16)
def _starts(rows, classes):
    """Where each row starts in the flat logits."""
    return np.arange(0, rows * classes, classes)


class Counted:
    """Which rows count: all but those whose id is the one to ignore.

    n, one   0-d: how many rows, and what a row's loss is worth, 1 / n or 1
    """

    def __init__(self, n, ignore_index, classes, dtype, mean):
        self.ignore_index, self.classes, self.mean, self.count = ignore_index, classes, mean, n
        self.ignores_a_class, self.rows = 0 <= ignore_index < classes, None
        self.n, self.one = np.array(n, dtype), np.array(1 / n if mean else 1, dtype)

    def find(self, ids, unsigned, starts, index):
        """Where each row's class lies in the flat logits.

        Ids that are no classes are ignored ones: others have been refused. As unsigned numbers
        negative ids are huge, so one pass finds both kinds.
        """
        np.add(ids, starts, index, casting="unsafe")
        if self.ignores_a_class or unsigned.max() >= self.classes:
            self.rows = ids == self.ignore_index
            np.copyto(index, starts, where=self.rows)
            self._set(ids.size - np.count_nonzero(self.rows))
        elif self.rows is not None:
            self.rows = None
            self._set(ids.size)

    def _set(self, n):
        self.n[()] = n or np.nan
        self.one[()] = (1 / n if n else np.nan) if self.mean else 1

    def drop(self, losses, d):
        if self.rows is not None:
            losses[self.rows] = 0
            d[self.rows] = 0 * self.one


@overrides.fused(softmax_cross_entropy)(cross_entropy).d("x")
@calls(otherwise=_gradient_otherwise)
def _gradient(run, dy, d, p, q, count, reduction):
    if d is None:
        return None
    dx = run.new(d.shape, d.dtype)
    run(np.multiply, d, dy[..., None] if dy.ndim else dy, dx)
    return dx
