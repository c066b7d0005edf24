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
from nnx.update import Update

from .table import Array, Empty, overrides, pieces, plain, product, scratch

Body = Callable[..., Iterator[Run]]  # of (p, d, *state, scratch): what one piece goes through


def _runs(
    empty: Empty, body: Body, arrays: tuple[Array, ...], weight_decay: float = 0.0,
    factor: Any = None,
) -> list[Run]:  # fmt: skip
    """The body's calls for each piece of (p, g, *state).

    factor   what the gradient is scaled by first, in place: clipping
    """
    spare, decayed, runs = scratch(empty, arrays[0]), None, list[Run]()
    if weight_decay:
        decayed = scratch(empty, arrays[0])
    for p, g, *state in pieces(*arrays):
        d = g
        if factor is not None:
            runs.append((np.multiply, (g, factor, g), {}))
        if decayed is not None:
            d = decayed(p)
            runs += [(np.multiply, (p, weight_decay, d), {}), (np.add, (g, d, d), {})]
        runs += body(p, d, *state, spare(p))
    return runs


def sgd(
    empty: Empty, p: Array, g: Array, lr: Any, *, weight_decay: float, factor: Any = None
) -> list[Run]:
    def body(p: Array, d: Array, t: Array) -> Iterator[Run]:
        yield np.multiply, (d, lr, t), {}
        yield np.subtract, (p, t, p), {}

    return _runs(empty, body, (p, g), weight_decay, factor)


def momentum(
    empty: Empty, p: Array, g: Array, m: Array, lr: Any, keep: Any,
    *, momentum: float, nesterov: bool, weight_decay: float, factor: Any = None,
) -> list[Run]:  # fmt: skip
    def body(p: Array, d: Array, m: Array, t: Array) -> Iterator[Run]:
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

    return _runs(empty, body, (p, g, m), weight_decay, factor)


def adam(
    empty: Empty, p: Array, g: Array, m: Array, v: Array, rate: Any, eps: Any,
    *, beta1: float, beta2: float, weight_decay: float, factor: Any = None,
) -> list[Run]:  # fmt: skip
    def body(p: Array, d: Array, m: Array, v: Array, t: Array) -> Iterator[Run]:
        yield from _moments(d, m, v, t, beta1, beta2)
        yield from _change(p, m, v, t, rate, eps)

    return _runs(empty, body, (p, g, m, v), weight_decay, factor)


def adamw(
    empty: Empty, p: Array, g: Array, m: Array, v: Array, rate: Any, eps: Any, shrink: Any,
    *, beta1: float, beta2: float, factor: Any = None,
) -> list[Run]:  # fmt: skip
    def body(p: Array, d: Array, m: Array, v: Array, t: Array) -> Iterator[Run]:
        yield from _moments(d, m, v, t, beta1, beta2)
        yield np.multiply, (p, shrink, p), {}
        yield from _change(p, m, v, t, rate, eps)

    return _runs(empty, body, (p, g, m, v), 0.0, factor)


def _moments(d: Array, m: Array, v: Array, t: Array, beta1: float, beta2: float) -> Iterator[Run]:
    yield np.multiply, (d, 1 - beta1, t), {}
    yield np.multiply, (m, beta1, m), {}
    yield np.add, (m, t, m), {}
    yield np.multiply, (d, d, t), {}
    yield np.multiply, (t, 1 - beta2, t), {}
    yield np.multiply, (v, beta2, v), {}
    yield np.add, (v, t, v), {}


def _change(p: Array, m: Array, v: Array, t: Array, rate: Any, eps: Any) -> Iterator[Run]:
    yield np.sqrt, (v, t), {}
    yield np.add, (t, eps, t), {}
    yield np.divide, (m, t, t), {}
    yield np.multiply, (t, rate, t), {}
    yield np.subtract, (p, t, p), {}


def _register(update: Update, runs: Callable[..., list[Run]]) -> None:
    def kernel(new: Empty, empty: Empty, *args: Any, **attrs: Any) -> Any:
        return None, runs(empty, *args, **attrs)

    kernel.__name__ = update.name
    overrides.replace(update, calls(kernel))

    def clip_and_update(empty: Empty, *, factor: Array, **named: Any) -> list[Run]:
        """The gradient is scaled piece by piece, while it is in the cache for the update."""
        return runs(empty, factor=factor, **named)

    clip_and_update.__name__ = f"clip_and_{update.name}"
    arrays = " ".join(update.signature.arrays)
    overrides.fusion((kernels.scale, "g factor ->"), (update, f"{arrays} ->"))(clip_and_update)


_register(kernels.sgd, sgd)
_register(kernels.momentum, momentum)
_register(kernels.adam, adam)
_register(kernels.adamw, adamw)


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
