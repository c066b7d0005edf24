"""Activations and their slopes, entry by entry."""

from __future__ import annotations

from nnx import ops
from nnx.calls import calls
from nnx.op import Op

from .launch import THREADS, Kernel, Source, blocks_for, per_pack
from .table import Array, Run, overrides, plain

_source = Source("activation.cu", "--fmad=false")  # so that fusions round as the kernels they are


def kernel_of(kernel: str, function: str, like: Array) -> Kernel:
    """A kernel of activation.cu for a function there, such as "Relu"."""
    return _source(kernel, like.dtype, NNX_F=function)


def _forward(run: Run, function: str, x: Array) -> Array | None:
    if not plain(x):
        return None
    y = run.new(x.shape, x.dtype)
    kernel = kernel_of("forward", function, x)
    run(kernel, blocks_for(x.size, per_pack(x)), THREADS, x, y, x.size)
    return y


def _slope(run: Run, function: str, dy: Array, v: Array) -> Array | None:
    if not plain(v, dy):
        return None
    dx = run.new(v.shape, v.dtype)
    kernel = kernel_of("slope", function, v)
    run(kernel, blocks_for(v.size, per_pack(v)), THREADS, dy, v, dx, v.size)
    return dx


def _reads_y(op: Op[...], function: str) -> None:
    _define_forward(op, function)

    @overrides.derivative(op, "x")
    @calls
    def kernel(run: Run, dy: Array, y: Array) -> Array | None:
        return _slope(run, function, dy, y)

    kernel.__name__ = f"{op.name}_slope"


def _reads_x(op: Op[...], function: str) -> None:
    _define_forward(op, function)

    @overrides.derivative(op, "x")
    @calls
    def kernel(run: Run, dy: Array, x: Array) -> Array | None:
        return _slope(run, function, dy, x)

    kernel.__name__ = f"{op.name}_slope"


def _define_forward(op: Op[...], function: str) -> None:
    @overrides.forward(op)
    @calls
    def kernel(run: Run, x: Array) -> Array | None:
        return _forward(run, function, x)

    kernel.__name__ = op.name


_reads_y(ops.relu, "Relu")
_reads_y(ops.sigmoid, "Sigmoid")
_reads_y(ops.tanh, "Tanh")
_reads_x(ops.silu, "Silu")

GELU = {"none": "Gelu", "tanh": "GeluTanh"}


@overrides.forward(ops.gelu)
@calls
def _gelu(run: Run, x: Array, *, approximate: str = "none") -> Array | None:
    return _forward(run, GELU[approximate], x)


@overrides.derivative(ops.gelu, "x")
@calls
def _gelu_slope(run: Run, dy: Array, x: Array, approximate: str) -> Array | None:
    return _slope(run, GELU[approximate], dy, x)
