"""The ops that are timed: what each is given, at which sizes; and those that are not, and why."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .. import ops

Array = np.ndarray[Any, Any]
Shape = tuple[int, int]
Draw = Callable[[np.random.Generator, Shape], Array]

SIZES: Mapping[str, Shape] = {"small": (128, 512), "large": (2048, 2048)}
PRODUCT_SIZES: Mapping[str, Shape] = {"small": (128, 512), "large": (1024, 1024)}
IMAGE_SIZES: Mapping[str, Shape] = {"small": (4, 14), "large": (32, 28)}
CHANNELS = 64
SEQUENCE_SIZES: Mapping[str, Shape] = {"small": (12, 64), "large": (4, 256)}
HEADS, HEAD = 4, 32


@dataclass(frozen=True)
class OpSpec:
    """An op with one drawing function per argument; each gets (rows, columns).

    shown   what the arguments are for these two: of images (images, side), of sequences (batch,
            length)
    """

    op: str
    draws: tuple[Draw, ...]
    attrs: Mapping[str, Any] = field(default_factory=dict)
    sizes: Mapping[str, Shape] = field(default_factory=lambda: SIZES)
    shown: str = "{}x{}"

    @property
    def target(self) -> Any:
        return getattr(ops, self.op)

    @property
    def smooth(self) -> tuple[int, ...]:
        """Positions of the arguments that have a gradient."""
        target = self.target
        if target.signature.variadic:
            return tuple(range(len(self.draws)))
        named = zip(target.signature.arrays, self.draws, strict=False)
        return tuple(i for i, (name, _) in enumerate(named) if name in target.differentiable)


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """float32, mean 0, variance 1."""
    return rng.standard_normal(shape, dtype=np.float32)


def _positive(rng: np.random.Generator, shape: Shape) -> Array:
    return rng.random(shape, dtype=np.float32) + np.float32(0.5)


def _probabilities(rng: np.random.Generator, shape: Shape) -> Array:
    p = _positive(rng, shape)
    scaled: Array = p / p.sum(axis=1, keepdims=True)
    return scaled


def _condition(rng: np.random.Generator, shape: Shape) -> Array:
    return rng.random(shape) < 0.5


def _rows(rng: np.random.Generator, shape: Shape) -> Array:
    return rng.integers(0, shape[0], shape[0])


def _ids(rng: np.random.Generator, shape: Shape) -> Array:
    return rng.integers(0, shape[1], shape[0])


def _one_hot(rng: np.random.Generator, shape: Shape) -> Array:
    return np.eye(shape[1], dtype=np.float32)[_ids(rng, shape)]


def _square(rng: np.random.Generator, shape: Shape) -> Array:
    return normal(rng, (shape[1], shape[1])) / np.float32(shape[1] ** 0.5)


def _bias(rng: np.random.Generator, shape: Shape) -> Array:
    return normal(rng, shape[1:])


def _images(rng: np.random.Generator, shape: Shape) -> Array:
    return normal(rng, (shape[0], CHANNELS, shape[1], shape[1]))


def _filters(rng: np.random.Generator, shape: Shape) -> Array:
    return normal(rng, (CHANNELS, CHANNELS, 3, 3)) / np.float32((9 * CHANNELS) ** 0.5)


def _by_channel(rng: np.random.Generator, shape: Shape) -> Array:
    return normal(rng, (CHANNELS,))


def _heads(rng: np.random.Generator, shape: Shape) -> Array:
    return normal(rng, (shape[0], HEADS, shape[1], HEAD))


_IMAGES: dict[str, Any] = {"sizes": IMAGE_SIZES, "shown": f"{{0}}x{CHANNELS}x{{1}}x{{1}}"}
_UNARY = (
    "abs", "elu", "erf", "exp", "expm1", "gelu", "leaky_relu", "log_softmax", "negative", "relu",
    "sigmoid", "silu", "softmax", "softplus", "tanh",
)  # fmt: skip
_BINARY = ("add", "maximum", "minimum", "multiply", "subtract")
_REDUCTIONS = ("logsumexp", "max", "mean", "min", "sum", "var")
_LOSSES = ("huber", "mean_absolute_error", "mean_squared_error")

_SPECS = [
    *(OpSpec(name, (normal,)) for name in _UNARY),
    *(OpSpec(name, (normal, normal)) for name in (*_BINARY, *_LOSSES)),
    *(OpSpec(name, (normal,), {"axis": -1}) for name in _REDUCTIONS),
    *(OpSpec(name, (_positive,)) for name in ("log", "log1p", "sqrt")),
    OpSpec("affine", (normal, _square, _bias), sizes=PRODUCT_SIZES),
    OpSpec("astype", (normal,), {"dtype": "float64"}),
    OpSpec(
        "attention",
        (_heads, _heads, _heads),
        {"causal": True},
        SEQUENCE_SIZES,
        f"{{0}}x{HEADS}x{{1}}x{HEAD}",
    ),
    OpSpec("avg_pool2d", (_images,), {"size": 2}, **_IMAGES),
    OpSpec("categorical_crossentropy", (_probabilities, _one_hot)),
    OpSpec("clip", (normal,), {"min": -1.0, "max": 1.0}),
    OpSpec("concat", (normal, normal)),
    OpSpec("conv2d", (_images, _filters, _by_channel), {"padding": 1}, **_IMAGES),
    OpSpec("divide", (normal, _positive)),
    OpSpec("getitem", (normal,), {"index": slice(None, None, 2)}),
    OpSpec("layer_norm", (normal, _bias, _bias)),
    OpSpec("matmul", (normal, _square), sizes=PRODUCT_SIZES),
    OpSpec("max_pool2d", (_images,), {"size": 2}, **_IMAGES),
    OpSpec("pow", (_positive, normal)),
    OpSpec("rms_norm", (normal, _bias)),
    OpSpec("sigmoid_cross_entropy", (normal, _probabilities)),
    OpSpec("softmax_cross_entropy", (normal, _ids)),
    OpSpec("stack", (normal, normal)),
    OpSpec("take", (normal, _rows)),
    OpSpec("where", (_condition, normal, normal)),
]
OPS: dict[str, OpSpec] = {spec.op: spec for spec in sorted(_SPECS, key=lambda spec: spec.op)}

_VIEW = "gives a view: nothing is computed, its time is that of any small call"
_SEQUENCES = "gives the last state too: these cases give one result"
NOT_TIMED: dict[str, str] = {
    "batch_norm": "gives three results: these cases give one",
    "broadcast_to": f"{_VIEW}; backward is a sum, timed as sum",
    "conv1d": "runs as conv2d, on images of one row",
    "conv_transpose2d": "the backward of conv2d",
    "dropout": "its draw is an input, so it is a comparison and a product; PyTorch draws inside",
    "embedding": "as take",
    "expand_dims": _VIEW,
    "fold": "the backward of windows",
    "getitem_adjoint": "timed as the backward of getitem",
    "gru": _SEQUENCES,
    "lstm": "gives the last states too; timed as a training step of its own",
    "rnn": _SEQUENCES,
    "group_norm": "as layer_norm, on images",
    "matrix_transpose": _VIEW,
    "pad": "a copy",
    "permute_dims": _VIEW,
    "reshape": _VIEW,
    "scatter_add": "timed as the backward of take",
    "split": f"{_VIEW}; backward is concat, timed as concat",
    "squeeze": _VIEW,
    "upsample": "not compared yet",
    "windows": f"{_VIEW}; its backward is fold",
}

QUICK_OPS = ("affine", "multiply", "relu", "sigmoid", "softmax", "softmax_cross_entropy", "sum")
