"""The notebook's own layers: AddNode, MulNode, Affine(W, b) and Loss.

Names, results and gradients are the book's ("Deep Learning from Scratch", chapter 5); unlike the
notebook's, they change none of their inputs.
"""

from __future__ import annotations

from typing import Any, ClassVar

from .. import ops
from ..arrays import asarray
from ..errors import StateError
from ..tensor import Parameter, Tensor
from .base import Layer
from .explicit import refuse_tuple


class _Node(Layer):
    """Two inputs, which `.x` and `.y` show after forward."""

    _takes_numbers: ClassVar[bool] = True

    @property
    def x(self) -> Any:
        """The first input of the last forward."""
        return self._input(0)

    @property
    def y(self) -> Any:
        """The second input of the last forward."""
        return self._input(1)

    def _input(self, i: int) -> Any:
        return None if self._record is None else self._record.inputs[i].data


class AddNode(_Node):
    """out = x + y;   dx = dout, dy = dout"""

    def forward(self, x: Any, y: Any) -> Any:
        return ops.add(x, y)


class MulNode(_Node):
    """out = x * y;   dx = y * dout, dy = x * dout"""

    def forward(self, x: Any, y: Any) -> Any:
        return ops.multiply(x, y)


class Affine(Layer):
    """out = x @ W + b, for given arrays W (in, out) and b (out,), which it shares.

    `backward(dout)` gives (dx, dW, db); dW and db also stand in `.dW` and `.db`.
    """

    def __init__(self, W: Any, b: Any) -> None:
        self.W = W if isinstance(W, Parameter) else Parameter(asarray(W))
        self.b = b if isinstance(b, Parameter) else Parameter(asarray(b))

    def forward(self, x: Any) -> Any:
        return ops.affine(x, self.W, self.b)

    def backward(self, dout: Any = 1) -> tuple[Any, Any, Any]:
        """(dx, dW, db): to pass the gradient on to the layer before, take [0]."""
        return super().backward(dout), self.W.grad, self.b.grad

    @property
    def dW(self) -> Any:
        """The gradient of W: `W.grad`."""
        return self.W.grad

    @property
    def db(self) -> Any:
        """The gradient of b: `b.grad`."""
        return self.b.grad


class Loss(Layer):
    """The notebook's loss, mean(-t * log(y)) over all entries; y probabilities, t one-hot.

    `backward(dout)` is the book's softmax-with-loss shortcut, (y - t) * dout: for y = softmax(x)
    it is the gradient for the logits x, not for y, of the loss *summed* over the batch. The
    forward value is that sum divided by y.size, so `backward(1 / y.size)` gives its gradient.
    To train, use SoftmaxCrossEntropy, which takes the logits.
    """

    constants: ClassVar[tuple[str, ...]] = ("t",)

    def __init__(self) -> None:
        self.loss: Any = None
        self.y: Any = None
        self.t: Any = None

    def forward(self, y: Any, t: Any) -> Any:
        self.y, self.t = (v.data if isinstance(v, Tensor) else v for v in (y, t))
        out = ops.categorical_crossentropy(y, t)
        self.loss = out.data if isinstance(out, Tensor) else out
        return out

    def backward(self, dout: Any = 1) -> Any:
        """(y - t) * dout, the gradient for the logits of softmax"""
        if self.y is None:
            raise StateError("Loss.backward() before forward(y, t)")
        refuse_tuple(dout, getattr(self.y, "shape", ()))
        t = ops.astype(self.t, self.y.dtype) if hasattr(self.y, "dtype") else self.t
        return (self.y - t) * dout
