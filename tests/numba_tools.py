"""What tests of the numba backend share: arrays, and the portable kernels to compare with.

Tolerance: float32 4e-6 and float64 1e-14, relative to the larger of 1 and the value (a loop's exp
is within 2 units in the last place, sums of a row add a few more).
"""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import nnx

needs_numba = pytest.mark.skipif(
    importlib.util.find_spec("numba") is None,
    reason="numba is not installed: pip install '.[numba]'",
)
TOLERANCE = {"float32": 4e-6, "float64": 1e-14}
quick = settings(max_examples=30, deadline=None)
each_dtype = pytest.mark.parametrize("dtype", TOLERANCE)
shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=40)
seeds = st.integers(0, 2**32 - 1)


def close(got: Any, expected: Any) -> None:
    """Equal within the tolerance of its dtype, NaN and infinity in the same places."""
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.dtype == expected.dtype and got.shape == expected.shape
    t = TOLERANCE[str(got.dtype)]
    np.testing.assert_allclose(got, expected, rtol=t, atol=t)


def normal(seed: int, shape: tuple[int, ...], dtype: str, scale: float = 4.0) -> Any:
    return np.asarray(np.random.default_rng(seed).standard_normal(shape) * scale, dtype)


def on(backend: str, f: Any, *args: Any, dy: Any = None, **attrs: Any) -> list[Any]:
    """Result and gradient of the first argument."""
    with nnx.use_backend(backend):
        x = nnx.Tensor(args[0].copy(), requires_grad=True)
        y = f(x, *args[1:], **attrs)
        y.backward(np.ones_like(y.data) if dy is None else dy)
        return [y.data, x.grad]


def portable(op: nnx.op.Op[...], x: Any, *others: Any, dy: Any, **attrs: Any) -> list[Any]:
    """By the portable kernels, in float64 from the same numbers, rounded to x's dtype."""
    wide = x.astype(np.float64)
    y = op.forward(np, wide, *others, **attrs)
    y, extras = y if type(y) is tuple else (np.asarray(y), {})
    (derivative,) = op.derivatives
    known = {"x": wide, "y": y, **attrs, **extras}
    dx = derivative.kernel(np, dy.astype(np.float64), *[known[n] for n in derivative.reads])
    return [np.asarray(a).astype(x.dtype) for a in (y, dx)]
