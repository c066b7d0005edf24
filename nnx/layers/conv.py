"""Convolutions as layers; formulas and options stand with the ops."""

from __future__ import annotations

from typing import Any, ClassVar

from .. import init, ops
from ..arrays import asarray
from ..errors import OptionError
from ..ops._geometry import checked, checked_padding
from ..tensor import Parameter
from .base import Layer


class _Conv(Layer):
    _spatial: ClassVar[int] = 2
    _transposed: ClassVar[bool] = False

    def __init__(
        self, n_in: int, n_out: int, size: Any, *, stride: Any = 1, padding: Any = 0,
        dilation: Any = 1, groups: int = 1, bias: bool = True,
        W_init: init.Initializer = init.he_normal, b_init: init.Initializer = init.zeros,
        dtype: str = "float32",
    ) -> None:  # fmt: skip
        name, n = type(self).__name__, self._spatial
        for what, value in (("n_in", n_in), ("n_out", n_out), ("groups", groups)):
            checked(name, what, value, 1, 1)
        sizes = checked(name, "size", size, n, 1)
        steps = checked(name, "stride", stride, n, 1)
        gaps = checked(name, "dilation", dilation, n, 1)
        checked_padding(name, padding, sizes, steps, gaps, names=not self._transposed)
        if n_in % groups or n_out % groups:
            raise OptionError(
                f"{name}({n_in}, {n_out}, groups={groups}): both numbers of channels must be "
                f"multiples of groups"
            )
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups
        W = init.drawn(W_init, (n_out, n_in // groups, *sizes))
        self.W = Parameter(asarray(self._arranged(W), dtype))
        self.b = Parameter(asarray(init.drawn(b_init, (n_out,)), dtype)) if bias else None

    def _arranged(self, W: Any) -> Any:
        return W

    @property
    def options(self) -> dict[str, Any]:
        """What the op is given beside arrays."""
        names = ("stride", "padding", "dilation", "groups")
        return {name: getattr(self, name) for name in names}

    @property
    def dW(self) -> Any:
        """The gradient of W: `W.grad`."""
        return self.W.grad

    @property
    def db(self) -> Any:
        """The gradient of b: `b.grad`."""
        return None if self.b is None else self.b.grad

    def __repr__(self) -> str:
        out, inner, *sizes = self.W.shape
        n_in, n_out = inner * self.groups, out
        if self._transposed:
            n_in, n_out = n_out, n_in
        size = sizes[0] if len(set(sizes)) == 1 else tuple(sizes)
        plain = {"stride": 1, "padding": 0, "output_padding": 0, "dilation": 1, "groups": 1}
        given = [f"{k}={v!r}" for k, v in self.options.items() if v != plain[k]]
        parts = [str(n_in), str(n_out), f"size={size}", *given]
        return f"{type(self).__name__}({', '.join([*parts, *['bias=False'] * (self.b is None)])})"


class Conv1d(_Conv):
    """`nnx.conv1d`: y = W * x + b, * the sum over windows along time.   Waibel et al. (1989)

    x: (N, in, L), W: (out, in / groups, size), b: (out,), y: (N, out, L'),
    L' = floor((L + 2 padding - dilation (size - 1) - 1) / stride) + 1

    stride, padding ("same", "valid" too), dilation and groups are the op's. W is drawn by `W_init`
    (He normal), b is zeros; both are float32 on the current backend.
    """

    _spatial: ClassVar[int] = 1

    def forward(self, x: Any) -> Any:
        return ops.conv1d(x, self.W, self.b, **self.options)


class Conv2d(_Conv):
    """`nnx.conv2d`: y = W * x + b, * the sum over windows of the image.   LeCun et al. (1989)

    x: (N, in, H, W), W: (out, in / groups, *sizes), b: (out,), y: (N, out, H', W'),
    H' = floor((H + 2 padding - dilation (size - 1) - 1) / stride) + 1

    stride, padding ("same", "valid" too), dilation and groups are the op's; ints or one per axis.
    W is drawn by `W_init` (He normal), b is zeros; both are float32 on the current backend.
    """

    def forward(self, x: Any) -> Any:
        return ops.conv2d(x, self.W, self.b, **self.options)


class ConvTranspose2d(_Conv):
    """`nnx.conv_transpose2d`, the adjoint of a convolution, plus b.   Zeiler et al. (2010)

    x: (N, in, H, W), W: (in, out / groups, *sizes), b: (out,), y: (N, out, H', W'),
    H' = stride (H - 1) + dilation (size - 1) + 1 - 2 padding + output_padding

    W is drawn as that of a convolution from `in` to `out` channels, and arranged.
    """

    _transposed: ClassVar[bool] = True

    def __init__(
        self, n_in: int, n_out: int, size: Any, *, output_padding: Any = 0, **options: Any
    ) -> None:
        super().__init__(n_in, n_out, size, **options)
        checked(type(self).__name__, "output_padding", output_padding, 2, 0)
        self.output_padding = output_padding

    def _arranged(self, W: Any) -> Any:
        """(out, in / groups, ...) as (in, out / groups, ...), group by group."""
        out, inner, *sizes = W.shape
        W = W.reshape(self.groups, out // self.groups, inner, *sizes).swapaxes(1, 2)
        return W.reshape(inner * self.groups, out // self.groups, *sizes)

    @property
    def options(self) -> dict[str, Any]:
        return {**super().options, "output_padding": self.output_padding}

    def forward(self, x: Any) -> Any:
        return ops.conv_transpose2d(x, self.W, self.b, **self.options)
