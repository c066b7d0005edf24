"""The baseline people come from: layers in plain NumPy, as "Deep Learning from Scratch" has them.

Written for reading, not for speed: each step allocates its result and nothing is shared.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle
from typing import Any

import numpy as np

from .case import Case, Prepared
from .cases import NetworkCase, OpCase
from .op_table import Array


class Add:
    def forward(self, x: Array, y: Array) -> Array:
        return x + y

    def backward(self, dout: Array) -> tuple[Array, Array]:
        return dout * 1, dout * 1


class Multiply:
    def forward(self, x: Array, y: Array) -> Array:
        self.x, self.y = x, y
        return x * y

    def backward(self, dout: Array) -> tuple[Array, Array]:
        return dout * self.y, dout * self.x


class Exp:
    def forward(self, x: Array) -> Array:
        self.out = np.exp(x)
        return self.out

    def backward(self, dout: Array) -> tuple[Array]:
        return (dout * self.out,)


class Log:
    def forward(self, x: Array) -> Array:
        self.x = x
        return np.log(x)

    def backward(self, dout: Array) -> tuple[Array]:
        return (dout / self.x,)


class Relu:
    def forward(self, x: Array) -> Array:
        self.off = x <= 0
        out = x.copy()
        out[self.off] = 0
        return out

    def backward(self, dout: Array) -> tuple[Array]:
        dx = dout.copy()
        dx[self.off] = 0
        return (dx,)


class Sigmoid:
    def forward(self, x: Array) -> Array:
        self.out = 1 / (1 + np.exp(-x))
        return self.out

    def backward(self, dout: Array) -> tuple[Array]:
        return (dout * self.out * (1 - self.out),)


class Tanh:
    def forward(self, x: Array) -> Array:
        self.out = np.tanh(x)
        return self.out

    def backward(self, dout: Array) -> tuple[Array]:
        return (dout * (1 - self.out**2),)


def softmax(x: Array) -> Array:
    """Row by row; the exponentials are computed twice, as is usual in this style."""
    x = x - np.max(x, axis=1, keepdims=True)
    out: Array = np.exp(x) / np.sum(np.exp(x), axis=1, keepdims=True)
    return out


class Softmax:
    def forward(self, x: Array) -> Array:
        self.out = softmax(x)
        return self.out

    def backward(self, dout: Array) -> tuple[Array]:
        inner = np.sum(dout * self.out, axis=1, keepdims=True)
        return (self.out * (dout - inner),)


class MatMul:
    def forward(self, x: Array, W: Array) -> Array:
        self.x, self.W = x, W
        out: Array = np.dot(x, W)
        return out

    def backward(self, dout: Array) -> tuple[Array, Array]:
        return np.dot(dout, self.W.T), np.dot(self.x.T, dout)


class Affine:
    def forward(self, x: Array, W: Array, b: Array) -> Array:
        self.x, self.W = x, W
        out: Array = np.dot(x, W) + b
        return out

    def backward(self, dout: Array) -> tuple[Array, Array, Array]:
        return np.dot(dout, self.W.T), np.dot(self.x.T, dout), np.sum(dout, axis=0)


class MeanSquaredError:
    def forward(self, y: Array, t: Array) -> Any:
        self.y, self.t = y, t
        return np.mean((y - t) ** 2)

    def backward(self, dout: Any) -> tuple[Array]:
        return (dout * 2 * (self.y - self.t) / self.y.size,)


class SoftmaxWithLoss:
    def forward(self, x: Array, t: Array) -> Any:
        self.t, self.y = t, softmax(x)
        return -np.mean(np.log(self.y[np.arange(len(t)), t]))

    def backward(self, dout: Any) -> tuple[Array]:
        dx = self.y.copy()
        dx[np.arange(len(self.t)), self.t] -= 1
        return (dx / len(self.t) * dout,)


LAYERS: dict[str, Callable[[], Any]] = {
    "add": Add,
    "affine": Affine,
    "exp": Exp,
    "log": Log,
    "matmul": MatMul,
    "mean_squared_error": MeanSquaredError,
    "multiply": Multiply,
    "relu": Relu,
    "sigmoid": Sigmoid,
    "softmax": Softmax,
    "softmax_cross_entropy": SoftmaxWithLoss,
    "tanh": Tanh,
}


class SGD:
    def __init__(self, lr: float) -> None:
        self.lr = lr

    def update(self, params: dict[str, Array], grads: dict[str, Array]) -> None:
        for key in params:
            params[key] -= self.lr * grads[key]


class Adam:
    """The book's, but for epsilon, which is where all others have it: the training is the same."""

    def __init__(self, lr: float, beta1: float = 0.9, beta2: float = 0.999) -> None:
        self.lr, self.beta1, self.beta2 = lr, beta1, beta2
        self.iter = 0
        self.m: dict[str, Array] = {}
        self.v: dict[str, Array] = {}

    def update(self, params: dict[str, Array], grads: dict[str, Array]) -> None:
        if not self.m:
            for key, val in params.items():
                self.m[key], self.v[key] = np.zeros_like(val), np.zeros_like(val)
        self.iter += 1
        # Python numbers: np.sqrt's result, as in the book, would make all that follows float64.
        root = (1.0 - self.beta2**self.iter) ** 0.5
        lr_t, eps_t = self.lr * root / (1.0 - self.beta1**self.iter), 1e-8 * root
        for key in params:
            self.m[key] += (1 - self.beta1) * (grads[key] - self.m[key])
            self.v[key] += (1 - self.beta2) * (grads[key] ** 2 - self.v[key])
            params[key] -= lr_t * self.m[key] / (np.sqrt(self.v[key]) + eps_t)


