"""What is timed: training steps, predictions and ops, each with the same inputs for everyone.

A kind of case is a class here and, in each module of an implementation, a function of the same
name in its table `PREPARE`: where there is none, the implementation has no time in that row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from .case import BATCHES, RATES, TITLES, Case, Gemm, Update
from .op_table import OPS, Array, OpSpec, normal
from .sequences import BlockCase, LSTMCase


class NetworkInputs(NamedTuple):
    """Host arrays: W (in, out) and b (out,) per layer; batches x (N, in) with class ids t (N,)."""

    weights: list[tuple[Array, Array]]
    batches: list[tuple[Array, Array]]


@dataclass(frozen=True)
class NetworkCase(Case):
    """A training step of a relu network with softmax cross-entropy, or its forward pass alone.

    sizes       of the layers, the input first
    optimizer   "sgd" or "adam"; "" for inference
    """

    kind = "network"
    sizes: tuple[int, ...]
    batch: int
    optimizer: str = ""

    @property
    def name(self) -> str:
        return "-".join(map(str, self.sizes))

    @property
    def size(self) -> str:
        return f"batch {self.batch}"

    @property
    def what(self) -> str:
        return TITLES[self.optimizer] if self.trains else "inference"

    @property
    def trains(self) -> bool:
        return bool(self.optimizer)

    @property
    def rate(self) -> float:
        return RATES[self.optimizer]

    def inputs(self, seed: int = 0) -> NetworkInputs:
        """He-normal weights, zero biases and random batches."""
        rng = np.random.default_rng(seed)
        weights = [
            (normal(rng, (i, o)) * np.float32((2 / i) ** 0.5), np.zeros(o, np.float32))
            for i, o in self._layers()
        ]
        batches = [
            (
                rng.random((self.batch, self.sizes[0]), dtype=np.float32),
                rng.integers(0, self.sizes[-1], self.batch),
            )
            for _ in range(BATCHES)
        ]
        return NetworkInputs(weights, batches)

    def gemms(self) -> list[Gemm]:
        """Forward; then, from the last layer on, W's gradient and (not for the first) x's."""
        layers = self._layers()
        found = [Gemm(self.batch, i, o) for i, o in layers]
        for position, (i, o) in reversed(list(enumerate(layers))):
            found.append(Gemm(i, self.batch, o, left=True))
            if position:
                found.append(Gemm(self.batch, o, i, right=True))
        return found

    def update(self) -> Update | None:
        """SGD reads W and dW and writes W; Adam has two moments more, which it reads and writes."""
        if not self.trains:
            return None
        bytes_ = 4 * sum(i * o + o for i, o in self._layers())
        held, moved = {"sgd": (2, 3), "adam": (4, 7)}[self.optimizer]
        return Update(held * bytes_, moved * bytes_)

    def _layers(self) -> list[tuple[int, int]]:
        return list(zip(self.sizes, self.sizes[1:], strict=False))


class OpInputs(NamedTuple):
    """Arguments on the host, and the gradient that backward is given."""

    args: tuple[Array, ...]
    dy: Array


@dataclass(frozen=True)
class OpCase(Case):
    """An op: its result, or with `backward` the gradients of all its arguments that have one.

    shape   (rows, columns), or of images (images, side), that its arguments are drawn for
    """

    kind = "op"
    op: str
    shape: tuple[int, int]
    backward: bool = True

    @property
    def name(self) -> str:
        return self.op

    @property
    def size(self) -> str:
        return self.spec.shown.format(*self.shape)

    @property
    def what(self) -> str:
        return "forward+backward" if self.backward else "forward"

    @property
    def spec(self) -> OpSpec:
        return OPS[self.op]

    def inputs(self, seed: int = 0) -> OpInputs:
        """Random arguments, and a random gradient of the result's shape."""
        rng = np.random.default_rng(seed)
        args = tuple(draw(rng, self.shape) for draw in self.spec.draws)
        y = self.spec.target(*args, **self.spec.attrs)
        return OpInputs(args, normal(rng, y.shape).astype(y.dtype))


