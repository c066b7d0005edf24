"""Kernels that give the result alone run where no derivative follows."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import nnx
from nnx import layers as L
from nnx.calls import calls
from nnx.op import op
from nnx.override import Overrides
from nnx_numpy import NumpyBackend


@op
def double(xp: Any, x: Any) -> Any:
    return x + x


@double.d("x")
def _(xp: Any, dy: Any) -> Any:
    return dy + dy


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Which forward kernels ran, on a backend that has two for `double`."""
    table, names = Overrides(parent=NumpyBackend.kernels), list[str]()

    class Child(NumpyBackend):
        name, parent, kernels = "child", "numpy", table

    fused = table.fused(double)(lambda xp, x: (names.append("forward"), (x + x, {"two": 2}))[1])

    @fused.value
    @calls
    def alone(run: Any, x: Any) -> Any:
        names.append("value")
        y = run.new(x.shape, x.dtype)
        run(np.add, x, x, out=y)
        return y

    @fused.d("x")
    def slope(xp: Any, dy: Any, two: Any) -> Any:
        return dy * two

    @table.derivative(double, "x")
    def slope_again(xp: Any, dy: Any, two: Any) -> Any:
        return dy * two * 1.0

    monkeypatch.setitem(nnx.backend._loaded, "child", Child())
    with nnx.use_backend("child"):
        yield names


def test_which_one_runs(ran: list[str]) -> None:
    x = np.ones(3)
    leaf = nnx.Tensor(x, requires_grad=True)
    y = double(leaf)
    y.backward(x)
    assert ran == ["forward"] and leaf.grad.tolist() == [2.0, 2.0, 2.0]
    ran.clear()
    double(x), double(nnx.Tensor(x))
    with nnx.no_grad():
        double(leaf)
    assert ran == ["value"] * 3
    ran.clear()
    assert nnx.grad(lambda x: nnx.sum(double(x)))(x).tolist() == [2.0, 2.0, 2.0]
    assert ran == ["forward"]


def test_replays(ran: list[str]) -> None:
    step = nnx.capture(lambda x: double(nnx.Tensor(x)) * 3.0)
    for i in range(4):
        np.testing.assert_array_equal(nnx.to_numpy(step(np.full(3, float(i)))), np.full(3, 6.0 * i))
    assert set(ran) == {"value"} and step.plan().kernels["alone"] == 1


def test_its_parameters_are_checked() -> None:
    fused = Overrides().fused(double)(double.forward)
    with pytest.raises(nnx.DtypeError, match=r"its parameters are \('x', 'y'\)"):
        fused.value(lambda xp, x, y: x)


LAYOUTS: dict[str, Callable[[Any], Any]] = {
    "plain": lambda x: x, "turned": lambda x: x.T, "with gaps": lambda x: x[:, ::2],
}  # fmt: skip


@pytest.mark.parametrize("approximate", ["none", "tanh"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_gelu_is_the_same_to_the_bit(layout: str, dtype: str, approximate: str) -> None:
    x = LAYOUTS[layout](np.random.default_rng(0).normal(size=(300, 500)).astype(dtype) * 4)
    recorded = nnx.gelu(nnx.Tensor(x, requires_grad=True), approximate=approximate)
    np.testing.assert_array_equal(nnx.gelu(x, approximate=approximate), recorded.numpy())


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_inference_makes_no_slope_of_gelu(approximate: str) -> None:
    x = np.ones((1000, 1000), np.float32)
    layer = L.Gelu(approximate)
    peaks = []
    for t in (nnx.Tensor(x), nnx.Tensor(x, requires_grad=True)):
        tracemalloc.start()
        y = layer(t)
        peaks.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
        del y
    assert peaks[0] < 1.1 * x.nbytes and peaks[1] > 1.9 * x.nbytes
