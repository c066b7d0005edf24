"""Activations and softmax: one pass each over C-contiguous floats, NumPy's kernels for the rest."""

from __future__ import annotations

from typing import Any

from nnx import ops
from nnx.op import Op
from nnx.override import Empty, Run, calls

from . import loops
from .common import Array, overrides, plain


def _elementwise(loop: Any, new: Empty, *arrays: Array) -> Any:
    """Of flat arrays into one more of their shape; None where the loop does not take them."""
    if not plain(*arrays):
        return None
    y = new(arrays[0].shape, dtype=arrays[0].dtype)
    run: Run = (loop, tuple(a.reshape(-1) for a in (*arrays, y)), {})
    return y, [run]


def _forward(op: Op[...], loop: Any) -> None:
    @overrides.forward(op)
    @calls
    def kernel(new: Empty, empty: Empty, x: Array) -> Any:
        return _elementwise(loop, new, x)

    kernel.__name__ = op.name


def _reads_y(op: Op[...], forward: Any, slope: Any) -> None:
    _forward(op, forward)

    @overrides.derivative(op, "x")
    @calls
    def kernel(new: Empty, empty: Empty, dy: Array, y: Array) -> Any:
        return _elementwise(slope, new, dy, y)

    kernel.__name__ = f"{op.name}_slope"


def _reads_x(op: Op[...], forward: Any, slope: Any) -> None:
    _forward(op, forward)

    @overrides.derivative(op, "x")
    @calls
    def kernel(new: Empty, empty: Empty, dy: Array, x: Array) -> Any:
        return _elementwise(slope, new, dy, x)

    kernel.__name__ = f"{op.name}_slope"


_reads_y(ops.relu, loops.relu, loops.relu_slope)
_reads_y(ops.sigmoid, loops.sigmoid, loops.sigmoid_slope)
_reads_y(ops.tanh, loops.tanh, loops.tanh_slope)
_reads_x(ops.softplus, loops.softplus, loops.softplus_slope)
_reads_x(ops.silu, loops.silu, loops.silu_slope)

_GELU = {"none": loops.gelu, "tanh": loops.gelu_tanh}
_GELU_SLOPE = {"none": loops.gelu_slope, "tanh": loops.gelu_tanh_slope}


@overrides.forward(ops.gelu)
@calls
def _gelu(new: Empty, empty: Empty, x: Array, *, approximate: str = "none") -> Any:
    return _elementwise(_GELU[approximate], new, x)


@overrides.derivative(ops.gelu, "x")
@calls
def _gelu_slope(new: Empty, empty: Empty, dy: Array, x: Array, approximate: str) -> Any:
    return _elementwise(_GELU_SLOPE[approximate], new, dy, x)


def _along_rows(loop: Any, new: Empty, axis: int, *arrays: Array) -> Any:
    """As `_elementwise`, of matrices of rows, where the axis is the last."""
    first = arrays[0]
    if first.ndim == 0 or axis not in (-1, first.ndim - 1) or not first.size or not plain(*arrays):
        return None
    y = new(first.shape, dtype=first.dtype)
    run: Run = (loop, tuple(a.reshape(-1, first.shape[-1]) for a in (*arrays, y)), {})
    return y, [run]


def _rows(op: Op[...], forward: Any, slope: Any) -> None:
    """An op along an axis: compiled along the last one."""

    @overrides.forward(op)
    @calls
    def kernel(new: Empty, empty: Empty, x: Array, *, axis: int = -1) -> Any:
        return _along_rows(forward, new, axis, x)

    kernel.__name__ = op.name

    @overrides.derivative(op, "x")
    @calls
    def derivative(new: Empty, empty: Empty, dy: Array, y: Array, axis: int) -> Any:
        return _along_rows(slope, new, axis, dy, y)

    derivative.__name__ = f"{op.name}_slope"


_rows(ops.softmax, loops.softmax, loops.softmax_slope)
_rows(ops.log_softmax, loops.log_softmax, loops.log_softmax_slope)
