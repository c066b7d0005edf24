"""Softmax cross-entropy of class ids: the gradient comes with the loss, in one pass over rows."""

from __future__ import annotations

from typing import Any

from nnx.calls import calls
from nnx.ops import softmax_cross_entropy

from .launch import (
    THREADS,
    Source,
    blocks_for,
    blocks_for_rows,
    computing,
    dtype_name,
    per_pack,
    threads_for,
)
from .table import Array, Run, contiguous, overrides, plain, slope, with_extras

_source = Source("cross_entropy.cu")
_LABELS = {"int32": "int", "int64": "long long"}


COUNTED = 1024  # rows, up to which each block may count all labels by itself


def _label(x: Array, t: Array) -> str | None:
    """The type of the class ids in CUDA, None where the kernels do not take them."""
    if t.ndim != x.ndim - 1 or not (plain(x) and t.flags.c_contiguous):
        return None
    return _LABELS.get(dtype_name(t.dtype))


def _launch(
    run: Run, x: Array, t: Array, losses: Array, d: Array, ignore_index: int, mean: bool
) -> None:  # fmt: skip
    label, rows, columns = _label(x, t), t.size, x.shape[-1]
    kernel = _source("cross_entropy", x.dtype, NNX_LABEL=str(label))
    blocks = blocks_for_rows(rows, columns)
    run(kernel, *blocks, x, t, losses, d, rows, columns, ignore_index, int(mean))


def _total(
    run: Run, losses: Array, t: Array, y: Array, count: Array, ignore_index: int, mean: bool
) -> None:  # fmt: skip
    label = _LABELS[dtype_name(t.dtype)]
    kernel = _source("cross_entropy_total", y.dtype, NNX_LABEL=label)
    run(kernel, 1, threads_for(t.size), losses, t, y, count, t.size, ignore_index, int(mean))


@calls(otherwise=with_extras(softmax_cross_entropy, "d"))
def _cross_entropy(
    run: Run, x: Array, t: Array, weight: Any = None,
    *, label_smoothing: float = 0.0, ignore_index: int = -100, reduction: str = "mean",
) -> Any:  # fmt: skip
    """d is the gradient of the rows' losses, `count` what the cotangent is divided by."""
    if weight is not None or label_smoothing or _label(x, t) is None:
        return None
    each = reduction == "none"
    y, d = run.new(t.shape if each else (), x.dtype), run.new(x.shape, x.dtype)
    losses = y if each else run.empty(t.shape, x.dtype)
    _launch(run, x, t, losses, d, ignore_index, mean=False)
    count = None
    if not each:
        count = run.new((), computing(x))
        _total(run, losses, t, y, count, ignore_index, reduction == "mean")
    return y, {"d": d, "p": None, "q": None, "count": count}


_fused = overrides.fused(softmax_cross_entropy)(_cross_entropy)


@slope(_fused, softmax_cross_entropy, "x")
def _gradient(run: Run, dy: Array, d: Any, p: Any, q: Any, count: Any, reduction: str) -> Any:
    if d is None:
        return None
    given, dx = contiguous(run, dy), run.new(d.shape, d.dtype)
    if count is None:
        rows, columns = dy.size, d.shape[-1]
        kernel = _source("cross_entropy_scaled_rows", d.dtype, NNX_LABEL="int")
        run(kernel, *blocks_for_rows(rows, columns), d, given, dx, rows, columns)
    else:
        kernel = _source("cross_entropy_scaled", d.dtype, NNX_LABEL="int")
        run(kernel, blocks_for(d.size, per_pack(d)), THREADS, d, given, count, dx, d.size)
    return dx


@overrides.fusion(
    (softmax_cross_entropy, "x t -> y d count"),
    ((softmax_cross_entropy, "x"), "1 d _ _ count _ -> dx"),
)
def cross_entropy_with_gradient(
    run: Run, x: Array, t: Array, y: Array, dx: Array,
    *, label_smoothing: float = 0.0, ignore_index: int = -100, reduction: str = "mean",
) -> bool:  # fmt: skip
    """The gradient for a cotangent of 1, with no second pass over the logits."""
    mean = reduction == "mean"
    if label_smoothing or _label(x, t) is None or not plain(x, dx) or (mean and t.size > COUNTED):
        return False
    if computing(x) != dtype_name(x.dtype):  # it would be rounded once less
        return False
    losses, count = run.empty(t.shape, x.dtype), run.empty((), computing(x))
    _launch(run, x, t, losses, dx, ignore_index, mean)
    _total(run, losses, t, y, count, ignore_index, mean)
    return True
