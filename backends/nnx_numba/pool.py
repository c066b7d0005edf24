"""Pooling: one pass over the windows, forward and back."""

from __future__ import annotations

from typing import Any

from nnx.calls import calls
from nnx.ops import avg_pool2d, conv1d, conv2d, conv_transpose2d, max_pool2d, relu
from nnx_numpy.layout import channels, gapless, in_order, like
from nnx_numpy.pool import Windows, image_of, result, takes
from nnx_numpy.pool import max_pool2d_slope_of_relu as _inherited_fusion
from nnx_numpy.table import order_of

from . import images
from .common import Array, Run, overrides

TOGETHER = 8  # entries of images or channels that lie together, over which the loops are vectors
_inherited = overrides.inherited(max_pool2d)


def _takes(x: Any) -> bool:
    """Where windows themselves lie together NumPy's passes are faster, up to thirty times."""
    return takes(x) and _in_place(x).shape[4] >= TOGETHER


def _options(at: Windows) -> tuple[Any, ...]:
    return at.sizes, at.steps, (-at.pads[0][0], -at.pads[1][0])


def _in_place(a: Array) -> Array:
    """A dense array as images of five axes."""
    order = order_of(a)
    return image_of(a.transpose(order), order)


@calls(otherwise=_inherited.forward)
def _max_pool2d(run: Run, x: Array, *, size: Any, stride: Any = None, padding: Any = 0) -> Any:
    if not _takes(x):
        return None
    at = Windows(x, size, stride, padding)
    y = result(run, x, at)
    run(images.max_pool, _in_place(x), *_options(at), _in_place(y))
    return y, {"rows": None}


def _max_pool2d_slope(
    run: Run, dy: Array, x: Array, at: Windows, positive: bool, dx: Array
) -> None:
    order = order_of(x)
    given = image_of(in_order(run, dy, order), order)
    run(images.max_pool_slope, given, _in_place(x), *_options(at), positive, _in_place(dx))


@overrides.fused(max_pool2d)(_max_pool2d).d("x")
@calls(otherwise=_inherited.derivatives[0].kernel)
def _max_pool2d_x(
    run: Run, dy: Array, x: Array, rows: Any, size: Any, stride: Any, padding: Any
) -> Any:
    if not _takes(x):
        return None
    dx = like(run, x)
    _max_pool2d_slope(run, dy, x, Windows(x, size, stride, padding), False, dx)
    return dx


@overrides.fusion(
    ((max_pool2d, "x"), "dz y rows size stride padding -> dy"), ((relu, "x"), "dy y -> dx")
)
def max_pool2d_slope_of_relu(
    run: Run, dz: Array, y: Array, rows: Any, size: Any, stride: Any, padding: Any, dx: Array
) -> bool:
    """Where a window's maximum is not above 0, none of it is."""
    if not _takes(y):
        return bool(_inherited_fusion.build(run, dz, y, rows, size, stride, padding, dx))
    if not gapless(y, dx):
        return False
    _max_pool2d_slope(run, dz, y, Windows(y, size, stride, padding), True, dx)
    return True


@overrides.forward(avg_pool2d)
@calls
def _avg_pool2d(
    run: Run, x: Array, *, size: Any, stride: Any = None, padding: Any = 0,
    count_include_pad: bool = True,
) -> Any:  # fmt: skip
    if not _takes(x):
        return None
    at = Windows(x, size, stride, padding)
    y = result(run, x, at)
    run(images.avg_pool, _in_place(x), *_options(at), count_include_pad, _in_place(y))
    return y, {"length": x.shape[2:]}


@overrides.derivative(avg_pool2d, "x")
@calls
def _avg_pool2d_x(
    run: Run, dy: Array, length: Any, size: Any, stride: Any, padding: Any,
    count_include_pad: bool,
) -> Any:  # fmt: skip
    if not _takes(dy):
        return None
    shape = (*dy.shape[:2], *length)
    plain = dy.flags.c_contiguous
    dx = run.new(shape, dy.dtype) if plain else run.laid(shape, dy.dtype, order_of(dy))
    at = Windows(dx, size, stride, padding)
    run(images.avg_pool_slope, _in_place(dy), *_options(at), count_include_pad, _in_place(dx))
    return dx


def _bias_gradient(op: Any) -> None:
    @overrides.derivative(op, "b")
    @calls
    def by_bias(run: Run, dy: Array) -> Any:
        if not gapless(dy) or not dy.size or not dy.flags.aligned:
            return None
        db = run.new((dy.shape[1],), dy.dtype)
        run(images.channel_sums, channels(dy, order_of(dy)), db)
        return db

    by_bias.__name__ = f"{op.name}_b"


_bias_gradient(conv1d)
_bias_gradient(conv2d)
_bias_gradient(conv_transpose2d)
