"""Softmax, log-softmax and cross-entropy by CUDA kernels, against float64 on NumPy."""

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
from nnx_cupy import CupyBackend

each_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])
quick = settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
# Columns about the widths of a pack, of a warp, of a block, and what one goes over several times.
COLUMNS = [1, 2, 3, 4, 5, 31, 32, 33, 64, 127, 1000, 1024, 1025, 1028, 4099, 20000]


@each_dtype
@pytest.mark.parametrize("columns", COLUMNS)
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_rows(name: str, columns: int, dtype: str, cupy: FakeCupy) -> None:
    for rows in (1, 5) if columns < 2000 else (2,):
        x = normal(columns, (rows, columns), dtype)
        agree(cupy, getattr(nnx, name), x, launches=[name, f"{name}_slope"], tolerance=2)


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@given(shape=st.lists(st.integers(1, 40), min_size=1, max_size=3), seed=st.integers(0, 99))
@quick
def test_shapes(name: str, shape: list[int], seed: int, cupy: FakeCupy) -> None:
    x = normal(seed, tuple(shape), "float32")
    agree(cupy, getattr(nnx, name), x, launches=[name, f"{name}_slope"])


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_what_the_kernels_do_not_take(name: str, cupy: FakeCupy) -> None:
    op = getattr(nnx, name)
    agree(cupy, op, normal(0, (3, 4), "float32"), launches=[], axis=0)
    agree(cupy, op, normal(0, (0, 4), "float32"), launches=[])


@each_dtype
@pytest.mark.parametrize("columns", [3, 40, 2000])
def test_extremes(columns: int, dtype: str, cupy: FakeCupy) -> None:
    inf, nan = np.inf, np.nan
    ends = [[nan, 1, 2], [-inf, 1, 2], [-inf] * 3, [inf, 1, 2], [-5, -7, -900], [88, 1e4, 1e4],
            [-1e30, 1e30, 0], [1, nan, -inf]]  # fmt: skip
    x = np.full((len(ends), columns), -inf, dtype)
    x[:, -3:] = ends
    for op in (nnx.softmax, nnx.log_softmax):
        with np.errstate(all="ignore"):
            y = op(x.astype("float64"))
        got = nnx.to_numpy(op(nnx.asarray(x)))
        np.testing.assert_allclose(got, y, rtol=2e-6, atol=1e-30)


