"""Pooling by CUDA kernels, against float64 on NumPy."""

from __future__ import annotations

from typing import Any

import calculus
import numpy as np
import pytest
from fake_cupy import FakeCupy
from launches import agree, normal

import nnx

each_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])
OPTIONS: list[dict[str, Any]] = [
    {"size": 2}, {"size": 3, "stride": 1, "padding": 1}, {"size": (2, 3), "stride": (3, 2)},
    {"size": 4, "stride": 3, "padding": ((2, 1), (0, 2))}, {"size": 1},
]  # fmt: skip
each_option = pytest.mark.parametrize("options", OPTIONS, ids=str)


@each_dtype
@each_option
def test_max_pool(options: Any, dtype: str, cupy: FakeCupy) -> None:
    launches = ["max_pool", "max_pool_slope"]
    for shape in ((2, 3, 9, 8), (1, 1, 40, 30)):
        agree(cupy, nnx.max_pool2d, normal(0, shape, dtype), launches=launches, **options)


@each_dtype
@each_option
@pytest.mark.parametrize("all_count", [True, False])
def test_avg_pool(all_count: bool, options: Any, dtype: str, cupy: FakeCupy) -> None:
    launches, options = ["avg_pool", "avg_pool_slope"], {**options, "count_include_pad": all_count}
    for shape in ((2, 3, 9, 8), (1, 1, 40, 30)):
        agree(cupy, nnx.avg_pool2d, normal(0, shape, dtype), launches=launches, **options)


@each_dtype
def test_equal_and_extreme_entries(dtype: str, cupy: FakeCupy) -> None:
    """The first of several has the gradient; NaN is the largest; so is -inf where all are."""
    inf, nan = np.inf, np.nan
    x = np.array(
        [[1, 1, 0, 2, 1, 2], [1, 1, 2, 2, nan, 3], [nan, 5, -inf, -inf, 4, nan],
         [inf, nan, -inf, -inf, nan, inf]], dtype,
    )  # fmt: skip
    op, x = nnx.max_pool2d, x[None, None]
    y, extras = op.forward(np, x, size=2)
    (portable,) = op.derivatives
    known = {**extras, "size": 2, "stride": None, "padding": 0}
    (dout,) = calculus.like([y])
    dx = portable.kernel(np, dout, *[known[name] for name in portable.reads])
    (got,), (found,) = calculus.gradients(op, [nnx.asarray(x)], {"size": 2}, [nnx.asarray(dout)])
    np.testing.assert_array_equal(got.get(), y)
    np.testing.assert_array_equal(found.get(), dx)


def test_of_integers_the_portable_kernels_are_used(cupy: FakeCupy) -> None:
    cupy.launched.clear()
    y = nnx.max_pool2d(nnx.asarray(np.arange(16).reshape(1, 1, 4, 4)), size=2)
    np.testing.assert_array_equal(y.get(), [[[[5, 7], [13, 15]]]])
    assert cupy.launched == []
