"""How tests run ops on any backend: NumPy arrays in, NumPy arrays out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import nnx
from nnx.backend import Backend
from nnx.op import Op

Host = np.ndarray[Any, Any]


def placed(value: Any) -> Any:
    """NumPy arrays, also those inside tuples, on the current backend, in memory of their own."""
    if isinstance(value, tuple):
        return tuple(placed(v) for v in value)
    return nnx.asarray(value.copy()) if isinstance(value, np.ndarray) else value


def smooth_positions(op: Op[...], args: Sequence[Any]) -> list[int]:
    """Where the arguments are arrays that have a derivative."""
    names = op.signature.arrays
    return [
        i
        for i, a in enumerate(args)
        if hasattr(a, "shape") and names[0 if op.signature.variadic else i] in op.differentiable
    ]


def outputs(y: Any) -> tuple[Any, ...]:
    return y if isinstance(y, tuple) else (y,)


def value(op: Op[...], args: Sequence[Any], attrs: dict[str, Any]) -> list[Host]:
    """The outputs, computed on the current backend, in float64's own copies."""
    y = op(*map(placed, args), **{k: placed(v) for k, v in attrs.items()})
    return [np.array(nnx.to_numpy(v)) for v in outputs(y)]


def gradients(
    op: Op[...], args: Sequence[Any], attrs: dict[str, Any], douts: Sequence[Any]
) -> tuple[list[Any], list[Any]]:
    """Outputs and gradients as bare arrays of the backend, from bare arrays of the backend."""
    places = smooth_positions(op, args)
    tensors = [nnx.Tensor(a, requires_grad=True) if i in places else a for i, a in enumerate(args)]
    y = outputs(op(*tensors, **attrs))
    for v, dout in zip(y, douts, strict=True):
        v.backward(dout, retain_graph=True)
    return [v.data for v in y], [tensors[i].grad for i in places]


def like(arrays: Sequence[Any], seed: int = 1) -> list[Host]:
    """Random float arrays of the shapes and dtypes of these."""
    rng = np.random.default_rng(seed)
    return [np.asarray(rng.standard_normal(a.shape)).astype(a.dtype) for a in arrays]


def inner(a: Sequence[Host], b: Sequence[Host]) -> float:
    return sum(float(np.sum(x.astype(np.float64) * y)) for x, y in zip(a, b, strict=True))


def moved_by(args: Sequence[Any], places: list[int], step: Sequence[Host]) -> list[Any]:
    new = list(args)
    for i, s in zip(places, step, strict=True):
        new[i] = np.asarray(args[i] + s)
    return new


def directional(
    op: Op[...], args: Sequence[Any], attrs: dict[str, Any], places: list[int], v: Sequence[Host]
) -> list[Host]:
    """J v by a central difference; the step is the cube root of float64's rounding."""
    h = 6e-6
    plus = value(op, moved_by(args, places, [h * s for s in v]), attrs)
    minus = value(op, moved_by(args, places, [-h * s for s in v]), attrs)
    return [(p - m) / (2 * h) for p, m in zip(plus, minus, strict=True)]


def host(arrays: Sequence[Any]) -> list[Host]:
    return [np.array(nnx.to_numpy(a)) for a in arrays]


def owned(backend: Backend, arrays: Sequence[Any]) -> bool:
    """Whether all are arrays of the backend; NumPy scalars are not."""
    return all(backend.owns(a) for a in arrays)


def skip_where_strict(backend: Backend) -> None:
    """For calls that NumPy, CuPy and others have beyond the standard."""
    if "strict" in getattr(backend.xp, "__name__", ""):
        pytest.skip("the Array API standard has no such index")
