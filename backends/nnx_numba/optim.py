"""Optimizers, each in one compiled pass over a parameter, its gradient and its state."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnx.calls import calls
from nnx.optim import kernels
from nnx.update import Update
from nnx_numpy.table import pieces

from . import loops, updates
from .common import Array, Run, overrides, plain


@overrides.update(kernels.scale)
@calls
def _scale(run: Run, g: Array, factor: Array) -> Any:
    if not plain(g) or factor.dtype != g.dtype:
        return None
    run(loops.scale, g.reshape(-1), factor)
    return True


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

    def clip_and_update(run: Run, *, factor: Array, **named: Any) -> bool:
        """A piece of the gradient is scaled, then used, while it is in the cache."""
        arrays = [named[name] for name in update.signature.arrays]
        if not plain(*arrays[:count], arrays[1]) or factor.dtype != arrays[1].dtype:
            return False
        numbers = arrays[count:]
        options = [named[name] for name in update.signature.attributes]
        for piece in pieces(*arrays[:count]):
            flat = [a.reshape(-1) for a in piece]
            run(loops.scale, flat[1], factor)
            run(loop, *flat, *numbers, *options)
        return True

    kernel.__name__ = update.name
    overrides.replace(update, calls(kernel))
    clip_and_update.__name__ = f"clip_and_{update.name}"
    names = " ".join(update.signature.arrays)
    overrides.fusion((kernels.scale, "g factor ->"), (update, f"{names} ->"))(clip_and_update)


_compile(kernels.sgd, updates.sgd)
_compile(kernels.momentum, updates.momentum)
_compile(kernels.adagrad, updates.adagrad)
_compile(kernels.rmsprop, updates.rmsprop)
_compile(kernels.rmsprop_momentum, updates.rmsprop_momentum)
_compile(kernels.rmsprop_centered, updates.rmsprop_centered)
_compile(kernels.rmsprop_centered_momentum, updates.rmsprop_centered_momentum)
_compile(kernels.adam, updates.adam)
_compile(kernels.adamw, updates.adamw)
