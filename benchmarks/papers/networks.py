"""The published networks, and how they are trained here."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import nnx
from nnx import init, optim
from nnx import layers as L
from nnx.optim import schedules


class Paper(NamedTuple):
    """One published result on MNIST.

    published   its test error in percent, None where only a figure shows it
    source      where it stands
    differs     what is done otherwise here
    shape       of an image, as the network takes it
    onehot      whether targets are one-hot: for a squared error
    options     of `nnx.Trainer`
    """

    published: float | None
    source: str
    differs: str
    network: Callable[[], L.Sequential]
    optimizer: Callable[[Any], optim.Optimizer]
    epochs: int
    batch_size: int
    shape: tuple[int, ...] = (784,)
    onehot: bool = False
    options: Callable[[], dict[str, Any]] = dict


LECUN = "LeCun, Bottou, Bengio, Haffner (1998), figure 9"
SIMARD = "Simard, Steinkraus, Platt (2003), table 1"
BOOK = "Saitoh, Deep Learning from Scratch (2016)"


def perceptron(*sizes: int, act: Callable[[], L.Layer] = L.Relu) -> L.Sequential:
    layers: list[L.Layer] = []
    for a, b in itertools.pairwise(sizes):
        layers += [L.Linear(a, b), act()]
    return L.Sequential(*layers[:-1])


def lenet5() -> L.Sequential:
    """C1 to F6: 61,706 parameters, the images padded to 32x32."""
    return L.Sequential(
        L.Conv2d(1, 6, 5, padding=2), L.Relu(), L.MaxPool2d(2),
        L.Conv2d(6, 16, 5), L.Relu(), L.MaxPool2d(2), L.Flatten(),
        L.Linear(400, 120), L.Relu(), L.Linear(120, 84), L.Relu(), L.Linear(84, 10),
    )  # fmt: skip


def simple_conv() -> L.Sequential:
    """SimpleConvNet of chapter 7."""
    drawn = init.normal(std=0.01)
    return L.Sequential(
        L.Conv2d(1, 30, 5, W_init=drawn), L.Relu(), L.MaxPool2d(2), L.Flatten(),
        L.Linear(4320, 100, W_init=drawn), L.Relu(), L.Linear(100, 10, W_init=drawn),
    )  # fmt: skip


def sgd(lr: float) -> Callable[[Any], optim.Optimizer]:
    return lambda parameters: optim.SGD(parameters, lr=lr, momentum=0.9)


def adam(lr: float) -> Callable[[Any], optim.Optimizer]:
    return lambda parameters: optim.Adam(parameters, lr=lr)


def squared() -> dict[str, Any]:
    loss = L.MeanSquaredError()
    metrics = {"accuracy": nnx.metrics.accuracy}
    return {"loss": loss, "metrics": metrics, "schedule": schedules.cosine()}


def one_cycle() -> dict[str, Any]:
    return {"schedule": schedules.one_cycle()}


def cosine() -> dict[str, Any]:
    return {"schedule": schedules.cosine()}


PAPERS = {
    "mlp300": Paper(
        4.7, LECUN, "targets 0 and 1; momentum, a cosine of the rate; 20 epochs",
        lambda: perceptron(784, 300, 10, act=L.Tanh), sgd(0.1), 20, 100,
        onehot=True, options=squared,
    ),
    "mlp500-150": Paper(
        2.95, LECUN, "relu; targets 0 and 1; momentum, a cosine of the rate; 20 epochs",
        lambda: perceptron(784, 500, 150, 10), sgd(0.1), 20, 100,
        onehot=True, options=squared,
    ),
    "mlp800": Paper(
        1.6, SIMARD, "momentum, a cosine of the rate; 10 epochs",
        lambda: perceptron(784, 800, 10), sgd(0.2), 10, 100, options=cosine,
    ),
    "lenet5": Paper(
        0.95, LECUN, "relu, max pooling, C3 joins all maps, softmax; Adam, one cycle; 20 epochs",
        lenet5, adam(3e-3), 20, 64, (1, 28, 28), options=one_cycle,
    ),
    "book-two-layer": Paper(
        None, f"{BOOK}, section 5.7", "nothing: SGD 0.1, 17 epochs of 600 steps for its 10,000",
        lambda: perceptron(784, 50, 10),
        lambda parameters: optim.SGD(parameters, lr=0.1), 17, 100,
    ),
    "book-simple-conv": Paper(
        1.04, f"{BOOK}, section 7.5", "one cycle of the rate up to 0.003; Adam, 20 epochs",
        simple_conv, adam(3e-3), 20, 100, (1, 28, 28), options=one_cycle,
    ),
}  # fmt: skip
