"""Optimizers in place on NumPy: same values to the last bit as the portable kernels.

The portable kernel makes a new array per operation: over 64k elements each is fresh memory from
the system. Here a piece of that size goes through all operations while it is in the cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from nnx.optim import kernels

from .kernels import overrides

BLOCK = 1 << 16

Array = np.ndarray[Any, Any]


def _blocks(g: Array, *targets: Array) -> Iterator[tuple[Array, ...]]:
    """g and the targets in pieces, each with scratch of its shape.

    Targets that are not contiguous have no flat view to write to: they are one piece.
    """
    size = g.size
    if size <= BLOCK or not all(a.flags.c_contiguous for a in targets):
        yield (g, *targets, np.empty(g.shape, g.dtype))
        return
    flat = [a.reshape(-1) for a in (g, *targets)]
    scratch = np.empty(BLOCK, g.dtype)
    for i in range(0, size, BLOCK):
        pieces = [a[i : i + BLOCK] for a in flat]
        yield (*pieces, scratch[: pieces[0].size])


@overrides.update(kernels.sgd)
def _(xp: Any, p: Array, g: Array, lr: float, *, weight_decay: float) -> None:
    for gi, pi, t in _blocks(g, p):
        if weight_decay:
            np.multiply(pi, weight_decay, out=t)
            np.add(t, gi, out=t)
            np.multiply(t, lr, out=t)
        else:
            np.multiply(gi, lr, out=t)
        np.subtract(pi, t, out=pi)


@overrides.update(kernels.momentum)
def _(
    xp: Any, p: Array, g: Array, m: Array, lr: float, keep: float,
    *, momentum: float, nesterov: bool, weight_decay: float,
) -> None:  # fmt: skip
    for gi, pi, mi, t in _blocks(g, p, m):
        d = gi + weight_decay * pi if weight_decay else gi
        np.multiply(mi, momentum, out=mi)
        np.add(mi, np.multiply(d, keep, out=t), out=mi)
        if nesterov:
            np.multiply(mi, momentum, out=t)
            np.add(t, d, out=t)
            np.multiply(t, lr, out=t)
        else:
            np.multiply(mi, lr, out=t)
        np.subtract(pi, t, out=pi)


@overrides.update(kernels.adam)
def _(
    xp: Any, p: Array, g: Array, m: Array, v: Array, rate: float, eps: float,
    *, beta1: float, beta2: float, weight_decay: float,
) -> None:  # fmt: skip
    for gi, pi, mi, vi, t in _blocks(g, p, m, v):
        d = gi + weight_decay * pi if weight_decay else gi
        _moments(d, mi, vi, t, beta1, beta2)
        np.subtract(pi, _change(mi, vi, t, rate, eps), out=pi)


@overrides.update(kernels.adamw)
def _(
    xp: Any, p: Array, g: Array, m: Array, v: Array, rate: float, eps: float, shrink: float,
    *, beta1: float, beta2: float,
) -> None:  # fmt: skip
    for gi, pi, mi, vi, t in _blocks(g, p, m, v):
        _moments(gi, mi, vi, t, beta1, beta2)
        np.multiply(pi, shrink, out=pi)
        np.subtract(pi, _change(mi, vi, t, rate, eps), out=pi)


def _moments(g: Array, m: Array, v: Array, t: Array, beta1: float, beta2: float) -> None:
    np.multiply(g, 1 - beta1, out=t)
    np.multiply(m, beta1, out=m)
    np.add(m, t, out=m)
    np.multiply(g, g, out=t)
    np.multiply(t, 1 - beta2, out=t)
    np.multiply(v, beta2, out=v)
    np.add(v, t, out=v)


def _change(m: Array, v: Array, t: Array, rate: float, eps: float) -> Array:
    np.sqrt(v, out=t)
    np.add(t, eps, out=t)
    np.divide(m, t, out=t)
    return np.multiply(t, rate, out=t)
