"""Group normalisation: a warp or a block for each group of an image; h is computed again."""

from __future__ import annotations

from typing import Any

from nnx.calls import calls
from nnx.ops import group_norm

from .geometry import MOST
from .launch import Source, blocks_for_rows, computing
from .sums import by_channel, channel_sums
from .table import Array, Run, contiguous, floats, overrides, slope, with_extras

# Of groups of one entry g less its mean is 0, to the bit: nothing is fused.
_source = Source("group_norm.cu", "--fmad=false")


def _sizes(x: Array, groups: int) -> tuple[int, int, int]:
    """groups, channels of a group, places"""
    n, channels = x.shape[:2]
    return groups, channels // groups, x.size // (n * channels)


@calls(otherwise=with_extras(group_norm, "means", "inverses"))
def _group_norm(
    run: Run, x: Array, gamma: Any = None, beta: Any = None, *, groups: int, eps: float = 1e-5
) -> Any:
    """means, less the group's first entry; inverses: 1 / sqrt(var + eps)"""
    scales = [v for v in (gamma, beta) if v is not None]
    if x.size > MOST or not floats(x, *scales):
        return None
    x, gamma, beta = (v if v is None else contiguous(run, v) for v in (x, gamma, beta))
    rows, sizes, y = x.shape[0] * groups, _sizes(x, groups), run.new(x.shape, x.dtype)
    means, inverses = (run.new((rows,), computing(x)) for _ in range(2))
    run(
        _source("group_norm", x.dtype), *blocks_for_rows(rows, x.size // rows),
        x, gamma, beta, y, means, inverses, rows, *sizes, float(eps),
    )  # fmt: skip
    return y, {"means": means, "inverses": inverses, "h": None, "inv": None}


_fused = overrides.fused(group_norm)(_group_norm)


@slope(_fused, group_norm, "x")
def _group_norm_slope(
    run: Run, dy: Array, x: Array, gamma: Any, means: Any, inverses: Any, h: Any, inv: Any,
    groups: int,
) -> Any:  # fmt: skip
    if means is None:
        return None
    x, dy = contiguous(run, x), contiguous(run, dy)
    gamma = None if gamma is None else contiguous(run, gamma)
    rows, dx = means.size, run.new(x.shape, x.dtype)
    run(
        _source("group_norm_slope", x.dtype), *blocks_for_rows(rows, x.size // rows),
        dy, x, gamma, means, inverses, dx, rows, *_sizes(x, groups),
    )  # fmt: skip
    return dx


@slope(_fused, group_norm, "gamma")
def _group_norm_gamma(
    run: Run, dy: Array, x: Array, means: Any, inverses: Any, h: Any, groups: int
) -> Any:
    if means is None:
        return None
    x, dy, n = contiguous(run, x), contiguous(run, dy), x.shape[0]
    dgamma, sizes = run.new(x.shape[1:2], x.dtype), _sizes(x, groups)
    kernel = _source("group_norm_scale_sums", x.dtype)
    by_channel(
        run, dgamma, n * sizes[2],
        lambda grid, block, out: run(kernel, grid, block, dy, x, means, inverses, out, n, *sizes),
    )  # fmt: skip
    return dgamma


@slope(_fused, group_norm, "beta")
def _group_norm_beta(run: Run, dy: Array, means: Any) -> Any:
    if means is None:
        return None
    dbeta = run.new(dy.shape[1:2], dy.dtype)
    channel_sums(run, contiguous(run, dy), dbeta)
    return dbeta
