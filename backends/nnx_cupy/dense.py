"""Matrix products with a bias, and fusions of bias and activation.

The products are CuPy's, in replays cuBLASLt's. What a replay may also have cuBLASLt do on the way,
with `fuse="fast"`, is `Merged`: a bias, ReLU, its slope and the gradient of a bias.
"""

from __future__ import annotations

import math
import sys
from typing import Any

from nnx import ops
from nnx.calls import Later, calls
from nnx.op import Op
from nnx.ops import affine

from .activation import GELU, kernel_of
from .launch import TYPES, blocks_for_rows, dtype_name
from .product import Merged
from .sums import channel_sums, over_rows
from .table import Array, Run, contiguous, overrides, plain


def _products(run: Run, x: Array, W: Array, y: Array) -> None:
    """y = x @ W, leading axes as one."""
    run(sys.modules["cupy"].matmul, _rows(run, x), W, out=_rows(run, y))


def _rows(run: Run, x: Array) -> Array:
    if x.ndim == 2:
        return x
    return contiguous(run, x).reshape(math.prod(x.shape[:-1]), x.shape[-1])


def _alike(*arrays: Array) -> bool:
    """Whether they are of one dtype that kernels take."""
    dtype = arrays[0].dtype
    return dtype_name(dtype) in TYPES and all([a.dtype == dtype for a in arrays])


def _takes(x: Array, W: Array, b: Any) -> bool:
    """Whether a fusion does."""
    if b is None:
        return plain(x) and _alike(x, W) and W.size > 0
    return plain(x) and plain(b) and _alike(x, W, b) and W.size > 0


def _add_bias(run: Run, function: str, y: Array, b: Array, z: Array | None = None) -> None:
    """With z: y += b, z = f(y). Without: y = f(y + b)."""
    columns = b.size
    rows = y.size // columns
    kernel = kernel_of("bias_forward", function, y)
    run(kernel, *blocks_for_rows(rows, columns), y, b, z, rows, columns)


@overrides.forward(affine)
@calls
def _affine(run: Run, x: Array, W: Array, b: Any = None) -> Array | None:
    if not (_alike(x, W) if b is None else _alike(x, W, b)):
        return None
    y = run.new((*x.shape[:-1], W.shape[1]), x.dtype)
    _products(run, x, W, y)
    if b is not None and y.size:
        _add_bias(run, "Identity", y, contiguous(run, b))
    return y


@overrides.derivative(affine, "x")
@calls
def _affine_x(run: Run, dy: Array, W: Array) -> Array | None:
    if not _alike(dy, W):
        return None
    dx = run.new((*dy.shape[:-1], W.shape[0]), dy.dtype)
    _products(run, dy, W.T, dx)
    return dx


@overrides.derivative(affine, "W")
@calls
def _affine_W(run: Run, dy: Array, x: Array) -> Array | None:
    if not _alike(dy, x):
        return None
    dW = run.new((x.shape[-1], dy.shape[-1]), dy.dtype)
    _products(run, _rows(run, x).T, _rows(run, dy), dW)
    return dW


def _merged(
    run: Run, kind: str, product: tuple[Array, Array, Array], then: Later, *arrays: Array
) -> bool:  # fmt: skip
    """Call a product (its factors and where it goes) and then the others, or do all at once."""
    a, b, y, *made = (_rows(run, array) for array in (*product, *arrays))
    matmul = sys.modules["cupy"].matmul
    run(Merged(kind, (matmul, (a, b), {"out": y}), then.runs, *made))
    return True


def _with_bias(
    run: Run, kind: str, function: str, x: Array, W: Array, b: Any, z: Array
) -> bool:  # fmt: skip
    if b is None or not (_takes(x, W, b) and plain(z)):
        return False
    then = Later((), run.empty)
    _add_bias(then, function, z, b)
    return _merged(run, kind, (x, W, z), then, z, b)


@overrides.fusion((affine, "x W b -> y"), (ops.relu, "y -> z"), exact=False)
def merged_affine_relu(run: Run, x: Array, W: Array, b: Any, z: Array) -> bool:
    return _with_bias(run, "RELU_BIAS", "Relu", x, W, b, z)