class LeNetInputs(NamedTuple):
    """Host arrays: each layer's W and b, as nnx has them; batches x (N, 784) with class ids t."""

    weights: list[tuple[Array, Array]]
    batches: list[tuple[Array, Array]]


@dataclass(frozen=True)
class LeNetCase(Case):
    """A training step of LeNet-5 with relu and max pooling, and Adam."""

    kind = "lenet"
    batch: int
    rate: ClassVar[float] = RATES["adam"]

    @property
    def name(self) -> str:
        return "LeNet-5"

    @property
    def size(self) -> str:
        return f"batch {self.batch}"

    @property
    def what(self) -> str:
        return TITLES["adam"]

    @property
    def trains(self) -> bool:
        return True

    def inputs(self, seed: int = 0) -> LeNetInputs:
        """He-normal weights, zero biases and random batches."""
        rng = np.random.default_rng(seed)
        weights = []
        for shape in ((6, 1, 5, 5), (16, 6, 5, 5), (400, 120), (120, 84), (84, 10)):
            inner, outer = (shape[0], shape[1]) if len(shape) == 2 else (shape[1] * 25, shape[0])
            W = normal(rng, shape) * np.float32((2 / inner) ** 0.5)
            weights.append((W, np.zeros(outer, np.float32)))
        batches = [
            (rng.random((self.batch, 784), dtype=np.float32), rng.integers(0, 10, self.batch))
            for _ in range(BATCHES)
        ]
        return LeNetInputs(weights, batches)


_KINDS = (NetworkCase, LeNetCase, LSTMCase, BlockCase, OpCase)
KINDS: dict[str, type[Case]] = {
    cls.kind: cls for cls in (NetworkCase, LeNetCase, LSTMCase, BlockCase, OpCase)
}


def encoded(case: Case) -> dict[str, Any]:
    """The case as JSON holds it."""
    return {"kind": case.kind, **asdict(case)}


def decoded(data: Mapping[str, Any]) -> Case:
    """The case that `encoded` gave."""
    fields = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items() if k != "kind"}
    return KINDS[data["kind"]](**fields)


NETWORKS: tuple[Case, ...] = (
    NetworkCase((64, 32, 10), 1, "sgd"),
    NetworkCase((64, 32, 10), 32, "sgd"),
    NetworkCase((784, 100, 10), 100, "sgd"),
    NetworkCase((784, 100, 10), 100, "adam"),
    NetworkCase((784, 512, 512, 10), 128, "sgd"),
    NetworkCase((784, 512, 512, 10), 128, "adam"),
    NetworkCase((784, 2048, 2048, 2048, 10), 512, "sgd"),
    NetworkCase((784, 2048, 2048, 2048, 10), 512, "adam"),
    NetworkCase((784, 100, 10), 1),
    LeNetCase(64),
    LSTMCase(32, 64, 128, 256),
    LSTMCase(32, 32, 64, 64),
    BlockCase(12, 64, 128, 4),
    BlockCase(4, 256, 256, 4),
)
ELEMENTWISE: tuple[Case, ...] = tuple(
    OpCase(op, shape)
    for shape in ((128, 512), (4096, 4096))
    for op in ("relu", "sigmoid", "softmax")
)
PRODUCTS: tuple[Case, ...] = (OpCase("conv2d", (32, 28)), OpCase("attention", (12, 64)))
QUICK: tuple[Case, ...] = (NETWORKS[1], NETWORKS[2], NETWORKS[3], NETWORKS[8], *ELEMENTWISE[:3])
SWEEP_SIZES = (784, 512, 512, 10)
SWEEP_BATCHES: tuple[int, ...] = (1, 4, 16, 64, 256, 1024, 4096)
