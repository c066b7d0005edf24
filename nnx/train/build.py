"""Models and optimizers by the names that `nnx train` takes."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

from .. import layers, optim
from ..errors import OptionError
from ..layers import Layer
from ..tensor import Parameter

OPTIMIZERS: dict[str, tuple[type[optim.Optimizer], float, dict[str, Any]]] = {
    "sgd": (optim.SGD, 0.1, {}),
    "momentum": (optim.SGD, 0.1, {"momentum": 0.9}),
    "nesterov": (optim.SGD, 0.1, {"momentum": 0.9, "nesterov": True}),
    "adagrad": (optim.AdaGrad, 0.01, {}),
    "rmsprop": (optim.RMSProp, 0.001, {}),
    "adam": (optim.Adam, 0.001, {}),
    "adamw": (optim.AdamW, 0.001, {}),
}
"""Each optimizer's class, the learning rate to start from, and its other options."""


def build_model(spec: str, n_in: int, n_out: int) -> layers.Sequential:
    """A network from its name, for flat inputs (N, n_in) and logits (N, n_out).

    spec   "linear": one Linear; "mlp:800": a hidden layer of 800 relu units; "mlp:512,512": two;
           "lenet": LeNet-5 with relu and max pooling, for images of 28x28
    """
    if spec == "lenet":
        return _lenet(n_in, n_out)
    kind, _, sizes = spec.partition(":")
    if kind == "linear" and spec == kind:
        hidden = []
    elif kind == "mlp":
        hidden = [int(n) if n.isascii() and n.isdecimal() else 0 for n in sizes.split(",")]
    else:
        hidden = [0]
    if 0 in hidden:
        raise OptionError(
            f"unknown model {spec!r}; expected 'linear', or 'mlp:' with the sizes of the hidden "
            f"layers, such as mlp:100 or mlp:512,512, or 'lenet'"
        )
    widths = [n_in, *hidden, n_out]
    made: list[Layer] = []
    for a, b in itertools.pairwise(widths):
        made += [layers.Linear(a, b), layers.Relu()]
    return layers.Sequential(*made[:-1])


def _lenet(n_in: int, n_out: int) -> layers.Sequential:
    """LeCun et al. (1998), with relu and max pooling."""
    if n_in != 28 * 28:
        raise OptionError(
            f"model 'lenet' takes images of 28x28, as MNIST's; these have {n_in} numbers: take "
            f"linear or mlp:100"
        )
    return layers.Sequential(
        layers.Unflatten(1, 28, 28),
        layers.Conv2d(1, 6, 5, padding=2), layers.Relu(), layers.MaxPool2d(2),
        layers.Conv2d(6, 16, 5), layers.Relu(), layers.MaxPool2d(2),
        layers.Flatten(),
        layers.Linear(400, 120), layers.Relu(),
        layers.Linear(120, 84), layers.Relu(),
        layers.Linear(84, n_out),
    )  # fmt: skip


def build_optimizer(
    name: str,
    parameters: Iterable[Parameter],
    lr: float | None = None,
    weight_decay: float | None = None,
) -> optim.Optimizer:
    """An optimizer from its name in `OPTIMIZERS`; lr and weight_decay default to its own."""
    if name not in OPTIMIZERS:
        raise OptionError(f"unknown optimizer {name!r}; expected one of {', '.join(OPTIMIZERS)}")
    cls, default, options = OPTIMIZERS[name]
    if weight_decay is not None:
        options = {**options, "weight_decay": weight_decay}
    return cls(list(parameters), lr=default if lr is None else lr, **options)
