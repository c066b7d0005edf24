"""Activations at infinity, NaN and far out: the limits; elsewhere PyTorch's values in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from against_torch import torch

import nnx
from nnx import ops

F = torch.nn.functional
INF, NAN = np.inf, np.nan
FINITE = [
    0.0, -0.0, 1e-30, 1, -1, 3, -3, 5, -5, 9, -9, 12, -12, 30, -30, 60, -60, 90, -90, 300, -300,
    750, -750, 3e4, -3e4, 1e10, -1e10, 1e25, -1e25, 3e38, -3e38, 1e200, -1e200,
]  # fmt: skip
GATES = {
    "silu": (nnx.silu, {}, F.silu),
    "gelu": (nnx.gelu, {}, F.gelu),
    "gelu by tanh": (nnx.gelu, {"approximate": "tanh"}, lambda x: F.gelu(x, approximate="tanh")),
}
OTHERS: dict[str, tuple[Any, dict[str, Any], Callable[..., Any]]] = {
    "sigmoid": (nnx.sigmoid, {}, torch.sigmoid),
    "tanh": (nnx.tanh, {}, torch.tanh),
    "softplus": (nnx.softplus, {}, lambda x: F.softplus(x, threshold=30)),
    "elu": (nnx.elu, {}, F.elu),
    "leaky_relu": (nnx.leaky_relu, {}, F.leaky_relu),
    "relu": (nnx.relu, {}, F.relu),
}
OPS = {**GATES, **OTHERS}
CLOSE = {"float16": 2e-3, "float32": 2e-6, "float64": 1e-13}
each_dtype = pytest.mark.parametrize("dtype", CLOSE)
each_op = pytest.mark.parametrize("name", OPS)


@pytest.fixture(params=["portable", "numpy", "numba"])
def slope_of(request: pytest.FixtureRequest) -> Any:
    """f(op, x, attrs) gives the values and the derivatives, by one of the kernels on a CPU."""
    if request.param == "portable":
        return by_portable_kernels
    if not nnx.backends()[request.param].available:
        pytest.skip(f"{request.param} is not installed")

    def f(op: Any, x: Any, attrs: Any) -> tuple[Any, Any]:
        with nnx.use_backend(request.param):
            t = nnx.Tensor(x, requires_grad=True)
            y = op(t, **attrs)
            y.backward(np.ones_like(x))
            np.testing.assert_array_equal(op(x, **attrs), y.numpy())
            return y.numpy(), t.grad

    return f


def by_portable_kernels(op: Any, x: Any, attrs: Any) -> tuple[Any, Any]:
    y = op.forward(np, x, **attrs)
    known = {**op.signature.defaults, **attrs, "x": x, "y": y}
    (slope,) = op.derivatives
    return y, slope.kernel(np, np.ones_like(x), *[known[name] for name in slope.reads])


def finite(dtype: str) -> Any:
    return np.array([v for v in FINITE if abs(v) <= float(np.finfo(dtype).max)], dtype)


def by_torch(f: Any, x: Any) -> list[Any]:
    """The values and their first and second derivatives, with NaN only where x has it."""
    t = torch.tensor(x.astype("float64"), requires_grad=True)
    y = f(t)
    (first,) = torch.autograd.grad(y.sum(), t, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), t) if first.requires_grad else (0 * t,)
    return [v.detach().numpy() for v in (y, first, second)]


@each_dtype
@each_op
def test_far_out(slope_of: Any, name: str, dtype: str) -> None:
    op, attrs, theirs = OPS[name]
    x = finite(dtype)
    near = np.abs(x.astype("float64")) < 1e9  # farther out some of PyTorch's are NaN
    with np.errstate(all="ignore"):
        got = slope_of(op, x, attrs)
    for ours, expected in zip(got, by_torch(theirs, x), strict=False):
        scale = np.abs(expected[near]) + 1
        np.testing.assert_array_less(np.abs(ours[near] - expected[near]) / scale, CLOSE[dtype])
    if name in GATES:
        np.testing.assert_array_equal(got[0][~near], np.maximum(x, 0)[~near])
        np.testing.assert_array_equal(got[1][~near], (x > 0)[~near])


@each_dtype
@pytest.mark.parametrize("name", GATES)
def test_gates_at_infinity(slope_of: Any, name: str, dtype: str) -> None:
    """The limits, where infinity times 0 would be NaN; so PyTorch gives it."""
    op, attrs, _ = OPS[name]
    x = np.array([INF, -INF, NAN, 1.0], dtype)
    with np.errstate(all="ignore"):
        y, dx = slope_of(op, x, attrs)
    np.testing.assert_array_equal(y[:3], [INF, 0, NAN])
    np.testing.assert_array_equal(dx[:3], [1, 0, NAN])


@each_dtype
@pytest.mark.parametrize("name", OTHERS)
def test_others_at_infinity(slope_of: Any, name: str, dtype: str) -> None:
    op, attrs, theirs = OPS[name]
    x = np.array([INF, -INF, NAN], dtype)
    with np.errstate(all="ignore"):
        got = slope_of(op, x, attrs)
    y, dx, _ = by_torch(theirs, x)
    np.testing.assert_array_equal(got[0], y.astype(dtype))
    np.testing.assert_array_equal(got[1][:2], dx[:2].astype(dtype))


@pytest.mark.parametrize("dtype", ["float16", "float64"])
@each_op
def test_second_derivatives(name: str, dtype: str) -> None:
    op, attrs, theirs = OPS[name]
    x = finite(dtype)
    x = np.concatenate([x[np.abs(x) > 1e-20], np.array([INF, -INF], dtype)])
    slope = nnx.grad(lambda x: nnx.sum(op(x, **attrs)))
    with np.errstate(all="ignore"):
        got = nnx.grad(lambda x: nnx.sum(slope(x)))(x)
    near = np.abs(x) < 100
    expected = np.where(near, by_torch(theirs, np.where(near, x, 1))[2], 0)
    np.testing.assert_allclose(got, expected, rtol=0, atol=10 * CLOSE[dtype])


@pytest.mark.parametrize("name", GATES)
def test_numbers(name: str) -> None:
    op, attrs, _ = OPS[name]
    assert op(INF, **attrs) == INF and op(-INF, **attrs) == 0
    assert nnx.grad(lambda x: op(x, **attrs))(-INF) == 0


def test_empty_arrays() -> None:
    x = np.zeros((0, 3), np.float32)
    assert ops.gelu(x, approximate="tanh").shape == (0, 3)
