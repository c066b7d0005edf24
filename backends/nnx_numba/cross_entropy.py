"""Softmax cross-entropy of class ids: the gradient comes with the loss, in one pass over rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnx.ops import softmax_cross_entropy

from . import loops
from .common import Array, inherited, inherited_slope, overrides, plain

_otherwise, _slope_otherwise = (
    inherited(softmax_cross_entropy), inherited_slope(softmax_cross_entropy)
)  # fmt: skip
_OTHERS = ("p", "q", "count", "index", "ignored")  # what NumPy's kernel keeps
_NOTHING = dict.fromkeys(_OTHERS)


def _compiles(x: Array, t: Array, weight: Any, label_smoothing: float) -> bool:
    ids = t.ndim == x.ndim - 1 and weight is None and not label_smoothing and t.size > 0
    return ids and x.size > 0 and t.flags.c_contiguous and type(t) is np.ndarray and plain(x)


def _ids(t: Array) -> Array:
    """int64, so that the loop is compiled once."""
    return t.reshape(-1).astype(np.int64, copy=False)


@overrides.fused(softmax_cross_entropy)
def _cross_entropy(
    xp: Any, x: Array, t: Array, weight: Any = None,
    *, label_smoothing: float = 0.0, ignore_index: int = -100, reduction: str = "mean",
) -> Any:  # fmt: skip
    if not _compiles(x, t, weight, label_smoothing):
        y, extras = _otherwise(
            xp, x, t, weight, label_smoothing=label_smoothing, ignore_index=ignore_index,
            reduction=reduction,
        )  # fmt: skip
        return y, {"d": None, **extras}
    losses, total, d = np.empty(t.shape, x.dtype), np.empty((), x.dtype), np.empty_like(x)
    loops.cross_entropy(*_arguments(x, _ids(t), ignore_index, reduction, losses, total, d))
    return losses if reduction == "none" else total, {"d": d, **_NOTHING}


def _arguments(
    x: Array, ids: Array, ignore_index: int, reduction: str, losses: Array, total: Array, d: Array
) -> tuple[Any, ...]:
    rows = (-1, x.shape[-1])
    return (
        x.reshape(rows), ids, ignore_index, reduction == "mean", losses.reshape(-1), total,
        d.reshape(rows),
    )  # fmt: skip


@overrides.prepare(_cross_entropy)
def _(
    empty: Any, results: Any, xp: Any, x: Array, t: Array, weight: Any = None,
    *, label_smoothing: float = 0.0, ignore_index: int = -100, reduction: str = "mean",
) -> Any:  # fmt: skip
    if not _compiles(x, t, weight, label_smoothing):
        return None
    y, d = results
    losses, total = (y, empty((), x.dtype)) if reduction == "none" else (empty(t.shape, x.dtype), y)
    ids, cast = t.reshape(-1), []
    if t.dtype != np.int64:
        ids = empty((t.size,), np.int64)
        cast = [(np.copyto, (ids, t.reshape(-1)), {"casting": "unsafe"})]
    given = _arguments(x, ids, ignore_index, reduction, losses, total, d)
    return [*cast, (loops.cross_entropy, given, {})]


@_cross_entropy.d("x")
def _gradient(
    xp: Any, dy: Array, x: Array, d: Any, p: Any, q: Any, count: Any, index: Any, ignored: Any,
    reduction: str,
) -> Any:  # fmt: skip
    if d is None:
        return _slope_otherwise(xp, dy, x, p, q, count, index, ignored, reduction)
    dx = np.empty_like(d)
    loop, given = _scaling(d, dy, dx)
    loop(*given)
    return dx


@overrides.prepare(_gradient)
def _(
    empty: Any, results: Any, xp: Any, dy: Array, x: Array, d: Any, p: Any, q: Any, count: Any,
    index: Any, ignored: Any, reduction: str,
) -> Any:  # fmt: skip
    if d is None or not dy.flags.c_contiguous:
        return None
    return [(*_scaling(d, dy, results[0]), {})]


def _scaling(d: Array, dy: Array, dx: Array) -> tuple[Any, tuple[Array, ...]]:
    """d has a factor for each row, or one for all."""
    if dy.ndim == 0:
        return loops.scaled, (d.reshape(-1), dy, dx.reshape(-1))
    rows = (-1, d.shape[-1])
    return loops.scaled_rows, (d.reshape(rows), dy.reshape(-1), dx.reshape(rows))
