"""Training by hand: after errors and steps, in two threads, on any backend, across a move."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

import nnx
from nnx import layers as L
from nnx import optim


def test_training_after_an_error_in_forward() -> None:
    """A forward that failed leaves nothing behind that confuses the next call."""
    net = L.Sequential(L.Linear(2, 2), L.Relu())
    with pytest.raises(nnx.ShapeError):
        net.forward(np.ones((1, 3), np.float32))
    with pytest.raises(nnx.StateError, match="before forward"):
        net.backward(np.ones((1, 2), np.float32))
    net.forward(np.ones((1, 2), np.float32))
    assert net.backward(np.ones((1, 2), np.float32)).shape == (1, 2)


def test_backward_after_a_step_says_why() -> None:
    net = L.Sequential(L.Linear(2, 2), L.Linear(2, 2))
    opt = optim.SGD(net.parameters(), lr=0.1)
    net.forward(np.ones((1, 2), np.float32))
    net.backward(np.ones((1, 2), np.float32))
    opt.step()
    with pytest.raises(nnx.StateError, match="was changed after the forward pass"):
        net.backward(np.ones((1, 2), np.float32))


def _train(seed: int, out: dict[int, Any], gate: threading.Barrier | None) -> None:
    r = np.random.default_rng(seed)
    net = L.Sequential(
        *(L.Linear(6, 6, W_init=lambda s, g: r.normal(size=s)) for _ in range(3)), L.Tanh()
    )
    opt, x = optim.SGD(net.parameters(), lr=0.01), r.normal(size=(8, 6)).astype(np.float32)
    loss = L.MeanSquaredError()
    for _ in range(30):
        if gate is not None:
            gate.wait()
        loss.forward(net.forward(x), x)
        net.backward(loss.backward())
        opt.step()
        if seed == 0:
            with nnx.no_grad():
                net(nnx.Tensor(x))
    out[seed] = net.state_dict()


def test_two_threads_train_two_nets() -> None:
    alone: dict[int, Any] = {}
    together: dict[int, Any] = {}
    for seed in (0, 1):
        _train(seed, alone, None)
    gate = threading.Barrier(2, timeout=60)
    threads = [threading.Thread(target=_train, args=(s, together, gate)) for s in (0, 1)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for seed in (0, 1):
        for name, value in alone[seed].items():
            np.testing.assert_array_equal(value, together[seed][name])


def _mlp(dtype: str = "float32") -> L.Sequential:
    nnx.seed(11)
    return L.Sequential(L.Linear(6, 5, dtype=dtype), L.Tanh(), L.Linear(5, 3, dtype=dtype))


def _step_by_hand(net: L.Sequential, opt: optim.Optimizer, x: Any, t: Any) -> None:
    loss = L.SoftmaxCrossEntropy()
    loss.forward(net.forward(x), t)
    net.backward(loss.backward())
    opt.step()


def test_training_is_the_same_on_every_backend(backend: nnx.Backend) -> None:
    x, t = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32), np.array([0, 2, 1, 0])
    here = _mlp()
    with nnx.use_backend("numpy"):
        there = _mlp()
    for net, name in ((here, backend.name), (there, "numpy")):
        opt = optim.Adam(net.parameters(), lr=0.1)
        arrays = [nnx.asarray(a, backend=name) for a in (x, t)]
        for _ in range(3):
            _step_by_hand(net, opt, *arrays)
        assert all(p.backend.name == name for p in net.parameters())
    for name, value in here.state_dict().items():
        np.testing.assert_allclose(value, there.state_dict()[name], rtol=1e-4, atol=1e-6)


def test_moving_after_the_optimizer_exists(backend: nnx.Backend) -> None:
    x, t = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32), np.array([0, 2, 1, 0])
    states = []
    for moves in (True, False):
        with nnx.use_backend("numpy"):
            net = _mlp()
            opt = optim.Adam(net.parameters(), lr=0.1)
            _step_by_hand(net, opt, x, t)
            kept = net.parameters()
            if moves:
                assert net.to(backend.name) is net
                x2, t2 = (nnx.asarray(a, backend=backend.name) for a in (x, t))
                _step_by_hand(net, opt, x2, t2)
                assert backend.owns(net[0].W.data) and backend.owns(net[0].W.grad)
                net.to("numpy")
            else:
                _step_by_hand(net, opt, x, t)
            _step_by_hand(net, opt, x, t)
            assert all(a is b for a, b in zip(kept, net.parameters(), strict=True))
            states.append(net.state_dict())
    for name, value in states[0].items():
        np.testing.assert_allclose(value, states[1][name], rtol=1e-4, atol=1e-6)
