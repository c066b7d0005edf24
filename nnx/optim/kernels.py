"""Update kernels of the optimizers: pure, portable; a backend may override them in place.

p: the parameter, g: its gradient, m, v, ...: state, all of p's shape and dtype. The numbers that
follow the arrays change from step to step and are computed in Python floats (a float32 power is
1e-5 off); options that stay are keyword-only.
"""

from __future__ import annotations

from typing import Any

from ..backend import Array
from ..op import Op
from ..update import update


@update("p")
def sgd(xp: Any, p: Array, g: Array, lr: float, *, weight_decay: float) -> Array:
    """p <- p - lr (g + weight_decay p)"""
    return p - lr * _decayed(p, g, weight_decay)


@update("p", "m")
def momentum(
    xp: Any, p: Array, g: Array, m: Array, lr: float, keep: float,
    *, momentum: float, nesterov: bool, weight_decay: float,
) -> tuple[Array, Array]:  # fmt: skip
    """m <- momentum m + keep g;  p <- p - lr m, or p - lr (g + momentum m) with nesterov"""
    g = _decayed(p, g, weight_decay)
    m = momentum * m + keep * g
    return p - lr * (g + momentum * m if nesterov else m), m


@update("p", "s")
def adagrad(
    xp: Any, p: Array, g: Array, s: Array, lr: float, *, eps: float, weight_decay: float
) -> tuple[Array, Array]:
    """s <- s + g^2;  p <- p - lr g / (sqrt(s) + eps)"""
    g = _decayed(p, g, weight_decay)
    s = s + g * g
    return p - lr * (g / (xp.sqrt(s) + eps)), s


@update("p", "v")
def rmsprop(
    xp: Any, p: Array, g: Array, v: Array, lr: float,
    *, alpha: float, eps: float, weight_decay: float,
) -> tuple[Array, Array]:  # fmt: skip
    """v <- alpha v + (1 - alpha) g^2;  p <- p - lr g / (sqrt(v) + eps)"""
    g = _decayed(p, g, weight_decay)
    v = alpha * v + (1 - alpha) * (g * g)
    return p - lr * (g / (xp.sqrt(v) + eps)), v


@update("p", "v", "m")
def rmsprop_momentum(
    xp: Any, p: Array, g: Array, v: Array, m: Array, lr: float,
    *, alpha: float, eps: float, weight_decay: float, momentum: float,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """v as in rmsprop;  m <- momentum m + g / (sqrt(v) + eps);  p <- p - lr m"""
    g = _decayed(p, g, weight_decay)
    v = alpha * v + (1 - alpha) * (g * g)
    m = momentum * m + g / (xp.sqrt(v) + eps)
    return p - lr * m, v, m


@update("p", "v", "a")
def rmsprop_centered(
    xp: Any, p: Array, g: Array, v: Array, a: Array, lr: float,
    *, alpha: float, eps: float, weight_decay: float,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """a <- alpha a + (1 - alpha) g;  as rmsprop with sqrt(v - a^2) for sqrt(v)"""
    g = _decayed(p, g, weight_decay)
    v = alpha * v + (1 - alpha) * (g * g)
    a = a + (1 - alpha) * (g - a)
    return p - lr * (g / (_deviation(xp, v, a) + eps)), v, a


@update("p", "v", "a", "m")
def rmsprop_centered_momentum(
    xp: Any, p: Array, g: Array, v: Array, a: Array, m: Array, lr: float,
    *, alpha: float, eps: float, weight_decay: float, momentum: float,
) -> tuple[Array, Array, Array, Array]:  # fmt: skip
    """As rmsprop_momentum with sqrt(v - a^2) for sqrt(v)"""
    g = _decayed(p, g, weight_decay)
    v = alpha * v + (1 - alpha) * (g * g)
    a = a + (1 - alpha) * (g - a)
    m = momentum * m + g / (_deviation(xp, v, a) + eps)
    return p - lr * m, v, a, m


@update("p", "m", "v")
def adam(
    xp: Any, p: Array, g: Array, m: Array, v: Array, rate: float, eps: float,
    *, beta1: float, beta2: float, weight_decay: float,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """m <- beta1 m + (1 - beta1) g;  v <- beta2 v + (1 - beta2) g^2;
    p <- p - rate m / (sqrt(v) + eps)

    The caller folds the bias corrections in: with c = sqrt(1 - beta2^t), rate is
    lr c / (1 - beta1^t), and eps the optimizer's eps times c (Kingma and Ba, end of section 2).
    """
    g = _decayed(p, g, weight_decay)
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * (g * g)
    return p - rate * (m / (xp.sqrt(v) + eps)), m, v


@update("p", "m", "v")
def adamw(
    xp: Any, p: Array, g: Array, m: Array, v: Array, rate: float, eps: float, shrink: float,
    *, beta1: float, beta2: float,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """As adam on shrink * p, where shrink is 1 - lr weight_decay"""
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * (g * g)
    return shrink * p - rate * (m / (xp.sqrt(v) + eps)), m, v


def _norm(xp: Any, *grads: Array) -> Array:
    """sqrt of the sum of squares; over 1e19 in float32 it is infinity, as PyTorch's is"""
    total = 0.0
    for g in grads:
        total = total + xp.sum(g * g)
    return xp.sqrt(total)


def _factor(xp: Any, norm: Array, *, max_norm: float) -> Array:
    """What scales gradients of that norm to max_norm at most"""
    return xp.minimum(max_norm / (norm + 1e-6), xp.ones_like(norm))


norm, factor = Op(_norm), Op(_factor)  # of the optimizers only: not in the registry


@update("g")
def scale(xp: Any, g: Array, factor: Array) -> Array:
    """g <- factor g;   factor: 0-d array of g's dtype"""
    return g * xp.astype(factor, g.dtype)


@update("g")
def clip(xp: Any, g: Array, *, value: float) -> Array:
    """g <- g cut to -value .. value"""
    return xp.clip(g, -value, value)


def _deviation(xp: Any, v: Array, a: Array) -> Array:
    """sqrt(v - a^2), which rounding can bring below zero when the gradient hardly changes."""
    return xp.sqrt(xp.maximum(v - a * a, 0.0))


def _decayed(p: Array, g: Array, weight_decay: float) -> Array:
    return g + weight_decay * p if weight_decay else g
