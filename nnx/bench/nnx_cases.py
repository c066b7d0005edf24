"""The cases written with nnx, for any backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..backend import Backend, asarray, use_backend
from ..capture import capture
from ..layers import Layer, Linear, Relu, Sequential, SoftmaxCrossEntropy
from ..optim import SGD
from ..tensor import Tensor
from .cases import Array, OpCase, OpInputs, Prepared, StepCase, StepInputs


def op(backend: Backend, case: OpCase, inputs: OpInputs, backward: bool) -> Prepared:
    """The op on bare arrays; with `backward` on Tensors, and the gradients of all its arguments."""
    target, attrs, smooth = case.target, case.attrs, frozenset(case.smooth)
    args = [asarray(a, backend=backend) for a in inputs.args]
    dy = asarray(inputs.dy, backend=backend)

    def forward() -> list[Any]:
        return [target(*args, **attrs)]

    def both() -> list[Any]:
        tensors = [Tensor(a, i in smooth) for i, a in enumerate(args)]
        y = target(*tensors, **attrs)
        y.backward(dy)
        return [y.data, *(t.grad for t in tensors if t.requires_grad)]

    def values(found: list[Any]) -> list[Array]:
        return [backend.to_numpy(a) for a in found]

    return Prepared(_current(backend, both if backward else forward), values, backend.synchronize)


def _current(backend: Backend, run: Callable[[], Any]) -> Callable[[], Any]:
    """A backend that shares its parent's arrays computes only where it is the current one."""
    if backend.parent is None:
        return run

    def inside() -> Any:
        with use_backend(backend.name):
            return run()

    return inside


def network(backend: Backend, weights: list[tuple[Array, Array]]) -> Sequential:
    """Linear and Relu in turn, with these weights."""
    layers: list[Layer] = []
    state = {}
    with use_backend(backend.name):
        for W, b in weights:
            state[f"{len(layers)}.W"], state[f"{len(layers)}.b"] = W, b
            layers += [Linear(*W.shape), Relu()]
        net = Sequential(*layers[:-1])
    net.load_state_dict(state)
    return net


def step(
    backend: Backend, case: StepCase, inputs: StepInputs, *, replay: bool = False
) -> Prepared:
    """A training step on the tape, or a prediction on a bare array in `eval()`.

    replay   through `nnx.capture`: the first two runs record
    """
    net, loss = network(backend, inputs.weights), SoftmaxCrossEntropy()
    x, t = asarray(inputs.x, backend=backend), asarray(inputs.t, backend=backend)
    optimizer = SGD(net.parameters(), lr=case.lr)
    if not case.train:
        net.eval()

    def train() -> Any:
        optimizer.zero_grad()
        value = loss(net(Tensor(x)), t)
        value.backward()
        optimizer.step()
        return value.data

    def predict() -> Any:
        return net.forward(x)

    run = train if case.train else predict
    return Prepared(
        _current(backend, capture(run) if replay else run),
        lambda found: [backend.to_numpy(found)],
        backend.synchronize,
    )
