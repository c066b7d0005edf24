"""The cases written with nnx, for any backend, eager and through `nnx.capture`."""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle
from typing import Any

import nnx

from ..arrays import asarray
from ..backend import Backend, set_backend
from ..capture import capture
from ..layers import Layer, Linear, Relu, Sequential, SoftmaxCrossEntropy
from ..optim import SGD, Adam, Optimizer
from ..tensor import Tensor
from .cases import Case, NetworkCase, OpCase, Prepared
from .op_table import Array

OPTIMIZERS: dict[str, type[Optimizer]] = {"sgd": SGD, "adam": Adam}


def set_threads(n: int) -> None:
    """Limit this process to n threads."""
    nnx.set_num_threads(n)


def prepare(name: str, replay: bool, case: Case) -> Prepared | None:
    """The case on the backend of that name, which becomes the process's current one.

    replay   through `nnx.capture`: the first two runs record
    """
    made = PREPARE.get(case.kind)
    return None if made is None else made(set_backend(name), capture if replay else _eager, case)


def _eager(fn: Callable[..., Any]) -> Callable[..., Any]:
    return fn


Form = Callable[[Callable[..., Any]], Callable[..., Any]]


def network(backend: Backend, form: Form, case: NetworkCase) -> Prepared:
    """A training step on the tape, or a prediction on a bare array in `eval()`."""
    inputs = case.inputs()
    net, loss = _network(inputs.weights), SoftmaxCrossEntropy()
    batches = cycle([tuple(map(asarray, batch[: 1 + case.trains])) for batch in inputs.batches])
    optimizer: Any = None
    if case.trains:
        optimizer = OPTIMIZERS[case.optimizer](net.parameters(), lr=case.rate)
    else:
        net.eval()

    def train(x: Any, t: Any) -> Any:
        optimizer.zero_grad()
        value = loss(net(Tensor(x)), t)
        value.backward()
        optimizer.step()
        return value.data

    def predict(x: Any) -> Any:
        return net.forward(x)

    call = form(train if case.trains else predict)
    return Prepared(
        lambda: call(*next(batches)),
        lambda found: [backend.to_numpy(found)],
        backend.synchronize,
    )


def _network(weights: list[tuple[Array, Array]]) -> Sequential:
    """Linear and Relu in turn, with these weights."""
    layers: list[Layer] = []
    state = {}
    for W, b in weights:
        state[f"{len(layers)}.W"], state[f"{len(layers)}.b"] = W, b
        layers += [Linear(*W.shape), Relu()]
    net = Sequential(*layers[:-1])
    net.load_state_dict(state)
    return net


def op(backend: Backend, form: Form, case: OpCase) -> Prepared:
    """The op on bare arrays; with `backward` on Tensors, and the gradients of all its arguments."""
    inputs = case.inputs()
    target, attrs, smooth = case.spec.target, case.spec.attrs, frozenset(case.spec.smooth)
    args, dy = [asarray(a) for a in inputs.args], asarray(inputs.dy)

    def forward(*args: Any) -> list[Any]:
        return [target(*args, **attrs)]

    def both(dy: Any, *args: Any) -> list[Any]:
        tensors = [Tensor(a, i in smooth) for i, a in enumerate(args)]
        target(*tensors, **attrs).backward(dy)
        return [t.grad for t in tensors if t.requires_grad]

    given = (dy, *args) if case.backward else args
    call = form(both if case.backward else forward)

    def values(found: list[Any]) -> list[Array]:
        return [backend.to_numpy(a) for a in found]

    return Prepared(lambda: call(*given), values, backend.synchronize)


PREPARE: dict[str, Callable[[Backend, Form, Any], Prepared | None]] = {
    "network": network,
    "op": op,
}
