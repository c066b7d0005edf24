"""Normalisation by CUDA kernels, against float64 on NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from fake_cupy import FakeCupy
from launches import agree, normal

import nnx

each_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])


def layer_norm_launches(rows: int) -> list[str]:
    totals = ["column_totals"] if rows > 128 else []
    return ["layer_norm", "layer_norm_slope", "layer_norm_scale_sums", *totals, "column_sums",
            *totals]  # fmt: skip


@each_dtype
@pytest.mark.parametrize(
    ("rows", "columns"),
    [(1, 1), (3, 2), (5, 33), (100, 12), (140, 3), (4, 768), (2, 1025), (2, 12000)],
)
def test_layer_norm(rows: int, columns: int, dtype: str, cupy: FakeCupy) -> None:
    x = normal(0, (rows, columns), dtype) + 3
    gamma, beta = normal(1, (columns,), dtype), normal(2, (columns,), dtype)
    launches = layer_norm_launches(rows)
    agree(cupy, nnx.layer_norm, x, gamma, beta, launches=launches, tolerance=20)
    agree(cupy, nnx.layer_norm, x, launches=launches[:2], tolerance=20, eps=0.1)


@each_dtype
def test_layer_norm_over_two_axes(dtype: str, cupy: FakeCupy) -> None:
    x, gamma = normal(0, (3, 4, 5), dtype), normal(1, (4, 5), dtype)
    launches = ["layer_norm", "layer_norm_slope", "layer_norm_scale_sums"]
    agree(cupy, nnx.layer_norm, x, gamma, launches=launches, tolerance=4, ndim=2)


@each_dtype
def test_layer_norm_of_a_large_mean_keeps_its_digits(dtype: str, cupy: FakeCupy) -> None:
    x = (np.arange(2000) % 2 + 4096).astype(dtype)[None]
    y = nnx.layer_norm(nnx.asarray(x), eps=1e-12).get()
    np.testing.assert_allclose(y, np.where(np.arange(2000) % 2, 1, -1)[None], rtol=1e-5)


def test_layer_norm_of_equal_numbers_is_0(cupy: FakeCupy) -> None:
    for shape in ((4, 1), (2, 5)):
        y = nnx.layer_norm(nnx.asarray(np.full(shape, 0.5, "float32")))
        np.testing.assert_array_equal(y.get(), np.zeros(shape))


BATCH = ["chunk_moments", "moments", "batch_norm"]
BATCH_SLOPE = ["slope_sums", "slope_totals", "batch_norm_slope"]


@each_dtype
@pytest.mark.parametrize(
    "shape", [(1, 1), (1, 3), (5, 33), (700, 2), (3, 4, 5), (2, 3, 40, 41), (5, 1, 31, 33)]
)
def test_batch_norm(shape: tuple[int, ...], dtype: str, cupy: FakeCupy) -> None:
    x = normal(0, shape, dtype) + 3
    gamma, beta = (normal(i, shape[1:2], dtype) for i in (1, 2))
    # One backward pass for each of y, mean and var: the gradients of all three are added up.
    launches = [*BATCH, *BATCH_SLOPE * 3]
    agree(cupy, nnx.batch_norm, x, gamma, beta, launches=launches, tolerance=50)
    agree(cupy, nnx.batch_norm, x, launches=launches, tolerance=50, eps=0.1)


@each_dtype
def test_batch_norm_of_a_large_mean_keeps_its_digits(dtype: str, cupy: FakeCupy) -> None:
    x = np.tile((np.arange(2) + 4096).astype(dtype), 2500)[None, None]
    y, mean, var = nnx.batch_norm(nnx.asarray(x), eps=1e-12)
    np.testing.assert_allclose(y.get(), np.where(np.arange(5000) % 2, 1, -1)[None, None], rtol=1e-4)
    np.testing.assert_allclose(mean.get(), [4096.5], rtol=1e-7)
    np.testing.assert_allclose(var.get(), [0.25], rtol=1e-4)
