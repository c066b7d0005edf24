"""Optimizers in place on NumPy: same values to the last bit as the portable kernels.

The portable kernel makes a new array per operation: over 64k entries each is fresh memory from
the system. Here a piece of that size goes through all operations while it is in the cache.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nnx.calls import calls
from nnx.optim import kernels
from nnx.update import Update

from .table import UNTHREADED_VECTOR, Array, Run, dot_for, overrides, pieces, plain, scratch

Body = Callable[..., None]  # of (p, d, *state, scratch): what one piece goes through


def _each(
    run: Run, body: Body, arrays: tuple[Array, ...], weight_decay: float, factor: Any
) -> bool:
    """The body's calls for each piece of (p, g, *state).

    factor   what the gradient is scaled by first, in place: clipping
    """
    spare, decayed = scratch(run, arrays[0]), None
    if weight_decay:
        decayed = scratch(run, arrays[0])
    for p, g, *state in pieces(*arrays):
        d = g
        if factor is not None:
            run(np.multiply, g, factor, g)
        if decayed is not None:
            d = decayed(p)
            run(np.multiply, p, weight_decay, d)
            run(np.add, g, d, d)
        body(p, d, *state, spare(p))
    return True


def sgd(
    run: Run, p: Array, g: Array, lr: Any, *, weight_decay: float, factor: Any = None
) -> bool:  # fmt: skip
    def body(p: Array, d: Array, t: Array) -> None:
        run(np.multiply, d, lr, t)
        run(np.subtract, p, t, p)

    return _each(run, body, (p, g), weight_decay, factor)


def momentum(
    run: Run, p: Array, g: Array, m: Array, lr: Any, keep: Any,
    *, momentum: float, nesterov: bool, weight_decay: float, factor: Any = None,
) -> bool:  # fmt: skip
    def body(p: Array, d: Array, m: Array, t: Array) -> None:
        run(np.multiply, m, momentum, m)
        run(np.multiply, d, keep, t)
        run(np.add, m, t, m)
        if nesterov:
            run(np.multiply, m, momentum, t)
            run(np.add, t, d, t)
            run(np.multiply, t, lr, t)
        else:
            run(np.multiply, m, lr, t)
        run(np.subtract, p, t, p)

    return _each(run, body, (p, g, m), weight_decay, factor)


def adam(
    run: Run, p: Array, g: Array, m: Array, v: Array, rate: Any, eps: Any,
    *, beta1: float, beta2: float, weight_decay: float, factor: Any = None,
) -> bool:  # fmt: skip
    def body(p: Array, d: Array, m: Array, v: Array, t: Array) -> None:
        _moments(run, d, m, v, t, beta1, beta2)
        _change(run, p, m, v, t, rate, eps)

    return _each(run, body, (p, g, m, v), weight_decay, factor)


def adamw(
    run: Run, p: Array, g: Array, m: Array, v: Array, rate: Any, eps: Any, shrink: Any,
    *, beta1: float, beta2: float, factor: Any = None,
) -> bool:  # fmt: skip
    def body(p: Array, d: Array, m: Array, v: Array, t: Array) -> None:
        _moments(run, d, m, v, t, beta1, beta2)
        run(np.multiply, p, shrink, p)
        _change(run, p, m, v, t, rate, eps)

    return _each(run, body, (p, g, m, v), 0.0, factor)


def _moments(
    run: Run, d: Array, m: Array, v: Array, t: Array, beta1: float, beta2: float
) -> None:  # fmt: skip
    run(np.multiply, d, 1 - beta1, t)
    run(np.multiply, m, beta1, m)
    run(np.add, m, t, m)
    run(np.multiply, d, d, t)
    run(np.multiply, t, 1 - beta2, t)
    run(np.multiply, v, beta2, v)
    run(np.add, v, t, v)


def _change(run: Run, p: Array, m: Array, v: Array, t: Array, rate: Any, eps: Any) -> None:
    run(np.sqrt, v, t)
    run(np.add, t, eps, t)
    run(np.divide, m, t, t)
    run(np.multiply, t, rate, t)
    run(np.subtract, p, t, p)


def _register(update: Update, body: Callable[..., bool]) -> None:
    """The body as the update's kernel, and after clipping."""

    def kernel(run: Run, *args: Any, **attrs: Any) -> bool:
        return body(run, *args, **attrs)

    def clip_and_update(run: Run, *, factor: Array, **named: Any) -> bool:
        """The gradient is scaled piece by piece, while it is in the cache for the update."""
        return body(run, factor=factor, **named)

    kernel.__name__ = update.name
    overrides.replace(update, calls(kernel))
    clip_and_update.__name__ = f"clip_and_{update.name}"
    arrays = " ".join(update.signature.arrays)
    overrides.fusion((kernels.scale, "g factor ->"), (update, f"{arrays} ->"))(clip_and_update)


_register(kernels.sgd, sgd)
_register(kernels.momentum, momentum)
_register(kernels.adam, adam)
_register(kernels.adamw, adamw)


@overrides.forward(kernels.norm)
@calls
def _norm(run: Run, *grads: Array) -> Any:
    """By products: no array of squares."""
    if not all(plain(g) and g.dtype == grads[0].dtype for g in grads):
        return None
    y = run.new((), grads[0].dtype)
    parts = run.empty((len(grads),), y.dtype)
    for i, g in enumerate(grads):
        flat = g.reshape(-1)
        run(dot_for(2 * g.size, UNTHREADED_VECTOR), flat, flat, parts[i, ...])
    run(np.add.reduce, parts, out=y)
    run(np.sqrt, y, y)
    return y


@overrides.update(kernels.scale)
@calls
def _scale(run: Run, g: Array, factor: Any) -> bool:
    for (a,) in pieces(g):
        run(np.multiply, a, factor, a)
    return True
