"""Optimizers, each in one compiled pass over a parameter, its gradient and its state."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnx.optim import kernels
from nnx.override import calls
from nnx.update import Update

from . import updates
from .common import Array, Run, overrides, plain


def _compile(update: Update, loop: Any) -> None:
    """Register the loop, which takes the update's parameters in their order."""
    count = len(update.positions) + 1  # the targets and the gradient; the step's numbers follow

    def kernel(run: Run, *args: Any, **attrs: Any) -> Any:
        arrays: tuple[Array, ...] = args[:count]
        if not plain(*arrays):
            return None
        dtype = arrays[0].dtype
        numbers = [
            n if type(n) is np.ndarray and n.dtype == dtype else np.array(n, dtype)
            for n in args[count:]
        ]
        flat = [a.reshape(-1) for a in arrays]
        options = [attrs[name] for name in update.signature.attributes]
        run(loop, *flat, *numbers, *options)
        return True

    kernel.__name__ = update.name
    overrides.replace(update, calls(kernel))


_compile(kernels.sgd, updates.sgd)
_compile(kernels.momentum, updates.momentum)
_compile(kernels.adagrad, updates.adagrad)
_compile(kernels.rmsprop, updates.rmsprop)
_compile(kernels.rmsprop_momentum, updates.rmsprop_momentum)
_compile(kernels.rmsprop_centered, updates.rmsprop_centered)
_compile(kernels.rmsprop_centered_momentum, updates.rmsprop_centered_momentum)
_compile(kernels.adam, updates.adam)
_compile(kernels.adamw, updates.adamw)
