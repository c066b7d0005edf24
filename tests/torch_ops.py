"""Every op of nnx in PyTorch's words: the oracle, with the same parameters."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
import torch_images
import torch_sequences

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
    **torch_images.ORACLE, **torch_sequences.ORACLE,
}  # fmt: skip
