"""Each loss as a layer; the formulas stand with the ops. `backward()` needs no argument."""

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
    """`nnx.mean_squared_error`"""

    def forward(self, y: Any, t: Any) -> Any:
        return ops.mean_squared_error(y, t, reduction=self.reduction)


class MeanAbsoluteError(_Loss):
    """`nnx.mean_absolute_error`"""

    def forward(self, y: Any, t: Any) -> Any:
        return ops.mean_absolute_error(y, t, reduction=self.reduction)


class Huber(_Loss):
    """`nnx.huber`"""

    def __init__(self, delta: float = 1.0, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.delta = delta

    def forward(self, y: Any, t: Any) -> Any:
        return ops.huber(y, t, delta=self.delta, reduction=self.reduction)


class CategoricalCrossentropy(_Loss):
    """`nnx.categorical_crossentropy` with its own derivative, -t / y"""

    def forward(self, y: Any, t: Any) -> Any:
        return ops.categorical_crossentropy(y, t, reduction=self.reduction)


class SigmoidCrossEntropy(_Loss):
    """`nnx.sigmoid_cross_entropy`: binary cross-entropy on logits"""

    def forward(self, x: Any, t: Any) -> Any:
        return ops.sigmoid_cross_entropy(x, t, reduction=self.reduction)


class SoftmaxCrossEntropy(_Loss):
    """`nnx.softmax_cross_entropy`: the loss to train a classifier with.

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
