"""Initialisers: how weights begin.

An initialiser is a function `(shape, rng=None) -> float64 NumPy array`. It draws on the host from
`rng`, a `np.random.Generator` (`nnx.seed`'s by default), so the same seed gives the same weights
on every backend. `he_normal`, `zeros`, ... are initialisers; `normal(std=0.02)`, `orthogonal()`,
`constant(0.1)`, ... make one:

    Linear(64, 100, W_init=init.glorot_uniform)
    Linear(64, 100, W_init=init.normal(std=0.02))

fan_in and fan_out count a unit's inputs and outputs. A weight of two axes is (in, out), as in
`x @ W`; one of more axes is a convolution's (out_channels, in_channels, *kernel), and both fans
are multiplied by the kernel's size.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from .errors import OptionError, ShapeError
from .random import generator

__all__ = [
    "Initializer",
    "constant",
    "fans",
    "glorot_normal",
    "glorot_uniform",
    "he_normal",
    "he_uniform",
    "lecun_normal",
    "lecun_uniform",
    "normal",
    "ones",
    "orthogonal",
    "uniform",
    "zeros",
]

Weights = np.ndarray[Any, np.dtype[np.float64]]
Rng: TypeAlias = "np.random.Generator | None"  # a string: numpy.random is loaded when needed
Initializer = Callable[[tuple[int, ...], Rng], Weights]


def drawn(initializer: Initializer, shape: tuple[int, ...]) -> Weights:
    """What it draws from nnx's generator; OptionError where it is no initialiser."""
    makers: tuple[Any, ...] = (normal, uniform, orthogonal, constant)
    for maker in makers:
        if initializer is maker:
            name = maker.__name__
            raise OptionError(f"init.{name} makes an initialiser; write init.{name}(...)")
    if not callable(initializer):
        raise OptionError(
            f"an initialiser is {initializer!r}, expected a function of (shape, rng), such as "
            f"nnx.init.he_normal"
        )
    return initializer(shape, generator())


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """(fan_in, fan_out) of a weight of that shape: (in, out), or (out, in, *kernel).

    Raises ShapeError for fewer than two axes.
    """
    _needs_two_axes("fans", shape)
    if len(shape) == 2:
        return shape[0], shape[1]
    kernel = math.prod(shape[2:])
    return shape[1] * kernel, shape[0] * kernel


def he_normal(shape: tuple[int, ...], rng: Rng = None) -> Weights:
    """w ~ N(0, 2 / fan_in): keeps the variance through relu layers.   He et al. (2015), eq. 10"""
    return _normal("he_normal", shape, rng, 2 / _fan_in("he_normal", shape))


def he_uniform(shape: tuple[int, ...], rng: Rng = None) -> Weights:
    """w ~ U(-a, a), a = sqrt(6 / fan_in): the variance of `he_normal`.   He et al. (2015)"""
    return _uniform("he_uniform", shape, rng, 2 / _fan_in("he_uniform", shape))


def glorot_normal(shape: tuple[int, ...], rng: Rng = None) -> Weights:
    """w ~ N(0, 2 / (fan_in + fan_out)), for tanh layers.   Glorot and Bengio (2010), eq. 12"""
    return _normal("glorot_normal", shape, rng, 1 / _fan_mean("glorot_normal", shape))


def glorot_uniform(shape: tuple[int, ...], rng: Rng = None) -> Weights:
    """w ~ U(-a, a), a = sqrt(6 / (fan_in + fan_out)).   Glorot and Bengio (2010), eq. 16"""
    return _uniform("glorot_uniform", shape, rng, 1 / _fan_mean("glorot_uniform", shape))


def lecun_normal(shape: tuple[int, ...], rng: Rng = None) -> Weights:
    """w ~ N(0, 1 / fan_in).   LeCun et al. (1998), "Efficient BackProp", eq. 16"""
    return _normal("lecun_normal", shape, rng, 1 / _fan_in("lecun_normal", shape))


