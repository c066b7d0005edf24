"""Pooling, padding and upsampling as layers; formulas and options stand with the ops."""

from __future__ import annotations

from typing import Any

from .. import ops
from ..errors import ShapeError
from ..ops._geometry import checked, checked_padding
from .base import Layer


class _Pool(Layer):
    def __init__(self, size: Any, stride: Any = None, padding: Any = 0) -> None:
        name = type(self).__name__
        sizes = checked(name, "size", size, 2, 1)
        steps = sizes if stride is None else checked(name, "stride", stride, 2, 1)
        checked_padding(name, padding, sizes, steps, (1, 1), names=False)
        self.size, self.stride, self.padding = size, stride, padding

    def __repr__(self) -> str:
        parts = [repr(self.size)]
        if self.stride is not None:
            parts.append(f"stride={self.stride!r}")
        if self.padding:
            parts.append(f"padding={self.padding!r}")
        return f"{type(self).__name__}({', '.join(parts)})"


class MaxPool2d(_Pool):
    """y = the largest of each window of size x size, one every `stride` entries.

    `nnx.max_pool2d`   Ranzato et al. (2007)

    x: (N, C, H, W), y: (N, C, H', W'), H' = floor((H + 2 padding - size) / stride) + 1
    """

    def forward(self, x: Any) -> Any:
        return ops.max_pool2d(x, size=self.size, stride=self.stride, padding=self.padding)


class AvgPool2d(_Pool):
    """y = the mean of each window of size x size, one every `stride` entries.

    `nnx.avg_pool2d`   LeCun et al. (1989)

    x: (N, C, H, W), y: (N, C, H', W'), H' = floor((H + 2 padding - size) / stride) + 1

    count_include_pad   whether padding counts as zeros or not at all
    """

    def __init__(
        self, size: Any, stride: Any = None, padding: Any = 0, count_include_pad: bool = True
    ) -> None:
        super().__init__(size, stride, padding)
        self.count_include_pad = count_include_pad

    def forward(self, x: Any) -> Any:
        return ops.avg_pool2d(
            x, size=self.size, stride=self.stride, padding=self.padding,
            count_include_pad=self.count_include_pad,
        )  # fmt: skip


class GlobalAvgPool2d(Layer):
    """y = the mean of each channel.   x: (N, C, H, W), y: (N, C)   Lin, Chen and Yan (2014)"""

    def forward(self, x: Any) -> Any:
        _check_image(x)
        return ops.mean(x, axis=(2, 3))


class Pad2d(Layer):
    """y = x with rows and columns of `value` around each image: `nnx.pad`.

    x: (N, C, H, W), y: (N, C, H + above + below, W + left + right). padding: an int, or one for
    rows and one for columns, or pairs ((above, below), (left, right))
    """

    def __init__(self, padding: Any, value: float = 0.0) -> None:
        self.padding, self.value = padding, value
        self._widths = checked_padding("Pad2d", padding, (1, 1), (1, 1), (1, 1), names=False)

    def forward(self, x: Any) -> Any:
        _check_image(x)
        return ops.pad(x, self._widths, value=self.value)

    def __repr__(self) -> str:
        return f"Pad2d({self.padding!r}{f', value={self.value!r}' if self.value else ''})"


class Upsample(Layer):
    """y[i, j] = x at (i / scale, j / scale), the nearest entry or between entries: `nnx.upsample`.

    x: (N, C, H, W), y: (N, C, scale H, scale W), or of the `size` (H', W') given instead.
    mode: "nearest" or "bilinear"; align_corners as in the op
    """

    def __init__(
        self, scale: Any = None, *, size: Any = None, mode: str = "nearest",
        align_corners: bool = False,
    ) -> None:  # fmt: skip
        self.scale, self.size, self.mode, self.align_corners = scale, size, mode, align_corners

    def forward(self, x: Any) -> Any:
        return ops.upsample(
            x, scale=self.scale, size=self.size, mode=self.mode, align_corners=self.align_corners
        )

    def __repr__(self) -> str:
        what = f"size={self.size!r}" if self.scale is None else repr(self.scale)
        mode = "" if self.mode == "nearest" else f", mode={self.mode!r}"
        return f"Upsample({what}{mode}{', align_corners=True' if self.align_corners else ''})"


def _check_image(x: Any) -> None:
    if len(x.shape) != 4:
        raise ShapeError(f"x has shape {tuple(x.shape)}, expected (N, C, H, W)")
