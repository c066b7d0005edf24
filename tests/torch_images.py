"""nnx's ops on images, and its normalisation, in PyTorch's words; see torch_ops.py."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

Torch = torch.Tensor


def windows(x: Torch, size: int, axis: int = -1, stride: int = 1, dilation: int = 1) -> Torch:
    """`unfold` has no dilation: every dilation-th entry of longer windows."""
    axis %= x.ndim
    seen = x.unfold(axis, dilation * (size - 1) + 1, stride)[..., ::dilation]
    return torch.movedim(seen, -1, axis + 1)


def fold(x: Torch, length: int, axis: int, stride: int = 1, dilation: int = 1) -> Torch:
    """Added up entry by entry."""
    n, size = x.shape[axis : axis + 2]
    places = stride * torch.arange(n)[:, None] + dilation * torch.arange(size)
    flat = x.reshape(*x.shape[:axis], n * size, *x.shape[axis + 2 :])
    zeros = torch.zeros((*x.shape[:axis], length, *x.shape[axis + 2 :]), dtype=x.dtype)
    return zeros.index_add(axis, places.reshape(-1), flat)


def pad(x: Torch, widths: Any, value: float = 0.0) -> Torch:
    return F.pad(x, [n for pair in reversed(widths) for n in pair], value=value)


def both_sides(x: Torch, padding: Any, value: float = 0.0) -> tuple[Torch, Any]:
    """PyTorch pads both sides alike: x padded beforehand where they differ."""
    if isinstance(padding, tuple) and any(isinstance(p, tuple) for p in padding):
        pairs = [p if isinstance(p, tuple) else (p, p) for p in padding]
        return pad(x, pairs, value), 0
    return x, padding


def conv(f: Callable[..., Torch]) -> Callable[..., Torch]:
    def padded(x: Torch, W: Torch, b: Torch | None = None, padding: Any = 0, **attrs: Any) -> Torch:
        if padding == "same":  # PyTorch warns where the two sides differ
            sizes, gaps = W.shape[2:], attrs.get("dilation", 1)
            gaps = gaps if isinstance(gaps, tuple) else (gaps,) * len(sizes)
            total = [d * (n - 1) for d, n in zip(gaps, sizes, strict=True)]
            padding = tuple((n // 2, n - n // 2) for n in total)
        x, padding = both_sides(x, padding)
        return f(x, W, b, padding=padding, **attrs)

    return padded


def conv_transpose2d(
    x: Torch, W: Torch, b: Torch | None = None, padding: Any = 0, **attrs: Any
) -> Torch:
    """Padding cuts the result: cut afterwards where the sides differ."""
    if not isinstance(padding, tuple) or not any(isinstance(p, tuple) for p in padding):
        return F.conv_transpose2d(x, W, b, padding=padding, **attrs)
    pairs = [p if isinstance(p, tuple) else (p, p) for p in padding]
    return pad(F.conv_transpose2d(x, W, b, **attrs), [(-before, -after) for before, after in pairs])


def max_pool2d(x: Torch, size: Any, stride: Any = None, padding: Any = 0) -> Torch:
    x, padding = both_sides(x, padding, -math.inf)
    return F.max_pool2d(x, size, stride, padding)


def avg_pool2d(
    x: Torch, size: Any, stride: Any = None, padding: Any = 0, count_include_pad: bool = True
) -> Torch:
    """Of pairs with pads not counted: sums, divided by how many entries they are of."""
    padded, rest = both_sides(x, padding)
    if rest == padding or count_include_pad:
        return F.avg_pool2d(padded, size, stride, rest, count_include_pad=count_include_pad)
    inside, _ = both_sides(torch.ones_like(x), padding)
    return F.avg_pool2d(padded, size, stride) / F.avg_pool2d(inside, size, stride)


def upsample(
    x: Torch, scale: Any = None, size: Any = None, mode: str = "nearest",
    align_corners: bool = False,
) -> Torch:  # fmt: skip
    corners = align_corners if mode == "bilinear" else None
    return F.interpolate(x, size, scale, mode, align_corners=corners)


def batch_norm(
    x: Torch, gamma: Torch | None = None, beta: Torch | None = None, eps: float = 1e-5
) -> tuple[Torch, Torch, Torch]:
    """One value per channel PyTorch refuses, no channel it warns of."""
    axes = [i for i in range(x.ndim) if i != 1]
    mean = x.mean(axes)
    shape = (x.shape[1], *(1,) * (x.ndim - 2))
    if x.numel() <= x.shape[1]:
        gamma, beta = ones_for(mean, gamma), torch.zeros_like(mean) if beta is None else beta
        h = (x - mean.reshape(shape)) / eps**0.5
        return h * gamma.reshape(shape) + beta.reshape(shape), mean, 0 * mean
    y = F.batch_norm(x, None, None, ones_for(mean, gamma), beta, training=True, eps=eps)
    return y, mean, x.var(axes, correction=0)


def ones_for(x: Torch, gamma: Torch | None) -> Torch:
    """PyTorch has no second derivatives of a shift without a scale."""
    return torch.ones_like(x) if gamma is None else gamma


def layer_norm(
    x: Torch, gamma: Torch | None = None, beta: Torch | None = None, ndim: int = 1,
    eps: float = 1e-5,
) -> Torch:  # fmt: skip
    shape = x.shape[x.ndim - ndim :]
    gamma = torch.ones(shape, dtype=x.dtype) if gamma is None else gamma
    return F.layer_norm(x, shape, gamma, beta, eps)


def rms_norm(x: Torch, gamma: Torch | None = None, ndim: int = 1, eps: float = 1e-6) -> Torch:
    return F.rms_norm(x, x.shape[x.ndim - ndim :], gamma, eps)


def group_norm(
    x: Torch, gamma: Torch | None = None, beta: Torch | None = None, groups: int = 1,
    eps: float = 1e-5,
) -> Torch:  # fmt: skip
    return F.group_norm(x, groups, gamma, beta, eps)


ORACLE: dict[str, Callable[..., Torch]] = {
    "avg_pool2d": avg_pool2d, "batch_norm": batch_norm, "conv1d": conv(F.conv1d),
    "conv2d": conv(F.conv2d), "conv_transpose2d": conv_transpose2d, "fold": fold,
    "group_norm": group_norm, "layer_norm": layer_norm, "max_pool2d": max_pool2d, "pad": pad,
    "rms_norm": rms_norm, "upsample": upsample, "windows": windows,
}  # fmt: skip
