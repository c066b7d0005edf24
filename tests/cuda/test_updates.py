"""Optimizers by CUDA kernels: the portable kernels' values on NumPy, to the bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fake_cupy import FakeCupy
from test_optim_kernels import UPDATES, _arguments, _tuple

import nnx
from nnx import layers as L
from nnx.calls import Now
from nnx.optim import kernels
from nnx_cupy import CupyBackend

each_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])
each_update = pytest.mark.parametrize("update", UPDATES, ids=lambda u: u.name)


def plainly(attrs: dict[str, Any]) -> dict[str, Any]:
    """The same options without the additions."""
    plain = {k: 0.0 for k in ("weight_decay",) if k in attrs}
    return attrs | plain | {k: False for k in ("nesterov",) if k in attrs}


@each_update
@each_dtype
@pytest.mark.parametrize("shape", [(), (7,), (30, 50), (4, 256)])
@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("in_memory", [True, False])
def test_updates(
    update: Any, dtype: str, shape: tuple[int, ...], plain: bool, in_memory: bool, cupy: FakeCupy
) -> None:
    """in_memory: the step's numbers as a replay has them, in arrays of the parameter's dtype"""
    args, attrs = _arguments(update, dtype, shape, 1)
    attrs = plainly(attrs) if plain else attrs
    expected = update.kernel(np, *args, **attrs)
    given = [nnx.asarray(a) if isinstance(a, np.ndarray) else a for a in args]
    if in_memory:
        given = [nnx.asarray(np.asarray(a, dtype)) if type(a) is float else a for a in given]
    cupy.launched.clear()
    held = update(*given, **attrs)
    assert cupy.launched == [update.name]
    for e, h, i in zip(_tuple(expected), _tuple(held), update.positions, strict=True):
        assert h is given[i], "written in place"
        np.testing.assert_array_equal(h.get(), e)
    for i, (a, g) in enumerate(zip(args, given, strict=True)):
        if i not in update.positions and isinstance(a, np.ndarray):
            np.testing.assert_array_equal(g.get(), a)


@each_update
def test_what_the_kernels_do_not_take_is_updated_all_the_same(update: Any, cupy: FakeCupy) -> None:
    args, attrs = _arguments(update, "float64", (6, 4), 2)
    expected = update.kernel(np, *args, **attrs)
    whole = [nnx.asarray(np.repeat(a, 2, 0)) if np.ndim(a) else a for a in args]
    given = [w[::2] if np.ndim(a) else w for a, w in zip(args, whole, strict=True)]
    given = [nnx.asarray(a) if isinstance(a, np.ndarray) else a for a in given]
    cupy.launched.clear()
    update(*given, **attrs)
    assert cupy.launched == []
    for e, i in zip(_tuple(expected), update.positions, strict=True):
        np.testing.assert_allclose(given[i].get(), e, rtol=1e-14)


@each_dtype
@pytest.mark.parametrize(
    "update", [u for u in UPDATES if u.name not in ("scale", "clip")], ids=lambda u: u.name
)
def test_clipping_with_an_update_equals_both(update: Any, dtype: str, cupy: FakeCupy) -> None:
    args, attrs = _arguments(update, dtype, (301,), 3)
    factor = np.asarray(0.3, dtype)
    apart = [nnx.asarray(a) if np.ndim(a) else a for a in args]
    kernels.scale(apart[1], nnx.asarray(factor))
    update(*apart, **attrs)
    (fusion,) = [
        f for f in CupyBackend.kernels.fusions if f.__name__ == f"clip_and_{update.name}"
    ]  # fmt: skip
    at_once = [nnx.asarray(a) if np.ndim(a) else a for a in args]
    named = dict(zip(update.signature.arrays, at_once, strict=True)) | attrs
    cupy.launched.clear()
    assert fusion.build(Now(nnx.get_backend().xp), factor=nnx.asarray(factor), **named)
    assert cupy.launched == [update.name]
    for a, b in zip(apart, at_once, strict=True):
        if hasattr(a, "get"):
            np.testing.assert_array_equal(b.get(), a.get())


@each_dtype
@pytest.mark.parametrize("sizes", [(1,), (5, 3000), (40000, 1, 7)])
def test_norm_and_factor(sizes: tuple[int, ...], dtype: str, cupy: FakeCupy) -> None:
    grads = [np.random.default_rng(n).normal(size=n).astype(dtype) for n in sizes]
    cupy.launched.clear()
    norm = kernels.norm(*map(nnx.asarray, grads))
    assert cupy.launched == [*["squares"] * len(sizes), "grad_norm"]
    expected = np.sqrt(sum(np.sum(g.astype("float64") ** 2) for g in grads))
    t = 1e-6 if dtype == "float32" else 1e-14
    np.testing.assert_allclose(norm.get(), expected, rtol=t)
    for most in (0.5, 1e6):
        factor = kernels.factor(norm, max_norm=most)
        np.testing.assert_allclose(factor.get(), min(most / (expected + 1e-6), 1), rtol=t)
    assert cupy.launched[-2:] == ["factor", "factor"]


def test_a_model_is_updated_by_one_launch(cupy: FakeCupy) -> None:
    nnx.seed(0)
    model = L.Sequential(L.Linear(5, 7), L.Relu(), L.Linear(7, 3))
    optimizer = nnx.optim.Adam(model.parameters(), lr=0.01)
    x, t = nnx.asarray(np.ones((4, 5), "float32")), nnx.asarray(np.array([0, 1, 2, 0]))
    for _ in range(2):
        optimizer.zero_grad()
        nnx.softmax_cross_entropy(model(nnx.Tensor(x)), t).backward()
        cupy.launched.clear()
        optimizer.step()
        assert cupy.launched == ["adam"]
