"""Linear, and what goes between layers: Flatten, Unflatten, Dropout, Sequential, Residual."""

from __future__ import annotations

import math
from collections.abc import Iterator
from numbers import Integral
from typing import Any

from .. import init, ops
from ..arrays import asarray
from ..backend import backend_of
from ..errors import OptionError, ShapeError
from ..ops._options import probability
from ..random import generator
from ..tensor import Parameter
from .base import Layer


class Linear(Layer):
    """y = x @ W + b.   x: (..., in), W: (in, out), b: (out,), y: (..., out)

    W is drawn by `W_init` (He normal by default, for relu networks), b is zeros. Both are float32
    and lie on the current backend; the same seed gives the same weights on every backend.
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        *,
        bias: bool = True,
        W_init: init.Initializer = init.he_normal,
        b_init: init.Initializer = init.zeros,
        dtype: str = "float32",
    ) -> None:
        if not all(isinstance(n, Integral) and n >= 1 for n in (n_in, n_out)):
            raise OptionError(f"Linear({n_in!r}, {n_out!r}): both sizes must be ints of at least 1")
        self.W = Parameter(asarray(init.drawn(W_init, (n_in, n_out)), dtype))
        self.b = Parameter(asarray(init.drawn(b_init, (n_out,)), dtype)) if bias else None

    def forward(self, x: Any) -> Any:
        return ops.affine(x, self.W, self.b)

    @property
    def dW(self) -> Any:
        """The gradient of W: `W.grad`."""
        return self.W.grad

    @property
    def db(self) -> Any:
        """The gradient of b: `b.grad`."""
        return None if self.b is None else self.b.grad

    def __repr__(self) -> str:
        n_in, n_out = self.W.shape
        return f"Linear({n_in}, {n_out}{', bias=False' if self.b is None else ''})"


class Flatten(Layer):
    """y = x with one axis behind the batch: (N, a, b, ...) -> (N, a * b * ...)"""

    def forward(self, x: Any) -> Any:
        if not x.shape:
            raise ShapeError("x has shape (), expected (N, ...): a batch comes first")
        size = 1
        for n in x.shape[1:]:
            size *= n
        return ops.reshape(x, (x.shape[0], size))


class Unflatten(Layer):
    """(N, a * b * ...) -> (N, a, b, ...): flat images become images, as `Unflatten(1, 28, 28)`."""

    def __init__(self, *shape: int) -> None:
        if not shape or any(type(n) is not int or n < 1 for n in shape):
            raise OptionError(
                f"Unflatten{shape}: expected the shape of one entry as ints of 1 or more, such as "
                f"Unflatten(1, 28, 28)"
            )
        self.shape = shape

    def forward(self, x: Any) -> Any:
        shape, size = tuple(x.shape), math.prod(self.shape)
        if len(shape) != 2 or shape[1] != size:
            raise ShapeError(
                f"x has shape {shape}, expected (N, {size}), to be made (N, "
                f"{', '.join(map(str, self.shape))})"
            )
        return ops.reshape(x, (shape[0], *self.shape))

    def __repr__(self) -> str:
        return f"Unflatten({', '.join(map(str, self.shape))})"


class Dropout(Layer):
    """y = x * mask / (1 - p): each entry is zeroed with probability p, in training only.

    x, y: any shape; `eval()` gives x itself. The masks come from `nnx.seed`'s generator.
    Srivastava et al. (2014)
    """

    def __init__(self, p: float = 0.5) -> None:
        probability("Dropout", "p", p)
        self.p = p

    def forward(self, x: Any) -> Any:
        if not self.training or self.p == 0:
            return x
        data = getattr(x, "__nnx_data__", x)
        backend = backend_of(data)
        drawn = backend.uniform(tuple(data.shape), data.dtype, generator())
        return ops.dropout(x, drawn, p=self.p)

    def __repr__(self) -> str:
        return f"Dropout({self.p})"


class Sequential(Layer):
    """One layer after another: Sequential(Linear(64, 100), Relu(), Linear(100, 10))"""

    def __init__(self, *layers: Layer) -> None:
        for i, layer in enumerate(layers):
            if isinstance(layer, type):
                raise OptionError(
                    f"Sequential: argument {i} is the class {layer.__name__}, expected a layer: "
                    f"write {layer.__name__}(...)"
                )
            if not isinstance(layer, Layer):
                raise OptionError(
                    f"Sequential: argument {i} is {type(layer).__name__}, expected a layer; write "
                    f"Sequential(a, b) or Sequential(*layers)"
                )
        self.layers = list(layers)

    def forward(self, x: Any) -> Any:
        for layer in self.layers:
            x = layer.forward(x)
        return x

    def children(self) -> Iterator[tuple[str, Any]]:
        yield from ((str(i), layer) for i, layer in enumerate(self.layers))
        yield from ((k, v) for k, v in super().children() if k != "layers")

    def __getitem__(self, i: int) -> Any:
        return self.layers[i]

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.layers)

    def __repr__(self) -> str:
        return f"Sequential({', '.join(map(repr, self.layers))})"


class Residual(Layer):
    """y = x + layer(x).   x, y: of one shape   He et al. (2016)"""

    def __init__(self, layer: Layer) -> None:
        self.layer = layer

    def forward(self, x: Any) -> Any:
        return x + self.layer.forward(x)

    def __repr__(self) -> str:
        return f"Residual({self.layer!r})"
