"""The public check of derivatives: it passes what is right, and finds each planted mistake."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import nnx
from nnx import layers as L
from nnx.op import op

rng = np.random.default_rng(0)
X = rng.normal(size=(4, 3)).astype(np.float32)
W = rng.normal(size=(3, 2)).astype(np.float32)


@op
def cube(xp: Any, x: Any, *, factor: float = 1.0) -> Any:
    return x * x * x * factor


@cube.d("x")
def _(xp: Any, dy: Any, x: Any, factor: Any) -> Any:
    return 3 * factor * x * x * dy


@op
def broken(xp: Any, x: Any, y: Any) -> Any:
    """x^2 y, whose derivative by y lacks a factor at one entry."""
    return x * x * y


@broken.d("x")
def _(xp: Any, dy: Any, x: Any, y: Any) -> Any:
    return 2 * x * y * dy


@broken.d("y")
def _(xp: Any, dy: Any, x: Any, y: Any) -> Any:
    g = x * x * dy
    g[1, 2] = g[1, 2] * 1.001
    return g


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize(
    ("f", "inputs", "attrs"),
    [
        (cube, (X,), {"factor": 0.5}),
        (nnx.matmul, (X, W), {}),
        (nnx.concat, (X, X), {"axis": 1}),
        (nnx.softmax_cross_entropy, (X, np.array([0, 2, 1, 1])), {}),
        (lambda x, w: (nnx.tanh(x @ w), (x * x).sum()), (X, W), {}),
        (lambda x: nnx.exp(x), (0.7,), {}),
        (L.Linear(3, 2), (X,), {}),
        (L.Sequential(L.Linear(3, 4), L.Sigmoid(), L.Dropout(0.5), L.Linear(4, 2)), (X,), {}),
        (L.SoftmaxCrossEntropy(), (X, np.array([0, 2, 1, 1])), {}),
    ],
)
def test_what_is_right(order: int, f: Any, inputs: Any, attrs: Any) -> None:
    report = nnx.gradcheck(f, *inputs, order=order, **attrs)
    assert report and report.ok and all(row.error < 1e-6 for row in report.rows)
    assert str(report).count("\n  ok ") == len(report.rows) >= 1


def test_a_mistake_is_found_at_its_place() -> None:
    with pytest.raises(nnx.GradientError) as error:
        nnx.gradcheck(broken, X, X + 1)
    assert isinstance(error.value, AssertionError)
    first, x, y = str(error.value).splitlines()
    assert first == "broken: derivatives differ from differences"
    assert x.startswith("  ok   x ") and y.startswith("  BAD  y ")
    assert "12 of 12 entries" in y and " at [1, 2]: derivative " in y
    report = nnx.gradcheck(broken, X, X + 1, raises=False)
    assert not report and report.rows[1].index == (1, 2)
    row = report.rows[1]
    assert row.derivative / row.difference == pytest.approx(1.001, rel=1e-6)
    assert nnx.gradcheck(broken, X, X + 1, wrt=[0]).ok


def test_a_mistake_in_the_second_derivative() -> None:
    @op
    def double(xp: Any, x: Any) -> Any:
        return 2 * x

    @double.d("x")
    def _(xp: Any, dy: Any) -> Any:
        return 3 * dy

    @op
    def square(xp: Any, x: Any) -> Any:
        return x * x

    @square.d("x")
    def _(xp: Any, dy: Any, x: Any) -> Any:
        return double(x) * dy

    assert nnx.gradcheck(square, X)
    with pytest.raises(nnx.GradientError, match="square: second derivatives differ from differen"):
        nnx.gradcheck(square, X, order=2)


def test_a_place_without_a_derivative() -> None:
    x = np.array([-1.0, 0.0, 2.0], np.float32)
    report = nnx.gradcheck(nnx.relu, x, raises=False)
    assert not report and report.rows[0].index == (1,)
    assert "(0 to the left, " in str(report) and "to the right: no derivative there)" in str(report)
    assert nnx.gradcheck(nnx.relu, x[[0, 2]])


def test_a_forgotten_dependence() -> None:
    def f(x: nnx.Tensor) -> nnx.Tensor:
        return x * nnx.Tensor(x.data)  # x twice, one of them cut off

    with pytest.raises(nnx.GradientError, match="BAD  input 0"):
        nnx.gradcheck(f, X)


def test_the_layer_given_stays_as_it_is() -> None:
    layer = L.Linear(3, 2)
    before = layer.state_dict()
    report = nnx.gradcheck(layer, X)
    assert [row.name for row in report.rows] == ["x", "W", "b"]
    assert all(p.grad is None and p.dtype == np.float32 for p in layer.parameters())
    for name, array in layer.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_large_arrays_are_sampled() -> None:
    report = nnx.gradcheck(nnx.tanh, np.ones((50, 40), np.float32), entries=7)
    assert report.rows[0].entries == 7 and "7 of 2000 entries" in str(report)
    assert nnx.gradcheck(nnx.tanh, np.ones((0, 4), np.float32)).rows[0].entries == 0


def test_on_any_backend(strict: str) -> None:
    with nnx.use_backend(strict):
        assert nnx.gradcheck(nnx.matmul, X, W)
        assert nnx.gradcheck(L.Linear(3, 2), nnx.asarray(X))


def test_nan_is_no_agreement() -> None:
    with np.errstate(all="ignore"):
        report = nnx.gradcheck(nnx.log, np.array([-1.0, 2.0], np.float32), raises=False)
    assert not report and math.isnan(report.rows[0].error)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nnx.gradcheck(nnx.relu, X, order=3), "order=3, expected 1 or 2"),
        (lambda: nnx.gradcheck(nnx.relu, np.array([1, 2])), "nothing to differentiate by: give a"),
        (lambda: nnx.gradcheck(lambda x: 3.0, X), "f gave float, expected a Tensor or a tuple"),
        (
            lambda: nnx.gradcheck(lambda x: x * float(rng.normal()), X),
            "gives another result when it is called again; fix what is random in it",
        ),
    ],
)
def test_errors(call: Any, message: str) -> None:
    with pytest.raises(nnx.OptionError, match=message):
        call()
