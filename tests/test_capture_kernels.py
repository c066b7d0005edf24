"""Update kernels, and backends with kernels of their own, in captured functions."""

from __future__ import annotations

import numpy as np

import nnx
from nnx.backend import Backend, load_backend
from nnx.backward import accumulate
from nnx.capture import capture
from nnx.override import Overrides
from nnx.update import update


@update("a", "b")
def exchange(xp, a, b):
    return b + 1.0, a + 1.0


@update("a")
def square(xp, a):
    return xp.matmul(a, a)


def test_update_kernels_read_before_they_write():
    a, b = np.eye(2), np.full((2, 2), 2.0)
    c, d = a.copy(), b.copy()

    def f(a, b):
        def run(x):
            exchange(a, b)
            square(a)
            return nnx.sum(nnx.Tensor(a) + x)

        return run

    eager, step = f(a, b), capture(f(c, d))
    for i in range(4):
        x = np.array(float(i))
        assert float(eager(x)) == float(step(x))
        assert np.array_equal(a, c) and np.array_equal(b, d)
    assert "1 plan" in repr(step)


def test_what_is_written_is_not_a_constant():
    def f(x):
        total = nnx.get_backend().zeros((3,), x.dtype)
        for _ in range(2):
            accumulate(total, x)
        return total

    step = capture(f)
    for i in range(4):
        assert step(np.full(3, float(i))).tolist() == [2.0 * i] * 3


def test_a_backend_on_numpys_arrays_replays_its_own_kernels(monkeypatch):
    table, calls = Overrides(), []

    @table.forward(nnx.tanh)
    def tanh(xp, x):
        calls.append(x.shape)
        return np.tanh(x) + 1.0

    class Child(Backend):
        name, parent, kernels, xp, on_host = "child", "numpy", table, np, True

        def __getattribute__(self, name):
            if name in ("owns", "asarray", "to_numpy", "copy", "zeros", "result", "dtype_name"):
                return getattr(load_backend("numpy"), name)
            return super().__getattribute__(name)

    monkeypatch.setitem(nnx.backend._loaded, "child", Child())

    def f(x):
        x = nnx.Tensor(x, requires_grad=True)
        y = nnx.sum(nnx.sigmoid(nnx.tanh(x)))
        y.backward()
        return y, x.grad

    step = capture(f)
    with nnx.use_backend("child"):
        for i in range(4):
            x = np.arange(4.0) / (i + 1)
            calls.clear()
            (y, dx), count = step(x), len(calls)
            eager, slope = f(x)
            assert float(y) == float(eager) and np.array_equal(dx, slope) and count == 1
        assert step.plan().kernels["tanh"] == 1 and "1 plan" in repr(step)


def test_empty_arrays_beside_others():
    step = capture(lambda x: nnx.sum(nnx.exp(nnx.Tensor(x)[:0] * 2.0)) + nnx.sum(nnx.exp(x)))
    for i in range(4):
        x = np.full(40, float(i))
        assert float(step(x)) == float(nnx.sum(nnx.exp(x)))
