"""Convolutions by CUDA kernels around CuPy's products, against float64 on NumPy and PyTorch."""

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
from nnx_cupy import conv

each_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])
FORWARD, BY_INPUT, BY_KERNEL = (
    ["im2col", "exchange"],
    ["exchange", "col2im"],
    ["im2col", "exchange"],
)
DIRECT = ["depthwise", "depthwise_spread", "depthwise_correlate"]
BY_BIAS = ["channel_sums"]
# x, W, options: sizes that are multiples of nothing, one row, one column, one entry, gaps larger
# than the kernel, windows that leave the last rows out, padding on one side.
CASES: list[Any] = [
    ((2, 3, 9, 7), (5, 3, 3, 2), {}),
    ((3, 4, 8, 11), (6, 2, 3, 3), {"groups": 2, "stride": (2, 3), "padding": 1}),
    ((1, 1, 1, 17), (2, 1, 1, 5), {"padding": (0, 2), "stride": (1, 4)}),
    ((2, 2, 13, 1), (1, 2, 4, 1), {"dilation": (3, 1), "padding": ((0, 5), 0)}),
    ((5, 3, 1, 1), (4, 3, 1, 1), {"stride": 2}),
    ((2, 3, 5, 4), (4, 3, 1, 1), {"padding": ((0, 2), 0)}),
    ((2, 3, 6, 5), (3, 3, 2, 2), {"stride": 4, "padding": ((1, 2), (0, 1)), "dilation": 2}),
    ((1, 9, 4, 4), (6, 3, 3, 3), {"groups": 3, "padding": "same"}),
]
DEPTHWISE: list[Any] = [
    ((2, 3, 9, 7), (3, 1, 3, 3), {"padding": 1}),
    ((3, 2, 8, 11), (6, 1, 2, 5), {"stride": (3, 2), "dilation": (2, 1), "padding": ((0, 3), 4)}),
    ((1, 5, 1, 1), (5, 1, 1, 1), {}),
    ((1, 2, 1, 300), (2, 1, 1, 4), {}),
]


@each_dtype
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("x", "W", "options"), CASES)
def test_products(x: Any, W: Any, options: Any, bias: bool, dtype: str, cupy: FakeCupy) -> None:
    b = [normal(2, W[:1], dtype)] if bias else []
    agree(
        cupy, nnx.conv2d, normal(0, x, dtype), normal(1, W, dtype), *b,
        launches=[*FORWARD, *BY_INPUT, *BY_KERNEL, *BY_BIAS * bias], tolerance=5, **options,
    )  # fmt: skip


