"""In which order arrays have their axes in memory.

Shapes are what nnx documents, images (N, C, H, W). Memory may have the axes in another order, which
then is in the strides: NumPy computes with it as with any other, and a kernel that is faster in an
order of its own gives its results so. What goes over all entries alike keeps the order it is given.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .table import BLOCK, FLOATS, Array, Run, on_lanes, order_of, plain

COPY = 32  # floating-point operations in the time of one entry's copy, about
IMAGES, ROWS = (0, 1, 2, 3), (2, 1, 3, 0)  # orders of memory: (N, C, H, W), (H, C, W, N)


def gapless(x: Any, y: Any = None) -> bool:
    """As `plain`, with the axes of both in any one order: memory without gaps."""
    if plain(x, y):
        return True
    if type(x) is not np.ndarray or x.dtype not in FLOATS or x.ndim < 2:
        return False
    if y is not None and (type(y) is not np.ndarray or y.strides != x.strides):
        return False
    alike = y is None or (y.dtype == x.dtype and y.shape == x.shape)
    return alike and bool(x.transpose(order_of(x)).flags.c_contiguous)


def like(run: Run, x: Array) -> Array:
    """A new array of the result, laid out as x."""
    if x.flags.c_contiguous:
        made: Array = run.new(x.shape, x.dtype)
        return made
    laid: Array = run.laid(x.shape, x.dtype, order_of(x))
    return laid


def channels(x: Array, order: tuple[int, ...]) -> Array:
    """A gapless array (N, C, ...) as (before, C, after) in memory; a view.

    order    of its axes; one for all that go together, as axes of length 1 fit anywhere
    """
    at = order.index(1)
    sizes = [x.shape[i] for i in order]
    before, after = int(np.prod(sizes[:at])), int(np.prod(sizes[at + 1 :]))
    return x.transpose(order).reshape(before, x.shape[1], after)


def in_order(run: Run, x: Array, order: tuple[int, ...]) -> Array:
    """x with the axes in that order, contiguous: a view, or else a copy in scratch."""
    turned = x.transpose(order)
    if turned.flags.c_contiguous:
        return turned
    made: Array = run.empty(turned.shape, x.dtype)
    if order == ROWS and x.shape[0] >= 8 and x.flags.c_contiguous:
        channels = x.shape[1]
        on_lanes(run, lambda run, s: _by_way(run, made[:, s], x[:, s]), channels, COPY * x.size)
    else:
        run(np.copyto, made, turned)
    return made


def _by_way(run: Run, made: Array, x: Array) -> None:
    """Images (N, C, H, W) to (H, C, W, N), some channels at a time, by way of memory in which they
    do not begin at multiples of a large power of two: these would push each other out of the cache,
    and the copy take two to six times as long.
    """
    n, c, h, w = x.shape
    step = max(1, 4 * BLOCK // (n * h * w))
    gap = step * h * w + 16
    space: Array = run.empty((n * gap,), x.dtype)
    for i in range(0, c, step):
        some = x[:, i : i + step]
        strides = (gap, h * w, w, 1)
        way = np.ndarray(some.shape, x.dtype, space, 0, [s * x.itemsize for s in strides])
        run(np.copyto, way, some)
        run(np.copyto, made[:, i : i + step], way.transpose(ROWS))
