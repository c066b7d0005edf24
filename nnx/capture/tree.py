"""Arguments and results as a shape with holes, and the arrays that fill the holes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..errors import CaptureError
from ..tensor import Tensor

ARRAY, TENSOR = "array", "tensor"
PLAIN = (int, float, bool, complex, str, bytes, type(None), type, np.generic, np.dtype)

SIGNED = (float, complex, np.inexact)

_array_types: set[type] = set()  # found to be arrays: asking is a good part of a short replay


def is_array(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype") and not isinstance(value, np.generic)


def flatten(value: Any, arrays: list[Any], what: str) -> Any:
    """A hashable form of `value`, its arrays and Tensors appended to `arrays`.

    what   names the value in the error for what it may not hold
    """
    kind = type(value)
    if kind in _array_types:
        arrays.append(value)
        return ARRAY
    if isinstance(value, Tensor):
        arrays.append(value)
        return TENSOR
    if is_array(value):
        _array_types.add(kind)
        arrays.append(value)
        return ARRAY
    if kind is dict:
        return (kind, tuple((k, flatten(v, arrays, f"{what}[{k!r}]")) for k, v in value.items()))
    if isinstance(value, (tuple, list)):
        parts = [flatten(v, arrays, f"{what}[{i}]") for i, v in enumerate(value)]
        return (kind, tuple(parts))
    if isinstance(value, PLAIN):
        signed = isinstance(value, SIGNED)  # -0.0 == 0.0
        return (None, kind, value, repr(value) if signed else None)
    raise CaptureError(
        f"capture: {what} is a {kind.__name__}; the captured function takes and returns arrays, "
        f"Tensors, numbers, strings, None, and tuples, lists and dicts of these. What else it "
        f"needs (a model, an optimizer) it takes from the scope around it"
    )


def rebuild(form: Any, arrays: Iterator[Any], make: Callable[[Any, bool], Any]) -> Any:
    """The value of that form, its holes filled by `make(array, whether a Tensor)`."""
    if form is ARRAY or form is TENSOR:
        return make(next(arrays), form is TENSOR)
    kind, parts = form[0], form[1]
    if kind is None:
        return form[2]
    if kind is dict:
        return {k: rebuild(f, arrays, make) for k, f in parts}
    made = [rebuild(f, arrays, make) for f in parts]
    return kind(*made) if hasattr(kind, "_fields") else kind(made)
