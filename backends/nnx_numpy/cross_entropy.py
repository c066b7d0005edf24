"""Softmax cross-entropy with its gradient: class ids pick one entry per row, no one-hot matrix."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from nnx.ops import softmax_cross_entropy

from .kernels import overrides


@overrides.fused(softmax_cross_entropy)
def _cross_entropy(
    xp, x, t, weight=None, *, label_smoothing=0.0, ignore_index=-100, reduction="mean"
):
    """Targets that are not plain class ids: the portable kernel."""
    if not _plain(x, t, weight, label_smoothing):
        with np.errstate(invalid="ignore"):  # no row to count: NaN, as documented
            y, extras = softmax_cross_entropy.forward(
                xp, x, t, weight, label_smoothing=label_smoothing, ignore_index=ignore_index,
                reduction=reduction,
            )  # fmt: skip
        return y, {**extras, "index": None, "ignored": None}
    rows, ids = x.reshape(-1, x.shape[-1]), t.reshape(-1)
    ids = ids if ids.dtype == np.intp else ids.astype(np.intp)
    p, index, ignored, losses, kept = _losses(
        rows, ids, _starts(*rows.shape), ignore_index, np.empty(rows.shape, x.dtype)
    )
    count = x.dtype.type(kept)
    y = losses.reshape(t.shape) if reduction == "none" else losses.sum()
    if reduction == "mean":
        y = y / count if kept else x.dtype.type(np.nan)
    return y, {"p": p, "q": None, "count": count, "index": index, "ignored": ignored}


@_cross_entropy.d("x")
def _gradient(xp, dy, x, p, q, count, index, ignored, reduction):
    if index is None:
        with np.errstate(invalid="ignore", divide="ignore"):
            return _portable(xp, dy, p, q, count, reduction)
    dx = np.empty(p.shape, p.dtype)
    _Backward(np.empty, dx, dy, p, count, index, ignored, reduction)()
    return dx.reshape(x.shape)


_portable = softmax_cross_entropy.derivatives[0].kernel


def _plain(x, t, weight, label_smoothing):
    return t.ndim < x.ndim and weight is None and not label_smoothing and t.size > 0


@functools.lru_cache(maxsize=16)
def _starts(rows, classes):
    """Where each row starts in the flat logits."""
    return np.arange(0, rows * classes, classes)


def _losses(
    rows, ids, starts, ignore_index, p, index=None, ignored=None, losses=None, picked=None,
    total=None,
):  # fmt: skip
    """p = softmax(rows), where each row's class lies, which rows do not count, the losses, and how
    many rows count. What is None is made; a replay gives all.
    """
    ignored = np.equal(ids, ignore_index, out=ignored)
    left_out = np.count_nonzero(ignored)
    index = np.add(ids, starts, out=index, casting="unsafe")
    if left_out:
        np.copyto(index, starts, where=ignored)  # its own row, which becomes 0 as a whole
    total = np.maximum.reduce(rows, axis=-1, keepdims=True, out=total)
    np.subtract(rows, total, out=p)
    picked = p.reshape(-1).take(index, out=picked, mode="clip")
    np.exp(p, out=p)
    np.add.reduce(p, axis=-1, keepdims=True, out=total)
    np.divide(p, total, out=p)
    losses = np.log(total[:, 0], out=losses)
    np.subtract(losses, picked, out=losses)
    if left_out:
        losses[ignored] = 0
    return p, index, ignored, losses, rows.shape[0] - left_out


class _Backward:
    """dx = (p - one-hot) * dy / count, 0 in the rows that do not count."""

    def __init__(self, empty, dx, dy, p, count, index, ignored, reduction):
        self.dx, self.dy, self.p, self.count = dx, dy, p, count
        self.index, self.ignored, self.reduction = index, ignored, reduction
        self.flat, self.picked = dx.reshape(-1), empty(index.shape, p.dtype)

    def __call__(self):
        dx, picked, flat = self.dx, self.picked, self.flat
        np.copyto(dx, self.p)
        flat.take(self.index, out=picked, mode="clip")
        np.subtract(picked, 1, out=picked)
        flat[self.index] = picked
        left_out = np.count_nonzero(self.ignored)
        if left_out:
            dx[self.ignored] = 0
        if left_out == dx.shape[0]:
            with np.errstate(invalid="ignore", divide="ignore"):
                self._scale(dx)
        else:
            self._scale(dx)

    def _scale(self, dx):
        scale = self.dy
        if self.reduction == "mean":
            scale = scale / self.count
        elif self.reduction == "none":
            scale = scale.reshape(-1, 1)
        np.multiply(dx, scale, out=dx)


@overrides.prepare(_cross_entropy)
def _(
    empty, results, xp, x, t, weight=None, *, label_smoothing=0.0, ignore_index=-100,
    reduction="mean",
):  # fmt: skip
    rows = x.reshape(-1, x.shape[-1])
    if not _plain(x, t, weight, label_smoothing) or _copied(rows, x) or _copied(t.reshape(-1), t):
        return None
    y, p, count, index, ignored = results
    n, dtype, ids = rows.shape[0], x.dtype, t.reshape(-1)
    losses = y.reshape(-1) if reduction == "none" else empty((n,), dtype)
    out = (p, index, ignored, losses, empty((n,), dtype), empty((n, 1), dtype))
    given = (rows, ids, _starts(*rows.shape), ignore_index, *out)

    def again():
        kept = _losses(*given)[-1]
        count.fill(kept)
        if reduction != "none":
            np.add.reduce(losses, axis=None, out=y)
        if reduction == "mean":
            if kept:
                np.divide(y, count, out=y)
            else:
                y.fill(np.nan)

    return [(again, (), {})]


@overrides.prepare(_gradient)
def _(empty, results, xp, dy, x, p, q, count, index, ignored, reduction):
    if index is None:
        return None
    dx = results[0].reshape(p.shape)
    return [(_Backward(empty, dx, dy, p, count, index, ignored, reduction), (), {})]


def _copied(view: Any, array: Any) -> bool:
    return not np.may_share_memory(view, array)
