"""Attention in blocks of queries, of some heads each, whose scores stay in the cache.

A block of a causal call reads the keys up to its last one. Weights are not divided by their sums:
results and gradients are, which are narrower. Where the weights are not too many they are kept for
backward, else computed once more.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nnx.calls import calls
from nnx.ops import attention

from .scores import Space, Work, one_after_another
from .table import FLOATS, UNTHREADED_VECTOR, Array, Run, dot_for, ones, order_of, overrides

SAFE = 30.0  # scores within +-SAFE need no shift: e^30 and its sums are far from float32's ends
TINY = 1e-20  # less than any sum of weights that is not 0


def _weights(s: Array, top: Array, *hidden: Array) -> None:
    """s = e^(s - top), 0 where hidden; top (..., rows, 1)

    Maxima of rows take longer than the exponentials: where all scores are small, top is 0.
    """
    pairs = list(zip(hidden[::2], hidden[1::2], strict=True))
    if s.min() >= -SAFE and s.max() <= SAFE:
        top.fill(0)
        np.exp(s, s)
        for some, factor in pairs:
            np.multiply(some, factor, some)
        return
    for some, factor in pairs:
        np.copyto(some, -np.inf, where=factor == 0)
    np.maximum.reduce(s, axis=-1, keepdims=True, out=top)
    np.copyto(top, 0, where=~np.isfinite(top))
    np.subtract(s, top, s)
    np.exp(s, s)


def _weights_again(s: Array, lse: Array, *hidden: Array) -> None:
    """s = e^(s - lse), 0 where hidden: there it is kept from overflowing"""
    pairs = list(zip(hidden[::2], hidden[1::2], strict=True))
    np.subtract(s, lse, s)
    for some, _ in pairs:
        np.minimum(some, 0, out=some)
    np.exp(s, s)
    for some, factor in pairs:
        np.multiply(some, factor, some)


def _takes(q: Any, k: Any, v: Any, bias: Any) -> bool:
    alike = all(type(x) is np.ndarray and x.dtype == q.dtype and x.size for x in (q, k, v))
    one_lead = alike and q.shape[:-2] == k.shape[:-2] == v.shape[:-2]
    return one_lead and q.dtype in FLOATS and bias is None


def _laid(run: Run, shape: tuple[int, ...], x: Array) -> Array:
    """A new array with its axes in x's order: heads that lie side by side stay so."""
    order = order_of(x)
    usual = order == tuple(range(x.ndim)) or order[-1] != x.ndim - 1
    made: Array = run.new(shape, x.dtype) if usual else run.laid(shape, x.dtype, order)
    return made


def _otherwise(
    xp, q, k, v, bias=None, mask=None, drawn=None, *, causal=False, scale=None, p=0.0, rows=None
):
    y, extras = attention.forward(
        xp, q, k, v, bias, mask, drawn, causal=causal, scale=scale, p=p, rows=rows
    )
    return y, {"e": None, "inv": None, **extras}


@calls(otherwise=_otherwise)
def _attention(
    run, q, k, v, bias=None, mask=None, drawn=None, *, causal=False, scale=None, p=0.0, rows=None
):
    """e: weights before they are divided, block by block, and inv, 1 / their sums; else lse"""
    if not _takes(q, k, v, bias):
        return None
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    work = Work(run, q, k, mask, drawn, causal, scale, p, rows)
    y, e, space = _laid(run, (*q.shape[:-1], v.shape[-1]), q), None, work.space()
    if work.keeps:
        e = run.new((sum(math.prod(work.shape(b)) for part in work.parts for b in part),), q.dtype)
        space = one_after_another(e)
    column = run.new((*q.shape[:-1], 1), q.dtype)
    turned, narrow = work.narrow(*k.shape[-2:]), work.narrow(work.rows)
    for part in work.parts:
        columns = work.scaled(k, part[0].heads, turned)
        for block in part:
            s, out, row = space(work.shape(block)), block.rows(y), block.rows(column)
            sums = narrow(row.shape)
            work.product(block.rows(q), columns[..., : block.keys], s)
            run(_weights, s, row, *work.hidden(s, block))
            product = dot_for(2 * s.size, UNTHREADED_VECTOR)
            run(product, s.reshape(-1, block.keys), ones(block.keys, s.dtype), sums.reshape(-1))
            run(np.maximum, sums, TINY, out=sums)
            work.product(work.drop(block)(s), block.columns(v), out)
            run(np.divide, out, sums, out)
            if e is not None:
                run(np.divide, 1, sums, row)
            else:
                run(np.log, sums, sums)
                run(np.add, row, sums, row)
    kept = e is not None
    inv, lse = (column, None) if kept else (None, column)
    return y, {"e": e, "inv": inv, "lse": lse, "scaled": scale}


_portable = attention.derivatives[0].kernel


def _slopes_otherwise(
    xp, dy, q, k, v, bias, mask, drawn, y, e, inv, lse, scaled, causal, p, rows
):  # fmt: skip
    return _portable(xp, dy, q, k, v, bias, mask, drawn, y, lse, scaled, causal, p, rows)


@overrides.fused(attention)(_attention).d("q", "k", "v", "bias")
@calls(otherwise=_slopes_otherwise)
def _attention_slopes(
    run, dy, q, k, v, bias, mask, drawn, y, e, inv, lse, scaled, causal, p, rows
):  # fmt: skip
    """With g = dy inv: dv = e' g, ds = e (g v' - sum of g y) scale, dq = ds k, dk = ds' q"""
    if not _takes(q, k, v, bias):
        return None
    work = Work(run, q, k, mask, drawn, causal, scaled, p, rows)
    dq, dk, dv = (_laid(run, x.shape, x) for x in (q, k, v))
    weights = work.space() if e is None else one_after_another(e)
    space, narrow = work.space(), work.narrow(work.rows)
    divided = work.narrow(work.rows, v.shape[-1])
    of_k, of_v, part_k, part_v = (work.narrow(*x.shape[-2:]) for x in (k, v, k, v))
    for part in work.parts:
        heads = part[0].heads
        values = work.scaled(v, heads, of_v)
        keys = None if e is not None else work.scaled(k, heads, of_k)
        for block in part:
            s, ds, g = weights(work.shape(block)), space(work.shape(block)), block.rows(dy)
            if keys is not None:
                work.product(block.rows(q), keys[..., : block.keys], s)
                run(_weights_again, s, block.rows(lse), *work.hidden(s, block))
            else:
                d, g = g, divided(g.shape)
                run(np.multiply, d, block.rows(inv), g)
            along, drop = narrow((*g.shape[:-1], 1)), work.drop(block)
            run(np.vecdot, g, block.rows(y), out=along[..., 0])
            run(np.multiply, along, scaled, along)
            _add(work, drop(s), g, block.columns(dv), part_v, block is part[0])
            work.product(g, values[..., : block.keys], ds)
            drop(ds, ds)
            run(np.subtract, ds, along, ds)
            run(np.multiply, ds, s, ds)
            work.product(ds, block.columns(k), block.rows(dq))
            _add(work, ds, block.rows(q), block.columns(dk), part_k, block is part[0])
    return dq, dk, dv, None


def _add(work: Work, x: Array, y: Array, total: Array, space: Space, first: bool) -> None:
    """total (+)= x' y"""
    product = total if first else space(total.shape)
    work.product(np.swapaxes(x, -1, -2), y, product)
    if not first:
        work.run(np.add, total, product, total)