def lecun_uniform(shape: tuple[int, ...], rng: Rng = None) -> Weights:
    """w ~ U(-a, a), a = sqrt(3 / fan_in): the variance of `lecun_normal`.   LeCun et al. (1998)"""
    return _uniform("lecun_uniform", shape, rng, 1 / _fan_in("lecun_uniform", shape))


def normal(*, mean: float = 0.0, std: float = 0.01) -> Initializer:
    """Makes w ~ N(mean, std^2). Raises OptionError for std < 0."""
    if not 0 <= std < math.inf:
        raise OptionError(f"normal: std={std}, expected a standard deviation >= 0")

    def normal(shape: tuple[int, ...], rng: Rng = None) -> Weights:
        return mean + std * _generator("normal", rng).standard_normal(shape)

    return normal


def uniform(*, low: float = -0.05, high: float = 0.05) -> Initializer:
    """Makes w ~ U(low, high). Raises OptionError unless low <= high."""
    if not -math.inf < low <= high < math.inf:
        raise OptionError(f"uniform: low={low}, high={high}, expected low <= high, both finite")

    def uniform(shape: tuple[int, ...], rng: Rng = None) -> Weights:
        return _generator("uniform", rng).uniform(low, high, shape)

    return uniform


def orthogonal(*, gain: float = 1.0) -> Initializer:
    """Makes a weight with orthonormal columns, or rows where these are fewer, times `gain`.

    More than two axes are flattened to (out, in * kernel). The signs of the factorisation are
    fixed, so that the distribution is uniform over orthogonal matrices (Mezzadri, 2007).
    Raises ShapeError for fewer than two axes.   Saxe et al. (2014)
    """

    def orthogonal(shape: tuple[int, ...], rng: Rng = None) -> Weights:
        _needs_two_axes("orthogonal", shape)
        rows, columns = shape[0], math.prod(shape[1:])
        tall = (max(rows, columns), min(rows, columns))
        q, r = np.linalg.qr(_generator("orthogonal", rng).standard_normal(tall))
        q *= np.where(np.diagonal(r) < 0, -gain, gain)
        return np.ascontiguousarray(q if rows >= columns else q.T).reshape(shape)

    return orthogonal


def constant(value: float) -> Initializer:
    """Makes w = value."""

    def constant(shape: tuple[int, ...], rng: Rng = None) -> Weights:
        return np.full(shape, value, np.float64)

    return constant


def zeros(shape: tuple[int, ...], rng: Rng = None) -> Weights:
    """w = 0, for biases."""
    return np.zeros(shape)


def ones(shape: tuple[int, ...], rng: Rng = None) -> Weights:
    """w = 1, for scales."""
    return np.ones(shape)


def _normal(name: str, shape: tuple[int, ...], rng: Rng, variance: float) -> Weights:
    return math.sqrt(variance) * _generator(name, rng).standard_normal(shape)


def _uniform(name: str, shape: tuple[int, ...], rng: Rng, variance: float) -> Weights:
    a = math.sqrt(3 * variance)
    return _generator(name, rng).uniform(-a, a, shape)


def _fan_in(name: str, shape: tuple[int, ...]) -> int:
    _needs_two_axes(name, shape)
    return max(fans(shape)[0], 1)  # an empty weight has nothing to scale


def _fan_mean(name: str, shape: tuple[int, ...]) -> float:
    _needs_two_axes(name, shape)
    return max(sum(fans(shape)) / 2, 1)


def _needs_two_axes(name: str, shape: tuple[int, ...]) -> None:
    if len(shape) < 2:
        raise ShapeError(
            f"{name}: the shape {tuple(shape)} has no fan_in and fan_out; expected (in, out) or "
            f"(out, in, *kernel). Use init.zeros for a bias, init.normal(std=...) otherwise"
        )


def _generator(name: str, rng: Rng) -> np.random.Generator:
    if rng is None:
        return generator()
    if not isinstance(rng, np.random.Generator):
        raise OptionError(
            f"{name}: rng is {type(rng).__name__} {rng!r}, expected a np.random.Generator; write "
            f"np.random.default_rng({rng if isinstance(rng, int) else 0}), or call nnx.seed(n) "
            f"and leave it out"
        )
    return rng
