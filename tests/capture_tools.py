"""Models, steps and batches that the tests of capture share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import nnx
from nnx import layers as L
from nnx import optim
from nnx.capture import capture

Batch = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]


def batches(count: int, rows: int = 16, n_in: int = 12, seed: int = 0) -> list[Batch]:
    rng = np.random.default_rng(seed)
    return [
        (rng.standard_normal((rows, n_in)).astype(np.float32), rng.integers(0, 5, rows))
        for _ in range(count)
    ]


def model(*between: L.Layer, n_in: int = 12, hidden: int = 8) -> L.Sequential:
    nnx.seed(0)
    return L.Sequential(L.Linear(n_in, hidden), L.Relu(), *between, L.Linear(hidden, 5))


def trainer(net: L.Layer, optimizer: optim.Optimizer, clip: float | None = None) -> Any:
    def step(x: Any, t: Any) -> Any:
        optimizer.zero_grad()
        loss = nnx.softmax_cross_entropy(net(nnx.Tensor(x)), t)
        loss.backward()
        if clip is not None:
            optim.clip_grad_norm(net.parameters(), clip)
        optimizer.step()
        return loss

    return step


def train(
    wrap: Callable[..., Any], net: L.Layer, optimizer: optim.Optimizer, data: list[Batch],
    clip: float | None = None,
) -> tuple[L.Layer, list[float]]:  # fmt: skip
    step = wrap(trainer(net, optimizer, clip))
    return net, [float(step(x, t)) for x, t in data]


def values(net: L.Layer) -> list[np.ndarray[Any, Any]]:
    return [p.data.copy() for p in net.parameters()]


def equal(a: list[Any], b: list[Any]) -> bool:
    return len(a) == len(b) and all(map(np.array_equal, a, b))


def both(make: Callable[[Callable[..., Any]], tuple[Any, list[float]]]) -> Any:
    """Run a training eagerly and captured; parameters, gradients and losses must be the same.

    make   given `wrap` it trains with wrap(step), and returns the model and the losses
    """
    (eager, losses), (captured, replayed) = make(lambda f: f), make(capture)
    assert losses == replayed
    assert equal(values(eager), values(captured))
    for p, q in zip(eager.parameters(), captured.parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None)
        assert p.grad is None or np.array_equal(p.grad, q.grad)
    return captured
