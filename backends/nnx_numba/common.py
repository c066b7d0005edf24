"""Which arrays the compiled loops take, and what runs for the others."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnx.op import Op
from nnx.override import Overrides
from nnx.update import Update
from nnx_numpy.kernels import overrides as numpy_overrides

Array = np.ndarray[Any, Any]
_FLOATS = frozenset((np.dtype(np.float32), np.dtype(np.float64)))

overrides = Overrides()
overrides.prepared.update(numpy_overrides.prepared)  # of the kernels that this backend inherits


def plain(*arrays: Array) -> bool:
    """Whether they are C-contiguous float32 or float64 arrays of one dtype and shape."""
    first = arrays[0]
    dtype, shape = first.dtype, first.shape
    if dtype not in _FLOATS:
        return False
    for a in arrays:
        if a.dtype is not dtype or a.shape != shape:
            return False
        if type(a) is not np.ndarray or not a.flags.c_contiguous or not a.flags.aligned:
            return False
    return True


def inherited(op: Op[...]) -> Any:
    """NumPy's kernel of the op, else the portable one."""
    found = numpy_overrides.get(op)
    return op.forward if found is None else found.forward


def inherited_slope(op: Op[...]) -> Any:
    """The derivative by the op's first argument, as `inherited`."""
    found = numpy_overrides.get(op)
    return (op if found is None else found).derivatives[0].kernel


def update_inherited(update: Update, args: tuple[Any, ...], attrs: dict[str, Any]) -> None:
    """Run NumPy's update kernel, else the portable one, whose results are written here."""
    found = numpy_overrides.get(update)
    if found is not None:
        found(np, *args, **attrs)
        return
    values = update.kernel(np, *args, **attrs)
    values = values if type(values) is tuple else (values,)
    for i, value in zip(update.positions, values, strict=True):
        args[i][...] = value
