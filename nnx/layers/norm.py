"""Normalisation as layers; formulas stand with the ops."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from .. import ops
from ..arrays import asarray
from ..buffer import Buffer
from ..errors import OptionError, ShapeError
from ..ops._geometry import checked
from ..tensor import Parameter
from ..update import update
from .base import Layer


@update("mean", "var")
def track(xp, mean, var, batch_mean, batch_var, *, momentum, n):  # type: ignore[no-untyped-def]
    """mean += momentum (batch_mean - mean); var likewise, of batch_var n / (n - 1)."""
    unbiased = batch_var * (n / (n - 1))
    return mean + momentum * (batch_mean - mean), var + momentum * (unbiased - var)


class _Norm(Layer):
    """gamma is ones, beta zeros, both of one shape; None where affine is False."""

    def __init__(
        self, shape: tuple[int, ...], eps: float, affine: bool, dtype: str, shift: bool = True
    ) -> None:
        if not eps > 0:
            name = type(self).__name__
            raise OptionError(f"{name}: eps={eps!r}, expected a small number above 0")
        self.eps = eps
        self.gamma = Parameter(asarray(np.ones(shape), dtype)) if affine else None
        self.beta = Parameter(asarray(np.zeros(shape), dtype)) if affine and shift else None

    def _shown(self, *given: Any) -> str:
        parts = [*map(str, given), *["affine=False"] * (self.gamma is None)]
        return f"{type(self).__name__}({', '.join(parts)})"


class _BatchNorm(_Norm):
    _ndims: ClassVar[dict[int, str]] = {}

    def __init__(
        self, channels: int, *, eps: float = 1e-5, momentum: float = 0.1, affine: bool = True,
        dtype: str = "float32",
    ) -> None:  # fmt: skip
        checked(type(self).__name__, "channels", channels, 1, 1)
        if not 0 <= momentum <= 1:
            name = type(self).__name__
            raise OptionError(f"{name}: momentum={momentum!r}, expected a number in [0, 1]")
        super().__init__((channels,), eps, affine, dtype)
        self.channels, self.momentum = channels, momentum
        self.mean = Buffer(asarray(np.zeros(channels), dtype))
        self.var = Buffer(asarray(np.ones(channels), dtype))

    def forward(self, x: Any) -> Any:
        shape = tuple(x.shape)
        if len(shape) not in self._ndims or shape[1] != self.channels:
            expected = " or ".join(self._ndims.values()).replace("C", str(self.channels))
            raise ShapeError(f"x has shape {shape}, expected {expected}")
        if not self.training:
            return self._with_running(x)
        n = shape[0]
        for length in shape[2:]:
            n *= length
        if n < 2:
            raise ShapeError(
                f"x has shape {shape}: a channel has {n} value{'s' * (n != 1)}, which has no "
                f"variance to train with; give a larger batch, or call eval() first"
            )
        y, mean, var = ops.batch_norm(x, self.gamma, self.beta, eps=self.eps)
        held = track(
            self.mean.data, self.var.data, mean.data, var.data, momentum=self.momentum, n=n
        )
        self.mean.update(held[0])
        self.var.update(held[1])
        return y

    def _with_running(self, x: Any) -> Any:
        scale = 1 / ops.sqrt(self.var + self.eps)
        if self.gamma is not None:
            scale = self.gamma * scale
        shift = -self.mean * scale if self.beta is None else self.beta - self.mean * scale
        shape = (self.channels, *(1,) * (len(x.shape) - 2))
        return x * ops.reshape(scale, shape) + ops.reshape(shift, shape)

    def __repr__(self) -> str:
        return self._shown(self.channels)


class BatchNorm1d(_BatchNorm):
    """y = gamma (x - mean) / sqrt(var + eps) + beta, each channel.   Ioffe and Szegedy (2015)

    x: (N, C) or (N, C, L); gamma, beta: (C,)

    In training mean and var are the batch's (`nnx.batch_norm`), and the buffers `mean` and `var`
    follow them: mean += momentum (batch's - mean), with the unbiased variance, as in PyTorch. In
    `eval()` the buffers are used. Raises ShapeError in training for one value per channel.
    """

    _ndims: ClassVar[dict[int, str]] = {2: "(N, C)", 3: "(N, C, L)"}


class BatchNorm2d(_BatchNorm):
    """y = gamma (x - mean) / sqrt(var + eps) + beta, each channel.   Ioffe and Szegedy (2015)

    x: (N, C, H, W); gamma, beta: (C,). Training, `eval()` and buffers as in BatchNorm1d.
    """

    _ndims: ClassVar[dict[int, str]] = {4: "(N, C, H, W)"}


class LayerNorm(_Norm):
    """y = gamma (x - mean) / sqrt(var + eps) + beta, over the last axes.   Ba et al. (2016)

    x: (..., *shape); gamma, beta: (*shape). shape: an int for one axis, or a tuple
    """

    def __init__(
        self, shape: int | tuple[int, ...], *, eps: float = 1e-5, affine: bool = True,
        dtype: str = "float32",
    ) -> None:  # fmt: skip
        self.shape = _last_axes("LayerNorm", shape)
        super().__init__(self.shape, eps, affine, dtype)

    def forward(self, x: Any) -> Any:
        _check_last_axes(x, self.shape)
        return ops.layer_norm(x, self.gamma, self.beta, ndim=len(self.shape), eps=self.eps)

    def __repr__(self) -> str:
        return self._shown(self.shape[0] if len(self.shape) == 1 else self.shape)


class RMSNorm(_Norm):
    """y = gamma x / sqrt(mean of x^2 + eps), over the last axes.   Zhang and Sennrich (2019)

    x: (..., *shape); gamma: (*shape). shape: an int for one axis, or a tuple
    """

    def __init__(
        self, shape: int | tuple[int, ...], *, eps: float = 1e-6, affine: bool = True,
        dtype: str = "float32",
    ) -> None:  # fmt: skip
        self.shape = _last_axes("RMSNorm", shape)
        super().__init__(self.shape, eps, affine, dtype, shift=False)

    def forward(self, x: Any) -> Any:
        _check_last_axes(x, self.shape)
        return ops.rms_norm(x, self.gamma, ndim=len(self.shape), eps=self.eps)

    def __repr__(self) -> str:
        return self._shown(self.shape[0] if len(self.shape) == 1 else self.shape)


class GroupNorm(_Norm):
    """y = gamma (x - mean) / sqrt(var + eps) + beta, over groups of channels.   Wu and He (2018)

    x: (N, C, ...); gamma, beta: (C,). Each of `groups` groups of C / groups channels has its own
    mean and var in each image.
    """

    def __init__(
        self, groups: int, channels: int, *, eps: float = 1e-5, affine: bool = True,
        dtype: str = "float32",
    ) -> None:  # fmt: skip
        checked("GroupNorm", "groups", groups, 1, 1)
        checked("GroupNorm", "channels", channels, 1, 1)
        if channels % groups:
            raise OptionError(
                f"GroupNorm({groups}, {channels}): {channels} channels do not fall into {groups} "
                f"groups"
            )
        super().__init__((channels,), eps, affine, dtype)
        self.groups, self.channels = groups, channels

    def forward(self, x: Any) -> Any:
        if len(x.shape) < 2 or x.shape[1] != self.channels:
            raise ShapeError(f"x has shape {tuple(x.shape)}, expected (N, {self.channels}, ...)")
        return ops.group_norm(x, self.gamma, self.beta, groups=self.groups, eps=self.eps)

    def __repr__(self) -> str:
        return self._shown(self.groups, self.channels)


def _last_axes(name: str, shape: Any) -> tuple[int, ...]:
    given = tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)
    return checked(name, "shape", given, max(len(given), 1), 1)


def _check_last_axes(x: Any, shape: tuple[int, ...]) -> None:
    if len(x.shape) < len(shape) or tuple(x.shape[len(x.shape) - len(shape) :]) != shape:
        expected = ", ".join(map(str, ("...", *shape)))
        raise ShapeError(f"x has shape {tuple(x.shape)}, expected ({expected})")
