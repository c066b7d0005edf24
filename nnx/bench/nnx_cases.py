"""The cases written with nnx, for any backend, eager and through `nnx.capture`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import cycle
from typing import Any

import nnx

from ..arrays import asarray
from ..backend import Backend, set_backend
from ..capture import capture
from ..layers import (
    LSTM,
    Layer,
    Linear,
    MeanSquaredError,
    Relu,
    Sequential,
    SoftmaxCrossEntropy,
    TransformerBlock,
)
from ..optim import SGD, Adam, Optimizer
from ..tensor import Tensor
from ..train import build_model
from .case import Case, Prepared
from .cases import LeNetCase, NetworkCase, OpCase
from .op_table import Array
from .sequences import BlockCase, LSTMCase, SequenceCase

OPTIMIZERS: dict[str, type[Optimizer]] = {"sgd": SGD, "adam": Adam}


def set_threads(n: int) -> None:
    """Limit this process to n threads."""
    nnx.set_num_threads(n)


def prepare(name: str, replay: bool, case: Case, fuse: str = "exact") -> Prepared | None:
    """The case on the backend of that name, which becomes the process's current one.

    replay   through `nnx.capture` with that `fuse`: the first two runs record
    """
    made = PREPARE.get(case.kind)
    form = partial(capture, fuse=fuse) if replay else _eager
    return None if made is None else made(set_backend(name), form, case)


def _eager(fn: Callable[..., Any]) -> Callable[..., Any]:
    return fn


Form = Callable[[Callable[..., Any]], Callable[..., Any]]


def network(backend: Backend, form: Form, case: NetworkCase) -> Prepared:
    """A training step on the tape, or a prediction on a bare array in `eval()`."""
    inputs = case.inputs()
    net = _network(inputs.weights)
    if case.trains:
        made = OPTIMIZERS[case.optimizer](net.parameters(), lr=case.rate)
        return _training(backend, form, net, made, inputs.batches)
    net.eval()
    batches, call = cycle([asarray(x) for x, _ in inputs.batches]), form(net.forward)
    return _prepared(backend, lambda: call(next(batches)))


def lenet(backend: Backend, form: Form, case: LeNetCase) -> Prepared:
    """As `nnx train --model lenet`."""
    inputs, net = case.inputs(), build_model("lenet", 784, 10)
    learned = [name.removesuffix(".W") for name in net.state_dict() if name.endswith(".W")]
    state = {}
    for name, (W, b) in zip(learned, inputs.weights, strict=True):
        state[f"{name}.W"], state[f"{name}.b"] = W, b
    net.load_state_dict(state)
    return _training(backend, form, net, Adam(net.parameters(), lr=case.rate), inputs.batches)


def lstm(backend: Backend, form: Form, case: LSTMCase) -> Prepared:
    """A layer of its own."""
    net = LSTM(case.width, case.hidden)
    return _sequences(backend, form, net, case, "layers.0.0.")


def block(backend: Backend, form: Form, case: BlockCase) -> Prepared:
    """A layer of its own."""
    net = TransformerBlock(case.width, case.heads, causal=True)
    return _sequences(backend, form, net, case)


def _sequences(
    backend: Backend, form: Form, net: Layer, case: SequenceCase, prefix: str = ""
) -> Prepared:
    weights, batches = case.inputs()
    net.load_state_dict({prefix + name: w for name, w in weights.items()})
    optimizer = SGD(net.parameters(), lr=case.rate)
    return _training(backend, form, net, optimizer, batches, MeanSquaredError())


def _training(
    backend: Backend, form: Form, net: Layer, optimizer: Optimizer,
    given: list[tuple[Array, Array]], loss: Any = None,
) -> Prepared:  # fmt: skip
    """loss   of results and targets; SoftmaxCrossEntropy by default"""
    loss = loss or SoftmaxCrossEntropy()
    batches = cycle([tuple(map(asarray, batch)) for batch in given])

    def train(x: Any, t: Any) -> Any:
        optimizer.zero_grad()
        value = loss(net(Tensor(x)), t)
        value.backward()
        optimizer.step()
        return value.data

    call = form(train)
    return _prepared(backend, lambda: call(*next(batches)))


def _prepared(backend: Backend, run: Callable[[], Any]) -> Prepared:
    return Prepared(
        run,
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
    "lenet": lenet,
    "lstm": lstm,
    "block": block,
    "op": op,
}
