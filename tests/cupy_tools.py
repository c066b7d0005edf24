"""Trainings and calls that the tests of replay on cupy share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from capture_tools import batches, model, trainer

import nnx
from nnx import layers as L
from nnx import optim
from nnx.capture import capture


def trained(
    wrap: Callable[..., Any], optimizer: Any, steps: int, *between: L.Layer, **options: Any
) -> Any:
    """Parameters, gradients and losses of a training, as NumPy arrays."""
    net = model(*between)
    opt = optimizer(net.parameters())
    step = wrap(trainer(net, opt), **options)
    losses = []
    for i, (x, t) in enumerate(batches(steps)):
        opt.lr = 0.01 / (1 + i // 10)
        losses.append(float(step(nnx.asarray(x), nnx.asarray(t))))
    found = [nnx.to_numpy(a) for p in net.parameters() for a in (p.data, p.grad)]
    return [np.array(losses), *found], step


OPTIMIZERS = {
    "sgd": lambda p: optim.SGD(p, lr=0.1, momentum=0.9),
    "adam": lambda p: optim.Adam(p, lr=0.01),
    "adamw": lambda p: optim.AdamW(p, lr=0.01, weight_decay=0.1),
}


def host(array: Any) -> np.ndarray[Any, Any]:
    return np.array(nnx.to_numpy(array))


def repeated(fn: Callable[..., Any], *arrays: Any, calls: int = 5, **options: Any) -> Any:
    """The captured function, after calls whose results equal the function's own."""
    step = capture(fn, **options)
    for i in range(calls):
        given = [nnx.asarray(a + a.dtype.type(i)) for a in arrays]
        expected, got = fn(*given), step(*given)
        np.testing.assert_allclose(host(got), host(expected), rtol=1e-5, atol=1e-6)
    return step
