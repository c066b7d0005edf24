"""Update kernels, and backends with kernels of their own, in captured functions."""

from __future__ import annotations

import numpy as np
import pytest
from capture_tools import both

import nnx
from nnx import layers as L
from nnx import optim
from nnx.backend import Backend, load_backend
from nnx.backward import accumulate
from nnx.capture import capture
from nnx.op import op
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


def child(table):
    """A backend on NumPy's arrays with kernels of its own."""

    class Child(Backend):
        name, parent, kernels, xp, on_host = "child", "numpy", table, np, True

        def __getattribute__(self, name):
            if name in ("owns", "asarray", "to_numpy", "copy", "zeros", "result", "dtype_name"):
                return getattr(load_backend("numpy"), name)
            return super().__getattribute__(name)

    return Child()


def test_a_backend_on_numpys_arrays_replays_its_own_kernels(monkeypatch):
    table, calls = Overrides(), []

    @table.forward(nnx.tanh)
    def tanh(xp, x):
        calls.append(x.shape)
        return np.tanh(x) + 1.0

    monkeypatch.setitem(nnx.backend._loaded, "child", child(table))

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


def replayed(f, *arrays, times=4):
    """Each call equals the eager one; the captured function."""
    step = capture(f)
    for i in range(times):
        given = [a * (1 + i % 2) for a in arrays]
        assert np.array_equal(nnx.to_numpy(step(*given)), nnx.to_numpy(f(*given)))
    assert "1 plan>" in repr(step)
    return step


def test_every_operator_in_a_kernel():
    @op
    def bits(xp, a):
        return ((a ^ 5) << 2 | (6 ^ a) >> 1) + (1 << a) - (64 >> a) + (+a) - (a & 3) % 5 // 2

    @op
    def masks(xp, x):
        return xp.astype((x > 0) ^ (x > 1), x.dtype) * +x

    replayed(bits, np.arange(6))
    replayed(masks, np.linspace(-2, 2, 9))


VIEWS = {
    "whole": lambda xp, x: x,
    "turned": lambda xp, x: xp.matrix_transpose(x),
    "reversed": lambda xp, x: x[::-1, ::-1],
    "element": lambda xp, x: x[0, 0],
}


@pytest.mark.parametrize("power", [-2, -1, 0, 0.5, 1, 2, 3, 1.7, np.float32(2), np.float64(3)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_powers_of_arrays_as_they_lie(power, dtype, view):
    @op
    def powered(xp, x):
        return view(xp, x) ** power

    rng = np.random.default_rng(0)
    replayed(powered, rng.uniform(0.1, 2, (40, 40)).astype(dtype))


@pytest.mark.parametrize("axes", [(1, 0, 2), (2, 0, 1)])
def test_kernels_that_numpy_declines_write_where_they_should(axes):
    """A layer on an array that lies in another order, whose gradients go to their buffer."""

    def make(wrap):
        nnx.seed(0)
        net = L.Sequential(L.Linear(5, 5), L.Relu())
        opt = optim.SGD(net.parameters(), lr=0.1)

        def step(x):
            opt.zero_grad()
            loss = nnx.sum(net(nnx.permute_dims(nnx.Tensor(x), axes)))
            loss.backward()
            opt.step()
            return loss

        step, rng = wrap(step), np.random.default_rng(0)
        return net, [float(step(rng.standard_normal((5, 5, 5)).astype("f4"))) for _ in range(6)]

    both(make)


def test_a_backends_kernel_may_call_ops(monkeypatch):
    table = Overrides()

    @table.forward(nnx.tanh)
    def tanh(xp, x):
        return nnx.sigmoid(x * 2.0) * 2.0 - nnx.exp(x * 0.0)

    monkeypatch.setitem(nnx.backend._loaded, "child", child(table))
    with nnx.use_backend("child"):
        step = replayed(lambda x: nnx.sum(nnx.tanh(nnx.Tensor(x))), np.linspace(-1, 1, 7))
        assert step.plan().kernels == {"tanh": 1, "sum": 1}


def test_another_array_that_a_check_is_given():
    bounds, made = np.array([1.0, 2.0]), [False]

    @op
    def below(xp, x):
        return x * 1.0

    @below.check
    def _(backend, x):
        return refuse, x, bounds.copy() if made[0] else bounds

    def refuse(values, bounds):
        if not np.all(values < bounds):
            raise nnx.LabelError("too large")

    def f(x):
        y = below(x)
        bounds[...] += 1
        return y

    with pytest.raises(nnx.CaptureError, match=r"of shape \(2,\) was changed in place"):
        capture(f)(np.zeros(2))
    step = capture(lambda x: below(x))
    for _ in range(4):
        step(np.zeros(2))
    with pytest.raises(nnx.LabelError, match="too large"):
        step(np.full(2, 5.0))
    made[0] = True
    step = capture(lambda x: below(x))
    step(np.zeros(2))
    with pytest.raises(nnx.CaptureError, match="is given to 'check' that was made outside nnx's"):
        step(np.zeros(2))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_erf_of_a_number_is_that_of_an_entry(dtype):
    """NumPy squares some of these otherwise as a scalar, with `x ** 2`."""
    step = capture(lambda x: nnx.erf(x))
    odd = [-0.42321302648920467, 0.46526286760562097, 0.23197665529014388, 0.4873576360415526]
    for v in np.asarray([*odd, *np.linspace(-3, 3, 50)], dtype):
        expected = nnx.erf(np.asarray([v]))[0]
        x = np.asarray(v)
        assert nnx.erf(x) == expected and step(x) == expected
