"""Training a classifier: a model and an optimizer by name, the loop, and the evaluation.

What `nnx train` does, as functions for a script of your own:

    train, test = nnx.data.load("digits", split="train"), nnx.data.load("digits", split="test")
    model = build_model("mlp:100", 64, 10)
    optimizer = build_optimizer("adam", model.parameters())
    batches = nnx.data.DataLoader(train, batch_size=100, shuffle=True, seed=0)
    for epoch in fit(model, optimizer, batches, test, epochs=20, schedule="cosine"):
        print(epoch.test_accuracy)
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import layers, ops, optim
from .arrays import to_numpy
from .backend import Array, backend_of
from .capture import capture
from .data import DataLoader
from .errors import OptionError
from .layers import Layer
from .tape import no_grad
from .tensor import Parameter, Tensor

SCHEDULES = ("constant", "cosine")
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

    spec   "linear": one Linear; "mlp:800": a hidden layer of 800 relu units; "mlp:512,512": two
    """
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
            f"layers, such as mlp:100 or mlp:512,512"
        )
    widths = [n_in, *hidden, n_out]
    made: list[Layer] = []
    for a, b in itertools.pairwise(widths):
        made += [layers.Linear(a, b), layers.Relu()]
    return layers.Sequential(*made[:-1])


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


def learning_rate(schedule: str, lr: float, step: int, steps: int) -> float:
    """The rate of step 0 .. steps - 1.

    "constant": lr. "cosine": lr (1 + cos(pi step / steps)) / 2, from lr down to nearly 0:
    Loshchilov and Hutter (2017), equation 5, without restarts.
    """
    if schedule not in SCHEDULES:
        raise OptionError(f"unknown schedule {schedule!r}; expected one of {', '.join(SCHEDULES)}")
    return lr if schedule == "constant" else lr * (1 + math.cos(math.pi * step / steps)) / 2


class Meter:
    """Mean loss and accuracy over batches, summed where the batches lie.

    Adding a batch does not wait for the device; reading does.
    """

    def __init__(self) -> None:
        self.images = 0
        self._loss: Any = 0.0
        self._correct: Any = 0

    def add(self, loss: Array, logits: Array, t: Array) -> None:
        """A batch: its mean loss (), its logits (N, C), its class ids (N,)."""
        xp, n = backend_of(logits).xp, int(logits.shape[0])
        hits = xp.sum(xp.astype(xp.argmax(logits, axis=-1) == t, t.dtype))
        self._loss = self._loss + loss * n
        self._correct = self._correct + hits
        self.images += n

    @property
    def loss(self) -> float:
        """Mean loss per image; NaN before the first."""
        return float(self._loss) / self.images if self.images else math.nan

    @property
    def accuracy(self) -> float:
        """Part of the images whose largest logit is that of their class, 0..1."""
        return int(self._correct) / self.images if self.images else math.nan


@dataclass(frozen=True)
class Evaluation:
    """Mean loss, accuracy (0..1), and how often class `row` was taken for class `column`."""

    loss: float
    accuracy: float
    confusion: np.ndarray[Any, Any]

    @property
    def errors(self) -> int:
        """How many images were taken for another class."""
        return int(self.confusion.sum() - self.confusion.trace())

    def most_confused(self, count: int) -> list[tuple[int, int, int]]:
        """The most frequent mistakes: (class, taken for, how often), the most frequent first."""
        off = self.confusion - np.diag(np.diag(self.confusion))
        order = np.argsort(-off, axis=None, kind="stable")[:count]
        pairs = [tuple(map(int, np.unravel_index(i, off.shape))) for i in order]
        return [(a, b, int(off[a, b])) for a, b in pairs if off[a, b]]

    def _repr_html_(self) -> str:
        from .html import lines
        from .report import summary

        return lines("\n".join(summary(self)))


