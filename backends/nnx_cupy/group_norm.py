"""Group and layer normalisation: a warp or a block for each group of an image; h is computed again.

Layer norm is group norm with one group, whose channels are the entries of a row.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from nnx.calls import calls
from nnx.ops import group_norm, layer_norm

from .geometry import MOST
from .launch import Source, blocks_for_rows, computing
from .sums import by_channel, channel_sums
from .table import Array, Run, contiguous, floats, overrides, slope, with_extras

# Of groups of one entry g less its mean is 0, to the bit: nothing is fused.
_source = Source("group_norm.cu", "--fmad=false")


class Sizes(NamedTuple):
    """Of x (n, groups * each, places), in any shape; `each` channels are a group."""

    n: int
    groups: int
    each: int
    places: int

    @property
    def rows(self) -> int:
        return self.n * self.groups

    @property
    def columns(self) -> int:
        return self.each * self.places


def _of_groups(x: Array, groups: int) -> Sizes:
    n, channels = x.shape[:2]
    return Sizes(n, groups, channels // groups, math.prod(x.shape[2:]))


def _of_layers(x: Array, ndim: int) -> Sizes:
    start = x.ndim - ndim
    return Sizes(math.prod(x.shape[:start]), 1, math.prod(x.shape[start:]), 1)


def _normalised(run: Run, x: Array, gamma: Any, beta: Any, sizes: Sizes, eps: float) -> Any:
    """means, less the row's first entry; inverses: 1 / sqrt(var + eps)"""
    scales = [v for v in (gamma, beta) if v is not None]
    if not floats(x, *scales) or (x.size > MOST and sizes.places > 1):
        return None
    x, gamma, beta = (v if v is None else contiguous(run, v) for v in (x, gamma, beta))
    y, (_, *group), rows = run.new(x.shape, x.dtype), sizes, sizes.rows
    means, inverses = (run.new((rows,), computing(x)) for _ in range(2))
    run(
        _source("group_norm", x.dtype), *blocks_for_rows(rows, sizes.columns),
        x, gamma, beta, y, means, inverses, rows, *group, float(eps),
    )  # fmt: skip
    return y, {"means": means, "inverses": inverses, "h": None, "inv": None}


def _by_x(
    run: Run, dy: Array, x: Array, gamma: Any, means: Any, inverses: Any, sizes: Sizes
) -> Any:
    if means is None:
        return None
    x, dy = contiguous(run, x), contiguous(run, dy)
    gamma = None if gamma is None else contiguous(run, gamma)
    dx, (_, *group), rows = run.new(x.shape, x.dtype), sizes, sizes.rows
    run(
        _source("group_norm_slope", x.dtype), *blocks_for_rows(rows, sizes.columns),
        dy, x, gamma, means, inverses, dx, rows, *group,
    )  # fmt: skip
    return dx


def _by_gamma(
    run: Run, dy: Array, x: Array, means: Any, inverses: Any, sizes: Sizes, shape: tuple[int, ...]
) -> Any:
    if means is None:
        return None
    x, dy, dgamma = contiguous(run, x), contiguous(run, dy), run.new(shape, x.dtype)
    kernel = _source("group_norm_scale_sums", x.dtype)
    by_channel(
        run, dgamma, sizes.n, sizes.places,
        lambda blocks, threads, out: run(
            kernel, blocks, threads, dy, x, means, inverses, out, *sizes
        ),
    )  # fmt: skip
    return dgamma


def _by_beta(run: Run, dy: Array, means: Any, sizes: Sizes, shape: tuple[int, ...]) -> Any:
    if means is None:
        return None
    dbeta = run.new(shape, dy.dtype)
    given = contiguous(run, dy).reshape(sizes.n, sizes.groups * sizes.each, sizes.places)
    channel_sums(run, given, dbeta)
    return dbeta


@calls(otherwise=with_extras(group_norm, "means", "inverses"))
def _group_norm(
    run: Run, x: Array, gamma: Any = None, beta: Any = None, *, groups: int, eps: float = 1e-5
) -> Any:
    return _normalised(run, x, gamma, beta, _of_groups(x, groups), eps)


_groups = overrides.fused(group_norm)(_group_norm)


@slope(_groups, group_norm, "x")
def _group_norm_x(
    run: Run, dy: Array, x: Array, gamma: Any, means: Any, inverses: Any, h: Any, inv: Any,
    groups: int,
) -> Any:  # fmt: skip
    return _by_x(run, dy, x, gamma, means, inverses, _of_groups(x, groups))


@slope(_groups, group_norm, "gamma")
def _group_norm_gamma(
    run: Run, dy: Array, x: Array, means: Any, inverses: Any, h: Any, groups: int
) -> Any:
    return _by_gamma(run, dy, x, means, inverses, _of_groups(x, groups), x.shape[1:2])


@slope(_groups, group_norm, "beta")
def _group_norm_beta(run: Run, dy: Array, means: Any) -> Any:
    return _by_beta(run, dy, means, _of_groups(dy, 1), dy.shape[1:2])


@calls(otherwise=with_extras(layer_norm, "means", "inverses"))
def _layer_norm(
    run: Run, x: Array, gamma: Any = None, beta: Any = None, *, ndim: int = 1, eps: float = 1e-5
) -> Any:
    return _normalised(run, x, gamma, beta, _of_layers(x, ndim), eps)


_layers = overrides.fused(layer_norm)(_layer_norm)


@slope(_layers, layer_norm, "x")
def _layer_norm_x(
    run: Run, dy: Array, x: Array, gamma: Any, means: Any, inverses: Any, h: Any, inv: Any,
    ndim: int,
) -> Any:  # fmt: skip
    return _by_x(run, dy, x, gamma, means, inverses, _of_layers(x, ndim))


@slope(_layers, layer_norm, "gamma")
def _layer_norm_gamma(
    run: Run, dy: Array, x: Array, means: Any, inverses: Any, h: Any, ndim: int
) -> Any:
    return _by_gamma(run, dy, x, means, inverses, _of_layers(x, ndim), x.shape[x.ndim - ndim :])


@slope(_layers, layer_norm, "beta")
def _layer_norm_beta(run: Run, dy: Array, means: Any, ndim: int) -> Any:
    return _by_beta(run, dy, means, _of_layers(dy, ndim), dy.shape[dy.ndim - ndim :])
