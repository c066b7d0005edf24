"""What is timed: every op forward and backward, small and large, and training steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from .. import ops

Array = np.ndarray[Any, Any]
Shape = tuple[int, int]
Draw = Callable[[np.random.Generator, Shape], Array]

SIZES: Mapping[str, Shape] = {"small": (128, 512), "large": (2048, 2048)}
PRODUCT_SIZES: Mapping[str, Shape] = {"small": (128, 512), "large": (1024, 1024)}


class Prepared(NamedTuple):
    """One implementation of a case, ready to be called again and again.

    run           one call; it may return before the device has finished
    values        what `run` returned, as NumPy arrays
    synchronize   waits for the device
    """

    run: Callable[[], Any]
    values: Callable[[Any], list[Array]]
    synchronize: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class OpCase:
    """An op with one drawing function per argument; each gets (rows, columns)."""

    op: str
    draws: tuple[Draw, ...]
    attrs: Mapping[str, Any] = field(default_factory=dict)
    sizes: Mapping[str, Shape] = field(default_factory=lambda: SIZES)

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


class OpInputs(NamedTuple):
    """Arguments on the host, and the gradient that backward is given."""

    args: tuple[Array, ...]
    dy: Array


@dataclass(frozen=True)
class StepCase:
    """A training step of a relu network (softmax cross-entropy, SGD), or its forward pass alone."""

    sizes: tuple[int, ...]
    batch: int
    train: bool = True
    lr: float = 1e-3

    @property
    def name(self) -> str:
        what = "training step" if self.train else "inference"
        return f"{'-'.join(map(str, self.sizes))} {what}"


class StepInputs(NamedTuple):
    """Host arrays: W (in, out) and b (out,) per layer, a batch x (N, in), class ids t (N,)."""

    weights: list[tuple[Array, Array]]
    x: Array
    t: Array


def _normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
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
    return _normal(rng, (shape[1], shape[1])) / np.float32(shape[1] ** 0.5)


def _bias(rng: np.random.Generator, shape: Shape) -> Array:
    return _normal(rng, shape[1:])


_UNARY = (
    "abs", "elu", "erf", "exp", "expm1", "gelu", "leaky_relu", "log_softmax", "negative", "relu",
    "sigmoid", "silu", "softmax", "softplus", "tanh",
)  # fmt: skip
_BINARY = ("add", "maximum", "minimum", "multiply", "subtract")
_REDUCTIONS = ("logsumexp", "max", "mean", "min", "sum", "var")
_LOSSES = ("huber", "mean_absolute_error", "mean_squared_error")

_CASES = [
    *(OpCase(name, (_normal,)) for name in _UNARY),
    *(OpCase(name, (_normal, _normal)) for name in (*_BINARY, *_LOSSES)),
    *(OpCase(name, (_normal,), {"axis": -1}) for name in _REDUCTIONS),
    *(OpCase(name, (_positive,)) for name in ("log", "log1p", "sqrt")),
    OpCase("affine", (_normal, _square, _bias), sizes=PRODUCT_SIZES),
    OpCase("astype", (_normal,), {"dtype": "float64"}),
    OpCase("categorical_crossentropy", (_probabilities, _one_hot)),
    OpCase("clip", (_normal,), {"min": -1.0, "max": 1.0}),
    OpCase("concat", (_normal, _normal)),
    OpCase("divide", (_normal, _positive)),
    OpCase("getitem", (_normal,), {"index": slice(None, None, 2)}),
    OpCase("matmul", (_normal, _square), sizes=PRODUCT_SIZES),
    OpCase("pow", (_positive, _normal)),
    OpCase("sigmoid_cross_entropy", (_normal, _probabilities)),
    OpCase("softmax_cross_entropy", (_normal, _ids)),
    OpCase("stack", (_normal, _normal)),
    OpCase("take", (_normal, _rows)),
    OpCase("where", (_condition, _normal, _normal)),
]
OPS: dict[str, OpCase] = {case.op: case for case in sorted(_CASES, key=lambda case: case.op)}

_VIEW = "gives a view: nothing is computed, its time is that of any small call"
_IMAGES = "of images: these cases are matrices"
NOT_TIMED: dict[str, str] = {
    "avg_pool2d": _IMAGES,
    "batch_norm": "gives three results: these cases give one",
    "broadcast_to": f"{_VIEW}; backward is a sum, timed as sum",
    "conv1d": _IMAGES,
    "conv2d": _IMAGES,
    "conv_transpose2d": _IMAGES,
    "dropout": "its draw is an input, so it is a comparison and a product; PyTorch draws inside",
    "expand_dims": _VIEW,
    "fold": "the backward of windows",
    "getitem_adjoint": "timed as the backward of getitem",
    "group_norm": "as layer_norm, on images",
    "layer_norm": "not compared yet",
    "matrix_transpose": _VIEW,
    "max_pool2d": _IMAGES,
    "pad": "a copy",
    "permute_dims": _VIEW,
    "reshape": _VIEW,
    "rms_norm": "not compared yet",
    "scatter_add": "timed as the backward of take",
    "split": f"{_VIEW}; backward is concat, timed as concat",
    "squeeze": _VIEW,
    "upsample": _IMAGES,
    "windows": f"{_VIEW}; its backward is fold",
}

QUICK_OPS = ("affine", "multiply", "relu", "sigmoid", "softmax", "softmax_cross_entropy", "sum")

STEPS = (
    StepCase((64, 32, 10), 32),
    StepCase((784, 100, 10), 100),
    StepCase((784, 512, 512, 10), 128),
    StepCase((784, 2048, 2048, 2048, 10), 512),
    StepCase((784, 100, 10), 1, train=False),
)
SWEEP_SIZES = (784, 512, 512, 10)
SWEEP_BATCHES: tuple[int, ...] = (1, 4, 16, 64, 256, 1024, 4096)


def op_inputs(case: OpCase, size: str, seed: int = 0) -> OpInputs:
    """Random arguments of that size, and a random gradient of the result's shape."""
    rng = np.random.default_rng(seed)
    args = tuple(draw(rng, case.sizes[size]) for draw in case.draws)
    y = case.target(*args, **case.attrs)
    return OpInputs(args, _normal(rng, y.shape).astype(y.dtype))


def step_inputs(case: StepCase, seed: int = 0) -> StepInputs:
    """He-normal weights, zero biases and a random batch."""
    rng = np.random.default_rng(seed)
    weights = [
        (_normal(rng, (n_in, n_out)) * np.float32((2 / n_in) ** 0.5), np.zeros(n_out, np.float32))
        for n_in, n_out in zip(case.sizes, case.sizes[1:], strict=False)
    ]
    x = rng.random((case.batch, case.sizes[0]), dtype=np.float32)
    return StepInputs(weights, x, rng.integers(0, case.sizes[-1], case.batch))