def evaluate(model: Layer, batches: DataLoader) -> Evaluation:
    """Softmax cross-entropy, accuracy and confusions of `model` in evaluation mode.

    The layers' modes are put back afterwards. The device is waited for once, at the end.
    """
    modes = [(layer, layer.training) for _, layer in model.named_layers()]
    meter, confusion = Meter(), None
    model.eval()
    try:
        with no_grad():
            for x, t in batches:
                logits = model.forward(x)
                meter.add(ops.softmax_cross_entropy(logits, t), logits, t)
                counts = _confusions(logits, t)
                confusion = counts if confusion is None else confusion + counts
    finally:
        for layer, mode in modes:
            layer.training = mode
    if confusion is None:
        raise OptionError("evaluate: the data set is empty, expected at least one image")
    return Evaluation(meter.loss, meter.accuracy, to_numpy(confusion))


def _confusions(logits: Array, t: Array) -> Array:
    """(C, C) counts: a product of one-hot matrices, which every array library can do."""
    xp = backend_of(logits).xp
    ids = xp.arange(logits.shape[-1])
    actual = xp.astype(xp.expand_dims(ids, axis=1) == xp.expand_dims(t, axis=0), logits.dtype)
    taken = xp.expand_dims(xp.argmax(logits, axis=-1), axis=1) == xp.expand_dims(ids, axis=0)
    return xp.astype(xp.matmul(actual, xp.astype(taken, logits.dtype)), xp.int64)


@dataclass(frozen=True)
class Epoch:
    """What one epoch gave. Training loss and accuracy are means over the epoch, as it went.

    seconds, images_per_second   of training alone, without the evaluation
    lr                           the learning rate of the epoch's last step, in the first group
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    test_loss: float
    test_accuracy: float
    seconds: float
    images_per_second: float
    lr: float
    evaluation: Evaluation

    def _repr_html_(self) -> str:
        from .html import fields

        return fields({k: v for k, v in vars(self).items() if k != "evaluation"})


def fit(
    model: Layer,
    optimizer: optim.Optimizer,
    train: DataLoader,
    test: DataLoader,
    *,
    epochs: int,
    schedule: str = "constant",
    eager: bool = False,
    on_batch: Callable[[int, Meter], None] | None = None,
) -> Iterator[Epoch]:
    """Train with softmax cross-entropy, one epoch each time the iterator is advanced.

    schedule   see `learning_rate`; it runs over all epochs, from the rate of each parameter group,
               and leaves the groups with the last step's rates
    eager      do not capture the step (`nnx.capture`): slower on small networks, and equal to the
               last bit on NumPy. On a backend without replay, steps are eager anyhow
    on_batch   called with the epoch, from 1, and its meter after each batch
    """
    rates = [(group, float(group["lr"])) for group in optimizer.param_groups]
    steps, step = epochs * len(train), 0
    run = _step(model, optimizer)
    if not eager and train.backend.replay() is not None:
        run = capture(run)
    for epoch in range(1, epochs + 1):
        meter, start = Meter(), time.perf_counter()
        model.train()
        for x, t in train:
            for group, lr in rates:
                group["lr"] = learning_rate(schedule, lr, step, steps)
            loss, logits = run(x, t)
            meter.add(loss, logits, t)
            step += 1
            if on_batch is not None:
                on_batch(epoch, meter)
        train_loss, train_accuracy = meter.loss, meter.accuracy  # waits for the device
        seconds = time.perf_counter() - start
        result = evaluate(model, test)
        yield Epoch(
            epoch, train_loss, train_accuracy, result.loss, result.accuracy, seconds,
            meter.images / seconds, optimizer.param_groups[0]["lr"], result,
        )  # fmt: skip


def _step(model: Layer, optimizer: optim.Optimizer) -> Callable[[Array, Array], Any]:
    """A batch's step, which gives its loss and logits."""

    def step(x: Array, t: Array) -> tuple[Array, Array]:
        optimizer.zero_grad()
        logits = model(Tensor(x))
        loss = ops.softmax_cross_entropy(logits, t)
        loss.backward()
        optimizer.step()
        return loss.data, logits.data

    return step
