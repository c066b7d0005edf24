"""Which queries and heads attention works on at a time, and scratch for their scores."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from nnx.ops.attention import MOST

from .table import Array, Run, matmul_for, reused

Space = Callable[[tuple[int, ...]], Array]

SCORES = 1 << 17  # of a block: half of a core's second cache
ROWS = 64  # queries of a causal block: fewer save scores above the diagonal, and make products slow


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
    most = ROWS if causal else max(ROWS, SCORES // keys)
    step = min(most, queries if rows is None else rows)
    bounds = [(a, min(a + step, queries)) for a in range(0, queries, step)][::-1]
    return [
        [
            Block(heads, a, b, min(keys, max(1, b + keys - queries)) if causal else keys)
            for a, b in bounds
        ]
        for heads in _heads(q.shape[:-2], min(step, queries) * keys)
    ]


@functools.lru_cache(256)
def _lower(rows: int, columns: int, shift: int, dtype: Any) -> Array:
    """1 where column <= row + shift, else 0"""
    return np.tri(rows, columns, shift, dtype)


class Work:
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


def one_after_another(e: Array) -> Space:
    """Parts of e in the order in which they are asked for."""
    end = [0]

    def of(shape: tuple[int, ...]) -> Array:
        start, end[0] = end[0], end[0] + math.prod(shape)
        return e[start : end[0]].reshape(shape)

    return of