OPTIMIZERS: dict[str, Callable[[float], Any]] = {"sgd": SGD, "adam": Adam}


class Network:
    """Affine and Relu in turn, with their parameters in a dict: W1, b1, W2, ..."""

    def __init__(self, weights: list[tuple[Array, Array]]) -> None:
        self.params: dict[str, Array] = {}
        self.affines: list[Affine] = []
        for i, (W, b) in enumerate(weights, start=1):
            self.params[f"W{i}"], self.params[f"b{i}"] = W.copy(), b.copy()
            self.affines.append(Affine())
        self.relus = [Relu() for _ in self.affines[1:]]
        self.last = SoftmaxWithLoss()

    def predict(self, x: Array) -> Array:
        for i, affine in enumerate(self.affines, start=1):
            x = affine.forward(x, self.params[f"W{i}"], self.params[f"b{i}"])
            if i < len(self.affines):
                x = self.relus[i - 1].forward(x)
        return x

    def loss(self, x: Array, t: Array) -> Any:
        return self.last.forward(self.predict(x), t)

    def gradient(self) -> dict[str, Array]:
        grads = {}
        dout = self.last.backward(1)[0]
        for i in range(len(self.affines), 0, -1):
            dout, grads[f"W{i}"], grads[f"b{i}"] = self.affines[i - 1].backward(dout)
            if i > 1:
                dout = self.relus[i - 2].backward(dout)[0]
        return grads


def network(case: NetworkCase) -> Prepared:
    """A training step or a prediction in this style."""
    inputs = case.inputs()
    net, batches = Network(inputs.weights), cycle(inputs.batches)
    optimizer: Any = OPTIMIZERS[case.optimizer](case.rate) if case.trains else None

    def train() -> Any:
        x, t = next(batches)
        loss = net.loss(x, t)
        optimizer.update(net.params, net.gradient())
        return loss

    def predict() -> Any:
        return net.predict(next(batches)[0])

    return Prepared(train if case.trains else predict, lambda found: [np.asarray(found)])


def op(case: OpCase) -> Prepared | None:
    """The op in this style, or None where the book has none."""
    if case.op not in LAYERS:
        return None
    layer, (args, dy) = LAYERS[case.op](), case.inputs()

    def run() -> list[Any]:
        y = layer.forward(*args)
        return list(layer.backward(dy)) if case.backward else [y]

    return Prepared(run, lambda found: [np.asarray(a) for a in found])


PREPARE: dict[str, Callable[[Any], Prepared | None]] = {"network": network, "op": op}


def prepare(case: Case) -> Prepared | None:
    """The case in this style, or None where the book has none such."""
    made = PREPARE.get(case.kind)
    return None if made is None else made(case)
