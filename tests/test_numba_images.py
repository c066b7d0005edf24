"""numba's pools of images and its layer norm, against the portable kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from capture_tools import equal
from hypothesis import given
from hypothesis import strategies as st
from numba_tools import (
    TOLERANCE,
    close,
    each_dtype,
    needs_numba,
    normal,
    on,
    portable,
    quick,
    seeds,
    shapes,
)

import nnx

pytestmark = pytest.mark.usefixtures("numba_installed")


@needs_numba
@each_dtype
@given(
    shape=st.tuples(st.sampled_from([1, 7, 8, 12]), st.integers(1, 4), *[st.integers(1, 9)] * 2),
    seed=seeds, size=st.tuples(st.integers(1, 4), st.integers(1, 4)), stride=st.integers(1, 3),
    padded=st.booleans(), last=st.booleans(), counted=st.booleans(),
)  # fmt: skip
@quick
def test_pools(
    dtype: str, shape: Any, seed: int, size: Any, stride: int, padded: bool, last: bool,
    counted: bool,
) -> None:  # fmt: skip
    """Images (N, C, H, W) in memory, or (H, C, W, N); values of which some are equal."""
    if any(k > n for k, n in zip(size, shape[2:], strict=True)):
        return
    attrs: Any = {"size": size, "stride": stride}
    attrs["padding"] = tuple(k // 2 for k in size) if padded else 0
    x = normal(seed, shape, dtype).round() if stride > 1 else normal(seed, shape, dtype)
    if last:
        x = np.ascontiguousarray(x.transpose(2, 1, 3, 0)).transpose(3, 1, 0, 2)
    for op, more in ((nnx.max_pool2d, {}), (nnx.avg_pool2d, {"count_include_pad": counted})):
        y = op.forward(np, x, **attrs, **more)[0]
        dy = normal(seed + 1, y.shape, dtype, 1.0)
        got = on("numba", op, x, dy=dy, **attrs, **more)
        for g, e in zip(got, portable(op, x, dy=dy, **attrs, **more), strict=True):
            close(g, e)


@needs_numba
@each_dtype
def test_max_pooling_with_what_is_not_finite(dtype: str) -> None:
    inf = np.inf
    x = np.array([[1, np.nan, -inf, -inf], [2, 3, -inf, -inf]], dtype).reshape(1, 1, 2, 4)
    with nnx.use_backend("numba"):
        np.testing.assert_array_equal(nnx.max_pool2d(x, size=2), [[[[np.nan, -inf]]]])


@needs_numba
@each_dtype
@given(shape=shapes.filter(lambda s: len(s) > 0 and 0 not in s[1:]), seed=seeds, data=st.data())
@quick
def test_layer_norm(dtype: str, shape: tuple[int, ...], seed: int, data: st.DataObject) -> None:
    ndim = data.draw(st.integers(1, len(shape)))
    last = shape[len(shape) - ndim :]
    if 0 in last:
        return
    x, dy = normal(seed, shape, dtype) + 3, normal(seed + 1, shape, dtype, 1.0)
    gamma, beta = normal(seed + 2, last, dtype, 1.0), normal(seed + 3, last, dtype, 1.0)
    attrs = {"ndim": ndim, "eps": 0.1}
    with nnx.use_backend("numba"):
        tensors = [nnx.Tensor(a.copy(), requires_grad=True) for a in (x, gamma, beta)]
        nnx.layer_norm(*tensors, **attrs).backward(dy)
        got = [t.grad for t in tensors]
    wide = [a.astype(np.float64) for a in (x, gamma, beta)]
    y, extras = nnx.layer_norm.forward(np, *wide, **attrs)
    known = {"x": wide[0], "gamma": wide[1], "beta": wide[2], **attrs, **extras}
    expected = [
        d.kernel(np, dy.astype(np.float64), *[known[n] for n in d.reads])
        for d in nnx.layer_norm.derivatives
    ]
    t = 60 * TOLERANCE[dtype]  # sums over up to a thousand entries
    np.testing.assert_allclose(on("numba", nnx.layer_norm, x, gamma, beta, **attrs)[0], y, t, t)
    for g, e in zip(got, expected, strict=True):
        np.testing.assert_allclose(g, e, rtol=t, atol=t)
        assert g.dtype == x.dtype and g.shape == e.shape


@needs_numba
def test_layer_norm_without_scale_or_shift_falls_back() -> None:
    x, gamma = normal(0, (6, 8), "float64"), normal(1, (8,), "float64")
    for args in ((), (gamma,), (None, gamma)):
        got = on("numba", nnx.layer_norm, x, *args, dy=x)
        assert equal(got, on("numpy", nnx.layer_norm, x, *args, dy=x))
