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


@calls(otherwise=with_extras(softmax_cross_entropy, "d"))
def cross_entropy(
    run: Run, x: Array, t: Array, weight: Any = None,
    *, label_smoothing: float = 0.0, ignore_index: int = -100, reduction: str = "mean",
) -> Any:  # fmt: skip
    """d is the gradient of the rows' losses, `count` what the cotangent is divided by."""
    label = _LABELS.get(dtype_name(t.dtype))
    ids = t.ndim == x.ndim - 1 and weight is None and not label_smoothing and label is not None
    if not (ids and plain(x) and t.flags.c_contiguous):
        return None
    assert label is not None
    each = reduction == "none"
    y = run.new(t.shape if each else (), x.dtype)
    d = run.new(x.shape, x.dtype)
    losses, rows, columns = y if each else run.empty(t.shape, x.dtype), t.size, x.shape[-1]
    run(
        _source("cross_entropy", x.dtype, NNX_LABEL=label), *blocks_for_rows(rows, columns),
        x, t, losses, d, rows, columns, ignore_index,
    )  # fmt: skip
    if each:
        return y, {"d": d, "p": None, "q": None, "count": None}
    count = run.new((), computing(x))
    run(
        _source("cross_entropy_total", x.dtype, NNX_LABEL=label), 1, threads_for(rows),
        losses, t, y, count, rows, ignore_index, int(reduction == "mean"),
    )  # fmt: skip
    return y, {"d": d, "p": None, "q": None, "count": count}


_fused = overrides.fused(softmax_cross_entropy)(cross_entropy)


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
