"""Max pooling of NaN and infinities: PyTorch's values, and its gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from against_torch import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import nnx

INF, NAN = np.inf, np.nan
LAYOUTS = {"n c h w": (0, 1, 2, 3), "h c w n": (2, 1, 3, 0)}
quick = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
each_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])


@pytest.fixture(params=["portable", "numpy", "numba"])
def pooled(request: pytest.FixtureRequest) -> Any:
    """f(x, dy, options) gives the result and the gradient, by one of the kernels on a CPU."""
    if request.param == "portable":
        return by_portable_kernels
    if not nnx.backends()[request.param].available:
        pytest.skip(f"{request.param} is not installed")

    def f(x: Any, dy: Any, options: Any) -> tuple[Any, Any]:
        with nnx.use_backend(request.param):
            t = nnx.Tensor(x, requires_grad=True)
            y = nnx.max_pool2d(t, **options)
            y.backward(dy)
            return y.numpy(), t.grad

    return f


def by_portable_kernels(x: Any, dy: Any, options: Any) -> tuple[Any, Any]:
    op = nnx.max_pool2d
    y, extras = op.forward(np, x, **options)
    known = {"stride": None, "padding": 0, **options, **extras}
    (slope,) = op.derivatives
    return y, slope.kernel(np, dy, *[known[name] for name in slope.reads])


def by_torch(x: Any, dy: Any, size: Any, stride: Any = None, padding: Any = 0) -> tuple[Any, Any]:
    t = torch.tensor(x, requires_grad=True)
    y = torch.nn.functional.max_pool2d(t, size, stride, padding)
    y.backward(torch.tensor(dy))
    return y.detach().numpy(), t.grad.numpy()


def laid(x: Any, layout: str) -> Any:
    """x with its axes in that order in memory."""
    order = LAYOUTS[layout]
    return np.ascontiguousarray(x.transpose(order)).transpose(np.argsort(order))


@each_dtype
@pytest.mark.parametrize("layout", LAYOUTS)
@quick
@given(
    n=st.sampled_from([1, 2, 9]), image=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    size=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.one_of(st.none(), st.tuples(st.integers(1, 3), st.integers(1, 3))),
    padded=st.booleans(), seed=st.integers(0, 999),
)  # fmt: skip
def test_as_pytorch(
    pooled: Any, dtype: str, layout: str, n: int, image: Any, size: Any, stride: Any,
    padded: bool, seed: int,
) -> None:  # fmt: skip
    """Of what is not finite, of equal values, of windows of -inf alone; one NaN in each image."""
    rng, padding = np.random.default_rng(seed), tuple(k // 2 if padded else 0 for k in size)
    if any(k > a + 2 * p for k, a, p in zip(size, image, padding, strict=True)):
        return
    x = rng.choice([-INF, -INF, -1, -0.0, 0.0, 2, INF], (n, 2, *image)).astype(dtype)
    for some in x.reshape(2 * n, -1):
        some[rng.integers(some.size)] = NAN
    options = {"size": size, "stride": stride, "padding": padding}
    dy = rng.normal(size=nnx.max_pool2d.forward(np, x, **options)[0].shape).astype(dtype)
    expected = by_torch(x, dy, **options)
    for got, wanted in zip(pooled(laid(x, layout), dy, options), expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)


@each_dtype
@pytest.mark.parametrize("layout", LAYOUTS)
def test_of_several_nans_the_first_has_the_gradient(pooled: Any, layout: str, dtype: str) -> None:
    """Row by row. PyTorch takes the last."""
    x = np.array([[[9, 1, NAN, 2], [NAN, NAN, 5, NAN]]], dtype)[None].repeat(8, axis=0)
    y, dx = pooled(laid(x, layout), np.ones((8, 1, 1, 2), dtype), {"size": 2})
    np.testing.assert_array_equal(y, np.full((8, 1, 1, 2), NAN))
    np.testing.assert_array_equal(dx[3, 0], [[0, 0, 1, 0], [1, 0, 0, 0]])


@pytest.mark.parametrize("name", ["numpy", "numba"])
def test_replays_do_the_same(name: str) -> None:
    """A plan made without NaN meets one."""
    if not nnx.backends()[name].available:
        pytest.skip(f"{name} is not installed")

    def slope(x: Any, dy: Any) -> Any:
        t = nnx.Tensor(x, requires_grad=True)
        nnx.max_pool2d(t, size=2, stride=1, padding=1).backward(dy)
        return t.grad

    x, dy = np.arange(12.0).reshape(1, 1, 3, 4), np.ones((1, 1, 4, 5))
    with nnx.use_backend(name):
        again = nnx.capture(slope)
        for _ in range(3):
            again(x, dy)
        x[0, 0, 1, 1] = NAN
        np.testing.assert_array_equal(again(x, dy), by_torch(x, dy, 2, 1, 1)[1])
