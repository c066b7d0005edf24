"""Each activation as a layer; the formulas stand with the ops."""

from __future__ import annotations

from typing import Any

from .. import ops
from .base import Layer


class Relu(Layer):
    """`nnx.relu`. Ints stay ints, as in the notebook; the input is not changed."""

    def forward(self, x: Any) -> Any:
        return ops.relu(x)


class LeakyRelu(Layer):
    """`nnx.leaky_relu` with its slope below 0."""

    def __init__(self, slope: float = 0.01) -> None:
        self.slope = slope

    def forward(self, x: Any) -> Any:
        return ops.leaky_relu(x, slope=self.slope)


class Sigmoid(Layer):
    """`nnx.sigmoid`"""

    def forward(self, x: Any) -> Any:
        return ops.sigmoid(x)


class Tanh(Layer):
    """`nnx.tanh`"""

    def forward(self, x: Any) -> Any:
        return ops.tanh(x)


class Softplus(Layer):
    """`nnx.softplus`"""

    def forward(self, x: Any) -> Any:
        return ops.softplus(x)


class Elu(Layer):
    """`nnx.elu`"""

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = alpha

    def forward(self, x: Any) -> Any:
        return ops.elu(x, alpha=self.alpha)


class Gelu(Layer):
    """`nnx.gelu`, exact or with `approximate="tanh"`"""

    def __init__(self, approximate: str = "none") -> None:
        self.approximate = approximate

    def forward(self, x: Any) -> Any:
        return ops.gelu(x, approximate=self.approximate)


class Silu(Layer):
    """`nnx.silu`"""

    def forward(self, x: Any) -> Any:
        return ops.silu(x)


class Softmax(Layer):
    """`nnx.softmax` over the last axis"""

    def __init__(self, axis: int = -1) -> None:
        self.axis = axis

    def forward(self, x: Any) -> Any:
        return ops.softmax(x, axis=self.axis)


class LogSoftmax(Layer):
    """`nnx.log_softmax` over the last axis"""

    def __init__(self, axis: int = -1) -> None:
        self.axis = axis

    def forward(self, x: Any) -> Any:
        return ops.log_softmax(x, axis=self.axis)
