"""Makers of sample arrays, and the case of an op that is made of them."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nnx.op import Op

Draw = Callable[[np.random.Generator], np.ndarray[Any, Any]]


@dataclass(frozen=True)
class Maker:
    """Draws one array; floats come in the dtype under test."""

    shape: tuple[int, ...]
    draw: Draw


@dataclass
class Case:
    """One call of an op.

    smooth     whether central differences hold (a cast to float32 is too coarse for them)
    standard   whether the Array API standard covers the call; NumPy and CuPy go beyond it
    """

    args: tuple[Any, ...]
    attrs: dict[str, Any]
    smooth: bool = True
    standard: bool = True
    op: Op[...] = field(init=False)
    id: str = field(init=False)

    def make(self, dtype: str, seed: int = 0) -> tuple[list[Any], dict[str, Any]]:
        """Arguments and attributes with NumPy arrays; the floats of float32 are float64's, cut."""
        rng = np.random.default_rng([zlib.crc32(self.id.encode()), seed])
        args = [_made(a, rng, dtype) for a in self.args]
        return args, {k: _made(v, rng, dtype) for k, v in self.attrs.items()}


def case(*args: Any, smooth: bool = True, standard: bool = True, **attrs: Any) -> Case:
    return Case(args, attrs, smooth, standard)


def _made(value: Any, rng: np.random.Generator, dtype: str) -> Any:
    if isinstance(value, tuple):
        return tuple(_made(v, rng, dtype) for v in value)
    if not isinstance(value, Maker):
        return value
    array = np.asarray(value.draw(rng)).reshape(value.shape)
    return array.astype(dtype) if array.dtype.kind == "f" else array


def normal(*shape: int) -> Maker:
    return Maker(shape, lambda rng: rng.standard_normal(shape))


def positive(*shape: int) -> Maker:
    return Maker(shape, lambda rng: rng.uniform(0.5, 2.0, shape))


def unit(*shape: int) -> Maker:
    return Maker(shape, lambda rng: rng.random(shape))


def apart(*shape: int, shift: float = 0.0) -> Maker:
    """Distinct values, at least 0.05 from one another, from 0 and from those of another shift."""
    n = int(np.prod(shape))
    return Maker(shape, lambda rng: (rng.permutation(n) - n // 2 + 0.5 + shift) / 4)


def soft(*shape: int) -> Maker:
    """Rows that sum to 1, no entry so small that the logarithm bends much within a step."""

    def draw(rng: np.random.Generator) -> np.ndarray[Any, Any]:
        rows = 0.2 + rng.random(shape)
        return rows / rows.sum(-1, keepdims=True)

    return Maker(shape, draw)


def onehot(*shape: int) -> Maker:
    return Maker(shape, lambda rng: np.eye(shape[-1])[rng.integers(0, shape[-1], shape[:-1])])


def ids(*shape: int, below: int, dtype: str = "int64", low: int = 0) -> Maker:
    return Maker(shape, lambda rng: rng.integers(low, below, shape).astype(dtype))


def some_ignored(*shape: int, below: int) -> Maker:
    """Class ids of which the first is kept and the last is 2, the id that the case ignores."""

    def draw(rng: np.random.Generator) -> np.ndarray[Any, Any]:
        t = rng.integers(0, below, shape)
        t.flat[0], t.flat[-1] = 0, 2
        return t

    return Maker(shape, draw)


def mask(*shape: int) -> Maker:
    return Maker(shape, lambda rng: rng.random(shape) < 0.5)


def shifted(*shape: int) -> Maker:
    return apart(*shape, shift=0.3)
