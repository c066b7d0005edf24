"""Embeddings by CUDA kernels: reading rows, and adding to them, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from fake_cupy import FakeCupy
from launches import agree, normal

import nnx
from nnx_cupy import index

each_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])
each_kind = pytest.mark.parametrize("kind", ["int32", "int64"])


@each_dtype
@each_kind
@pytest.mark.parametrize(
    ("shape", "axis", "count"),
    [((1,), 0, 1), ((7,), 0, 300), ((50, 3), 0, 9), ((5, 64), 0, 40), ((9, 300), 0, 20),
     ((3, 8, 5), 1, 11), ((4, 6, 2), 2, 7)],
)  # fmt: skip
def test_take(
    shape: tuple[int, ...], axis: int, count: int, kind: str, dtype: str, cupy: FakeCupy
) -> None:
    n = shape[axis]
    indices = np.random.default_rng(count).integers(-n, n, count).astype(kind)
    launches = ["take", "cleared", "scatter_add"]
    agree(cupy, nnx.take, normal(0, shape, dtype), indices, launches=launches, axis=axis)


@each_dtype
def test_many_indices_are_added_by_atomic_operations(
    dtype: str, cupy: FakeCupy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "IN_ORDER", 10)
    x, indices = normal(0, (11, 5), dtype), np.arange(11) % 3 - 1
    launches = ["cleared", "scatter_add_atomic", "take"]
    agree(cupy, nnx.scatter_add, x, indices, launches=launches, size=4)


def test_sums_are_in_the_order_of_the_indices(cupy: FakeCupy) -> None:
    """To the bit, which NumPy's `add.at` has too."""
    x, indices = normal(0, (200, 3), "float32", 1e3), np.arange(200) % 7
    expected = np.zeros((7, 3), "float32")
    np.add.at(expected, indices, x)
    got = nnx.scatter_add(nnx.asarray(x), nnx.asarray(indices), size=7)
    np.testing.assert_array_equal(got.get(), expected)


def test_indices_out_of_range_go_round(cupy: FakeCupy) -> None:
    """They cannot raise on a device; nothing outside of the array is read."""
    x = nnx.asarray(np.arange(4.0))
    got = nnx.take(x, nnx.asarray(np.array([4, -5, 9, 3])))
    np.testing.assert_array_equal(got.get(), [0, 3, 1, 3])


@pytest.mark.parametrize("kind", [np.int32, np.int64, np.uint8])
def test_numbers_of_numpys_are_passed_as_pythons(kind: type[np.integer], cupy: FakeCupy) -> None:
    """CuPy gives a kernel four bytes of an int32, where it reads eight."""
    x, indices = normal(0, (5, 3), "float32"), np.arange(5)
    agree(cupy, nnx.scatter_add, x, indices, launches=["cleared", "scatter_add", "take"],
          size=kind(6))  # fmt: skip


def test_what_the_kernels_do_not_take(cupy: FakeCupy) -> None:
    x = normal(0, (6, 4), "float32")
    agree(cupy, nnx.take, x, np.array([1, 2], "int16"), launches=[])
    agree(cupy, nnx.take, x, np.zeros(0, int), launches=[])
