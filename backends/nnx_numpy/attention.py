"""Attention in blocks of queries, of some heads each, whose scores stay in the cache.

A block of a causal call reads the keys up to its last one. Weights are not divided by their sums:
results and gradients are, which are narrower. Where the weights are not too many they are kept for
backward, else computed once more.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from nnx.calls import calls
from nnx.ops import attention
from nnx.ops.attention import MOST

from .table import (
    FLOATS,
    UNTHREADED_VECTOR,
    Array,
    Run,
    dot_for,
    matmul_for,
    ones,
    order_of,
    overrides,
    reused,
)

Space = Callable[[tuple[int, ...]], Array]

SCORES = 1 << 17  # of a block: half of a core's second cache
ROWS = 64  # queries of a causal block: fewer save scores above the diagonal, and make products slow
SAFE = 30.0  # scores within +-SAFE need no shift: e^30 and its sums are far from float32's ends
TINY = 1e-20  # less than any sum of weights that is not 0


class Block(NamedTuple):
    """Queries a..b of some heads, and how many keys they may see."""

    heads: tuple[slice, ...]
    a: int
    b: int
    keys: int

    def rows(self, x: Array) -> Array:
        return x[(*self.heads, slice(self.a, self.b), slice(None))]

    def columns(self, x: Array) -> Array:
        return x[(*self.heads, slice(0, self.keys), slice(None))]

    def scores(self, x: Array) -> Array:
        return x[(*self.heads, slice(self.a, self.b), slice(0, self.keys))]


def _heads(lead: Sequence[int], each: int) -> Iterator[tuple[slice, ...]]:
    """Parts of the leading axes, of no more than SCORES; `each`: of one head."""
    if not lead:
        yield ()
        return
    inner = math.prod(lead[1:]) * each
    whole = (slice(None),) * (len(lead) - 1)
    rest = [whole] if inner <= SCORES else list(_heads(lead[1:], each))
    step = max(1, SCORES // inner)
    for i in range(0, lead[0], step):
        yield from ((slice(i, i + step), *other) for other in rest)


def _parts(q: Array, k: Array, causal: bool, rows: int | None) -> list[list[Block]]:
    """The blocks of each part of the heads, the last queries first: they see all keys."""
    queries, keys = q.shape[-2], k.shape[-2]
    rows = min(queries if rows is None else rows, ROWS if causal else max(ROWS, SCORES // keys))
    bounds = [(a, min(a + rows, queries)) for a in range(0, queries, rows)][::-1]
    return [
        [
            Block(heads, a, b, min(keys, max(1, b + keys - queries)) if causal else keys)
            for a, b in bounds
        ]
        for heads in _heads(q.shape[:-2], min(rows, queries) * keys)
    ]


@functools.lru_cache(256)
def _lower(rows: int, columns: int, shift: int, dtype: Any) -> Array:
    """1 where column <= row + shift, else 0"""
    return np.tri(rows, columns, shift, dtype)


class _Work:
    """The parts of a call, and what both directions do with a block."""

    def __init__(
        self, run: Run, q: Array, k: Array, mask: Any, drawn: Any, causal: bool, scale: float,
        p: float, rows: int | None,
    ) -> None:  # fmt: skip
        self.run, self.q, self.k, self.causal, self.scale = run, q, k, causal, scale
        self.drawn, self.p, self.mask = drawn, p, None
        self.parts, scores = _parts(q, k, causal, rows), (*q.shape[:-1], k.shape[-2])
        self.keeps = rows is None and math.prod(scores) <= MOST
        largest = self.parts[0][0]
        self.heads = math.prod(self.shape(largest)[:-2])
        self.rows = max(block.b - block.a for block in self.parts[0])
        if mask is not None:
            made = run.empty(mask.shape, q.dtype)
            run(np.copyto, made, mask)
            self.mask = np.broadcast_to(made, scores)
        if drawn is not None:
            self.lucky, self.factors, self.left = self.space(np.bool_), self.space(), self.space()

    def shape(self, block: Block) -> tuple[int, ...]:
        return (*self.q[block.heads].shape[:-2], block.b - block.a, block.keys)

    def space(self, dtype: Any = None) -> Space:
        """Scratch for the scores of a block."""
        size = self.heads * self.rows * self.k.shape[-2]
        return reused(self.run, dtype or self.q.dtype, size)

    def narrow(self, rows: int, columns: int = 1) -> Space:
        """Scratch for matrices of the heads of a part."""
        return reused(self.run, self.q.dtype, self.heads * rows * columns)

    def scaled(self, x: Array, heads: tuple[slice, ...], space: Space) -> Array:
        """Transposed, contiguous: products with it are then faster."""
        turned = np.swapaxes(x[heads], -1, -2)
        made = space(turned.shape)
        self.run(np.multiply, turned, self.scale, made)
        return made

    def product(self, x: Array, y: Array, out: Array) -> None:
        self.run(matmul_for(2 * x.shape[-2] * x.shape[-1] * y.shape[-1]), x, y, out)

    def hidden(self, s: Array, block: Block) -> list[Array]:
        """Pairs: some of the scores, and their factors 0 or 1."""
        found = []
        last = block.a + self.k.shape[-2] - self.q.shape[-2]  # that the first query sees
        start = max(0, last + 1)
        if self.causal and start < block.keys:
            some = s[..., start:]
            found += [some, _lower(*some.shape[-2:], last - start, s.dtype)]
        if self.mask is not None:
            found += [s, block.scores(self.mask)]
        return found

    def drop(self, block: Block) -> Callable[..., Array]:
        """Dropout of this block, as `f(x, out)`; out by default scratch."""
        if self.drawn is None:
            return _as_it_is
        lucky, factors = self.lucky(self.shape(block)), self.factors(self.shape(block))
        self.run(np.greater_equal, block.scores(self.drawn), self.p, lucky)
        self.run(np.copyto, factors, lucky)
        self.run(np.multiply, factors, 1 / (1 - self.p), factors)

        def dropped(x: Array, out: Array | None = None) -> Array:
            out = self.left(x.shape) if out is None else out
            self.run(np.multiply, x, factors, out)
            return out

        return dropped


def _as_it_is(x: Array, out: Array | None = None) -> Array:
    return x


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


def _one_after_another(e: Array) -> Space:
    """Parts of e in the order in which they are asked for."""
    end = [0]

    def of(shape: tuple[int, ...]) -> Array:
        start, end[0] = end[0], end[0] + math.prod(shape)
        return e[start : end[0]].reshape(shape)

    return of


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
    work = _Work(run, q, k, mask, drawn, causal, scale, p, rows)
    y, e, space = _laid(run, (*q.shape[:-1], v.shape[-1]), q), None, work.space()
    if work.keeps:
        e = run.new((sum(math.prod(work.shape(b)) for part in work.parts for b in part),), q.dtype)
        space = _one_after_another(e)
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
    work = _Work(run, q, k, mask, drawn, causal, scaled, p, rows)
    dq, dk, dv = (_laid(run, x.shape, x) for x in (q, k, v))
    weights = work.space() if e is None else _one_after_another(e)
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


def _add(work: _Work, x: Array, y: Array, total: Array, space: Space, first: bool) -> None:
    """total (+)= x' y"""
    product = total if first else space(total.shape)
    work.product(np.swapaxes(x, -1, -2), y, product)
    if not first:
        work.run(np.add, total, product, total)
