"""Sliding windows and their adjoint by CUDA kernels, against float64 on NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fake_cupy import FakeCupy
from launches import agree, normal

import nnx

each_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])


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
