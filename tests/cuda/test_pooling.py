"""Pooling and upsampling by CUDA kernels, against float64 on NumPy and PyTorch."""

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
from nnx_cupy import pool

each_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])
random = settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
CASES: list[Any] = [
    ((2, 3, 9, 7), {"size": 2}),
    ((1, 5, 8, 11), {"size": (3, 2), "stride": (1, 3), "padding": ((1, 0), 1)}),
    ((2, 1, 1, 13), {"size": (1, 4), "stride": (2, 1), "padding": (0, 2)}),
    ((2, 2, 13, 1), {"size": (5, 1), "stride": 7, "padding": ((2, 1), 0)}),
    ((3, 2, 1, 1), {"size": 1}),
    ((2, 3, 7, 7), {"size": 7}),
    ((1, 1, 20, 17), {"size": (17, 16), "stride": 1}),  # 272 entries: places in ints
]


@each_dtype
@pytest.mark.parametrize(("shape", "options"), CASES)
def test_pools(shape: Any, options: Any, dtype: str, cupy: FakeCupy) -> None:
    x = normal(0, shape, dtype)
    agree(cupy, nnx.max_pool2d, x, launches=["max_pool", "max_pool_slope"], **options)
    for counts in (True, False):
        agree(
            cupy, nnx.avg_pool2d, x, launches=["avg_pool", "avg_pool_slope"],
            count_include_pad=counts, **options,
        )  # fmt: skip


def test_which_of_several_has_the_gradient(cupy: FakeCupy) -> None:
    """The first of equal ones; a NaN above all; never padding, also where all is -infinity."""
    import torch

    inf, nan = np.inf, np.nan
    x = np.array([[1, 1, 2, nan, 7], [1, 3, 3, inf, 2], [-inf, -inf, 0, -0.0, 5.0]])[None, None]
    for options in ({"size": 2, "stride": 1}, {"size": 2, "stride": 2, "padding": 1}):
        given = torch.tensor(x, requires_grad=True)
        expected = torch.nn.functional.max_pool2d(
            given, options["size"], options["stride"], options.get("padding", 0)
        )
        dy = normal(0, tuple(expected.shape), "float64")
        expected.backward(torch.tensor(dy))
        y, (dx,) = calculus.gradients(nnx.max_pool2d, [nnx.asarray(x)], options, [nnx.asarray(dy)])
        np.testing.assert_array_equal(y[0].get(), expected.detach())
        np.testing.assert_allclose(dx.get(), given.grad, rtol=1e-14)
    low = nnx.asarray(np.full((1, 1, 2, 2), -inf))
    _, (dx,) = calculus.gradients(
        nnx.max_pool2d, [low], {"size": 2, "padding": 1}, [nnx.asarray(np.ones((1, 1, 2, 2)))]
    )
    np.testing.assert_array_equal(dx.get(), 1)


def test_extremes(cupy: FakeCupy) -> None:
    x = np.array([[1e38, 1e38, -3e38, 1e-30], [1e38, -1e38, 3e38, 2e-30]], "float32")[None, None]
    np.testing.assert_array_equal(
        nnx.max_pool2d(nnx.asarray(x), size=2).get(), np.array([[[[1e38, 3e38]]]], "float32")
    )
    y = nnx.avg_pool2d(nnx.asarray(x), size=2).get()
    np.testing.assert_allclose(y, [[[[5e37, 7.5e-31]]]], rtol=1e-6, atol=2e31)


def test_what_the_kernels_do_not_take(cupy: FakeCupy, monkeypatch: pytest.MonkeyPatch) -> None:
    for op in (nnx.max_pool2d, nnx.avg_pool2d):
        agree(cupy, op, normal(0, (0, 2, 4, 4), "float64"), launches=[], size=2)
    monkeypatch.setattr(pool, "MOST", 2 * 2 * 4 * 4 - 1)
    for op in (nnx.max_pool2d, nnx.avg_pool2d):
        agree(cupy, op, normal(0, (2, 2, 4, 4), "float64"), launches=None, size=2)


