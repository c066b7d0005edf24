"""Each activation as a layer.   x, y: float arrays of any shape, y as x"""

from __future__ import annotations

from typing import Any

from .. import ops
from .base import Layer


class Relu(Layer):
    """y = max(x, 0).   x, y: any shape; ints stay ints, as in the notebook"""

    def forward(self, x: Any) -> Any:
        return ops.relu(x)


class LeakyRelu(Layer):
    """y = x where x > 0, else slope x.   x, y: any shape   Maas et al. (2013)"""

    def __init__(self, slope: float = 0.01) -> None:
        self.slope = slope

    def forward(self, x: Any) -> Any:
        return ops.leaky_relu(x, slope=self.slope)


class Sigmoid(Layer):
    """y = 1 / (1 + e^-x).   x, y: any shape"""

    def forward(self, x: Any) -> Any:
        return ops.sigmoid(x)


class Tanh(Layer):
    """y = (e^x - e^-x) / (e^x + e^-x).   x, y: any shape"""

    def forward(self, x: Any) -> Any:
        return ops.tanh(x)


class Softplus(Layer):
    """y = ln(1 + e^x).   x, y: any shape   Dugas et al. (2001)"""

    def forward(self, x: Any) -> Any:
        return ops.softplus(x)


class Elu(Layer):
    """y = x where x > 0, else alpha (e^x - 1).   x, y: any shape   Clevert et al. (2016)"""

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = alpha

    def forward(self, x: Any) -> Any:
        return ops.elu(x, alpha=self.alpha)


class Gelu(Layer):
    """y = x Phi(x), Phi the normal distribution function.   Hendrycks and Gimpel (2016)

    x, y: any shape. approximate: "none", or "tanh" for a formula with tanh in its place
    """

    def __init__(self, approximate: str = "none") -> None:
        self.approximate = approximate

    def forward(self, x: Any) -> Any:
        return ops.gelu(x, approximate=self.approximate)


class Silu(Layer):
    """y = x / (1 + e^-x).   x, y: any shape   Elfwing et al. (2018)"""

    def forward(self, x: Any) -> Any:
        return ops.silu(x)


class Softmax(Layer):
    """y = e^x / sum of e^x over axis, the last by default.   x, y: (..., C)"""

    def __init__(self, axis: int = -1) -> None:
        self.axis = axis

    def forward(self, x: Any) -> Any:
        return ops.softmax(x, axis=self.axis)


class LogSoftmax(Layer):
    """y = x - ln(sum of e^x over axis), the last by default.   x, y: (..., C)"""

    def __init__(self, axis: int = -1) -> None:
        self.axis = axis

    def forward(self, x: Any) -> Any:
        return ops.log_softmax(x, axis=self.axis)
