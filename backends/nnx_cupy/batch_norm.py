"""Batch normalisation: two launches for the statistics, one for the result; h is not kept.

Arrays of more than MOST entries are the portable kernels'.
"""

from __future__ import annotations

import math
from typing import Any

from nnx.calls import calls
from nnx.ops import batch_norm

from .geometry import MOST
from .launch import THREADS, Source, blocks_for, blocks_of_rows, computing
from .sums import grid
from .table import Array, Run, contiguous, floats, overrides

# Where all values are equal, or there is one, h and dx are 0 to the bit: nothing is fused.
_source = Source("batch_norm.cu", "--fmad=false")
_slopes = {d.arguments[0]: d for d in batch_norm.derivatives}


def _shape(x: Array) -> tuple[int, int, int]:
    return x.shape[0], x.shape[1], math.prod(x.shape[2:])


def _otherwise(xp: Any, x: Array, gamma: Any = None, beta: Any = None, **attrs: Any) -> Any:
    y, extras = batch_norm.forward(xp, x, gamma, beta, **attrs)
    return y, {"means": None, "inverses": None, **extras}


@calls(otherwise=_otherwise)
def _batch_norm(
    run: Run, x: Array, gamma: Any = None, beta: Any = None, *, eps: float = 1e-5
) -> Any:
    """means, less the channel's first entry; inverses: 1 / sqrt(var + eps); as they are computed"""
    scales = [v for v in (gamma, beta) if v is not None]
    if x.size > MOST or not floats(x, *scales):
        return None
    x, gamma, beta = (v if v is None else contiguous(run, v) for v in (x, gamma, beta))
    (n, channels, places), kind = _shape(x), computing(x)
    y, mean, var = (run.new(s, x.dtype) for s in (x.shape, (channels,), (channels,)))
    means, inverses = (run.new((channels,), kind) for _ in range(2))
    blocks, threads = grid(n, channels, places)
    chunks = blocks[1]
    parts = [run.empty((chunks, channels), kind) for _ in range(2)]
    run(_source("chunk_moments", x.dtype), blocks, threads, x, *parts, n, channels, places)
    run(
        _source("moments", x.dtype), blocks_for(channels), THREADS,
        x, *parts, means, inverses, mean, var, chunks, channels, places, n * places, float(eps),
    )  # fmt: skip
    run(
        _source("batch_norm", x.dtype), *blocks_of_rows(n * channels, places),
        x, gamma, beta, means, inverses, y, n, channels, places,
    )  # fmt: skip
    return (y, mean, var), {"means": means, "inverses": inverses, "h": None, "inv": None}


def _slopes_otherwise(
    xp: Any, dy: Any, x: Array, gamma: Any, means: Any, inverses: Any, h: Any, inv: Any
) -> Any:
    known = {"gamma": gamma, "h": h, "inv": inv}
    return tuple(d.kernel(xp, dy, *[known[name] for name in d.reads]) for d in _slopes.values())


@overrides.fused(batch_norm)(_batch_norm).d("x", "gamma", "beta")
@calls(otherwise=_slopes_otherwise)
def _batch_norm_slope(
    run: Run, dy: Any, x: Array, gamma: Any, means: Any, inverses: Any, h: Any, inv: Any
) -> Any:
    """All at once, for they share the sums; of a gamma or beta that is not there nobody asks."""
    if means is None:
        return None
    (n, channels, places), kind = _shape(x), computing(x)
    dx, dgamma, dbeta = (run.new(s, x.dtype) for s in (x.shape, (channels,), (channels,)))
    dy, dmean, dvar = (contiguous(run, a) for a in dy)
    x, gamma = contiguous(run, x), None if gamma is None else contiguous(run, gamma)
    shape = n, channels, places
    blocks, threads = grid(*shape)
    chunks = blocks[1]
    parts = [run.empty((chunks, channels), kind) for _ in range(2)]
    totals = [run.empty((channels,), kind) for _ in range(2)]
    run(
        _source("slope_sums", x.dtype), blocks, threads,
        dy, x, means, inverses, *parts, *shape,
    )  # fmt: skip
    run(
        _source("slope_totals", x.dtype), blocks_for(channels), THREADS,
        *parts, *totals, dbeta, dgamma, chunks, channels,
    )  # fmt: skip
    run(
        _source("batch_norm_slope", x.dtype), *blocks_of_rows(n * channels, places),
        dy, x, gamma, means, inverses, *totals, dmean, dvar, dx, *shape,
    )  # fmt: skip
    return dx, dgamma, dbeta
