"""Layer normalisation: a warp or a block for each row; h is not kept but computed again."""

from __future__ import annotations

import math
from typing import Any

from nnx.calls import calls
from nnx.ops import layer_norm

from .launch import Source, blocks_for_rows, computing
from .sums import column_sums, over_rows
from .table import Array, Run, contiguous, overrides, plain, slope, with_extras

# Of rows of one entry g less its mean is 0, to the bit: nothing is fused.
_source = Source("layer_norm.cu", "--fmad=false")


@calls(otherwise=with_extras(layer_norm, "means", "inverses"))
def _layer_norm(
    run: Run, x: Array, gamma: Any = None, beta: Any = None, *, ndim: int = 1, eps: float = 1e-5
) -> Any:
    if not (plain(x) and all(v is None or plain(v) for v in (gamma, beta))):
        return None
    rows = math.prod(x.shape[: x.ndim - ndim])
    columns, y = x.size // rows, run.new(x.shape, x.dtype)
    means, inverses = (run.new((rows,), computing(x)) for _ in range(2))
    run(
        _source("layer_norm", x.dtype), *blocks_for_rows(rows, columns),
        x, gamma, beta, y, means, inverses, rows, columns, float(eps),
    )  # fmt: skip
    return y, {"means": means, "inverses": inverses, "h": None, "inv": None}


_fused = overrides.fused(layer_norm)(_layer_norm)


@slope(_fused, layer_norm, "x")
def _layer_norm_slope(
    run: Run, dy: Array, x: Array, gamma: Any, means: Any, inverses: Any, h: Any, inv: Any,
    ndim: int,
) -> Any:  # fmt: skip
    if means is None:
        return None
    rows, dx = means.size, run.new(x.shape, x.dtype)
    columns = x.size // rows
    run(
        _source("layer_norm_slope", x.dtype), *blocks_for_rows(rows, columns),
        contiguous(run, dy), x, gamma, means, inverses, dx, rows, columns,
    )  # fmt: skip
    return dx


@slope(_fused, layer_norm, "gamma")
def _layer_norm_gamma(
    run: Run, dy: Array, x: Array, means: Any, inverses: Any, h: Any, ndim: int
) -> Any:
    if means is None:
        return None
    dgamma, rows = run.new(x.shape[x.ndim - ndim :], x.dtype), means.size
    kernel, columns = _source("layer_norm_scale_sums", x.dtype), dgamma.size
    given = contiguous(run, dy)
    over_rows(
        run, dgamma, rows,
        lambda grid, block, out: run(
            kernel, grid, block, given, x, means, inverses, out, rows, columns
        ),
    )  # fmt: skip
    return dgamma


@slope(_fused, layer_norm, "beta")
def _layer_norm_beta(run: Run, dy: Array, means: Any, ndim: int) -> Any:
    if means is None:
        return None
    dbeta = run.new(dy.shape[dy.ndim - ndim :], dy.dtype)
    column_sums(run, contiguous(run, dy).reshape(means.size, -1), dbeta)
    return dbeta
