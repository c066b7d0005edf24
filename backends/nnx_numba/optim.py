"""Optimizers, each in one compiled pass over a parameter, its gradient and its state."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnx.optim import kernels
from nnx.update import Update

from . import updates
from .common import Array, overrides, plain, update_inherited


def _arguments(update: Update, args: tuple[Any, ...], attrs: dict[str, Any]) -> Any:
    """The loop's arguments; None if it does not take such arrays."""
    count = len(update.positions) + 1  # the targets and the gradient; the step's numbers follow
    arrays: tuple[Array, ...] = args[:count]
    if not plain(*arrays):
        return None
    dtype = arrays[0].dtype
    flat = [a.reshape(-1) for a in arrays]
    numbers = [
        n if type(n) is np.ndarray and n.dtype == dtype else np.array(n, dtype)
        for n in args[count:]
    ]
    return (*flat, *numbers, *[attrs[name] for name in update.signature.attributes])


def _compile(update: Update, loop: Any) -> None:
    """Register the loop, which takes the update's parameters in their order."""

    def kernel(xp: Any, *args: Any, **attrs: Any) -> None:
        given = _arguments(update, args, attrs)
        if given is None:
            update_inherited(update, args, attrs)
        else:
            loop(*given)

    kernel.__name__ = update.name
    overrides.table[update] = kernel

    @overrides.prepare(kernel)
    def _(empty: Any, results: Any, xp: Any, *args: Any, **attrs: Any) -> Any:
        given = _arguments(update, args, attrs)
        return None if given is None else [(loop, given, {})]


_compile(kernels.sgd, updates.sgd)
_compile(kernels.momentum, updates.momentum)
_compile(kernels.adagrad, updates.adagrad)
_compile(kernels.rmsprop, updates.rmsprop)
_compile(kernels.rmsprop_momentum, updates.rmsprop_momentum)
_compile(kernels.rmsprop_centered, updates.rmsprop_centered)
_compile(kernels.rmsprop_centered_momentum, updates.rmsprop_centered_momentum)
_compile(kernels.adam, updates.adam)
_compile(kernels.adamw, updates.adamw)
