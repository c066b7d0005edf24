"""Softmax cross-entropy with its gradient: class ids pick one entry per row, no one-hot matrix."""

from __future__ import annotations

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
    run = _Forward(np.empty, x, t, ignore_index)
    kept = x.dtype.type(run())
    y = run.losses.reshape(t.shape) if reduction == "none" else run.losses.sum()
    if reduction == "mean":
        with np.errstate(invalid="ignore"):
            y = y / kept
    return y, {"p": run.p, "q": None, "count": kept, "index": run.index, "ignored": run.ignored}


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


class _Forward:
    """p = softmax(x), the losses, where each row's class lies, and which rows do not count."""

    def __init__(self, empty, x, t, ignore_index, given=(None, None, None, None)):
        self.rows, self.ids = x.reshape(-1, x.shape[-1]), t.reshape(-1)
        self.ignore_index = ignore_index
        n, classes = self.rows.shape
        kinds = (
            (self.rows.shape, x.dtype), ((n,), np.intp), ((n,), np.bool_), ((n,), x.dtype)
        )  # fmt: skip
        self.p, self.index, self.ignored, self.losses = (
            empty(*kind) if a is None else a for a, kind in zip(given, kinds, strict=True)
        )
        self.picked, self.total = empty((n,), x.dtype), empty((n, 1), x.dtype)
        self.starts = np.arange(0, n * classes, classes)

    def __call__(self) -> int:
        """How many rows count."""
        rows, p, index, ignored, total = self.rows, self.p, self.index, self.ignored, self.total
        np.equal(self.ids, self.ignore_index, out=ignored)
        some = bool(ignored.any())
        np.copyto(index, self.ids, casting="unsafe")
        if some:
            index[ignored] = 0
        np.add(index, self.starts, out=index)
        np.maximum.reduce(rows, axis=-1, keepdims=True, out=total)
        np.subtract(rows, total, out=p)
        np.take(p.reshape(-1), index, out=self.picked, mode="clip")
        np.exp(p, out=p)
        np.add.reduce(p, axis=-1, keepdims=True, out=total)
        np.divide(p, total, out=p)
        np.log(total[:, 0], out=self.losses)
        np.subtract(self.losses, self.picked, out=self.losses)
        if some:
            self.losses[ignored] = 0
        return rows.shape[0] - (int(np.count_nonzero(ignored)) if some else 0)


class _Backward:
    """dx = (p - one-hot) * dy / count, 0 in the rows that do not count."""

    def __init__(self, empty, dx, dy, p, count, index, ignored, reduction):
        self.dx, self.dy, self.p, self.count = dx, dy, p, count
        self.index, self.ignored, self.reduction = index, ignored, reduction
        self.picked = empty(index.shape, p.dtype)

    def __call__(self) -> None:
        dx, picked, scale = self.dx, self.picked, self.dy
        np.copyto(dx, self.p)
        flat = dx.reshape(-1)
        np.take(flat, self.index, out=picked, mode="clip")
        np.subtract(picked, 1, out=picked)
        flat[self.index] = picked
        if self.ignored.any():
            dx[self.ignored] = 0
        with np.errstate(invalid="ignore", divide="ignore"):
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
    losses = y.reshape(-1) if reduction == "none" else None
    run = _Forward(empty, x, t, ignore_index, (p, index, ignored, losses))

    def again() -> None:
        count.fill(run())
        if reduction != "none":
            np.add.reduce(run.losses, axis=None, out=y)
        if reduction == "mean":
            with np.errstate(invalid="ignore"):
                np.divide(y, count, out=y)

    return [(again, (), {})]


@overrides.prepare(_gradient)
def _(empty, results, xp, dy, x, p, q, count, index, ignored, reduction):
    if index is None:
        return None
    dx = results[0].reshape(p.shape)
    return [(_Backward(empty, dx, dy, p, count, index, ignored, reduction), (), {})]


def _copied(view: Any, array: Any) -> bool:
    return not np.may_share_memory(view, array)
