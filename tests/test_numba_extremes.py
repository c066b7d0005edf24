"""numba's loops on infinities, NaN and the ends of the range give what NumPy's kernels give."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import nnx

INF, NAN = np.inf, np.nan
ROWS = {
    "nan": [NAN, 1, 2], "infinite": [INF, 1, 2], "minus infinite": [-INF, 1, 2],
    "all minus infinite": [-INF] * 3, "two infinite": [INF, INF, 0], "far": [3e38, -3e38, 0],
    "nan at the end": [0, 1e30, NAN],
}  # fmt: skip
ACTIVATIONS = ("relu", "sigmoid", "tanh", "softplus", "silu", "gelu", "softmax", "log_softmax")
needs_numba = pytest.mark.skipif(
    not nnx.backends()["numba"].available, reason="numba is not installed"
)
by_row = pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
by_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])


def found(backend: str, f: Any, x: Any) -> list[Any]:
    """The value and the gradient of its sum."""
    with nnx.use_backend(backend), np.errstate(all="ignore"):
        t = nnx.Tensor(x.copy(), requires_grad=True)
        y = f(t)
        nnx.sum(y).backward()
        return [np.array(y.data), np.array(t.grad)]


def compare(f: Any, x: Any) -> None:
    eps = np.finfo(x.dtype).eps
    for a, b in zip(found("numpy", f, x), found("numba", f, x), strict=True):
        np.testing.assert_allclose(b, a, rtol=64 * eps, atol=64 * eps, equal_nan=True)


@needs_numba
@by_row
@by_dtype
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name: str, row: list[float], dtype: str) -> None:
    x = np.array([row, [0, 1, 2]], dtype)
    compare(getattr(nnx, name), x)


@needs_numba
@by_row
@by_dtype
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("ids", [(0, 1), (2, 1), (-100, 1), (-100, -100)], ids=str)
def test_cross_entropy(ids: tuple[int, int], reduction: str, row: list[float], dtype: str) -> None:
    """A row that is ignored has no part in it, whatever lies there."""
    t = np.array(ids)
    compare(
        lambda x: nnx.softmax_cross_entropy(x, t, reduction=reduction),
        np.array([row, [0, 1, 2]], dtype),
    )
