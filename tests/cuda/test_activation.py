"""Activations, bias and sums by CUDA kernels, against float64 on NumPy; fusions to the bit."""

from __future__ import annotations

from typing import Any

import calculus
import numpy as np
import pytest
from fake_cupy import FakeCupy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from launches import agree, normal

import nnx
from nnx.calls import Now
from nnx.override import Fusion
from nnx_cupy import CupyBackend

each_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])
quick = settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
FUNCTIONS = {
    "Relu": (nnx.relu, {}),
    "Sigmoid": (nnx.sigmoid, {}),
    "Tanh": (nnx.tanh, {}),
    "Silu": (nnx.silu, {}),
    "Gelu": (nnx.gelu, {"approximate": "none"}),
    "GeluTanh": (nnx.gelu, {"approximate": "tanh"}),
}
each_function = pytest.mark.parametrize("name", FUNCTIONS)


@each_dtype
@each_function
@pytest.mark.parametrize("size", [1, 3, 4, 1023, 5000])
def test_activations(name: str, size: int, dtype: str, cupy: FakeCupy) -> None:
    op, attrs = FUNCTIONS[name]
    x = normal(size, (size,), dtype)
    agree(cupy, op, x, launches=[f"forward {name}", f"slope {name}"], **attrs)


@each_function
@given(shape=st.lists(st.integers(1, 9), max_size=4), seed=st.integers(0, 99),
       scale=st.sampled_from([1e-3, 1.0, 30.0]))  # fmt: skip
@quick
def test_shapes(name: str, shape: list[int], seed: int, scale: float, cupy: FakeCupy) -> None:
    op, attrs = FUNCTIONS[name]
    x = normal(seed, tuple(shape), "float32", scale)
    agree(cupy, op, x, launches=[f"forward {name}", f"slope {name}"], tolerance=2, **attrs)


@each_dtype
@each_function
def test_extremes(name: str, dtype: str, cupy: FakeCupy) -> None:
    op, attrs = FUNCTIONS[name]
    inf = np.inf
    x = np.array([np.nan, inf, -inf, 1e25, -1e25, 1e4, -1e4, 0.0, -0.0, 1e-30, -90, 90], dtype)
    ones = np.ones(len(x))
    with np.errstate(all="ignore"):
        expected = calculus.gradients(op, [x.astype("float64")], attrs, [ones])
    got = calculus.gradients(op, [nnx.asarray(x)], attrs, [nnx.asarray(ones.astype(dtype))])
    for ours, wanted in zip([*got[0], *got[1]], [*expected[0], *expected[1]], strict=True):
        np.testing.assert_allclose(ours.get(), wanted, rtol=1e-6, atol=1e-30)


@each_dtype
def test_views_that_are_not_aligned(dtype: str, cupy: FakeCupy) -> None:
    """Parameters are views of a flat buffer, which begin anywhere."""
    whole = normal(0, (100,), dtype)
    for start in range(1, 5):
        got = nnx.relu(nnx.asarray(whole)[start : start + 40])
        np.testing.assert_array_equal(got.get(), np.maximum(whole[start : start + 40], 0))


@each_dtype
@pytest.mark.parametrize(
    ("rows", "inner", "columns"), [(1, 1, 1), (5, 3, 4), (130, 2, 33), (700, 3, 3), (2, 3, 2000)]
)
def test_affine(rows: int, inner: int, columns: int, dtype: str, cupy: FakeCupy) -> None:
    x, W = normal(0, (rows, inner), dtype), normal(1, (inner, columns), dtype)
    b = normal(2, (columns,), dtype)
    # more rows than a block sums, or a narrower type: partial sums and their total
    sums = ["channel_sums", "column_totals"] if rows > 128 else ["channel_sums"]
    agree(cupy, nnx.affine, x, W, b, launches=["bias_forward Identity", *sums], tolerance=20)
    agree(cupy, nnx.affine, x, W, launches=[], tolerance=20)


