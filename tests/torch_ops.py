"""Every op of nnx in PyTorch's words: the oracle, with the same parameters."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

Torch = torch.Tensor


def _all(x: Torch, axis: Any) -> tuple[int, ...]:
    if axis is None:
        return tuple(range(x.ndim))
    return axis if isinstance(axis, tuple) else (axis,)


def summed(x: Torch, axis: Any = None, keepdims: bool = False) -> Torch:
    return torch.sum(x, _all(x, axis), keepdim=keepdims) if x.ndim else x.sum()


def mean(x: Torch, axis: Any = None, keepdims: bool = False) -> Torch:
    return torch.mean(x, _all(x, axis), keepdim=keepdims)


def variance(x: Torch, axis: Any = None, correction: float = 0, keepdims: bool = False) -> Torch:
    if x.numel() == 0:  # no rows, no variances; PyTorch warns of it
        return summed(x, axis, keepdims)
    return torch.var(x, _all(x, axis), correction=correction, keepdim=keepdims)


def largest(x: Torch, axis: Any = None, keepdims: bool = False) -> Torch:
    return torch.amax(x, _all(x, axis), keepdim=keepdims)


def smallest(x: Torch, axis: Any = None, keepdims: bool = False) -> Torch:
    return torch.amin(x, _all(x, axis), keepdim=keepdims)


def logsumexp(x: Torch, axis: Any = None, keepdims: bool = False) -> Torch:
    return torch.logsumexp(x, _all(x, axis), keepdim=keepdims)


def clip(x: Torch, min: Any = None, max: Any = None) -> Torch:
    return x if min is None and max is None else torch.clamp(x, min, max)


def expand_dims(x: Torch, axis: int) -> Torch:
    return torch.unsqueeze(x, axis)


def squeeze(x: Torch, axis: Any) -> Torch:
    return torch.squeeze(x, axis)


def getitem(x: Torch, index: Any) -> Torch:
    """PyTorch has no negative steps: the same entries by their positions."""
    places = torch.arange(x.numel()).reshape(x.shape).numpy()
    parts = index if isinstance(index, tuple) else (index,)
    plain = tuple(p.numpy() if isinstance(p, torch.Tensor) else p for p in parts)
    return x.reshape(-1)[torch.as_tensor(places[plain].copy())]


def getitem_adjoint(x: Torch, index: Any, shape: tuple[int, ...]) -> Torch:
    zeros = torch.zeros(shape, dtype=x.dtype)
    plain = tuple(index) if isinstance(index, tuple) else index
    places = getitem(torch.arange(math.prod(shape)).reshape(shape), plain).reshape(-1)
    return zeros.reshape(-1).index_add(0, places, x.reshape(-1)).reshape(shape)


def take(x: Torch, indices: Torch, axis: int = 0) -> Torch:
    axis %= x.ndim
    y = torch.index_select(x, axis, indices.reshape(-1) % x.shape[axis])
    return y.reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])


def scatter_add(x: Torch, indices: Torch, size: int, axis: int = 0) -> Torch:
    before, after = x.shape[:axis], x.shape[axis + indices.ndim :]
    flat = x.reshape(*before, indices.numel(), *after)
    zeros = torch.zeros((*before, size, *after), dtype=x.dtype)
    return zeros.index_add(axis, indices.reshape(-1) % size, flat)


def affine(x: Torch, W: Torch, b: Torch | None = None) -> Torch:
    return F.linear(x, W.T, b)


def mean_absolute_error(y: Torch, t: Torch, reduction: str = "mean") -> Torch:
    return F.l1_loss(y, t, reduction=reduction)


def categorical_crossentropy(y: Torch, t: Torch, reduction: str = "mean") -> Torch:
    losses = -torch.special.xlogy(t, y)
    return {"mean": torch.mean, "sum": torch.sum, "none": lambda x: x}[reduction](losses)


def sigmoid_cross_entropy(x: Torch, t: Torch, reduction: str = "mean") -> Torch:
    return F.binary_cross_entropy_with_logits(x, t.to(x.dtype), reduction=reduction)


def softmax_cross_entropy(
    x: Torch, t: Torch, weight: Torch | None = None, label_smoothing: float = 0.0,
    ignore_index: int = -100, reduction: str = "mean",
) -> Torch:  # fmt: skip
    classes_last = x.reshape(-1, x.shape[-1])
    flat = t.long().reshape(-1) if t.ndim < x.ndim else t.reshape(-1, x.shape[-1])
    losses = F.cross_entropy(
        classes_last, flat, weight, label_smoothing=label_smoothing, ignore_index=ignore_index,
        reduction=reduction,
    )  # fmt: skip
    return losses.reshape(x.shape[:-1]) if reduction == "none" else losses


def dropout(x: Torch, drawn: Torch, p: float = 0.5) -> Torch:
    return torch.where(drawn >= p, x / (1 - p), torch.zeros_like(x))


# Images


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
            gaps = attrs.get("dilation", 1)
            total = [gaps * (n - 1) for n in W.shape[2:]]
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


def number(f: Callable[..., Torch]) -> Callable[..., Torch]:
    """For functions of PyTorch that take Tensors only."""

    def with_numbers(*args: Any) -> Torch:
        return f(*(torch.as_tensor(a, dtype=torch.float64) for a in args))

    return with_numbers


ORACLE: dict[str, Callable[..., Torch]] = {
    "abs": torch.abs, "add": torch.add, "affine": affine,
    "astype": lambda x, dtype: x.to(getattr(torch, dtype)),
    "broadcast_to": lambda x, shape: torch.broadcast_to(x, shape),
    "categorical_crossentropy": categorical_crossentropy, "clip": clip,
    "concat": lambda *xs, axis=0: torch.cat(xs, axis),
    "divide": number(torch.divide), "dropout": dropout,
    "elu": lambda x, alpha=1.0: F.elu(x, alpha), "erf": torch.erf, "exp": torch.exp,
    "expand_dims": expand_dims, "expm1": torch.expm1,
    "gelu": lambda x, approximate="none": F.gelu(x, approximate=approximate),
    "getitem": getitem, "getitem_adjoint": getitem_adjoint,
    "huber": lambda y, t, delta=1.0, reduction="mean": F.huber_loss(y, t, reduction, delta),
    "leaky_relu": lambda x, slope=0.01: F.leaky_relu(x, slope), "log": torch.log,
    "log1p": torch.log1p, "log_softmax": lambda x, axis=-1: F.log_softmax(x, axis),
    "logsumexp": logsumexp, "matmul": torch.matmul,
    "matrix_transpose": lambda x: x.mT, "max": largest, "maximum": number(torch.maximum),
    "mean": mean, "mean_absolute_error": mean_absolute_error,
    "mean_squared_error": lambda y, t, reduction="mean": F.mse_loss(y, t, reduction=reduction),
    "min": smallest, "minimum": number(torch.minimum), "multiply": number(torch.multiply),
    "negative": torch.negative, "permute_dims": lambda x, axes: torch.permute(x, axes),
    "pow": torch.pow, "relu": torch.relu,
    "reshape": lambda x, shape: torch.reshape(x, shape), "scatter_add": scatter_add,
    "sigmoid": torch.sigmoid, "sigmoid_cross_entropy": sigmoid_cross_entropy, "silu": F.silu,
    "softmax": lambda x, axis=-1: F.softmax(x, axis),
    "softmax_cross_entropy": softmax_cross_entropy,
    "softplus": lambda x: F.softplus(x, threshold=700),
    "split": lambda x, sizes, axis=0: torch.split(
        x, list(sizes) if isinstance(sizes, tuple) else [x.shape[axis] // sizes] * sizes, axis),
    "sqrt": torch.sqrt, "squeeze": squeeze, "stack": lambda *xs, axis=0: torch.stack(xs, axis),
    "subtract": number(torch.subtract), "sum": summed, "take": take, "tanh": torch.tanh,
    "var": variance, "where": torch.where,
    "avg_pool2d": avg_pool2d, "batch_norm": batch_norm, "conv1d": conv(F.conv1d),
    "conv2d": conv(F.conv2d), "conv_transpose2d": conv_transpose2d, "fold": fold,
    "group_norm": group_norm, "layer_norm": layer_norm, "max_pool2d": max_pool2d, "pad": pad,
    "rms_norm": rms_norm, "upsample": upsample, "windows": windows,
}  # fmt: skip
