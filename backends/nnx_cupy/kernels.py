"""Overrides for CuPy: what it has ready-made and the standard lacks. Each is tested, on a GPU,
against the portable kernel. cupyx is imported inside, so that importing this needs no CuPy.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from nnx.ops.index import getitem_adjoint
from nnx.ops.special import erf

from .table import overrides


@overrides.forward(getitem_adjoint)
def _getitem_adjoint(xp: Any, x: Any, *, index: Any, shape: tuple[int, ...]) -> Any:
    y = xp.zeros(shape, dtype=x.dtype)
    import_module("cupyx").scatter_add(y, index, x)
    return y


@overrides.forward(erf)
def _erf(xp: Any, x: Any) -> Any:
    y = import_module("cupyx.scipy.special").erf(x)
    return xp.astype(y, x.dtype)  # erf makes float64 of float16
