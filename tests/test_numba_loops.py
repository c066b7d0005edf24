"""numba's loops over entries and rows, and its optimizers, against NumPy's and portable kernels."""

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
from test_optim_kernels import _arguments

import nnx
from nnx.optim import kernels

pytestmark = pytest.mark.usefixtures("numba_installed")

ELEMENTWISE = {
    "relu": {}, "sigmoid": {}, "tanh": {}, "silu": {}, "softplus": {},
    "gelu": {"approximate": "none"}, "gelu ": {"approximate": "tanh"},
}  # fmt: skip
UPDATES = [
    v
    for v in vars(kernels).values()
    if type(v).__name__ == "Update" and v.name not in ("clip", "scale")
]


@needs_numba
@each_dtype
@pytest.mark.parametrize("name", ELEMENTWISE)
@given(shape=shapes, seed=seeds, scale=st.sampled_from([1e-3, 1.0, 5.0, 200.0]))
@quick
def test_activations(
    name: str, dtype: str, shape: tuple[int, ...], seed: int, scale: float
) -> None:
    op, attrs = getattr(nnx, name.strip()), ELEMENTWISE[name]
    x, dy = normal(seed, shape, dtype, scale), normal(seed + 1, shape, dtype, 1.0)
    got = on("numba", op, x, dy=dy, **attrs)
    expected = portable(op, x, dy=dy, **attrs)
    for g, e in zip(got, expected, strict=True):
        # relative to the operands too: gelu multiplies x by a number that cancels
        t = TOLERANCE[dtype] * max(1.0, scale if name.startswith("gelu") else 1.0)
        np.testing.assert_allclose(g, e, rtol=t, atol=t)
        assert g.dtype == x.dtype and g.shape == shape


@needs_numba
@each_dtype
def test_activations_at_the_ends(dtype: str) -> None:
    x = np.array([np.nan, np.inf, -np.inf, 1e4, -1e4, 0.0, -0.0, 1e-30], dtype)
    for name in ("relu", "sigmoid", "tanh", "softplus"):
        with nnx.use_backend("numba"):
            y = getattr(nnx, name)(x)
        close(y, getattr(nnx, name).forward(np, x))
    t = np.array([1e-8, -1e-8, 1e-3, 0.3, -0.34, 0.35], dtype)
    with nnx.use_backend("numba"):
        np.testing.assert_allclose(nnx.tanh(t), np.tanh(t), rtol=TOLERANCE[dtype], atol=0)


@needs_numba
@each_dtype
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@given(shape=shapes.filter(lambda s: len(s) > 0 and 0 not in s), seed=seeds, data=st.data())
@quick
def test_rows(
    name: str, dtype: str, shape: tuple[int, ...], seed: int, data: st.DataObject
) -> None:
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    op = getattr(nnx, name)
    x, dy = normal(seed, shape, dtype), normal(seed + 1, shape, dtype, 1.0)
    got, expected = on("numba", op, x, dy=dy, axis=axis), portable(op, x, dy=dy, axis=axis)
    for g, e in zip(got, expected, strict=True):
        np.testing.assert_allclose(g, e, rtol=4 * TOLERANCE[dtype], atol=4 * TOLERANCE[dtype])


@needs_numba
@each_dtype
def test_rows_with_what_is_not_finite(dtype: str) -> None:
    inf = np.inf
    x = np.array([[np.nan, 1, 2], [-inf, 1, 2], [-inf] * 3, [inf, 1, 2], [-5, -7, -900]], dtype)
    with nnx.use_backend("numba"):
        y = nnx.softmax(x)
    with np.errstate(invalid="ignore"):
        close(y, nnx.softmax.forward(np, x))
    assert y[1, 0] == 0.0 and y[4, 2] == 0.0 and np.isnan(y[[0, 2, 3]]).all()


