"""What NumPy does in fewer calls, or fewer passes, when kernels follow one another.

Clipping with an update stands with the optimizers. A bias with its activation, and a slope with the
gradient of the bias, gained nothing here: the calls stay as many, and matrices stay in the cache.
"""

from __future__ import annotations

import operator

import numpy as np

from nnx.ops import softmax_cross_entropy

from .cross_entropy import cross_entropy
from .table import UNTHREADED_VECTOR, dot_for, ones, overrides, plain


@overrides.fusion(
    (softmax_cross_entropy, "x t -> y d"),
    ((softmax_cross_entropy, "x"), "1 d _ _ _ _ -> dx"),
)
def cross_entropy_with_gradient(
    run, x, t, y, dx, *, label_smoothing=0.0, ignore_index=-100, reduction="mean"
):
    """The gradient for a cotangent of 1 is what the forward keeps for it."""
    return cross_entropy.into((y, dx), run, x, t, ignore_index=ignore_index, reduction=reduction)


@overrides.fusion((operator.mul, "a b -> c"), (np.sum, "c -> y"), exact=False)
def product_of_rows(run, a, b, y, *, axis=None, keepdims=False):
    """Sums over the columns of a product, without the product."""
    if not plain(a, b) or a.ndim != 2 or axis not in (1, -1):
        return False
    run(np.vecdot, a, b, out=y.reshape(-1))
    return True


@overrides.fusion((np.sum, "x -> y"), exact=False)
def sum_as_product(run, x, y, *, axis=None, keepdims=False):
    """Sums over the rows or columns of a matrix as its product with ones."""
    if x.ndim != 2 or axis not in (0, 1, -1) or not plain(x):
        return False
    dot, out = dot_for(2 * x.size, UNTHREADED_VECTOR), y.reshape(-1)
    if axis == 0:
        run(dot, ones(x.shape[0], x.dtype), x, out)
    else:
        run(dot, x, ones(x.shape[1], x.dtype), out)
    return True
