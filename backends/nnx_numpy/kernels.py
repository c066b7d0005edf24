"""Overrides for NumPy, each tested against the portable kernel."""

from __future__ import annotations

import numpy as np
from nnx.override import Overrides
from nnx.ops import getitem_adjoint, scatter_add, sigmoid, softmax_cross_entropy

overrides = Overrides()


@overrides.forward(getitem_adjoint)
def _(xp, x, *, index, shape):
    y = np.zeros(shape, x.dtype)
    parts = index if isinstance(index, tuple) else (index,)
    if any(isinstance(i, (np.ndarray, list)) for i in parts):
        np.add.at(y, index, x)
    else:
        y[index] = x
    return y


@overrides.forward(scatter_add)
def _(xp, x, indices, *, size, axis=0):
    y = np.zeros((*x.shape[:axis], size, *x.shape[axis + indices.ndim :]), x.dtype)
    np.add.at(y, (slice(None),) * axis + (indices,), x)
    return y


@overrides.forward(sigmoid)
def _(xp, x):
    # e^-x may overflow to infinity, which 1 / (1 + inf) = 0 turns into the right limit.
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-x))


@overrides.fused(softmax_cross_entropy)
def _cross_entropy(
    xp, x, t, weight=None, *, label_smoothing=0.0, ignore_index=-100, reduction="mean"
):
    """Class ids pick one entry per row: no one-hot matrix. Other targets: the portable kernel."""
    plain = t.ndim < x.ndim and weight is None and not label_smoothing
    if not plain or (t == ignore_index).any():
        y, extras = softmax_cross_entropy.forward(
            xp, x, t, weight, label_smoothing=label_smoothing, ignore_index=ignore_index,
            reduction=reduction,
        )  # fmt: skip
        return y, {**extras, "at": None}
    rows = x.reshape(-1, x.shape[-1])
    at = (np.arange(rows.shape[0]), t.reshape(-1))
    shifted = rows - rows.max(axis=-1, keepdims=True)
    picked = shifted[at]
    p = np.exp(shifted, out=shifted)
    total = p.sum(axis=-1, keepdims=True)
    p /= total
    losses = np.log(total[:, 0]) - picked
    count = x.dtype.type(rows.shape[0])
    if reduction == "none":
        losses = losses.reshape(t.shape)
    else:
        losses = losses.sum()
        losses = losses / count if reduction == "mean" else losses
    return losses, {"p": p, "q": None, "count": count, "at": at}


@_cross_entropy.d("x")
def _(xp, dy, x, p, q, count, at, reduction):
    if at is None:
        return _portable(xp, dy, p, q, count, reduction)
    dx = p.copy()
    dx[at] -= 1
    dx *= dy / count if reduction == "mean" else dy.reshape(-1, 1) if reduction == "none" else dy
    return dx.reshape(x.shape)


_portable = softmax_cross_entropy.derivatives[0].kernel
