"""Ops on the stand-in for cupy, against float64 by the portable kernels on NumPy."""

from __future__ import annotations

from typing import Any

import calculus
import numpy as np
from fake_cupy import FakeCupy

import nnx

# Relative to the larger of 1 and the value: sums over rows of tens of thousands add to rounding.
TOLERANCE = {"float32": 2e-5, "float64": 1e-13}


def normal(seed: int, shape: tuple[int, ...], dtype: str, scale: float = 3.0) -> Any:
    return np.asarray(np.random.default_rng(seed).standard_normal(shape) * scale, dtype)


def on(backend: str, op: Any, args: list[Any], attrs: dict[str, Any], douts: list[Any]) -> Any:
    """Results and gradients, as NumPy arrays."""
    with nnx.use_backend(backend):
        given = list(map(calculus.placed, args))
        named = {k: calculus.placed(v) for k, v in attrs.items()}
        y, grads = calculus.gradients(op, given, named, [calculus.placed(d) for d in douts])
        return calculus.host([*y, *grads])


def wide(args: list[Any]) -> list[Any]:
    return [a.astype("float64") if getattr(a, "dtype", None) == "float32" else a for a in args]


def agree(
    cupy: FakeCupy, op: Any, *args: Any, launches: list[str] | None, tolerance: float = 1.0,
    **attrs: Any,
) -> None:  # fmt: skip
    """The op gives on cupy what float64 gives on NumPy, by these kernels and no others.

    launches   None: by the portable kernels, which call no others than `windows` and `fold`
    """
    with nnx.use_backend("numpy"), np.errstate(all="ignore"):
        douts = calculus.like(calculus.value(op, list(args), attrs), 5)
        expected = on("numpy", op, wide(list(args)), attrs, wide(douts))
    cupy.launched.clear()
    with np.errstate(all="ignore"):
        found = on("cupy", op, list(args), attrs, douts)
    if launches is None:
        assert set(cupy.launched) <= {"windows", "fold"}
    else:
        assert cupy.launched == launches
    t = tolerance * TOLERANCE[douts[0].dtype.name]
    for f, e in zip(found, expected, strict=True):
        assert f.dtype == douts[0].dtype and f.shape == e.shape
        np.testing.assert_allclose(f, e, rtol=t, atol=t)
