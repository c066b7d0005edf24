"""Memory that runs out at each place where it is asked for: all is as it was, and goes on."""

from __future__ import annotations

import gc
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from capture_tools import batches, model, trainer
from cupy_tools import host
from failing_memory import Full, held
from fake_cupy import FakeCupy
from training import digits
from training import trainer as trainer_of_digits

import nnx
from nnx import layers as L
from nnx import optim
from nnx.capture import capture, captured


@pytest.fixture
def cupy(standin: FakeCupy) -> FakeCupy:
    return standin


@pytest.fixture
def full(cupy: FakeCupy, monkeypatch: pytest.MonkeyPatch) -> Full:
    return Full(monkeypatch)


class Run:
    """A training, all of whose state can be read."""

    def __init__(self, wrap: Any = lambda f: f) -> None:
        self.net = model(L.BatchNorm1d(8), L.Dropout(0.5))
        half = len(list(self.net.parameters())) // 2
        params = list(self.net.parameters())
        self.opt = optim.AdamW([{"params": params[:half]}, {"params": params[half:], "lr": 0.02}])
        self.step = wrap(trainer(self.net, self.opt))
        self.data = iter(batches(12))

    def train(self, steps: int) -> list[float]:
        return [float(self.step(x, t)) for x, t in (next(self.data) for _ in range(steps))]

    def state(self) -> dict[str, Any]:
        found = {f"model {k}": v for k, v in self.net.state_dict().items()}
        for i, entry in self.opt.state_dict()["state"].items():
            found |= {f"optimizer {i} {k}": np.array(v) for k, v in entry.items()}
        for i, p in enumerate(self.net.parameters()):
            found[f"gradient {i}"] = None if p.grad is None else host(p.grad)
            found[f"version {i}"] = p._version
        found["generator"] = str(nnx.random.generator().bit_generator.state)
        return found


def same(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def alike(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert a.keys() == b.keys() and a["generator"] == b["generator"]
    for name in a:
        if name != "generator":
            np.testing.assert_allclose(a[name], b[name], rtol=1e-4, atol=1e-6, err_msg=name)


def eager(steps: int) -> tuple[list[float], dict[str, Any]]:
    run = Run(lambda f: lambda x, t: f(nnx.asarray(x), nnx.asarray(t)))
    return run.train(steps), run.state()


def until_done(full: Full, f: Any, after: Any) -> int:
    """Call it with no memory at its k-th demand, for every k; `after` each failure."""
    k = 0
    while True:
        try:
            with full.at(k):
                f()
            return k
        except nnx.DeviceMemoryError:
            after()
            k += 1


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


def elsewhere(net: L.Layer) -> list[str]:
    return [x.backend.name for x in (*net.parameters(), *net.buffers())]


@pytest.mark.parametrize("packed", [False, True])
def test_a_model_that_moves(cupy: FakeCupy, full: Full, packed: bool) -> None:
    with nnx.use_backend("numpy"):
        run = Run()
        run.train(2)
        if not packed:
            run.net = model(L.BatchNorm1d(8))
        before = {k: np.array(v) for k, v in run.net.state_dict().items()}

        def lies() -> list[Any]:
            return [a for p in run.net.parameters() for a in (p.data, p.grad, p.flat, p.slot)]

        here = lies()

        def after() -> None:
            assert all(a is b for a, b in zip(here, lies(), strict=True))
            same(before, run.net.state_dict())
            assert set(elsewhere(run.net)) == {"numpy"}

        taken = held(cupy)["arrays"]
        assert until_done(full, lambda: run.net.to("cupy"), after) >= len(before)
        assert set(elsewhere(run.net)) == {"cupy"} and held(cupy)["arrays"] > taken
        same(before, run.net.state_dict())
        if packed:
            assert all(p.flat is not None for p in run.net.parameters())
            step = trainer(run.net, run.opt)
            x, t = (nnx.asarray(a, backend="cupy") for a in next(run.data))
            assert np.isfinite(float(step(x, t)))


def test_an_optimizer_that_is_made(cupy: FakeCupy, full: Full) -> None:
    net, other = model(), L.Linear(3, 4)
    opt = optim.Adam(other.parameters())
    before = net.state_dict()
    group = {"params": net.parameters()}
    demands = until_done(
        full, lambda: opt.add_param_group(group), lambda: same(before, net.state_dict())
    )
    assert demands > 0 and len(opt.param_groups) == 2


@pytest.mark.parametrize("alone", [False, True])
def test_an_optimizers_state_that_is_loaded(cupy: FakeCupy, full: Full, alone: bool) -> None:
    """Into one that has a state: only where parameters lie by themselves that takes memory."""
    net = model()
    hold = [p.data for p in net.parameters()] if alone else None  # then they stay where they are
    opt = optim.Adam(net.parameters())
    step, saved = trainer(net, opt), []
    for x, t in batches(2):
        step(nnx.asarray(x), nnx.asarray(t))
        saved.append(opt.state_dict()["state"])
    wanted = {**opt.state_dict(), "state": saved[0]}

    def check(expected: dict[int, Any]) -> None:
        for i, entry in expected.items():
            same(entry, opt.state_dict()["state"][i])

    demands = until_done(full, lambda: opt.load_state_dict(wanted), lambda: check(saved[1]))
    assert demands == (2 * len(hold) if hold else 0)
    check(saved[0])


def test_parameters_that_are_loaded_take_no_memory(cupy: FakeCupy, full: Full) -> None:
    net, other = model(), L.Sequential(L.Linear(12, 8), L.Relu(), L.Linear(8, 5))
    with full.at(0):
        net.load_state_dict(other.state_dict())
    assert not full.asked
    same(net.state_dict(), other.state_dict())
    with full.at(0), pytest.raises(nnx.DeviceMemoryError):  # arrays of a device are cast on it
        net.load_state_dict({k: v.data for k, v in other.astype("float64").named_state()})


def test_a_run_that_is_resumed(cupy: FakeCupy, full: Full, tmp_path: Path) -> None:
    first = trainer_of_digits(folder=tmp_path / "run")
    first.fit(digits("train", 60), epochs=1)
    run = trainer_of_digits(2, folder=tmp_path / "run")
    before, bits = run.model.state_dict(), run.generator.bit_generator
    state = bits.state

    def after() -> None:
        same(before, run.model.state_dict())
        assert (run.epoch, run.step) == (0, 0) and bits.state == state
        assert not run.optimizer.state_dict()["state"]

    assert until_done(full, run.resume, after) > 0
    assert run.epoch == 1
    same(first.model.state_dict(), run.model.state_dict())
