"""Memory that runs out at each place where it is asked for: all is as it was, and goes on."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest
from capture_tools import batches, model, trainer
from cupy_tools import host
from failing_memory import Full, held
from fake_cupy import FakeCupy

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
            with full.at(k, later=True):
                found[1:] = [run.step(x, t)]
        except nnx.DeviceMemoryError as error:
            text = str(error)
            assert "device 0 has no memory left" in text and "Arrays hold" in text
            assert held(cupy) == taken, full.asked[-1]
            assert not any(s.is_capturing() for s in cupy.on.streams.values())
            same(before, run.state())
            asked.append(full.asked[-1])
            k += 1
    print(len(asked), sorted(set(asked)))
    found = [float(loss) for loss in found] + run.train(4)
    np.testing.assert_allclose(found, losses, rtol=1e-5)
    now = run.state()
    for name in now:
        if not name.startswith(("generator", "version")):
            np.testing.assert_allclose(now[name], state[name], rtol=1e-4, atol=1e-6, err_msg=name)
    assert len(cupy.on.graphs) == 1
