"""Memory that runs out while a model moves or is loaded: it is as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from capture_tools import batches, model, trainer
from failing_memory import Full, Run, held, same, until_done
from fake_cupy import FakeCupy
from training import digits
from training import trainer as trainer_of_digits

import nnx
from nnx import layers as L
from nnx import optim


@pytest.fixture
def cupy(standin: FakeCupy) -> FakeCupy:
    return standin


@pytest.fixture
def full(cupy: FakeCupy, monkeypatch: pytest.MonkeyPatch) -> Full:
    return Full(monkeypatch)


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
