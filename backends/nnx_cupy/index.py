"""Reading and adding at indices along an axis: embeddings.

Up to IN_ORDER indices are added in their order: the same sums in every run. Of more, which would
take too long to compare with each other, the additions are atomic and their order is open.
"""

from __future__ import annotations

import math
from typing import Any

from nnx.calls import calls
from nnx.ops import scatter_add, take

from .launch import THREADS, Source, blocks_for, blocks_of_rows, dtype_name
from .table import Array, Run, overrides, plain

IN_ORDER = 4096
_source = Source("index.cu")
_INDICES = {"int32": "int", "int64": "long long"}


def _kind(indices: Array) -> str | None:
    """The indices' type in CUDA, None where the kernels do not take them."""
    if not indices.size or not indices.flags.c_contiguous:
        return None
    return _INDICES.get(dtype_name(indices.dtype))


@overrides.forward(take)
@calls
def _take(run: Run, x: Array, indices: Array, *, axis: int = 0) -> Any:
    kind = _kind(indices)
    if kind is None or not plain(x):
        return None
    axis %= x.ndim
    before, after = math.prod(x.shape[:axis]), math.prod(x.shape[axis + 1 :])
    n, size = indices.size, x.shape[axis]
    y = run.new((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]), x.dtype)
    kernel = _source("take", x.dtype, NNX_LABEL=kind)
    run(kernel, *blocks_of_rows(before * n, after), x, indices, y, before, n, size, after)
    return y, {"size": size, "ndim": x.ndim}


@overrides.forward(scatter_add)
@calls
def _scatter_add(run: Run, x: Array, indices: Array, *, size: int, axis: int = 0) -> Any:
    kind = _kind(indices)
    if kind is None or not plain(x):
        return None
    rest = x.shape[axis + indices.ndim :]
    before, after, n = math.prod(x.shape[:axis]), math.prod(rest), indices.size
    y = run.new((*x.shape[:axis], size, *rest), x.dtype)
    run(_source("cleared", x.dtype, NNX_LABEL=kind), blocks_for(y.size), THREADS, y, y.size)
    given = (x, indices, y, before, n, size, after)
    if n <= IN_ORDER:
        run(_source("scatter_add", x.dtype, NNX_LABEL=kind), n, 128, *given)
    else:
        kernel = _source("scatter_add_atomic", x.dtype, NNX_LABEL=kind)
        run(kernel, *blocks_of_rows(before * n, after), *given)
    return y