@each_dtype
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("image", [(5, 7), (1, 1)])
def test_windows_of_one_entry(
    image: Any, groups: int, dtype: str, cupy: FakeCupy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is laid out, for what a window sees is the image."""
    x, W, b = normal(0, (3, 4, *image), dtype), normal(1, (6, 4 // groups, 1, 1), dtype), (6,)
    launches = ["exchange"] * 6 + BY_BIAS
    for scratch in (conv.SCRATCH, 1):
        monkeypatch.setattr(conv, "SCRATCH", scratch)
        times = 1 if scratch > 1 else 3
        agree(
            cupy, nnx.conv2d, x, W, normal(2, b, dtype), tolerance=5, groups=groups,
            launches=["exchange"] * (6 * times) + BY_BIAS,
        )  # fmt: skip
    monkeypatch.undo()
    W = normal(1, (4, 6 // groups, 1, 1), dtype)
    args = x, W, normal(2, b, dtype)
    agree(cupy, nnx.conv_transpose2d, *args, launches=launches, tolerance=5, groups=groups)


def test_arrays_that_are_not_in_order_are_copied(cupy: FakeCupy) -> None:
    x, W = normal(0, (2, 3, 6, 5), "float64"), normal(1, (4, 3, 3, 2), "float64")
    dy, options = normal(2, (2, 4, 4, 4), "float64"), {}
    expected = calculus.gradients(nnx.conv2d, [nnx.asarray(x), nnx.asarray(W)], options,
                                  [nnx.asarray(dy)])  # fmt: skip
    turned = [nnx.permute_dims(nnx.asarray(np.ascontiguousarray(a.T)), (3, 2, 1, 0))
              for a in (x, W, dy)]  # fmt: skip
    cupy.launched.clear()
    found = calculus.gradients(nnx.conv2d, turned[:2], options, turned[2:])
    assert cupy.launched == [*FORWARD, *BY_INPUT, *BY_KERNEL]
    for f, e in zip([*found[0], *found[1]], [*expected[0], *expected[1]], strict=True):
        np.testing.assert_array_equal(f.get(), e.get())


@each_dtype
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("x", "W", "options"), DEPTHWISE)
def test_depthwise(x: Any, W: Any, options: Any, bias: bool, dtype: str, cupy: FakeCupy) -> None:
    b = [normal(2, W[:1], dtype)] if bias else []
    agree(
        cupy, nnx.conv2d, normal(0, x, dtype), normal(1, W, dtype), *b,
        launches=[*DIRECT, *BY_BIAS * bias], groups=x[1], tolerance=5, **options,
    )  # fmt: skip


@each_dtype
@pytest.mark.parametrize(("x", "W", "options"), [*CASES[:4], CASES[5], *DEPTHWISE[:2]])
def test_transposed(x: Any, W: Any, options: Any, dtype: str, cupy: FakeCupy) -> None:
    options = {"groups": x[1] if W[1] == 1 else 1, **options}
    with nnx.use_backend("numpy"):
        image = nnx.conv2d(normal(0, x, dtype), normal(1, W, dtype), **options)
    b = normal(2, (x[1],), dtype)
    args = [normal(0, image.shape, dtype), normal(1, W, dtype), b]
    if W[1] == 1 and options["groups"] > 1:
        launches = ["depthwise_spread", "depthwise", "depthwise_correlate"]
    else:
        launches = ["exchange", "col2im", *FORWARD, *BY_KERNEL]
    launches += BY_BIAS
    agree(cupy, nnx.conv_transpose2d, *args, launches=launches, tolerance=5, **options)


@each_dtype
def test_lines(dtype: str, cupy: FakeCupy) -> None:
    args = [normal(i, s, dtype) for i, s in enumerate([(2, 4, 37), (6, 2, 5), (6,)])]
    options = {"groups": 2, "stride": 3, "padding": ((2, 4),), "dilation": 2}
    launches = [*FORWARD, *BY_INPUT, *BY_KERNEL, *BY_BIAS]
    agree(cupy, nnx.conv1d, *args, launches=launches, tolerance=5, **options)


def test_blocks_of_images(cupy: FakeCupy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven images by three; the last block is of one."""
    x, W, b = (7, 3, 6, 5), (4, 3, 3, 2), (4,)
    each = (3 * 6 + 4) * 4 * 4 * 8
    monkeypatch.setattr(conv, "SCRATCH", 3 * each + 7)
    args = [normal(i, s, "float64") for i, s in enumerate([x, W, b])]
    launches = [*FORWARD * 3, *BY_INPUT * 3, *BY_KERNEL * 3, *BY_BIAS]
    agree(cupy, nnx.conv2d, *args, launches=launches, tolerance=5)
    monkeypatch.setattr(conv, "SCRATCH", 1)
    launches = [*FORWARD * 7, *BY_INPUT * 7, *BY_KERNEL * 7, *BY_BIAS]
    agree(cupy, nnx.conv2d, *args, launches=launches, tolerance=5)


def test_what_the_kernels_do_not_take(cupy: FakeCupy, monkeypatch: pytest.MonkeyPatch) -> None:
    W = normal(1, (4, 3, 3, 2), "float64")
    agree(cupy, nnx.conv2d, normal(0, (0, 3, 6, 5), "float64"), W, launches=[])
    x = normal(0, (2, 3, 6, 5), "float64")
    launches = [*FORWARD * 2, *BY_INPUT * 2, *BY_KERNEL * 2]
    one = (3 * 6 + 4) * 4 * 4  # entries of an image's columns and results
    monkeypatch.setattr(conv, "MOST", one)
    agree(cupy, nnx.conv2d, x, W, launches=launches, tolerance=5)
    monkeypatch.setattr(conv, "MOST", one - 1)
    agree(cupy, nnx.conv2d, x, W, launches=None, tolerance=5)
    W = normal(1, (3, 1, 3, 2), "float64")
    for most, launches in ((2 * 3 * 6 * 5, DIRECT), (2 * 3 * 6 * 5 - 1, None)):
        monkeypatch.setattr(conv, "MOST", most)
        agree(cupy, nnx.conv2d, x, W, launches=launches, groups=3, tolerance=5)


@st.composite
def geometries(draw: Any) -> Any:
    size, stride, gap = ([draw(st.integers(1, 3)) for _ in range(2)] for _ in range(3))
    pads = [[draw(st.integers(0, 3)) for _ in range(2)] for _ in range(2)]
    image = [max(1, gap[i] * (size[i] - 1) + 1 - sum(pads[i]) + draw(st.integers(0, 6)))
             for i in range(2)]  # fmt: skip
    groups, each, out = (draw(st.integers(1, 3)) for _ in range(3))
    x, W = (draw(st.integers(1, 3)), groups * each, *image), (groups * out, each, *size)
    return x, W, {"stride": stride, "dilation": gap, "padding": pads, "groups": groups}


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(case=geometries())
def test_pytorch_agrees(case: Any, cupy: FakeCupy) -> None:
    import torch

    x_shape, W_shape, options = case
    arrays = [normal(i, s, "float64") for i, s in enumerate([x_shape, W_shape, W_shape[:1]])]
    given = [torch.tensor(a, requires_grad=True) for a in arrays]
    (top, bottom), (left, right) = options["padding"]
    padded = torch.nn.functional.pad(given[0], (left, right, top, bottom))
    rest = {k: options[k] for k in ("stride", "dilation", "groups")}
    expected = torch.conv2d(padded, *given[1:], **rest)
    dy = normal(3, tuple(expected.shape), "float64")
    expected.backward(torch.tensor(dy))
    y, grads = calculus.gradients(
        nnx.conv2d, [nnx.asarray(a) for a in arrays], options, [nnx.asarray(dy)]
    )
    found = [y[0].get(), *(g.get() for g in grads)]
    for f, e in zip(found, [expected.detach(), *(g.grad for g in given)], strict=True):
        np.testing.assert_allclose(f, e, rtol=1e-12, atol=1e-12)
