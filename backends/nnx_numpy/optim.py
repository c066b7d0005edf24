"""Optimizers in place on NumPy: same values to the last bit as the portable kernels.

The portable kernel makes a new array per operation: over 64k entries each is fresh memory from
the system. Here a piece of that size goes through all operations while it is in the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from nnx.optim import kernels
from nnx.override import Run, calls

from .table import Array, Empty, overrides, pieces, plain, product, scratch

Calls = Iterator[Run]


def _over_pieces(
    empty: Empty, body: Callable[..., Calls], arrays: tuple[Array, ...], weight_decay: float = 0.0
) -> list[Run]:
    """`body(p, g, *state, scratch)` for each piece, the decay added to the gradient first."""
    spare, decayed, runs = scratch(empty, arrays[0]), None, []
    if weight_decay:
        decayed = scratch(empty, arrays[0])
    for p, g, *state in pieces(*arrays):
        d = g
        if decayed is not None:
            d = decayed(p)
            runs += [(np.multiply, (p, weight_decay, d), {}), (np.add, (g, d, d), {})]
        runs += body(p, d, *state, spare(p))
    return runs


@overrides.update(kernels.sgd)
@calls
def _sgd(new: Empty, empty: Empty, p: Array, g: Array, lr: Any, *, weight_decay: float) -> Any:
    def body(p: Array, d: Array, t: Array) -> Calls:
        yield np.multiply, (d, lr, t), {}
        yield np.subtract, (p, t, p), {}

    return None, _over_pieces(empty, body, (p, g), weight_decay)


@overrides.update(kernels.momentum)
@calls
def _momentum(
    new: Empty, empty: Empty, p: Array, g: Array, m: Array, lr: Any, keep: Any,
    *, momentum: float, nesterov: bool, weight_decay: float,
) -> Any:  # fmt: skip
    def body(p: Array, d: Array, m: Array, t: Array) -> Calls:
        yield np.multiply, (m, momentum, m), {}
        yield np.multiply, (d, keep, t), {}
        yield np.add, (m, t, m), {}
        if nesterov:
            yield np.multiply, (m, momentum, t), {}
            yield np.add, (t, d, t), {}
            yield np.multiply, (t, lr, t), {}
        else:
            yield np.multiply, (m, lr, t), {}
        yield np.subtract, (p, t, p), {}

    return None, _over_pieces(empty, body, (p, g, m), weight_decay)


@overrides.update(kernels.adam)
@calls
def _adam(
    new: Empty, empty: Empty, p: Array, g: Array, m: Array, v: Array, rate: Any, eps: Any,
    *, beta1: float, beta2: float, weight_decay: float,
) -> Any:  # fmt: skip
    def body(p: Array, d: Array, m: Array, v: Array, t: Array) -> Calls:
        yield from _moments(d, m, v, t, beta1, beta2)
        yield from _change(p, m, v, t, rate, eps)

    return None, _over_pieces(empty, body, (p, g, m, v), weight_decay)


@overrides.update(kernels.adamw)
@calls
def _adamw(
    new: Empty, empty: Empty, p: Array, g: Array, m: Array, v: Array, rate: Any, eps: Any,
    shrink: Any, *, beta1: float, beta2: float,
) -> Any:  # fmt: skip
    def body(p: Array, d: Array, m: Array, v: Array, t: Array) -> Calls:
        yield from _moments(d, m, v, t, beta1, beta2)
        yield np.multiply, (p, shrink, p), {}
        yield from _change(p, m, v, t, rate, eps)

    return None, _over_pieces(empty, body, (p, g, m, v))


def _moments(d: Array, m: Array, v: Array, t: Array, beta1: float, beta2: float) -> Calls:
    yield np.multiply, (d, 1 - beta1, t), {}
    yield np.multiply, (m, beta1, m), {}
    yield np.add, (m, t, m), {}
    yield np.multiply, (d, d, t), {}
    yield np.multiply, (t, 1 - beta2, t), {}
    yield np.multiply, (v, beta2, v), {}
    yield np.add, (v, t, v), {}


def _change(p: Array, m: Array, v: Array, t: Array, rate: Any, eps: Any) -> Calls:
    yield np.sqrt, (v, t), {}
    yield np.add, (t, eps, t), {}
    yield np.divide, (m, t, t), {}
    yield np.multiply, (t, rate, t), {}
    yield np.subtract, (p, t, p), {}


@overrides.forward(kernels.norm)
@calls
def _norm(new: Empty, empty: Empty, *grads: Array) -> Any:
    """By products: no array of squares."""
    if not all(plain(g) and g.dtype == grads[0].dtype for g in grads):
        return None
    y = new((), dtype=grads[0].dtype)
    parts = empty((len(grads),), dtype=y.dtype)
    flat = [g.reshape(-1) for g in grads]
    runs = [product(g, g, parts[i, ...]) for i, g in enumerate(flat)]
    return y, [*runs, (np.add.reduce, (parts,), {"out": y}), (np.sqrt, (y, y), {})]


@overrides.update(kernels.scale)
@calls
def _scale(new: Empty, empty: Empty, g: Array, factor: Any) -> Any:
    return None, [(np.multiply, (a, factor, a), {}) for (a,) in pieces(g)]
