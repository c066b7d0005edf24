"""What a drawing writes beside an arrow."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..arrays import to_numpy
from ..backend import NUMBERS, backend_of

TINY = 4  # arrays of up to so many entries are written out


def number(value: Any) -> str:
    """4 significant digits; ints and bools whole."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def value(data: Any) -> tuple[str, ...]:
    """A number; or an array's shape and dtype, and a line with its values if they are few."""
    dimensions = () if type(data) in NUMBERS else tuple(data.shape)
    if dimensions == ():
        return (number(to_numpy(data).item()),)
    about = shape(dimensions, backend_of(data).dtype_name(data))
    if math.prod(dimensions) > TINY:
        return (about,)
    return (about, _listed(to_numpy(data).tolist()))


def gradient(g: Any) -> str:
    """A number, few values, or the norm: the shape is that of the value above."""
    array = to_numpy(g)
    if array.ndim == 0:
        return number(array.item())
    if array.size <= TINY:
        return _listed(array.tolist())
    axes = list(range(array.ndim))
    with np.errstate(all="ignore"):  # einsum casts piece by piece, where a square would be an array
        square = np.einsum(array, axes, array, axes, [], dtype=np.float64)
    return f"norm {number(math.sqrt(square))}"


def shape(dimensions: tuple[int, ...], dtype: str = "") -> str:
    return f"{tuple(dimensions)} {dtype}".rstrip()


def option(given: Any) -> str:
    """An op's attribute, such as axis=1, shortened."""
    if hasattr(given, "shape"):
        return shape(given.shape)
    text = " ".join(repr(given).split())
    return text if len(text) <= 24 else f"{text[:21]}..."


def _listed(values: Any) -> str:
    if isinstance(values, list):
        return f"[{', '.join(map(_listed, values))}]"
    return number(values)
