"""Softmax cross-entropy of class ids: the gradient comes with the loss, in one pass over rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnx.calls import calls
from nnx.ops import softmax_cross_entropy
from nnx.ops.loss import check_labels

from . import loops
from .common import Array, Run, overrides, plain

_inherited = overrides.inherited(softmax_cross_entropy)  # NumPy's, with the same extras


@calls(otherwise=_inherited.forward)
def cross_entropy(
    run: Run, x: Array, t: Array, weight: Any = None,
    *, label_smoothing: float = 0.0, ignore_index: int = -100, reduction: str = "mean",
) -> Any:  # fmt: skip
    """d is the gradient for a cotangent of 1."""
    ids = t.ndim == x.ndim - 1 and weight is None and not label_smoothing and t.size > 0
    if not (ids and x.size and t.flags.c_contiguous and type(t) is np.ndarray and plain(x)):
        return None
    each = reduction == "none"
    y = run.new(t.shape if each else (), x.dtype)
    d = run.new(x.shape, x.dtype)
    losses, total = (y, run.empty((), x.dtype)) if each else (run.empty(t.shape, x.dtype), y)
    labels = t.reshape(-1)
    if t.dtype != np.int64:  # so that the loop is compiled once
        labels = run.empty((t.size,), np.int64)
        run(np.copyto, labels, t.reshape(-1), casting="unsafe")
    rows = (-1, x.shape[-1])
    run(
        loops.cross_entropy, x.reshape(rows), labels, ignore_index, reduction == "mean",
        losses.reshape(-1), total, d.reshape(rows),
    )  # fmt: skip
    return y, {"d": d, "p": None, "q": None, "count": None}


@overrides.fused(softmax_cross_entropy)(cross_entropy).d("x")
@calls(otherwise=_inherited.derivatives[0].kernel)
def _gradient(run: Run, dy: Array, d: Any, p: Any, q: Any, count: Any, reduction: str) -> Any:
    if d is None or not dy.flags.c_contiguous:
        return None
    dx = run.new(d.shape, d.dtype)
    if dy.ndim == 0:
        run(loops.scaled, d.reshape(-1), dy, dx.reshape(-1))
    else:
        rows = (-1, d.shape[-1])
        run(loops.scaled_rows, d.reshape(rows), dy.reshape(-1), dx.reshape(rows))
    return dx


@overrides.test(check_labels)
def _labels_are_classes(ids: Array, name: str, classes: int, ignore_index: int) -> bool:
    return type(ids) is np.ndarray and ids.dtype == np.int64 and bool(loops.below(ids, classes))
