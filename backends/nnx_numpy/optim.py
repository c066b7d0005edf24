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


def _blocks(empty: Any, scratch: int, g: Array, *targets: Array) -> Iterator[tuple[Array, ...]]:
    """g and the targets in pieces, each with `scratch` arrays of its shape.

    Arrays that are not contiguous have no flat view: they are one piece.
    """
    size, flat = g.size, (g, *targets)
    if size <= BLOCK or not all(a.flags.c_contiguous for a in flat):
        yield (*flat, *[empty(g.shape, g.dtype) for _ in range(scratch)])
        return
    flat = tuple(a.reshape(-1) for a in flat)
    made = [empty((BLOCK,), g.dtype) for _ in range(scratch)]
    for i in range(0, size, BLOCK):
        pieces = [a[i : i + BLOCK] for a in flat]
        yield (*pieces, *[t[: pieces[0].size] for t in made])


def _in_place(
    body: Any, arrays: tuple[Array, ...], numbers: tuple[Any, ...], attrs: dict[str, Any],
    empty: Any = np.empty,
) -> list[Any]:  # fmt: skip
    """The calls of `body` that update the arrays (the gradient first), piece by piece."""
    count = 2 if attrs.get("weight_decay") else 1
    return [(body, (*piece, *numbers), attrs) for piece in _blocks(empty, count, *arrays)]


def _run(
    body: Any, arrays: tuple[Array, ...], numbers: tuple[Any, ...], attrs: dict[str, Any]
) -> None:
    g = arrays[0]
    if g.size <= BLOCK and not attrs.get("weight_decay"):  # the usual small case, without a list
        body(*arrays, np.empty(g.shape, g.dtype), *numbers, **attrs)
        return
    for f, args, options in _in_place(body, arrays, numbers, attrs):
        f(*args, **options)


def _decayed(g: Array, p: Array, weight_decay: float, spare: tuple[Any, ...]) -> Array:
    """g + weight_decay p, in the first of `spare`."""
    if not weight_decay:
        return g
    out: Array = spare[0]
    np.multiply(p, weight_decay, out=out)
    return np.add(g, out, out=out)


@overrides.update(kernels.sgd)
def _sgd(xp: Any, p: Array, g: Array, lr: float, *, weight_decay: float) -> None:
    _run(_sgd_piece, (g, p), (lr,), {"weight_decay": weight_decay})


@overrides.prepare(_sgd)
def _(empty: Any, _: Any, xp: Any, p: Array, g: Array, lr: Any, **attrs: Any) -> list[Any]:
    return _in_place(_sgd_piece, (g, p), (lr,), attrs, empty)


def _sgd_piece(g: Array, p: Array, t: Array, *rest: Any, weight_decay: float) -> None:
    np.multiply(_decayed(g, p, weight_decay, rest), rest[-1], out=t)
    np.subtract(p, t, out=p)


@overrides.update(kernels.momentum)
def _momentum(
    xp: Any, p: Array, g: Array, m: Array, lr: float, keep: float,
    *, momentum: float, nesterov: bool, weight_decay: float,
) -> None:  # fmt: skip
    attrs = {"momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay}
    _run(_momentum_piece, (g, p, m), (lr, keep), attrs)


@overrides.prepare(_momentum)
def _(
    empty: Any, _: Any, xp: Any, p: Array, g: Array, m: Array, lr: Any, keep: Any, **attrs: Any
) -> list[Any]:
    return _in_place(_momentum_piece, (g, p, m), (lr, keep), attrs, empty)


def _momentum_piece(
    g: Array, p: Array, m: Array, t: Array, *rest: Any,
    momentum: float, nesterov: bool, weight_decay: float,
) -> None:  # fmt: skip
    lr, keep = rest[-2:]
    d = _decayed(g, p, weight_decay, rest)
    np.multiply(m, momentum, out=m)
    np.add(m, np.multiply(d, keep, out=t), out=m)
    if nesterov:
        np.multiply(m, momentum, out=t)
        np.add(t, d, out=t)
        np.multiply(t, lr, out=t)
    else:
        np.multiply(m, lr, out=t)
    np.subtract(p, t, out=p)


@overrides.update(kernels.adam)
def _adam(
    xp: Any, p: Array, g: Array, m: Array, v: Array, rate: float, eps: float,
    *, beta1: float, beta2: float, weight_decay: float,
) -> None:  # fmt: skip
    attrs = {"beta1": beta1, "beta2": beta2, "weight_decay": weight_decay}
    _run(_adam_piece, (g, p, m, v), (rate, eps), attrs)


@overrides.prepare(_adam)
def _(
    empty: Any, _: Any, xp: Any, p: Array, g: Array, m: Array, v: Array, rate: Any, eps: Any,
    **attrs: Any,
) -> list[Any]:  # fmt: skip
    return _in_place(_adam_piece, (g, p, m, v), (rate, eps), attrs, empty)


def _adam_piece(
    g: Array, p: Array, m: Array, v: Array, t: Array, *rest: Any,
    beta1: float, beta2: float, weight_decay: float,
) -> None:  # fmt: skip
    rate, eps = rest[-2:]
    _moments(_decayed(g, p, weight_decay, rest), m, v, t, beta1, beta2)
    np.subtract(p, _change(m, v, t, rate, eps), out=p)


@overrides.update(kernels.adamw)
def _adamw(
    xp: Any, p: Array, g: Array, m: Array, v: Array, rate: float, eps: float, shrink: float,
    *, beta1: float, beta2: float,
) -> None:  # fmt: skip
    attrs = {"beta1": beta1, "beta2": beta2}
    _run(_adamw_piece, (g, p, m, v), (rate, eps, shrink), attrs)


@overrides.prepare(_adamw)
def _(
    empty: Any, _: Any, xp: Any, p: Array, g: Array, m: Array, v: Array, *numbers: Any, **attrs: Any
) -> list[Any]:
    return _in_place(_adamw_piece, (g, p, m, v), numbers, attrs, empty)


def _adamw_piece(
    g: Array, p: Array, m: Array, v: Array, t: Array, rate: float, eps: float, shrink: float,
    *, beta1: float, beta2: float,
) -> None:  # fmt: skip
    _moments(g, m, v, t, beta1, beta2)
    np.multiply(p, shrink, out=p)
    np.subtract(p, _change(m, v, t, rate, eps), out=p)


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