@each_dtype
@pytest.mark.parametrize("kind", ["int32", "int64"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (7, 10), (300, 3), (5, 1300), (2, 9001)])
def test_cross_entropy(
    rows: int, columns: int, reduction: str, kind: str, dtype: str, cupy: FakeCupy
) -> None:
    t = np.random.default_rng(rows).integers(0, columns, rows).astype(kind)
    t[rows // 2 :][::2] = -100  # ignored
    t[0] = columns - 1
    scaled = "cross_entropy_scaled" + ("_rows" if reduction == "none" else "")
    total = [] if reduction == "none" else ["cross_entropy_total"]
    agree(
        cupy, nnx.softmax_cross_entropy, normal(1, (rows, columns), dtype), t,
        launches=["cross_entropy", *total, scaled], tolerance=2, reduction=reduction,
    )  # fmt: skip


@each_dtype
def test_cross_entropy_extremes(dtype: str, cupy: FakeCupy) -> None:
    inf = np.inf
    x = np.array([[-inf, 1, 2], [0, 1000, -1000], [-inf, 0, -inf], [88, 88, 88]], dtype)
    t = np.array([1, 2, 1, 0])
    agree(cupy, nnx.softmax_cross_entropy, x, t, reduction="none",
          launches=["cross_entropy", "cross_entropy_scaled_rows"])  # fmt: skip
    x[0, 2] = np.nan
    loss = nnx.softmax_cross_entropy(nnx.asarray(x), nnx.asarray(t), reduction="none").get()
    assert np.isnan(loss[0]) and np.isfinite(loss[1:]).all()


@each_dtype
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (9, 10), (300, 3), (3, 1300)])
def test_loss_and_gradient_at_once_equal_both(
    rows: int, columns: int, reduction: str, dtype: str, cupy: FakeCupy
) -> None:
    (fusion,) = [
        f for f in CupyBackend.kernels.fusions if f.__name__ == "cross_entropy_with_gradient"
    ]  # fmt: skip
    x = nnx.asarray(normal(0, (rows, columns), dtype))
    t = nnx.asarray(np.where(np.arange(rows) % 3 == 1, -100, np.arange(rows) % columns))
    one, op, attrs = nnx.asarray(np.ones((), dtype)), nnx.softmax_cross_entropy, {
        "reduction": reduction}  # fmt: skip
    (y,), (dx,) = calculus.gradients(op, [x, t], attrs, [one])
    found, slope = cupy.empty((), dtype), cupy.empty((rows, columns), dtype)
    cupy.launched.clear()
    run = Now(nnx.get_backend().xp)
    assert fusion.build(run, x=x, t=t, y=found, dx=slope, **attrs)
    assert cupy.launched == ["cross_entropy", "cross_entropy_total"]
    np.testing.assert_array_equal(found.get(), y.get())
    np.testing.assert_array_equal(slope.get(), dx.get())
    assert not fusion.build(run, x=x, t=t, y=found, dx=slope, label_smoothing=0.1, **attrs)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_ids_that_are_no_classes_cost_nothing(reduction: str, cupy: FakeCupy) -> None:
    """They cannot raise on a device; nothing outside of the array is read. They count as rows."""
    x, t = normal(0, (5, 4), "float64"), np.array([4, -1, 0, 3, 2**40])
    op, attrs = nnx.softmax_cross_entropy, {"reduction": reduction}
    loss, extras = op.forward(np, x, t, **attrs)
    dout = calculus.like([np.asarray(loss)])
    (portable,) = op.derivatives
    known = {**extras, **attrs}
    dx = portable.kernel(np, dout[0], *[known[name] for name in portable.reads])
    (y,), (found,) = calculus.gradients(
        op, [nnx.asarray(x), nnx.asarray(t)], attrs, [nnx.asarray(dout[0])]
    )
    np.testing.assert_allclose(y.get(), loss, rtol=1e-13)
    np.testing.assert_allclose(found.get(), dx, rtol=1e-13)


def test_no_row_to_count_gives_nan(cupy: FakeCupy) -> None:
    x, t = normal(0, (3, 4), "float32"), np.full(3, -100)
    with np.errstate(all="ignore"):
        assert np.isnan(nnx.softmax_cross_entropy(nnx.asarray(x), nnx.asarray(t)).get())


@pytest.mark.parametrize("attrs", [{"label_smoothing": 0.1}, {}])
def test_cross_entropy_that_the_kernel_does_not_take(attrs: Any, cupy: FakeCupy) -> None:
    x, t = normal(0, (3, 4), "float64"), np.array([0, 3, 1])
    others = [] if attrs else [np.array([1.0, 2.0, 0.5, 1.5])]
    agree(cupy, nnx.softmax_cross_entropy, x, t, *others, launches=[], **attrs)


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_a_cotangent_with_gaps_in_memory(reduction: str, cupy: FakeCupy) -> None:
    x, t = normal(0, (3, 4), "float64"), np.array([0, 3, 1])
    op, attrs = nnx.softmax_cross_entropy, {"reduction": reduction}
    wide = normal(1, (6,), "float64")
    dout: Any = wide[::2] if reduction == "none" else wide[0]
    given = nnx.asarray(wide)[::2] if reduction == "none" else nnx.asarray(np.asarray(dout))
    _, (dx,) = calculus.gradients(op, [nnx.asarray(x), nnx.asarray(t)], attrs, [given])
    with nnx.use_backend("numpy"):
        _, (expected,) = calculus.gradients(op, [x, t], attrs, [np.array(dout)])
    np.testing.assert_allclose(dx.get(), expected, rtol=1e-12)
