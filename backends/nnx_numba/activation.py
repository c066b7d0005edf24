"""Activations and softmax: one pass each over C-contiguous floats, NumPy's kernels for the rest."""

from __future__ import annotations

from typing import Any

from nnx import ops
from nnx.calls import calls
from nnx.op import Op
from nnx_numpy.layout import gapless, like
from nnx_numpy.table import order_of

from . import dense, loops
from .common import Array, Run, overrides, plain


def _elementwise(run: Run, loop: Any, *arrays: Array) -> Any:
    """Of flat arrays into one more of their shape; None where the loop does not take them.

    They may have their axes in any one order in memory, as images have.
    """
    first = arrays[0]
    if not plain(*arrays):
        if not all(gapless(first, a) and a.flags.aligned for a in arrays):
            return None
        order = order_of(first)
        y = like(run, first)
        run(loop, *[a.transpose(order).reshape(-1) for a in (*arrays, y)])
        return y
    y = run.new(first.shape, first.dtype)
    run(loop, *[a.reshape(-1) for a in (*arrays, y)])
    return y


def _forward(op: Op[...], loop: Any) -> None:
    @overrides.forward(op)
    @calls
    def kernel(run: Run, x: Array) -> Any:
        return _elementwise(run, loop, x)

    kernel.__name__ = op.name


def _reads_y(op: Op[...], forward: Any, slope: Any) -> None:
    _forward(op, forward)

    @overrides.derivative(op, "x")
    @calls
    def kernel(run: Run, dy: Array, y: Array) -> Any:
        return _elementwise(run, slope, dy, y)

    kernel.__name__ = f"{op.name}_slope"


def _reads_x(op: Op[...], forward: Any, slope: Any) -> None:
    _forward(op, forward)

    @overrides.derivative(op, "x")
    @calls
    def kernel(run: Run, dy: Array, x: Array) -> Any:
        return _elementwise(run, slope, dy, x)

    kernel.__name__ = f"{op.name}_slope"


_reads_y(ops.relu, loops.relu, loops.relu_slope)
_reads_y(ops.sigmoid, loops.sigmoid, loops.sigmoid_slope)
_reads_y(ops.tanh, loops.tanh, loops.tanh_slope)
_reads_x(ops.softplus, loops.softplus, loops.softplus_slope)
_reads_x(ops.silu, loops.silu, loops.silu_slope)

_GELU = {"none": loops.gelu, "tanh": loops.gelu_tanh}
_GELU_SLOPE = {"none": loops.gelu_slope, "tanh": loops.gelu_tanh_slope}


def _gelu(run: Run, x: Array, *, approximate: str = "none") -> Any:
    return _elementwise(run, _GELU[approximate], x)


def _gelu_slope(run: Run, dy: Array, x: Array, approximate: str) -> Any:
    return _elementwise(run, _GELU_SLOPE[approximate], dy, x)


# NumPy's two kernels belong together, so the portable ones run for the rest.
overrides.forward(ops.gelu)(calls(_gelu, otherwise=ops.gelu.forward))
overrides.derivative(ops.gelu, "x")(calls(_gelu_slope, otherwise=ops.gelu.derivatives[0].kernel))


def _along_rows(run: Run, loop: Any, axis: int, *arrays: Array) -> Any:
    """As `_elementwise`, of matrices of rows, where the axis is the last."""
    first = arrays[0]
    if first.ndim == 0 or axis not in (-1, first.ndim - 1) or not first.size or not plain(*arrays):
        return None
    y = run.new(first.shape, first.dtype)
    run(loop, *[a.reshape(-1, first.shape[-1]) for a in (*arrays, y)])
    return y


def _rows(op: Op[...], forward: Any, slope: Any) -> None:
    """An op along an axis: compiled along the last one."""

    @overrides.forward(op)
    @calls
    def kernel(run: Run, x: Array, *, axis: int = -1) -> Any:
        return _along_rows(run, forward, axis, x)

    kernel.__name__ = op.name

    @overrides.derivative(op, "x")
    @calls
    def derivative(run: Run, dy: Array, y: Array, axis: int) -> Any:
        return _along_rows(run, slope, axis, dy, y)

    derivative.__name__ = f"{op.name}_slope"


@overrides.derivative(ops.affine, "b")
@calls
def _affine_b(run: Run, dy: Array) -> Any:
    """Row after row, as the fused loops add."""
    if dy.ndim < 2 or not dy.size or not plain(dy):
        return None
    db = run.new(dy.shape[-1:], dy.dtype)
    run(dense.column_sums, dy.reshape(-1, dy.shape[-1]), db)
    return db


_rows(ops.softmax, loops.softmax, loops.softmax_slope)
_rows(ops.log_softmax, loops.log_softmax, loops.log_softmax_slope)
