"""Normalisation by CUDA kernels, against float64 on NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from fake_cupy import FakeCupy
from launches import agree, normal

import nnx
from nnx_cupy import sums
from nnx_cupy.launch import THREADS

each_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])


GROUP = ["group_norm", "group_norm_slope"]


def layer_norm_launches(rows: int) -> list[str]:
    totals = ["column_totals"] if rows > 128 else []
    return [*GROUP, "group_norm_scale_sums", *totals, "channel_sums", *totals]


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
    launches = [*GROUP, "group_norm_scale_sums"]
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
    "shape",
    [(1, 1), (1, 3), (5, 33), (700, 2), (150, 70), (9, 5, 1, 1), (3, 4, 5), (2, 3, 40, 41),
     (5, 1, 31, 33)],
)  # fmt: skip
def test_batch_norm(shape: tuple[int, ...], dtype: str, cupy: FakeCupy) -> None:
    x = normal(0, shape, dtype) + 3
    gamma, beta = (normal(i, shape[1:2], dtype) for i in (1, 2))
    # One backward pass for each of y, mean and var: the gradients of all three are added up.
    launches = [*BATCH, *BATCH_SLOPE * 3]
    agree(cupy, nnx.batch_norm, x, gamma, beta, launches=launches, tolerance=50)
    agree(cupy, nnx.batch_norm, x, launches=launches, tolerance=50, eps=0.1)


def test_channels_that_lie_side_by_side_are_read_so() -> None:
    """By 32 threads at 32 neighbours; else by all threads of a block along a channel."""
    assert sums.grid(1000, 64, 1) == ((2, 8), (32, 8))
    assert sums.grid(4, 64, 5000) == ((64, 8), (THREADS, 1))


@each_dtype
def test_batch_norm_of_a_large_mean_keeps_its_digits(dtype: str, cupy: FakeCupy) -> None:
    x = np.tile((np.arange(2) + 4096).astype(dtype), 2500)[None, None]
    y, mean, var = nnx.batch_norm(nnx.asarray(x), eps=1e-12)
    np.testing.assert_allclose(y.get(), np.where(np.arange(5000) % 2, 1, -1)[None, None], rtol=1e-4)
    np.testing.assert_allclose(mean.get(), [4096.5], rtol=1e-7)
    np.testing.assert_allclose(var.get(), [0.25], rtol=1e-4)


@each_dtype
@pytest.mark.parametrize(
    ("shape", "groups"),
    [((1, 1), 1), ((3, 6), 3), ((5, 4, 33), 1), ((2, 6, 9, 7), 2), ((2, 4, 20, 31), 4),
     ((40, 2, 1, 90), 2)],
)  # fmt: skip
def test_group_norm(shape: tuple[int, ...], groups: int, dtype: str, cupy: FakeCupy) -> None:
    x = normal(0, shape, dtype) + 3
    gamma, beta = (normal(i, shape[1:2], dtype) for i in (1, 2))
    totals = ["column_totals"] if shape[0] > 30 else []
    launches = [*GROUP, "group_norm_scale_sums", *totals, "channel_sums", *totals]
    agree(cupy, nnx.group_norm, x, gamma, beta, launches=launches, tolerance=50, groups=groups)
    agree(cupy, nnx.group_norm, x, launches=GROUP, tolerance=50, groups=groups, eps=0.1)


@pytest.mark.parametrize(
    ("shape", "groups"), [((16, 2, 20, 21), None), ((900, 3), None), ((3, 4, 15, 17), 2)]
)
def test_a_mean_of_10000_costs_no_digits(
    shape: tuple[int, ...], groups: int | None, cupy: FakeCupy
) -> None:
    """y and dx in float32 of values that differ by 1, against float64 on the same values."""
    import torch

    x, dy = normal(0, shape, "float32", 1) + np.float32(1e4), normal(1, shape, "float32")
    attrs = {} if groups is None else {"groups": groups}
    op = nnx.batch_norm if groups is None else nnx.group_norm
    given = torch.tensor(x.astype("float64"), requires_grad=True)
    if groups is None:
        expected = torch.nn.functional.batch_norm(given, None, None, training=True)
    else:
        expected = torch.nn.functional.group_norm(given, groups)
    expected.backward(torch.tensor(dy.astype("float64")))
    x = nnx.Tensor(nnx.asarray(x), requires_grad=True)
    y = op(x, **attrs)
    y = y if groups else y[0]
    y.backward(nnx.asarray(dy))
    np.testing.assert_allclose(y.data.get(), expected.detach(), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(x.grad.get(), given.grad, rtol=1e-5, atol=1e-5)


def test_mean_and_variance_at_10000(cupy: FakeCupy) -> None:
    x = normal(0, (30, 2, 20, 21), "float32", 1) + np.float32(1e4)
    exact = x.astype("float64")
    _, mean, var = nnx.batch_norm(nnx.asarray(x))
    half_a_step = np.spacing(np.float32(1e4)) / 2
    np.testing.assert_allclose(mean.get(), exact.mean((0, 2, 3)), atol=half_a_step * 1.01, rtol=0)
    np.testing.assert_allclose(var.get(), exact.var((0, 2, 3)), rtol=2e-6)


@each_dtype
def test_what_is_not_finite_stays_in_its_channel(dtype: str, cupy: FakeCupy) -> None:
    for value in (np.nan, np.inf):
        for at in (0, 5):
            x = normal(0, (9, 2, 3), dtype)
            x[at, 1, 0] = value
            with np.errstate(all="ignore"):
                y, mean, var = nnx.batch_norm(nnx.asarray(x))
            assert np.isfinite(y.get()[:, 0]).all() and np.isnan(y.get()[:, 1]).any()
            np.testing.assert_array_equal(mean.get()[1], value)
            assert np.isfinite(var.get()[0]) and np.isnan(var.get()[1])
