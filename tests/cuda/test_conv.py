"""Convolutions by CUDA kernels and matrix products, against float64 on NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fake_cupy import FakeCupy
from launches import agree, normal

import nnx
from nnx_cupy import conv

each_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])
FORWARD, BY_X, BY_W = ["im2col", "to_images"], ["from_images", "col2im"], ["im2col", "from_images"]
OPTIONS: list[dict[str, Any]] = [
    {}, {"stride": (2, 3)}, {"padding": ((1, 0), (2, 1))}, {"dilation": (2, 1), "padding": "same"},
    {"groups": 2, "padding": 1}, {"stride": 3, "padding": 2, "dilation": 2},
]  # fmt: skip


@each_dtype
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("images", [None, 2])
def test_conv2d(
    images: int | None, options: Any, dtype: str, cupy: FakeCupy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """images: how many are done together, None for all five"""
    x, b = normal(0, (5, 4, 9, 8), dtype), normal(2, (6,), dtype)
    W = normal(1, (6, 4 // options.get("groups", 1), 3, 2), dtype)
    times = 1
    if images is not None:
        at = conv.Convolution((9, 8), W, *(options.get(k, d) for k, d in
            (("stride", 1), ("padding", 0), ("dilation", 1), ("groups", 1))))  # fmt: skip
        one = at.lines * at.places[0] * at.places[1] * x.itemsize
        monkeypatch.setattr(conv, "SCRATCH", images * one + 3)
        times = 3
    launches = [*FORWARD * times, *BY_X * times, *BY_W * times, "channel_sums"]
    agree(cupy, nnx.conv2d, x, W, b, launches=launches, tolerance=20, **options)
    agree(cupy, nnx.conv2d, x, W, launches=launches[:-1], tolerance=20, **options)


@each_dtype
@pytest.mark.parametrize("options", [{}, {"stride": 2, "padding": 1, "dilation": 2, "groups": 3}])
def test_conv1d(options: Any, dtype: str, cupy: FakeCupy) -> None:
    x, W = normal(0, (2, 3, 17), dtype), normal(1, (6, 3 // options.get("groups", 1), 4), dtype)
    launches = [*FORWARD, *BY_X, *BY_W, "channel_sums"]
    agree(
        cupy, nnx.conv1d, x, W, normal(2, (6,), dtype), launches=launches, tolerance=20, **options
    )


@each_dtype
@pytest.mark.parametrize(
    "options", [{}, {"stride": (2, 3), "padding": 1, "output_padding": (1, 2)}, {"groups": 2}],
    ids=str,
)  # fmt: skip
def test_conv_transpose2d(options: Any, dtype: str, cupy: FakeCupy) -> None:
    x, W = normal(0, (2, 4, 3, 5), dtype), normal(1, (4, 3, 3, 2), dtype)
    b = normal(2, (3 * options.get("groups", 1),), dtype)
    launches = [*BY_X, *FORWARD, *BY_W, "channel_sums"]
    agree(cupy, nnx.conv_transpose2d, x, W, b, launches=launches, tolerance=20, **options)


@each_dtype
@pytest.mark.parametrize(("axis", "stride", "dilation"), [(0, 1, 1), (1, 2, 3), (-1, 3, 2)])
def test_windows_and_fold(
    axis: int, stride: int, dilation: int, dtype: str, cupy: FakeCupy
) -> None:
    x = normal(0, (7, 11, 9), dtype)
    options: dict[str, Any] = {"stride": stride, "dilation": dilation}
    agree(cupy, nnx.windows, x, size=3, axis=axis, launches=["windows", "fold"], **options)
    y = nnx.windows.forward(np, x, size=3, axis=axis, **options)[0]
    where, length = axis % 3, x.shape[axis]
    agree(cupy, nnx.fold, y, length=length, axis=where, launches=["fold", "windows"], **options)


@pytest.mark.parametrize(
    ("shape", "kernel"), [((1, 1, 1, 1), (1, 1, 1, 1)), ((1, 300, 1, 2), (2, 300, 1, 1))]
)
def test_the_smallest(shape: Any, kernel: Any, cupy: FakeCupy) -> None:
    launches = [*FORWARD, *BY_X, *BY_W]
    x, W = normal(0, shape, "float64"), normal(1, kernel, "float64")
    agree(cupy, nnx.conv2d, x, W, launches=launches, tolerance=100)