@st.composite
def pools(draw: Any) -> Any:
    size = [draw(st.integers(1, 4)) for _ in range(2)]
    pads = [[draw(st.integers(0, k // 2)) for _ in range(2)] for k in size]
    image = [max(1, size[i] - sum(pads[i])) + draw(st.integers(0, 6)) for i in range(2)]
    shape = (draw(st.integers(1, 2)), draw(st.integers(1, 3)), *image)
    return shape, {"size": size, "stride": draw(st.integers(1, 4)), "padding": pads}


@random
@given(case=pools(), seed=st.integers(0, 99))
def test_random_pools(case: Any, seed: int, cupy: FakeCupy) -> None:
    shape, options = case
    x = normal(seed, shape, "float64")
    agree(cupy, nnx.max_pool2d, x, launches=["max_pool", "max_pool_slope"], **options)
    agree(
        cupy, nnx.avg_pool2d, x, launches=["avg_pool", "avg_pool_slope"], **options,
        count_include_pad=bool(seed % 2),
    )  # fmt: skip


SIZES: list[Any] = [
    ((2, 3, 5, 4), {"scale": 2}),
    ((1, 2, 5, 7), {"size": (13, 3)}),
    ((2, 1, 1, 6), {"size": (4, 1)}),
    ((1, 3, 7, 1), {"scale": (1, 5)}),
    ((2, 2, 1, 1), {"size": 1}),
    ((1, 1, 17, 23), {"size": (4, 40)}),
]
MODES: list[Any] = [{"mode": "nearest"}, {"mode": "bilinear"},
                    {"mode": "bilinear", "align_corners": True}]  # fmt: skip


@each_dtype
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("shape", "size"), SIZES)
def test_upsampling(shape: Any, size: Any, mode: Any, dtype: str, cupy: FakeCupy) -> None:
    x, launches = normal(0, shape, dtype), ["upsample", "upsample_slope"]
    agree(cupy, nnx.upsample, x, launches=launches, **size, **mode)


@random
@given(
    image=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)), mode=st.sampled_from(MODES),
)  # fmt: skip
def test_random_upsampling(image: Any, size: Any, mode: Any, cupy: FakeCupy) -> None:
    import torch

    x = normal(0, (1, 2, *image), "float64")
    given = torch.tensor(x, requires_grad=True)
    corners = mode.get("align_corners") if mode["mode"] == "bilinear" else None
    expected = torch.nn.functional.interpolate(
        given, size, mode=mode["mode"], align_corners=corners
    )
    dy = normal(1, tuple(expected.shape), "float64")
    expected.backward(torch.tensor(dy))
    y, (dx,) = calculus.gradients(
        nnx.upsample, [nnx.asarray(x)], {"size": size, **mode}, [nnx.asarray(dy)]
    )
    np.testing.assert_allclose(y[0].get(), expected.detach(), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(dx.get(), given.grad, rtol=1e-12, atol=1e-12)


def test_of_integers_the_portable_kernel_runs(cupy: FakeCupy) -> None:
    cupy.launched.clear()
    y = nnx.max_pool2d(nnx.asarray(np.arange(16).reshape(1, 1, 4, 4)), size=2)
    np.testing.assert_array_equal(y.get(), [[[[5, 7], [13, 15]]]])
    assert cupy.launched == []


@each_dtype
def test_of_several_nans_the_first_has_the_gradient(dtype: str, cupy: FakeCupy) -> None:
    """As by the portable kernel; PyTorch takes the last."""
    nan, op = np.nan, nnx.max_pool2d
    x = np.array([[1, 2, nan, nan], [nan, 3, 5, nan]], dtype)[None, None]
    y, extras = op.forward(np, x, size=2)
    (portable,) = op.derivatives
    known = {**extras, "size": 2, "stride": None, "padding": 0}
    (dy,) = calculus.like([y])
    dx = portable.kernel(np, dy, *[known[name] for name in portable.reads])
    (got,), (found,) = calculus.gradients(op, [nnx.asarray(x)], {"size": 2}, [nnx.asarray(dy)])
    np.testing.assert_array_equal(got.get(), y)
    np.testing.assert_array_equal(found.get(), dx)
