"""Compiled optimizers: each in one pass, in place, on flat arrays; values as NumPy's to the bit.

p: the parameter, g: its gradient, then its state; then the step's numbers as 0-d arrays of their
dtype, so that a replay may change them; then the options, floats that are rounded to that dtype.
Nothing is fused or reordered: memory, not arithmetic, is what an update waits for.
"""

from __future__ import annotations

import numpy as np

from .compiler import compiled


@compiled()
def sgd(p, g, lr, weight_decay):
    rate, decay = lr[()], p.dtype.type(weight_decay)
    for i in range(p.size):
        d = g[i] + decay * p[i] if weight_decay else g[i]
        p[i] -= rate * d


@compiled()
def momentum(p, g, m, lr, keep, momentum, nesterov, weight_decay):
    of = p.dtype.type
    rate, part, beta, decay = lr[()], keep[()], of(momentum), of(weight_decay)
    for i in range(p.size):
        d = g[i] + decay * p[i] if weight_decay else g[i]
        m[i] = beta * m[i] + part * d
        p[i] -= rate * (d + beta * m[i] if nesterov else m[i])


@compiled()
def adagrad(p, g, s, lr, eps, weight_decay):
    of = p.dtype.type
    rate, small, decay = lr[()], of(eps), of(weight_decay)
    for i in range(p.size):
        d = g[i] + decay * p[i] if weight_decay else g[i]
        s[i] += d * d
        p[i] -= rate * (d / (np.sqrt(s[i]) + small))


@compiled()
def rmsprop(p, g, v, lr, alpha, eps, weight_decay):
    of = p.dtype.type
    rate, a, b, small, decay = lr[()], of(alpha), of(1 - alpha), of(eps), of(weight_decay)
    for i in range(p.size):
        d = g[i] + decay * p[i] if weight_decay else g[i]
        v[i] = a * v[i] + b * (d * d)
        p[i] -= rate * (d / (np.sqrt(v[i]) + small))


@compiled()
def rmsprop_momentum(p, g, v, m, lr, alpha, eps, weight_decay, momentum):
    of = p.dtype.type
    rate, a, b, small, decay = lr[()], of(alpha), of(1 - alpha), of(eps), of(weight_decay)
    for i in range(p.size):
        d = g[i] + decay * p[i] if weight_decay else g[i]
        v[i] = a * v[i] + b * (d * d)
        m[i] = of(momentum) * m[i] + d / (np.sqrt(v[i]) + small)
        p[i] -= rate * m[i]


@compiled()
def _deviation(v, a):
    """sqrt(v - a^2), which rounding can bring below zero."""
    u, zero = v - a * a, type(v)(0)
    return np.sqrt(zero if u <= zero else u)


@compiled()
def rmsprop_centered(p, g, v, mean, lr, alpha, eps, weight_decay):
    of = p.dtype.type
    rate, a, b, small, decay = lr[()], of(alpha), of(1 - alpha), of(eps), of(weight_decay)
    for i in range(p.size):
        d = g[i] + decay * p[i] if weight_decay else g[i]
        v[i] = a * v[i] + b * (d * d)
        mean[i] += b * (d - mean[i])
        p[i] -= rate * (d / (_deviation(v[i], mean[i]) + small))


@compiled()
def rmsprop_centered_momentum(p, g, v, mean, m, lr, alpha, eps, weight_decay, momentum):
    of = p.dtype.type
    rate, a, b, small, decay = lr[()], of(alpha), of(1 - alpha), of(eps), of(weight_decay)
    for i in range(p.size):
        d = g[i] + decay * p[i] if weight_decay else g[i]
        v[i] = a * v[i] + b * (d * d)
        mean[i] += b * (d - mean[i])
        m[i] = of(momentum) * m[i] + d / (_deviation(v[i], mean[i]) + small)
        p[i] -= rate * m[i]


@compiled()
def adam(p, g, m, v, rate, eps, beta1, beta2, weight_decay):
    of = p.dtype.type
    lr, small, decay = rate[()], eps[()], of(weight_decay)
    a, a1, b, b1 = of(beta1), of(1 - beta1), of(beta2), of(1 - beta2)
    for i in range(p.size):
        d = g[i] + decay * p[i] if weight_decay else g[i]
        m[i] = a * m[i] + a1 * d
        v[i] = b * v[i] + b1 * (d * d)
        p[i] -= lr * (m[i] / (np.sqrt(v[i]) + small))


@compiled()
def adamw(p, g, m, v, rate, eps, shrink, beta1, beta2):
    of = p.dtype.type
    lr, small, keep = rate[()], eps[()], shrink[()]
    a, a1, b, b1 = of(beta1), of(1 - beta1), of(beta2), of(1 - beta2)
    for i in range(p.size):
        m[i] = a * m[i] + a1 * g[i]
        v[i] = b * v[i] + b1 * (g[i] * g[i])
        p[i] = keep * p[i] - lr * (m[i] / (np.sqrt(v[i]) + small))
