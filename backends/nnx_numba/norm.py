"""Layer normalisation: one pass over the rows forward, one back for all gradients."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nnx.calls import calls
from nnx.ops import layer_norm

from . import rows
from .common import Array, Run, overrides, plain

_inherited = overrides.inherited(layer_norm)


@calls(otherwise=_inherited.forward)
def _layer_norm(
    run: Run, x: Array, gamma: Any = None, beta: Any = None, *, ndim: int = 1, eps: float = 1e-5
) -> Any:
    """The extras of NumPy's kernel, whose derivative is told of them where this one's is not."""
    if gamma is None or beta is None or not (x.size and plain(x) and plain(gamma, beta)):
        return None
    y, count = run.new(x.shape, x.dtype), math.prod(x.shape[: x.ndim - ndim])
    means, inverses = run.new((count,), x.dtype), run.new((count,), x.dtype)
    flat = [a.reshape(count, -1) for a in (x, y)]
    scales = gamma.reshape(-1), beta.reshape(-1)
    run(rows.layer_norm, flat[0], *scales, eps, means, inverses, flat[1])
    return y, {"means": means, "inverses": inverses, "h": None, "inv": None}


@overrides.fused(layer_norm)(_layer_norm).d("x", "gamma", "beta")
@calls(otherwise=_inherited.derivatives[0].kernel)
def _layer_norm_slope(
    run: Run, dy: Array, x: Array, gamma: Any, beta: Any, means: Any, inverses: Any, h: Any,
    inv: Any, ndim: int,
) -> Any:  # fmt: skip
    if means is None or gamma is None or beta is None:
        return None
    dx, dgamma, dbeta = (run.new(a.shape, x.dtype) for a in (x, gamma, beta))
    given = dy
    if not plain(dy):
        given = run.empty(dy.shape, dy.dtype)
        run(np.copyto, given, dy)
    count = means.size
    run(
        rows.layer_norm_slope, given.reshape(count, -1), x.reshape(count, -1), gamma.reshape(-1),
        means, inverses, dx.reshape(count, -1), dgamma.reshape(-1), dbeta.reshape(-1),
    )  # fmt: skip
    return dx, dgamma, dbeta