@overrides.fusion(
    ((affine, "x"), "dout W -> dz"), ((ops.relu, "x"), "dz z -> dy"), ((affine, "b"), "dy -> db"),
    exact=False,
)  # fmt: skip
def merged_relu_slope(
    run: Run, dout: Array, W: Array, z: Array, dy: Array, db: Array
) -> bool:  # fmt: skip
    if not (_takes(dout, W, None) and plain(z, dy) and plain(db)):
        return False
    dz, then = run.empty(dy.shape, dy.dtype), Later((), run.empty)
    _slope_sums(then, "Relu", dz, z, dy, db)
    return _merged(run, "DRELU_BGRAD", (dout, W.T, dz), then, dy, db, z)


def _fused(op: Op[...], function: str) -> None:
    """affine and an activation whose slope is known by its result."""

    def forward(run: Run, x: Array, W: Array, b: Any, z: Array) -> bool:
        if b is None or not (_takes(x, W, b) and plain(z)):
            return False
        _products(run, x, W, z)
        _add_bias(run, function, z, b)
        return True

    def slope(run: Run, dz: Array, z: Array, dy: Array, db: Array) -> bool:
        return _slope_sums(run, function, dz, z, dy, db)

    forward.__name__, slope.__name__ = f"affine_{op.name}", f"{op.name}_slope_with_bias_gradient"
    overrides.fusion((affine, "x W b -> y"), (op, "y -> z"))(forward)
    overrides.fusion(((op, "x"), "dz z -> dy"), ((affine, "b"), "dy -> db"))(slope)


def _slope_sums(run: Run, function: str, dz: Array, v: Array, dy: Array, db: Array) -> bool:
    if not (plain(v, dz) and plain(dy) and plain(db)):
        return False
    columns = db.size
    rows, kernel = dy.size // columns, kernel_of("slope_sums", function, v)
    over_rows(
        run, db, rows,
        lambda grid, block, out: run(kernel, grid, block, dz, v, dy, out, rows, columns),
    )  # fmt: skip
    return True


_fused(ops.relu, "Relu")
_fused(ops.sigmoid, "Sigmoid")
_fused(ops.tanh, "Tanh")


def _into_both(run: Run, function: str, x: Array, W: Array, b: Any, y: Array, z: Array) -> bool:
    """As above where the slope reads what the activation was given."""
    if b is None or not (_takes(x, W, b) and plain(y, z)):
        return False
    _products(run, x, W, y)
    _add_bias(run, function, y, b, z)
    return True


@overrides.fusion((affine, "x W b -> y"), (ops.silu, "y -> z"))
def affine_silu(run: Run, x: Array, W: Array, b: Any, y: Array, z: Array) -> bool:
    return _into_both(run, "Silu", x, W, b, y, z)


@overrides.fusion((affine, "x W b -> y"), (ops.gelu, "y -> z"))
def affine_gelu(
    run: Run, x: Array, W: Array, b: Any, y: Array, z: Array, *, approximate: str = "none"
) -> bool:
    return _into_both(run, GELU[approximate], x, W, b, y, z)


@overrides.fusion(((ops.silu, "x"), "dz y -> dy"), ((affine, "b"), "dy -> db"))
def silu_slope_with_bias_gradient(run: Run, dz: Array, y: Array, dy: Array, db: Array) -> bool:
    return _slope_sums(run, "Silu", dz, y, dy, db)


@overrides.fusion(((ops.gelu, "x"), "dz y approximate -> dy"), ((affine, "b"), "dy -> db"))
def gelu_slope_with_bias_gradient(
    run: Run, dz: Array, y: Array, approximate: str, dy: Array, db: Array
) -> bool:
    return _slope_sums(run, GELU[approximate], dz, y, dy, db)


# After those above: a bias or its gradient that none of them has taken.


@overrides.fusion((affine, "x W b -> y"), exact=False)
def merged_affine(run: Run, x: Array, W: Array, b: Any, y: Array) -> bool:
    return _with_bias(run, "BIAS", "Identity", x, W, b, y)


@overrides.fusion(((affine, "W"), "dy x -> dW"), ((affine, "b"), "dy -> db"), exact=False)
def merged_gradients(run: Run, dy: Array, x: Array, dW: Array, db: Array) -> bool:
    if not (plain(dy) and plain(x) and plain(dW) and plain(db)):
        return False
    then = Later((), run.empty)
    channel_sums(then, _rows(run, dy), db)
    return _merged(run, "BGRADA", (_rows(run, x).T, dy, dW), then, dW, db)
