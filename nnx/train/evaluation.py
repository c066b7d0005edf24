"""A model's scores on data, and its predictions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import metrics as library
from ..arrays import asarray, to_numpy
from ..backend import Array, backend_of
from ..capture import capture
from ..errors import OptionError, ShapeError
from ..layers import Layer
from ..layers.observe import evaluating
from ..ops import softmax_cross_entropy
from ..tape import no_grad
from ..tensor import Tensor
from .meter import Meter

Metric = Callable[[Array, Array], Array]
MOST_CLASSES = 100  # for which a confusion matrix is counted


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found.

    scores      mean loss and metrics over the rows, by name: {"loss": 0.07, "accuracy": 0.98}
    confusion   how often class `row` was taken for class `column`, (C, C) int64; None unless
                outputs are (N, C) with C <= 100, and targets class ids
    """

    scores: dict[str, float]
    confusion: np.ndarray[Any, Any] | None = None

    @property
    def loss(self) -> float:
        return self.scores["loss"]

    @property
    def perplexity(self) -> float:
        """e^loss, where the loss is a cross-entropy: see `nnx.metrics.perplexity`."""
        return math.exp(self.loss)

    @property
    def accuracy(self) -> float:
        """Part of the rows whose largest output is that of their class, 0..1."""
        counts = self.counts
        return float(counts.trace() / counts.sum())

    @property
    def errors(self) -> int:
        """How many rows were taken for another class."""
        counts = self.counts
        return int(counts.sum() - counts.trace())

    def most_confused(self, count: int) -> list[tuple[int, int, int]]:
        """The most frequent mistakes: (class, taken for, how often), the most frequent first."""
        counts = self.counts
        off = counts - np.diag(np.diag(counts))
        order = np.argsort(-off, axis=None, kind="stable")[:count]
        pairs = [tuple(map(int, np.unravel_index(i, off.shape))) for i in order]
        return [(a, b, int(off[a, b])) for a, b in pairs if off[a, b]]

    def _repr_html_(self) -> str:
        from ..html import fields, lines
        from ..report import summary

        return fields(self.scores) if self.confusion is None else lines("\n".join(summary(self)))

    @property
    def counts(self) -> np.ndarray[Any, Any]:
        """`confusion`; OptionError if there is none."""
        if self.confusion is None:
            raise OptionError(
                f"this evaluation has no confusion matrix: it needs outputs (N, C) with "
                f"C <= {MOST_CLASSES} and class ids; its scores are {', '.join(self.scores)}"
            )
        return self.confusion


class Evaluator:
    """What `evaluate` does, kept: on later calls the batches' work is replayed."""

    def __init__(self, model: Layer, loss: Any, metrics: Mapping[str, Metric], eager: bool) -> None:
        self.model, self.loss, self.metrics, self.eager = model, loss, metrics, eager
        self._captured = capture(self._scored)
        self._forward = capture(self._predicted)

    def __call__(
        self, batches: Iterable[tuple[Array, Array]], each: Callable[[], None] | None = None
    ) -> Evaluation:
        """See `evaluate`; `each` is called after each batch."""
        meter, confusion = None, None
        with evaluating(self.model), no_grad():
            for x, t in batches:
                backend = backend_of(x)
                meter = Meter(("loss", *self.metrics), backend) if meter is None else meter
                with backend.on_device():
                    values, counts = self._how(self._scored, self._captured, x)(x, t)
                    meter.add(x.shape[0], values)
                    if counts is not None:
                        confusion = counts if confusion is None else confusion + counts
                if each is not None:
                    each()
        if meter is None:
            raise OptionError("evaluate: the data set is empty, expected at least one row")
        return Evaluation(meter.means(), None if confusion is None else to_numpy(confusion))

    def predict(self, x: Any, batch_size: int) -> Array:
        """See `predict`."""
        x = asarray(x) if not hasattr(x, "shape") else getattr(x, "__nnx_data__", x)
        if x.ndim == 0 or x.shape[0] == 0:
            raise ShapeError(f"predict: x has shape {tuple(x.shape)}, expected at least one row")
        parameters = self.model.parameters()
        backend = parameters[0].backend if parameters else backend_of(asarray(x[:1, ...]))
        dtype = backend.dtype_name(parameters[0].data) if parameters else None
        made = []
        with evaluating(self.model), no_grad(), backend.on_device():
            for i in range(0, x.shape[0], batch_size):
                end = min(i + batch_size, x.shape[0])
                rows = asarray(x[i:end, ...], backend=backend)
                if "float" in backend.dtype_name(rows):
                    rows = asarray(rows, dtype, backend=backend)
                made.append(self._how(self._predicted, self._forward, rows)(rows))
            return made[0] if len(made) == 1 else backend.xp.concat(made, axis=0)

    def _how(self, fn: Any, captured: Any, x: Array) -> Any:
        return fn if self.eager or backend_of(x).replay() is None else captured

    def _scored(self, x: Array, t: Array) -> tuple[list[Array], Array | None]:
        y = self.model(Tensor(x))
        values = [self.loss(y, t).data, *[metric(y.data, t) for metric in self.metrics.values()]]
        backend = backend_of(y.data)
        classes = y.ndim == 2 and y.shape[1] <= MOST_CLASSES and t.shape == y.shape[:1]
        if not classes or "int" not in backend.dtype_name(t):
            return values, None
        return values, library.confusion_matrix(y, t)

    def _predicted(self, x: Array) -> Array:
        y = self.model(Tensor(x))
        return y.data


def evaluate(
    model: Layer,
    batches: Iterable[tuple[Array, Array]],
    *,
    loss: Any = softmax_cross_entropy,
    metrics: Mapping[str, Metric] | None = None,
) -> Evaluation:
    """Loss and metrics of `model` in evaluation mode: means over all rows of the batches.

    loss      of outputs and targets, a mean over rows: an op, a loss layer or a function
    metrics   functions of outputs and targets by name, each a mean over rows (`nnx.metrics`)

    The layers' modes are put back afterwards. The device is waited for once, at the end. Raises
    OptionError if there are no batches.
    """
    return Evaluator(model, loss, metrics or {}, eager=True)(batches)


def predict(model: Layer, x: Any, batch_size: int = 1000) -> Array:
    """The model's outputs for the rows of x, in evaluation mode, on the model's backend.

    x   (N, ...), an array of any backend or nested lists; floats become the model's dtype

    Raises ShapeError for no rows.
    """
    return Evaluator(model, None, {}, eager=True).predict(x, batch_size)
