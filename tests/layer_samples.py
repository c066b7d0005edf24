"""Every layer with its options, and what it is given: read by the tests of all layers.

`LAYERS[name]` is (a function that makes it, its inputs). Inputs that are floats vary from step to
step, ids and lengths too; masks stay.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import nnx
from nnx import layers as L

Sample = tuple[Callable[[], L.Layer], tuple[Any, ...]]
rng = np.random.default_rng(0)


def floats(*shape: int) -> np.ndarray[Any, Any]:
    return rng.normal(size=shape).astype(np.float32)


def ids(below: int, *shape: int) -> np.ndarray[Any, Any]:
    return rng.integers(0, below, shape)


ROWS, SERIES, IMAGES, SEQUENCES = floats(6, 4), floats(3, 4, 7), floats(3, 4, 6, 5), floats(3, 5, 4)
TARGETS, CLASSES, TOKENS = floats(6, 4), ids(4, 6), ids(7, 3, 5)
STEPS, LENGTHS = floats(3, 3, 4), np.array([3, 1, 2])
MASK = np.tri(5, dtype=bool)

PLAIN: dict[str, Sample] = {
    "Linear": (lambda: L.Linear(4, 3), (ROWS,)),
    "Linear without bias": (lambda: L.Linear(4, 3, bias=False), (SEQUENCES,)),
    "Affine": (lambda: L.Affine(np.eye(4, 3, dtype="f4"), np.ones(3, np.float32)), (ROWS,)),
    "AddNode": (L.AddNode, (ROWS, TARGETS)),
    "MulNode": (L.MulNode, (ROWS, TARGETS)),
    "Flatten": (L.Flatten, (IMAGES,)),
    "Unflatten": (lambda: L.Unflatten(2, 2), (ROWS,)),
    "Sequential": (lambda: L.Sequential(L.Linear(4, 4), L.Dropout(0.3), L.Relu()), (ROWS,)),
    "Residual": (lambda: L.Residual(L.Linear(4, 4)), (ROWS,)),
    "Dropout": (lambda: L.Dropout(0.3), (IMAGES,)),
    "Relu": (L.Relu, (ROWS,)),
    "LeakyRelu": (lambda: L.LeakyRelu(0.2), (ROWS,)),
    "Sigmoid": (L.Sigmoid, (ROWS,)),
    "Tanh": (L.Tanh, (ROWS,)),
    "Softplus": (L.Softplus, (ROWS,)),
    "Elu": (lambda: L.Elu(0.5), (ROWS,)),
    "Gelu": (L.Gelu, (ROWS,)),
    "Gelu by tanh": (lambda: L.Gelu("tanh"), (ROWS,)),
    "Silu": (L.Silu, (ROWS,)),
    "Softmax": (lambda: L.Softmax(0), (ROWS,)),
    "LogSoftmax": (L.LogSoftmax, (ROWS,)),
    "MeanSquaredError": (L.MeanSquaredError, (ROWS, TARGETS)),
    "MeanAbsoluteError": (lambda: L.MeanAbsoluteError("sum"), (ROWS, TARGETS)),
    "Huber": (lambda: L.Huber(0.5, "none"), (ROWS, TARGETS)),
    "CategoricalCrossentropy": (
        lambda: Before(L.Softmax(), L.CategoricalCrossentropy()),
        (ROWS, np.eye(4, dtype="f4")[CLASSES]),
    ),
    "Loss": (lambda: Before(L.Softmax(), L.Loss()), (ROWS, np.eye(4, dtype="f4")[CLASSES])),
    "SigmoidCrossEntropy": (L.SigmoidCrossEntropy, (ROWS, (TARGETS > 0).astype(np.float32))),
    "SoftmaxCrossEntropy": (
        lambda: L.SoftmaxCrossEntropy([1, 2, 3, 4], label_smoothing=0.1), (ROWS, CLASSES),
    ),
}  # fmt: skip

OF_IMAGES: dict[str, Sample] = {
    "Conv1d": (lambda: L.Conv1d(4, 6, 3, stride=2, padding=2, dilation=2, groups=2), (SERIES,)),
    "Conv2d": (lambda: L.Conv2d(4, 6, 3, padding="same", dilation=(1, 2)), (IMAGES,)),
    "Conv2d of 1x1": (lambda: L.Conv2d(4, 3, 1, bias=False), (IMAGES,)),
    "Conv2d by depth": (lambda: L.Conv2d(4, 8, (3, 2), groups=4, padding="valid"), (IMAGES,)),
    "Conv2d of many channels": (lambda: L.Conv2d(4, 20, 3, padding=1, stride=(2, 1)), (IMAGES,)),
    "ConvTranspose2d": (
        lambda: L.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2),
        (IMAGES,),
    ),
    "MaxPool2d": (lambda: L.MaxPool2d(3, stride=2, padding=1), (IMAGES,)),
    "AvgPool2d": (lambda: L.AvgPool2d(2, padding=1, count_include_pad=False), (IMAGES,)),
    "GlobalAvgPool2d": (L.GlobalAvgPool2d, (IMAGES,)),
    "Pad2d": (lambda: L.Pad2d(((0, 1), (2, 0)), 0.5), (IMAGES,)),
    "Upsample": (lambda: L.Upsample((2, 3)), (IMAGES,)),
    "Upsample between": (lambda: L.Upsample(size=(7, 4), mode="bilinear"), (IMAGES,)),
    "BatchNorm1d": (lambda: L.BatchNorm1d(4), (SERIES,)),
    "BatchNorm1d of rows": (lambda: L.BatchNorm1d(4, affine=False), (ROWS,)),
    "BatchNorm2d": (lambda: L.BatchNorm2d(4, momentum=0.3), (IMAGES,)),
    "LayerNorm": (lambda: L.LayerNorm((4, 7)), (SERIES,)),
    "RMSNorm": (lambda: L.RMSNorm(4), (SEQUENCES,)),
    "GroupNorm": (lambda: L.GroupNorm(2, 4), (IMAGES,)),
}


def recurrent(kind: Any, **options: Any) -> dict[str, Sample]:
    """Alone; deep in both directions with dropout; padded, with the states it begins with."""
    name = f"{kind.__name__} {options['nonlinearity']}" if options else kind.__name__
    state = tuple(floats(4, 3, 6) for _ in range(kind.states))
    deep = {"layers": 2, "bidirectional": True, "dropout": 0.2, **options}
    return {
        name: (lambda: kind(4, 6, **options), (STEPS,)),
        f"{name} deep": (lambda: kind(4, 6, **deep), (STEPS,)),
        f"{name} padded": (
            lambda: WithState(kind(4, 6, return_state=True, **deep)), (STEPS, LENGTHS, *state),
        ),
    }  # fmt: skip


OF_SEQUENCES: dict[str, Sample] = {
    "Embedding": (lambda: L.Embedding(7, 4), (TOKENS,)),
    "Embedding padded": (lambda: L.Embedding(7, 4, padding=1), (TOKENS,)),
    "LearnedPositions": (lambda: L.LearnedPositions(6, 4), (SEQUENCES,)),
    "SinusoidalPositions": (lambda: L.SinusoidalPositions(6, 4), (SEQUENCES,)),
    "MultiHeadAttention": (lambda: L.MultiHeadAttention(4, 2, dropout=0.2), (SEQUENCES,)),
    "MultiHeadAttention masked": (
        lambda: L.MultiHeadAttention(4, 2, bias=False), (SEQUENCES, None, MASK),
    ),
    "MultiHeadAttention crossed": (
        lambda: L.MultiHeadAttention(4, 4, causal=True), (SEQUENCES, floats(3, 6, 4)),
    ),
    "TransformerBlock": (
        lambda: L.TransformerBlock(4, 2, causal=True, dropout=0.1), (SEQUENCES, MASK),
    ),
    "TransformerBlock of 2017": (
        lambda: L.TransformerBlock(4, 2, hidden=5, norm_first=False), (SEQUENCES,),
    ),
    "GPT": (lambda: L.GPT(7, context=5, layers=2, heads=2, width=4, dropout=0.1), (TOKENS,)),
    **recurrent(L.RNN), **recurrent(L.RNN, nonlinearity="relu"), **recurrent(L.LSTM),
    **recurrent(L.GRU),
}  # fmt: skip


class Before(L.Layer):
    """A loss of what another layer makes of its first input."""

    def __init__(self, first: L.Layer, then: L.Layer) -> None:
        self.first, self.then = first, then

    def forward(self, x: Any, t: Any) -> Any:
        return self.then(self.first(x), t)


class WithState(L.Layer):
    """A recurrent layer that is given its states one by one."""

    def __init__(self, layer: Any) -> None:
        self.layer = layer

    def forward(self, x: Any, lengths: Any, *state: Any) -> Any:
        return self.layer(x, state, lengths)


LAYERS = {**PLAIN, **OF_IMAGES, **OF_SEQUENCES}


def training(
    make: Callable[[], L.Layer], inputs: tuple[Any, ...]
) -> tuple[Any, Callable[..., Any], list[list[Any]]]:
    """A model in which the layer stands behind a learned factor; its step; batches for it."""
    nnx.seed(0)
    model = Scaled(make())
    optimizer = nnx.optim.Adam(model.parameters(), lr=1e-2)

    def step(*given: Any) -> Any:
        optimizer.zero_grad()
        loss: Any = 0
        tensors = [nnx.Tensor(a) if isinstance(a, np.ndarray) else a for a in given]
        for y in _flat(model(*tensors)):
            loss = loss + nnx.mean(y * y)
        loss.backward()
        optimizer.step()
        return loss

    draws = np.random.default_rng(3)
    return model, step, [[_other(draws, a) for a in inputs] for _ in range(7)]


class Scaled(L.Layer):
    """So that the gradient of the layer's first input is used where that is floats."""

    def __init__(self, layer: L.Layer) -> None:
        self.layer = layer
        self.scale = nnx.Parameter(nnx.asarray([1.5]))

    def forward(self, x: Any, *rest: Any) -> Any:
        if "float" not in str(x.dtype):
            return self.layer(x, *rest)
        return self.layer(x * self.scale, *rest)


def _other(draws: np.random.Generator, a: Any) -> Any:
    return draws.permuted(a) if isinstance(a, np.ndarray) and a.dtype.kind in "fi" else a


def _flat(y: Any) -> list[Any]:
    return [v for part in y for v in _flat(part)] if isinstance(y, (tuple, list)) else [y]
