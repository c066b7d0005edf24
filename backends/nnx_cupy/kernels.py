"""Overrides for CuPy: what it has ready-made and the standard lacks. Each is tested, on a GPU,
against the portable kernel. CuPy is imported inside, so that importing this does not need it.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from nnx.backward import accumulate
from nnx.calls import calls
from nnx.ops.index import getitem_adjoint
from nnx.ops.special import erf

from .launch import dtype_name
from .table import Array, Run, overrides


@overrides.forward(getitem_adjoint)
def _getitem_adjoint(xp: Any, x: Any, *, index: Any, shape: tuple[int, ...]) -> Any:
    adds = "float32" if dtype_name(x.dtype) == "bfloat16" else x.dtype  # which CuPy cannot add
    y = xp.zeros(shape, dtype=adds)
    import_module("cupy").add.at(y, index, xp.astype(x, adds, copy=False))
    return xp.astype(y, x.dtype, copy=False)


@overrides.forward(erf)
def _erf(xp: Any, x: Any) -> Any:
    y = import_module("cupyx.scipy.special").erf(x)
    return xp.astype(y, x.dtype)  # erf makes float64 of float16


@overrides.update(accumulate)
@calls
def _accumulate(run: Run, total: Array, g: Array) -> bool:
    """In place: memory cannot run out when some gradients are added to and others not yet."""
    run(import_module("cupy").add, total, g, out=total)
    return True
