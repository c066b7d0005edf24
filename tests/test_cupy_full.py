"""Memory that runs out at each place where it is asked for: all is as it was, and goes on."""

from __future__ import annotations

import gc
import sys
import warnings
from typing import Any

import fake_memory
import numpy as np
import pytest
from capture_tools import batches, model
from cupy_tools import host
from failing_memory import Full, Run, held, same, until_done
from fake_cupy import FakeCupy

import nnx
from nnx import optim
from nnx.capture import capture, captured


@pytest.fixture
def cupy(standin: FakeCupy) -> FakeCupy:
    return standin


@pytest.fixture
def full(cupy: FakeCupy, monkeypatch: pytest.MonkeyPatch) -> Full:
    return Full(monkeypatch)


def alike(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert a.keys() == b.keys() and a["generator"] == b["generator"]
    for name in a:
        if name != "generator":
            np.testing.assert_allclose(a[name], b[name], rtol=1e-4, atol=1e-6, err_msg=name)


def eager(steps: int) -> tuple[list[float], dict[str, Any]]:
    run = Run(lambda f: lambda x, t: f(nnx.asarray(x), nnx.asarray(t)))
    return run.train(steps), run.state()


def test_a_plan(cupy: FakeCupy, full: Full, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that is asked for once the step itself is done."""
    losses, state = eager(6)
    gc.collect()  # that training has cycles
    run = Run(lambda f: capture(f, backend="cupy"))
    found = run.train(1)
    planned = captured.State

    def planning(*args: Any) -> Any:
        full.begin()
        return planned(*args)

    monkeypatch.setattr(captured, "State", planning)
    k = 0
    before, (x, t), taken = run.state(), next(run.data), held(cupy)
    asked = []
    while not run.step._plans:
        try:
            with full.at(k, later=True), warnings.catch_warnings(action="ignore"):
                found[1:] = [run.step(x, t)]
        except nnx.DeviceMemoryError as error:
            text = str(error)
            assert "device 0 has no memory left" in text and "Arrays hold" in text
            assert held(cupy) == taken, full.asked[-1]
            assert not any(s.is_capturing() for s in cupy.on.streams.values())
            same(before, run.state())
            asked.append(full.asked[-1])
            k += 1
    assert set(asked) == set(full.watched) - {"Graph.launch"}
    found = [float(loss) for loss in found] + run.train(4)
    np.testing.assert_allclose(found, losses, rtol=1e-5)
    alike(run.state(), state)
    assert len(cupy.on.graphs) == 1


def test_a_plan_whose_calls_take_memory(
    cupy: FakeCupy, full: Full, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When they run before the capture, and in it; the products' factors are copied too."""
    W = nnx.asarray(np.random.default_rng(0).standard_normal((6, 4)))
    phases = set[str]()
    ask = fake_memory.Pool.malloc

    def asking(pool: fake_memory.Pool, size: int) -> Any:
        if pool is not cupy.on.pool:
            phases.add("captured" if cupy.on.capturing() else "before")
        return ask(pool, size)

    def step(x: Any) -> Any:
        y = nnx.matmul(nnx.Tensor(x)[:, ::2], nnx.Tensor(W)[::2])
        return nnx.where(y > 0.0, y, nnx.exp(y))

    captured_step, x = capture(step), nnx.asarray(np.linspace(-1.0, 1.0, 18).reshape(3, 6))
    captured_step(x)
    monkeypatch.setattr(fake_memory.Pool, "malloc", asking)
    cupy.on.synchronize()
    taken = held(cupy)

    def after() -> None:
        assert held(cupy) == taken
        assert not any(s.is_capturing() for s in cupy.on.streams.values())

    until_done(full, lambda: captured_step(x), after)
    assert len(cupy.on.graphs) == 1 and phases == {"before", "captured"}
    for i in range(3):
        given = nnx.multiply(x, float(i))
        np.testing.assert_allclose(host(captured_step(given)), host(step(given)))


def weights(a: dict[str, Any], b: dict[str, Any]) -> None:
    """Parameters and the optimizer's state are the same."""
    names = [n for n in a | b if n.startswith(("model", "optimizer"))]
    for name in names:
        if "mean" not in name and "var" not in name:
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_a_step_that_is_recorded(cupy: FakeCupy, full: Full) -> None:
    """All that the step itself asks for, and what looks at its arrays."""
    losses, state = eager(4)
    gc.collect()
    run = Run(lambda f: capture(f, backend="cupy"))
    found, k = run.train(1), 0
    before, (x, t), taken = run.state(), next(run.data), held(cupy)
    while len(found) < 2:
        try:
            with full.at(k):
                found.append(float(run.step(x, t)))
        except nnx.DeviceMemoryError:
            k += 1 + k // 12  # there are hundreds
        else:
            break
        assert held(cupy) == taken, full.asked[-1]
        same(before, run.state())
    assert k > 200
    np.testing.assert_allclose(found + run.train(2), losses, rtol=1e-5)
    alike(run.state(), state)


def test_an_eager_step(cupy: FakeCupy, full: Full) -> None:
    """Also the first one, for which kernels are loaded."""
    run, found = Run(), list[float]()
    run.data = ((nnx.asarray(x), nnx.asarray(t)) for x, t in batches(4))
    for _ in range(2):
        before, bits, (x, t) = run.state(), nnx.random.generator().bit_generator, next(run.data)
        drawn = bits.state

        def after(before: Any = before, bits: Any = bits, drawn: Any = drawn) -> None:
            weights(before, run.state())
            bits.state = drawn  # an eager step that is given up has drawn

        def step(x: Any = x, t: Any = t) -> None:
            found.append(float(run.step(x, t)))

        assert until_done(full, step, after) > 30
    found += run.train(2)
    now = run.state()
    losses, state = eager(4)  # at last, for it loads kernels too
    np.testing.assert_allclose(found, losses, rtol=1e-5)
    for name in state:
        if name.startswith(("model", "optimizer")) and "mean" not in name and "var" not in name:
            np.testing.assert_allclose(now[name], state[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("products", ["in a graph", "by CuPy"])
def test_a_replay(
    cupy: FakeCupy, full: Full, products: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step that is not made counts for nothing. By CuPy its calls are made one by one."""
    losses, state = eager(6)
    if products == "by CuPy":
        monkeypatch.setitem(sys.modules, "nvmath.bindings.cublasLt", None)
    with warnings.catch_warnings(action="ignore"):
        run = Run(lambda f: capture(f, backend="cupy"))
        found = run.train(3)
    before, (x, t) = run.state(), next(run.data)
    demands = until_done(
        full, lambda: found.append(float(run.step(x, t))), lambda: weights(before, run.state())
    )
    assert demands >= 1 and len(cupy.on.graphs) == (products == "in a graph")
    np.testing.assert_allclose(found + run.train(2), losses, rtol=1e-5)
    alike(run.state(), state)


def test_gradients_that_add_up(cupy: FakeCupy, full: Full) -> None:
    """All of a second batch are added, or none."""
    net = model()
    hold = optim.SGD(net.parameters(), lr=0.1)  # lays them side by side

    def gradients() -> list[Any]:
        return [host(p.grad) for p in net.parameters()]

    def step(x: Any, t: Any) -> None:
        nnx.softmax_cross_entropy(net(nnx.Tensor(nnx.asarray(x))), nnx.asarray(t)).backward()

    first, second = batches(2)
    step(*first)
    alone = gradients()
    hold.zero_grad()
    step(*second)
    before = gradients()

    def after() -> None:
        for a, b in zip(gradients(), before, strict=True):
            np.testing.assert_array_equal(a, b)

    assert until_done(full, lambda: step(*first), after) > 10
    for a, b, c in zip(gradients(), before, alone, strict=True):
        np.testing.assert_allclose(a, b + c, rtol=1e-5, atol=1e-6)


def test_what_is_returned_beside_arrays_of_the_device(cupy: FakeCupy) -> None:
    fixed = np.ones(3)
    step = capture(lambda x: (nnx.exp(x), fixed, 2.0))
    for i in range(4):
        y, other, number = step(nnx.asarray(np.full(2, float(i))))
        np.testing.assert_allclose(host(y), np.exp([i, i]))
        np.testing.assert_array_equal(other, fixed)
        assert number == 2.0
