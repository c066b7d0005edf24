"""A model that moves to another backend in the middle of training goes on as if it had stayed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import nnx
from nnx import layers as L
from nnx import optim

OPTIMIZERS: dict[str, Callable[[list[nnx.Parameter]], optim.Optimizer]] = {
    "sgd": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "adagrad": lambda p: optim.AdaGrad(p, lr=0.1),
    "rmsprop": lambda p: optim.RMSProp(p, lr=0.01, momentum=0.5),
    "adam": lambda p: optim.Adam(p, lr=0.01),
    "adamw": lambda p: optim.AdamW(p, lr=0.01),
}


def train(make: Callable[..., optim.Optimizer], places: list[str]) -> dict[str, np.ndarray]:
    """The weights after two steps in each of the places."""
    nnx.seed(0)
    net = L.Sequential(L.Linear(3, 4), L.Tanh(), L.Linear(4, 2))
    parameters = net.parameters()
    opt, loss = make(parameters), L.SoftmaxCrossEntropy()
    rng = np.random.default_rng(1)
    for place in places:
        net.to(place)
        for _ in range(2):
            x = nnx.asarray(rng.standard_normal((5, 3)).astype("f4"), backend=place)
            t = nnx.asarray(rng.integers(0, 2, 5), backend=place)
            opt.zero_grad()
            loss(net(nnx.Tensor(x)), t).backward()
            optim.clip_grad_norm(parameters, 0.5)
            opt.step()
        assert all(p.backend.name == place for p in parameters)
    assert all(a is b for a, b in zip(net.parameters(), parameters, strict=True))
    return net.state_dict()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_optimizers_state_follows_the_model(name: str, strict: str) -> None:
    stayed = train(OPTIMIZERS[name], ["numpy"] * 3)
    moved = train(OPTIMIZERS[name], ["numpy", strict, "numpy"])
    for key, value in stayed.items():
        np.testing.assert_allclose(moved[key], value, rtol=1e-5, atol=1e-6)
