"""Matrix products with a bias, and fusions of bias and activation: the product is CuPy's."""

from __future__ import annotations

import sys
from typing import Any

from nnx import ops
from nnx.calls import calls
from nnx.op import Op
from nnx.ops import affine

from .activation import GELU, kernel_of
from .launch import blocks_for_rows
from .sums import over_rows
from .table import Array, Run, overrides, plain


def _products(run: Run, x: Array, W: Array, y: Array) -> None:
    """y = x @ W, leading axes as one."""
    rows = x if x.ndim == 2 else x.reshape(-1, x.shape[-1])
    run(sys.modules["cupy"].matmul, rows, W, out=y if y.ndim == 2 else y.reshape(rows.shape[0], -1))


def _takes(x: Array, W: Array, b: Any) -> bool:
    if not plain(x) or not W.size or W.dtype != x.dtype:
        return False
    return b is None or (plain(b) and b.dtype == x.dtype)


def _add_bias(run: Run, function: str, y: Array, b: Array, z: Array | None = None) -> None:
    """With z: y += b, z = f(y). Without: y = f(y + b)."""
    columns = b.size
    rows = y.size // columns
    kernel = kernel_of("bias_forward", function, y)
    run(kernel, *blocks_for_rows(rows, columns), y, b, z, rows, columns)


@overrides.forward(affine)
@calls
def _affine(run: Run, x: Array, W: Array, b: Any = None) -> Array | None:
    if not _takes(x, W, b):
        return None
    y = run.new((*x.shape[:-1], W.shape[1]), x.dtype)
    _products(run, x, W, y)
    if b is not None:
        _add_bias(run, "Identity", y, b)
    return y


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
