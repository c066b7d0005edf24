"""Each loss as a layer, averaged unless told otherwise. `backward()` needs no argument."""

from __future__ import annotations

from typing import Any, ClassVar

from .. import ops
from ..arrays import asarray
from ..backend import backend_of
from .base import Layer


class _Loss(Layer):
    constants: ClassVar[tuple[str, ...]] = ("t",)

    def __init__(self, reduction: str = "mean") -> None:
        self.reduction = reduction


class MeanSquaredError(_Loss):
    """loss = the mean of (y - t)^2.   y, t: any shape

    reduction   "mean", "sum" or "none"
    """

    def forward(self, y: Any, t: Any) -> Any:
        return ops.mean_squared_error(y, t, reduction=self.reduction)


class MeanAbsoluteError(_Loss):
    """loss = the mean of |y - t|.   y, t: any shape; reduction as in MeanSquaredError"""

    def forward(self, y: Any, t: Any) -> Any:
        return ops.mean_absolute_error(y, t, reduction=self.reduction)


class Huber(_Loss):
    """loss = the mean of e^2 / 2 where |e| <= delta, else delta (|e| - delta / 2), e = y - t.

    y, t: any shape; reduction as in MeanSquaredError   Huber (1964)
    """

    def __init__(self, delta: float = 1.0, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.delta = delta

    def forward(self, y: Any, t: Any) -> Any:
        return ops.huber(y, t, delta=self.delta, reduction=self.reduction)


class CategoricalCrossentropy(_Loss):
    """loss = the mean of -t ln(y) over all entries, the notebook's; its derivative is -t / y.

    y: probabilities (..., C), t: one-hot or soft targets (..., C); reduction as in
    MeanSquaredError
    """

    def forward(self, y: Any, t: Any) -> Any:
        return ops.categorical_crossentropy(y, t, reduction=self.reduction)


class SigmoidCrossEntropy(_Loss):
    """loss = the mean of -t ln s - (1 - t) ln(1 - s), s = sigmoid(x): binary cross-entropy.

    x: logits of any shape, t: 0/1 ints or probabilities, as x; reduction as in MeanSquaredError
    """

    def forward(self, x: Any, t: Any) -> Any:
        return ops.sigmoid_cross_entropy(x, t, reduction=self.reduction)


class SoftmaxCrossEntropy(_Loss):
    """loss = the mean over rows of -ln softmax(x)[t]: the loss to train a classifier with.

    x        logits (..., C); t: class ids (...), or one-hot or soft targets (..., C)
    weight   one per class, an array or list; label_smoothing, ignore_index as in the op
    """

    def __init__(
        self,
        weight: Any = None,
        label_smoothing: float = 0.0,
        ignore_index: int = -100,
        reduction: str = "mean",
    ) -> None:
        super().__init__(reduction)
        self.weight = weight
        self.label_smoothing, self.ignore_index = label_smoothing, ignore_index

    def forward(self, x: Any, t: Any) -> Any:
        return ops.softmax_cross_entropy(
            x,
            t,
            None if self.weight is None else self._weight_for(x),
            label_smoothing=self.label_smoothing,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
        )

    def _weight_for(self, x: Any) -> Any:
        """The weights beside the logits, moved there once."""
        data = getattr(x, "__nnx_data__", x)
        backend = backend_of(data)
        if not (backend.owns(self.weight) and self.weight.dtype == data.dtype):
            self.weight = asarray(self.weight, backend.dtype_name(data), backend=backend)
        return self.weight
