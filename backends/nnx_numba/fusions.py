"""What numba does in one pass when kernels follow one another.

Each is equal to the kernels that it replaces, to the last bit: the tests compare them.
"""

from __future__ import annotations

from typing import Any

from nnx.op import Op
from nnx.ops import affine, relu, sigmoid, softmax_cross_entropy, tanh
from nnx_numpy.table import dot_for

from . import dense
from .common import Array, Run, overrides, plain
from .cross_entropy import cross_entropy


@overrides.fusion(
    (softmax_cross_entropy, "x t -> y d"),
    ((softmax_cross_entropy, "x"), "1 d _ _ _ _ -> dx"),
)
def cross_entropy_with_gradient(
    run: Run, x: Array, t: Array, y: Array, dx: Array,
    *, label_smoothing: float = 0.0, ignore_index: int = -100, reduction: str = "mean",
) -> Any:  # fmt: skip
    """The gradient for a cotangent of 1 is what the forward keeps for it."""
    return cross_entropy.into((y, dx), run, x, t, ignore_index=ignore_index, reduction=reduction)


def _activation(op: Op[...], with_bias: Any, slope_sums: Any) -> None:
    """affine, bias and activation; the activation's slope with the gradient of the bias."""

    def bias_activation(run: Run, x: Array, W: Array, b: Array, z: Array) -> bool:
        if b is None or x.ndim != 2 or not (plain(z) and plain(b)):
            return False
        if not b.dtype == z.dtype == x.dtype:
            return False
        run(dot_for(2 * x.shape[0] * W.size), x, W, z)
        run(with_bias, z, b)
        return True

    def slope_with_sums(run: Run, dz: Array, z: Array, dy: Array, db: Array) -> bool:
        if z.ndim != 2 or not plain(dz, z, dy):
            return False
        run(slope_sums, dz, z, dy, db)
        return True

    bias_activation.__name__ = f"affine_{op.name}"
    slope_with_sums.__name__ = f"{op.name}_slope_with_bias_gradient"
    overrides.fusion((affine, "x W b -> y"), (op, "y -> z"))(bias_activation)
    overrides.fusion(((op, "x"), "dz z -> dy"), ((affine, "b"), "dy -> db"))(slope_with_sums)


_activation(relu, dense.bias_relu, dense.relu_slope_sums)
_activation(sigmoid, dense.bias_sigmoid, dense.sigmoid_slope_sums)
_activation(tanh, dense.bias_tanh, dense.tanh_slope_sums)
