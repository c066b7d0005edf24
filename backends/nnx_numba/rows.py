"""Compiled loops of layer normalisation: one pass over the rows each."""

from __future__ import annotations

import math

from .compiler import FUSE, SUM, compiled


@compiled(fastmath=SUM)
def _sum(x, i):
    total = x.dtype.type(0)
    for j in range(x.shape[1]):
        total += x[i, j]
    return total


@compiled(fastmath=SUM)
def _squares(x, i, mean):
    total = x.dtype.type(0)
    for j in range(x.shape[1]):
        e = x[i, j] - mean
        total += e * e
    return total


@compiled(fastmath=FUSE)
def layer_norm(x, gamma, beta, eps, means, inverses, y):
    """y = gamma (x - mean) / sqrt(var + eps) + beta; means and 1 / sqrt(var + eps) of the rows"""
    of = x.dtype.type
    n = of(x.shape[1])
    for i in range(x.shape[0]):
        mean = _sum(x, i) / n
        inv = of(1) / of(math.sqrt(_squares(x, i, mean) / n + of(eps)))
        means[i], inverses[i] = mean, inv
        for j in range(x.shape[1]):
            y[i, j] = (x[i, j] - mean) * inv * gamma[j] + beta[j]


@compiled(fastmath=SUM)
def _slope_sums(dy, x, i, gamma, mean, inv, dgamma, dbeta):
    """Sums of g and g h over a row, g = gamma dy; dgamma and dbeta get the row's part."""
    of = x.dtype.type
    g_total, gh_total = of(0), of(0)
    for j in range(x.shape[1]):
        h, d = (x[i, j] - mean) * inv, dy[i, j]
        g = d * gamma[j]
        g_total += g
        gh_total += g * h
        dgamma[j] += d * h
        dbeta[j] += d
    return g_total, gh_total


@compiled()
def layer_norm_slope(dy, x, gamma, means, inverses, dx, dgamma, dbeta):
    """dx = (g - mean of g - h mean of g h) / sqrt(var + eps), g = gamma dy

    Nothing is fused: of rows of one entry g less its mean is 0.
    """
    of = x.dtype.type
    n = of(x.shape[1])
    for j in range(x.shape[1]):
        dgamma[j], dbeta[j] = 0, 0
    for i in range(x.shape[0]):
        mean, inv = means[i], inverses[i]
        g_total, gh_total = _slope_sums(dy, x, i, gamma, mean, inv, dgamma, dbeta)
        shift, along = g_total / n, gh_total / n
        for j in range(x.shape[1]):
            h = (x[i, j] - mean) * inv
            dx[i, j] = inv * (dy[i, j] * gamma[j] - shift - h * along)