@needs_numba
@each_dtype
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@given(rows=st.integers(0, 20), classes=st.integers(1, 30), seed=seeds, ignore=st.booleans())
@quick
def test_cross_entropy(
    dtype: str, reduction: str, rows: int, classes: int, seed: int, ignore: bool
) -> None:
    rng = np.random.default_rng(seed)
    x, t = normal(seed, (rows, classes), dtype), rng.integers(0, classes, rows)
    if ignore:
        t[rng.random(rows) < 0.5] = -100
    t = t.astype(rng.choice(["int32", "int64"]))
    dy = normal(seed, (rows,) if reduction == "none" else (), dtype, 1.0)
    attrs = {"reduction": reduction, "dy": dy}
    got = [a for b in ("numba", "numpy") for a in on(b, nnx.softmax_cross_entropy, x, t, **attrs)]
    with np.errstate(invalid="ignore", divide="ignore"):  # no row counts: NaN
        expected = portable(nnx.softmax_cross_entropy, x, t, **attrs) * 2
    for g, e in zip(got, expected, strict=True):
        np.testing.assert_allclose(g, e, rtol=8 * TOLERANCE[dtype], atol=8 * TOLERANCE[dtype])
        assert g.dtype == x.dtype


@needs_numba
def test_cross_entropy_of_soft_targets_weights_and_smoothing_falls_back() -> None:
    x, ids = normal(0, (6, 4), "float64"), np.array([0, 1, 2, 3, 0, 1])
    soft, weight = nnx.softmax(normal(1, (6, 4), "float64")), np.array([1.0, 2.0, 3.0, 4.0])
    cases: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
        ((soft,), {}), ((ids, weight), {}), ((ids,), {"label_smoothing": 0.1}),
    ]  # fmt: skip
    for args, attrs in cases:
        got = on("numba", nnx.softmax_cross_entropy, x, *args, **attrs)
        assert equal(got, on("numpy", nnx.softmax_cross_entropy, x, *args, **attrs))


@needs_numba
@pytest.mark.parametrize("update", UPDATES, ids=lambda u: u.name)
@each_dtype
@pytest.mark.parametrize("shape", [(), (0,), (7,), (30, 50)])
@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("arrays", [True, False])
def test_optimizers_are_equal_to_the_bit(
    update: Any, dtype: str, shape: tuple[int, ...], plain: bool, arrays: bool
) -> None:
    args, attrs = _arguments(update, dtype, shape, 1)
    if plain:
        attrs |= {k: 0.0 for k in ("weight_decay",) if k in attrs}
        attrs |= {k: False for k in ("nesterov",) if k in attrs}
    expected = update.kernel(np, *args, **attrs)
    copies = [a.copy() if isinstance(a, np.ndarray) else a for a in args]
    if arrays:  # as a replay gives the step's numbers
        copies = [np.array(a, dtype) if isinstance(a, float) else a for a in copies]
    with nnx.use_backend("numba"):
        held = update(*copies, **attrs)
    held, expected = (v if type(v) is tuple else (v,) for v in (held, expected))
    for e, h, i in zip(expected, held, update.positions, strict=True):
        assert h is copies[i], "written in place"
        np.testing.assert_array_equal(h, e)


@needs_numba
@pytest.mark.parametrize("update", [kernels.sgd, kernels.rmsprop], ids=lambda u: u.name)
def test_optimizers_on_arrays_that_are_not_contiguous(update: Any) -> None:
    args, attrs = _arguments(update, "float64", (40, 30), 2)
    expected = update.kernel(np, *args, **attrs)
    mixed = [np.asfortranarray(a) if isinstance(a, np.ndarray) else a for a in args]
    with nnx.use_backend("numba"):
        held = update(*mixed, **attrs)
    held, expected = (v if type(v) is tuple else (v,) for v in (held, expected))
    for e, h in zip(expected, held, strict=True):
        np.testing.assert_array_equal(h, e)


@needs_numba
def test_other_arrays_run_on_numpys_kernels() -> None:
    x = normal(0, (6, 8), "float64")
    with nnx.use_backend("numba"):
        assert np.array_equal(nnx.relu(np.array([-1, 0, 2])), [0, 0, 2])
        close(nnx.sigmoid(x[::2, ::-1]), nnx.sigmoid(x[::2, ::-1].copy()))
        close(nnx.softmax(x.T), nnx.softmax(x.T.copy()))
        assert nnx.softmax(x, axis=0).sum(axis=0) == pytest.approx(np.ones(8))
        half = nnx.tanh(np.array([0.5, 1.0], np.float16))
        assert half.dtype == np.float16
