"""Activations and softmax: one pass each over C-contiguous floats, NumPy's kernels for the rest."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnx import ops
from nnx.op import Op

from . import loops
from .common import Array, inherited, inherited_slope, overrides, plain


def _forward(op: Op[...], loop: Any) -> None:
    otherwise = inherited(op)

    @overrides.forward(op)
    def kernel(xp: Any, x: Array) -> Any:
        if not plain(x):
            return otherwise(xp, x)
        y = np.empty_like(x)
        loop(x.reshape(-1), y.reshape(-1))
        return y

    kernel.__name__ = op.name

    @overrides.prepare(kernel)
    def _(empty: Any, results: Any, xp: Any, x: Array) -> Any:
        return [(loop, (x.reshape(-1), results[0].reshape(-1)), {})] if plain(x) else None


def _slope(loop: Any, otherwise: Any, xp: Any, dy: Array, a: Array) -> Any:
    """dx from dy and what the derivative reads beside it, y or x."""
    if not plain(dy, a):
        return otherwise(xp, dy, a)
    dx = np.empty_like(a)
    loop(dy.reshape(-1), a.reshape(-1), dx.reshape(-1))
    return dx


def _slope_again(loop: Any, results: Any, dy: Array, a: Array) -> Any:
    if not plain(dy, a):
        return None
    return [(loop, (dy.reshape(-1), a.reshape(-1), results[0].reshape(-1)), {})]


def _reads_y(op: Op[...], forward: Any, slope: Any) -> None:
    _forward(op, forward)
    otherwise = inherited_slope(op)

    @overrides.derivative(op, "x")
    def kernel(xp: Any, dy: Array, y: Array) -> Any:
        return _slope(slope, otherwise, xp, dy, y)

    kernel.__name__ = f"{op.name}_slope"

    @overrides.prepare(kernel)
    def _(empty: Any, results: Any, xp: Any, dy: Array, y: Array) -> Any:
        return _slope_again(slope, results, dy, y)


def _reads_x(op: Op[...], forward: Any, slope: Any) -> None:
    _forward(op, forward)
    otherwise = inherited_slope(op)

    @overrides.derivative(op, "x")
    def kernel(xp: Any, dy: Array, x: Array) -> Any:
        return _slope(slope, otherwise, xp, dy, x)

    kernel.__name__ = f"{op.name}_slope"

    @overrides.prepare(kernel)
    def _(empty: Any, results: Any, xp: Any, dy: Array, x: Array) -> Any:
        return _slope_again(slope, results, dy, x)


_reads_y(ops.relu, loops.relu, loops.relu_slope)
_reads_y(ops.sigmoid, loops.sigmoid, loops.sigmoid_slope)
_reads_y(ops.tanh, loops.tanh, loops.tanh_slope)
_reads_x(ops.softplus, loops.softplus, loops.softplus_slope)
_reads_x(ops.silu, loops.silu, loops.silu_slope)

_GELU = {"none": loops.gelu, "tanh": loops.gelu_tanh}
_GELU_SLOPE = {"none": loops.gelu_slope, "tanh": loops.gelu_tanh_slope}
_gelu_otherwise = inherited_slope(ops.gelu)


@overrides.forward(ops.gelu)
def _gelu(xp: Any, x: Array, *, approximate: str = "none") -> Any:
    if not plain(x):
        return inherited(ops.gelu)(xp, x, approximate=approximate)
    y = np.empty_like(x)
    _GELU[approximate](x.reshape(-1), y.reshape(-1))
    return y


@overrides.prepare(_gelu)
def _(empty: Any, results: Any, xp: Any, x: Array, *, approximate: str = "none") -> Any:
    loop = _GELU[approximate]
    return [(loop, (x.reshape(-1), results[0].reshape(-1)), {})] if plain(x) else None


@overrides.derivative(ops.gelu, "x")
def _gelu_slope(xp: Any, dy: Array, x: Array, approximate: str) -> Any:
    def otherwise(xp: Any, dy: Array, x: Array) -> Any:
        return _gelu_otherwise(xp, dy, x, approximate)

    return _slope(_GELU_SLOPE[approximate], otherwise, xp, dy, x)


@overrides.prepare(_gelu_slope)
def _(empty: Any, results: Any, xp: Any, dy: Array, x: Array, approximate: str) -> Any:
    return _slope_again(_GELU_SLOPE[approximate], results, dy, x)


def _rows(op: Op[...], forward: Any, slope: Any) -> None:
    """An op along an axis: compiled along the last one."""
    otherwise, slope_otherwise = inherited(op), inherited_slope(op)

    def fits(axis: Any, *arrays: Array) -> bool:
        last = arrays[0].ndim - 1
        return last >= 0 and axis in (-1, last) and arrays[0].size > 0 and plain(*arrays)

    def matrices(*arrays: Array) -> tuple[Array, ...]:
        return tuple(a if a.ndim == 2 else a.reshape(-1, a.shape[-1]) for a in arrays)

    @overrides.forward(op)
    def kernel(xp: Any, x: Array, *, axis: int = -1) -> Any:
        if not fits(axis, x):
            return otherwise(xp, x, axis=axis)
        y = np.empty_like(x)
        forward(*matrices(x, y))
        return y

    kernel.__name__ = op.name

    @overrides.prepare(kernel)
    def _(empty: Any, results: Any, xp: Any, x: Array, *, axis: int = -1) -> Any:
        return [(forward, matrices(x, results[0]), {})] if fits(axis, x) else None

    @overrides.derivative(op, "x")
    def derivative(xp: Any, dy: Array, y: Array, axis: int) -> Any:
        if not fits(axis, dy, y):
            return slope_otherwise(xp, dy, y, axis)
        dx = np.empty_like(y)
        slope(*matrices(dy, y, dx))
        return dx

    derivative.__name__ = f"{op.name}_slope"

    @overrides.prepare(derivative)
    def _(empty: Any, results: Any, xp: Any, dy: Array, y: Array, axis: int) -> Any:
        return [(slope, matrices(dy, y, results[0]), {})] if fits(axis, dy, y) else None


_rows(ops.softmax, loops.softmax, loops.softmax_slope)
_rows(ops.log_softmax, loops.log_softmax, loops.log_softmax_slope)