@pytest.mark.parametrize("shape", [(2, 3, 1, 1), (1, 1, 70, 70), (40, 2, 9, 9)])
def test_gradients_of_biases_of_convolutions(shape: tuple[int, ...], cupy: FakeCupy) -> None:
    table = CupyBackend.kernels[nnx.conv2d]
    (kernel,) = [d.kernel for d in table.derivatives if d.arguments == ("b",)]
    dy = normal(0, shape, "float32")
    cupy.launched.clear()
    got = nnx.get_backend().call(kernel, (nnx.asarray(dy),), {}).get()
    more = shape[0] * shape[2] * shape[3] > 2048
    assert cupy.launched == ["channel_sums", "column_totals"][: 1 + more]
    np.testing.assert_allclose(got, dy.astype("float64").sum((0, 2, 3)), rtol=1e-4, atol=1e-3)


# Fusions


def fusion(name: str) -> Fusion:
    (found,) = [f for f in CupyBackend.kernels.fusions if f.__name__ == name]
    return found


def build(name: str, **arrays: Any) -> bool:
    return bool(fusion(name).build(Now(nnx.get_backend().xp), **arrays))


@each_dtype
@each_function
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (5, 12), (200, 40), (3, 1300), (70, 7)])
def test_fusions_equal_the_kernels_they_replace(
    name: str, rows: int, columns: int, dtype: str, cupy: FakeCupy
) -> None:
    op, attrs = FUNCTIONS[name]
    by_result = name in ("Relu", "Sigmoid", "Tanh")
    x, W, b, dz = (nnx.asarray(normal(i, s, dtype)) for i, s in enumerate(
        [(rows, 3), (3, columns), (columns,), (rows, columns)]))  # fmt: skip
    y = nnx.affine(x, W, b)
    t = nnx.Tensor(y, requires_grad=True)
    z = op(t, **attrs)
    z.backward(dz)
    (db_kernel,) = [
        d.kernel for d in CupyBackend.kernels[nnx.affine].derivatives if d.arguments == ("b",)
    ]
    db = nnx.get_backend().call(db_kernel, (t.grad,), {})

    fused = {k: cupy.empty(v.shape, dtype) for k, v in {"y": y, "z": y, "dy": y, "db": b}.items()}
    cupy.launched.clear()
    kept = {} if by_result else {"y": fused["y"], **(attrs if name.startswith("Gelu") else {})}
    assert build(f"affine_{op.name}", x=x, W=W, b=b, z=fused["z"], **kept)
    given = {"z": fused["z"]} if by_result else kept
    assert build(
        f"{op.name}_slope_with_bias_gradient", dz=dz, dy=fused["dy"], db=fused["db"], **given
    )
    assert cupy.launched[:2] == [f"bias_forward {name}", f"slope_sums {name}"]
    for made, expected in [(fused["z"], z.data), (fused["dy"], t.grad), (fused["db"], db)]:
        np.testing.assert_array_equal(made.get(), expected.get())
    if not by_result:
        np.testing.assert_array_equal(fused["y"].get(), y.get())


def test_fusions_leave_what_they_do_not_take(cupy: FakeCupy) -> None:
    x, W = nnx.asarray(normal(0, (2, 3), "float32")), nnx.asarray(normal(1, (3, 4), "float32"))
    z = cupy.empty((2, 4), "float32")
    turned = nnx.permute_dims(cupy.empty((4, 2), "float32"), (1, 0))
    b = nnx.asarray(normal(2, (4,), "float32"))
    cupy.launched.clear()
    assert not build("affine_relu", x=x, W=W, b=None, z=z)
    assert not build("affine_relu", x=x, W=W, b=b, z=turned)
    assert not build("affine_silu", x=x, W=W, b=b, y=turned, z=z)
    assert not build("relu_slope_with_bias_gradient", dz=turned, z=z, dy=z, db=b)
    assert cupy.launched == []
