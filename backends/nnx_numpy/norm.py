"""Batch and layer normalisation, some channels or rows at a time, which stay in the cache.

All gradients come together: they share the sums.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from nnx.calls import calls
from nnx.ops import batch_norm, layer_norm

from .layout import channels, gapless, in_order, like
from .table import (
    BLOCK,
    FLOATS,
    UNTHREADED_VECTOR,
    Array,
    Run,
    dot_for,
    matmul_for,
    ones,
    order_of,
    overrides,
    plain,
    reused,
)

SHORT = 8  # entries that lie together, of fewer of which sums are slow
FEW = 1 << 13  # entries in all, below which the number of calls counts


def _takes(x: Any, *scales: Any) -> bool:
    if type(x) is not np.ndarray or x.dtype not in FLOATS or not x.size:
        return False
    return all(v is None or (plain(v) and v.dtype == x.dtype) for v in scales)


def _otherwise(op: Any) -> Any:
    """The portable forward, and its derivatives as one, of what these kernels do not take."""
    portable = {d.arguments[0]: d for d in op.derivatives}

    def forward(xp, x, gamma=None, beta=None, **options):
        y, extras = op.forward(xp, x, gamma, beta, **options)
        return y, {"means": None, "inverses": None, **extras}

    def slopes(xp, dy, x, gamma, beta, means, inverses, h, inv, ndim=1):
        """A gradient of what is not there is asked for by nobody."""
        known = {"gamma": gamma, "beta": beta, "h": h, "inv": inv, "ndim": ndim}
        return tuple(
            None if name in known and known[name] is None
            else d.kernel(xp, dy, *[known[read] for read in d.reads])
            for name, d in portable.items()
        )  # fmt: skip

    return forward, slopes


_batch_otherwise, _batch_slopes_otherwise = _otherwise(batch_norm)
_layer_otherwise, _layer_slopes_otherwise = _otherwise(layer_norm)


def _sums(run: Run, x: Array, total: Array) -> None:
    """total (C,) = sums of x (before, C, after)"""
    part = run.empty(x.shape[:2], x.dtype)
    product = matmul_for(2 * x[0].size, UNTHREADED_VECTOR)
    run(product, x, ones(x.shape[2], x.dtype), part)
    run(np.add.reduce, part, axis=0, out=total)


def _dots(run: Run, x: Array, y: Array, total: Array) -> None:
    """total (C,) = sums of x y"""
    part = run.empty(x.shape[:2], x.dtype)
    run(np.vecdot, x, y, out=part)
    run(np.add.reduce, part, axis=0, out=total)


def _space(run: Run, x: Array, line: int) -> Callable[[tuple[int, ...]], Array]:
    """Scratch for parts of x: of a block, or of a channel or row that is longer."""
    return reused(run, x.dtype, min(x.size, max(BLOCK, line)))


def _inverse(run: Run, var: Array, eps: float, inv: Array) -> None:
    run(np.add, var, eps, inv)
    run(np.sqrt, inv, inv)
    run(np.divide, 1, inv, inv)


# Batch norm


def _by_channels(*arrays: Array | None) -> Iterator[list[Any]]:
    """Arrays (before, C, after), and those (C,) as columns beside them, some channels at a time."""
    before, n, after = arrays[0].shape  # type: ignore[union-attr]
    step = max(1, BLOCK // (before * after))
    for i in range(0, n, step):
        yield [
            a if a is None else a[:, i : i + step] if a.ndim == 3 else a[i : i + step, None]
            for a in arrays
        ]


@calls(otherwise=_batch_otherwise)
def _batch_norm(run, x, gamma=None, beta=None, *, eps=1e-5):
    """means, inverses: 1 / sqrt(var + eps); by channel"""
    if x.size < FEW or not (_takes(x, gamma, beta) and gapless(x)):
        return None
    order = order_of(x)
    columns = channels(x, order)
    if columns.shape[2] < SHORT:
        return None
    n, shape = x.size // x.shape[1], (x.shape[1],)
    y, mean, var, means, inverses = like(run, x), *(run.new(shape, x.dtype) for _ in range(4))
    space = _space(run, x, n)
    for a, b, m, v, inv, g, c in _by_channels(
        columns, channels(y, order), means, var, inverses, gamma, beta
    ):
        _sums(run, a, m[:, 0])
        run(np.multiply, m, 1 / n, m)
        run(np.subtract, a, m, b)
        _dots(run, b, b, v[:, 0])
        run(np.multiply, v, 1 / n, v)
        _inverse(run, v, eps, inv)
        scale = inv
        if g is not None:
            scale = space(inv.shape)
            run(np.multiply, inv, g, scale)
        run(np.multiply, b, scale, b)
        if c is not None:
            run(np.add, b, c, b)
    run(np.copyto, mean, means)
    return (y, mean, var), {"means": means, "inverses": inverses, "h": None, "inv": None}


@overrides.fused(batch_norm)(_batch_norm).d("x", "gamma", "beta")
@calls(otherwise=_batch_slopes_otherwise)
def _batch_norm_slopes(run, dy, x, gamma, beta, means, inverses, h, inv):
    """dx = A dy + B (x - mean) + D, with numbers A, B, D for each channel"""
    if means is None:
        return None
    (dy, dmean, dvar), n, shape = dy, x.size // x.shape[1], (x.shape[1],)
    dx = like(run, x)
    dgamma, dbeta = (None if v is None else run.new(shape, x.dtype) for v in (gamma, beta))
    order = order_of(x)
    given = in_order(run, dy, order).transpose([order.index(i) for i in range(x.ndim)])
    total, along, A, B, D = (run.empty(shape, x.dtype) for _ in range(5))
    space = _space(run, x, n)
    for a, d, b, m, i, s, t, p, q, r, g, dm, dv in _by_channels(
        *[channels(v, order) for v in (x, given, dx)],
        means, inverses, total, along, A, B, D, gamma, dmean, dvar,
    ):  # fmt: skip
        centred = space(a.shape)
        run(np.subtract, a, m, centred)
        _sums(run, d, s[:, 0])
        _dots(run, d, centred, t[:, 0])
        run(np.multiply, t, i, t)
        run(np.multiply, i, 1 if g is None else g, p)
        run(np.multiply, t, i, q)
        run(np.multiply, q, p, q)
        run(np.multiply, dv, 2, r)
        run(np.subtract, r, q, q)
        run(np.multiply, q, 1 / n, q)
        run(np.multiply, p, s, r)
        run(np.subtract, dm, r, r)
        run(np.multiply, r, 1 / n, r)
        run(np.multiply, centred, q, centred)
        run(np.add, centred, r, centred)
        run(np.multiply, d, p, b)
        run(np.add, b, centred, b)
    if dgamma is not None:
        run(np.copyto, dgamma, along)
    if dbeta is not None:
        run(np.copyto, dbeta, total)
    return dx, dgamma, dbeta


# Layer norm


def _by_rows(count: int, *arrays: Array) -> Iterator[list[Array]]:
    """Arrays as matrices of so many rows, and those of one number a row as columns, in bands."""
    flat = [a.reshape(count, -1) for a in arrays]
    step = max(1, BLOCK // flat[0].shape[1])
    for i in range(0, count, step):
        yield [a[i : i + step] for a in flat]


def _row_sums(run: Run, x: Array, total: Array) -> None:
    product = dot_for(2 * x.size, UNTHREADED_VECTOR)
    run(product, x, ones(x.shape[1], x.dtype), total[:, 0])


@calls(otherwise=_layer_otherwise)
def _layer_norm(run, x, gamma=None, beta=None, *, ndim=1, eps=1e-5):
    """means, inverses: 1 / sqrt(var + eps); by row"""
    if not (_takes(x, gamma, beta) and plain(x)):
        return None
    y, count = run.new(x.shape, x.dtype), math.prod(x.shape[: x.ndim - ndim])
    means, inverses = run.new((count,), x.dtype), run.new((count,), x.dtype)
    n = x.size // count
    for a, b, m, inv in _by_rows(count, x, y, means, inverses):
        _row_sums(run, a, m)
        run(np.multiply, m, 1 / n, m)
        run(np.subtract, a, m, b)
        run(np.vecdot, b, b, out=inv[:, 0])
        run(np.multiply, inv, 1 / n, inv)
        _inverse(run, inv, eps, inv)
        run(np.multiply, b, inv, b)
        if gamma is not None:
            run(np.multiply, b, gamma.reshape(-1), b)
        if beta is not None:
            run(np.add, b, beta.reshape(-1), b)
    return y, {"means": means, "inverses": inverses, "h": None, "inv": None}


@overrides.fused(layer_norm)(_layer_norm).d("x", "gamma", "beta")
@calls(otherwise=_layer_slopes_otherwise)
def _layer_norm_slopes(run, dy, x, gamma, beta, means, inverses, h, inv, ndim):
    """dx = i (g - mean of g - i^2 c mean of g c), with i = 1 / sqrt(var + eps), g = gamma dy and
    c = x - mean. Sums of g are products of dy with gamma, those of g c of dy c.
    """
    if means is None:
        return None
    dx, count = run.new(x.shape, x.dtype), means.size
    dgamma, dbeta = (None if v is None else run.new(v.shape, x.dtype) for v in (gamma, beta))
    n, given = x.size // count, in_order(run, dy, tuple(range(dy.ndim)))
    space = _space(run, x, n)
    sums, dots = run.empty((count,), x.dtype), run.empty((count,), x.dtype)
    part, first = run.empty((n,), x.dtype), True
    scale = ones(n, x.dtype) if gamma is None else gamma.reshape(-1)
    for a, d, b, m, i, s, t in _by_rows(count, x, given, dx, means, inverses, sums, dots):
        c, product = space(a.shape), dot_for(2 * a.size, UNTHREADED_VECTOR)
        run(np.subtract, a, m, c)
        run(np.multiply, d, c, b)
        run(product, b, scale, t[:, 0])
        if dgamma is not None:
            _add_columns(run, i[:, 0], b, dgamma, part, first)
        if dbeta is not None:
            _add_columns(run, ones(d.shape[0], d.dtype), d, dbeta, part, first)
        run(product, d, scale, s[:, 0])
        run(np.multiply, s, 1 / n, s)
        run(np.multiply, t, 1 / n, t)
        for _ in range(2):
            run(np.multiply, t, i, t)
        run(np.multiply, c, t, c)
        run(np.add, c, s, c)
        g = d
        if gamma is not None:
            run(np.multiply, d, scale, b)
            g = b
        run(np.subtract, g, c, b)
        run(np.multiply, b, i, b)
        first = False
    return dx, dgamma, dbeta


def _add_columns(run: Run, weights: Array, x: Array, sums: Array, part: Array, first: bool) -> None:
    """sums (+)= those of the columns, each row with its weight"""
    total = sums.reshape(-1)
    product = dot_for(2 * x.size, UNTHREADED_VECTOR)
    run(product, weights, x, total if first else part)
    if not first:
        run(np.add, total, part, total)
