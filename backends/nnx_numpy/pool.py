"""Pooling across each row, then down the columns: as many calls as a window has sides, not entries.

Images are (before, H, between, W, after) in memory, whatever their order of axes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from nnx.calls import calls
from nnx.ops import avg_pool2d, max_pool2d, relu
from nnx.ops._geometry import count, pairs, per_axis

from .layout import gapless, in_order, like
from .table import FLOATS, Array, Run, order_of, overrides

DOWN, ACROSS = 1, 3  # the axes of such images that windows move along


class Windows:
    """Sizes, stride and padding by axis of such images, and how many windows fit."""

    def __init__(self, x: Array, size: Any, stride: Any, padding: Any) -> None:
        self.sizes = per_axis(size, 2)
        self.steps = self.sizes if stride is None else per_axis(stride, 2)
        self.pads = pairs(padding, self.sizes, (1, 1))
        self.padded = any(n for pair in self.pads for n in pair)
        self.shape = tuple(
            count(x.shape[2 + i] + sum(self.pads[i]), self.sizes[i], self.steps[i], 1)
            for i in range(2)
        )

    def counts(self, length: tuple[int, ...], dtype: Any) -> Array:
        """How many entries of an image are in each window: (H', 1, W', 1)."""
        down, across = (
            [min(at + size, n) - max(at, 0) for at in range(-before, n, step)][:fit]
            for n, size, step, (before, _), fit in zip(
                length, self.sizes, self.steps, self.pads, self.shape, strict=True
            )
        )
        return np.multiply.outer(down, across).astype(dtype)[:, None, :, None]


def takes(x: Any) -> bool:
    """Whether rows come before columns in memory, and there is something in it."""
    if type(x) is not np.ndarray or x.dtype not in FLOATS or not x.size or not gapless(x):
        return False
    order = order_of(x)
    return order.index(2) < order.index(3)


def image_of(turned: Array, order: tuple[int, ...]) -> Array:
    """An array that was put in order as (before, H, between, W, after), a view."""
    sizes, h, w = turned.shape, order.index(2), order.index(3)
    parts = (sizes[:h], sizes[h : h + 1], sizes[h + 1 : w], sizes[w : w + 1], sizes[w + 1 :])
    return turned.reshape([math.prod(p) for p in parts])


def result(run: Run, x: Array, at: Windows) -> Array:
    shape = (*x.shape[:2], *at.shape)
    if x.flags.c_contiguous:
        return run.new(shape, x.dtype)  # type: ignore[no-any-return]
    return run.laid(shape, x.dtype, order_of(x))  # type: ignore[no-any-return]


def _padded(run: Run, image: Array, at: Windows, value: float) -> Array:
    """The image within its padding."""
    if not at.padded:
        return image
    made = _space(run, image, at)
    run(np.copyto, made, value)
    run(np.copyto, _within(made, at), image)
    return made


def _space(run: Run, image: Array, at: Windows) -> Array:
    """Scratch for an image and its padding."""
    shape = list(image.shape)
    for axis, pair in zip((DOWN, ACROSS), at.pads, strict=True):
        shape[axis] += sum(pair)
    return run.empty(tuple(shape), image.dtype)  # type: ignore[no-any-return]


def _within(padded: Array, at: Windows) -> Array:
    (top, bottom), (left, right) = at.pads
    _, high, _, wide, _ = padded.shape
    return padded[:, top : high - bottom, :, left : wide - right]


def _entries(x: Array, at: Windows, axis: int) -> list[Array]:
    """The first entries of all windows along an axis, the second ones, ...; views."""
    i, before = (DOWN, ACROSS).index(axis), (slice(None),) * axis
    step, fit = at.steps[i], at.shape[i]
    return [x[(*before, slice(j, j + step * (fit - 1) + 1, step))] for j in range(at.sizes[i])]


def _joined(run: Run, f: Any, entries: list[Array], y: Array) -> Array:
    """y = the entries, one after another, under a ufunc."""
    if len(entries) == 1:
        run(np.copyto, y, entries[0])
    for i in range(1, len(entries)):
        run(f, entries[0] if i == 1 else y, entries[i], out=y)
    return y


def _across(run: Run, f: Any, image: Array, at: Windows, new: Any) -> Array:
    """The windows of each row joined: what is left to be joined down the columns."""
    entries = _entries(image, at, ACROSS)
    return _joined(run, f, entries, new(entries[0].shape, image.dtype))


def _tiled(x: Array, at: Windows, axis: int) -> bool:
    """Whether windows cover an axis without overlap."""
    i = (DOWN, ACROSS).index(axis)
    return bool(at.steps[i] == at.sizes[i] and at.sizes[i] * at.shape[i] == x.shape[axis])


def _sent(run: Run, x: Array, d: Array, dx: Array, at: Windows, axis: int) -> None:
    """dx = d at the first of the largest entries of each window of x along an axis, else 0.

    An entry is never less than padding before it, also where both are -inf.
    """
    entries, into = _entries(x, at, axis), _entries(dx, at, axis)
    tiled, shape = _tiled(dx, at, axis), d.shape
    if not tiled:
        run(np.copyto, dx, 0)
    later = run.empty((len(entries) - 1, *shape), np.bool_)
    best = entries[0]
    for i, mask in enumerate(later, 1):  # whether an entry is larger than all before it
        run(np.greater, entries[i], best, mask)
        if i + 1 < len(entries):
            top = run.empty(shape, d.dtype) if i == 1 else best
            run(np.maximum, best, entries[i], out=top)
            best = top
    for place, mask in _after_padding(later, at, axis):
        run(np.copyto, mask[place], True)
    left, spare = run.empty(shape, d.dtype), run.empty((0,) if tiled else shape, d.dtype)
    for i in range(len(entries) - 1, 0, -1):
        part = into[i] if tiled else spare
        run(np.multiply, d, later[i - 1], part)
        run(np.subtract, d, part, into[0] if tiled and i == 1 else left)
        d = left
        if not tiled:
            run(np.add, into[i], part, into[i])
    if not tiled:
        run(np.add, into[0], d, into[0])
    elif len(entries) == 1:
        run(np.copyto, into[0], d)


def _after_padding(later: Array, at: Windows, axis: int) -> Iterator[tuple[Any, Array]]:
    """Which window sees padding before x alone, and the mask of the entry that follows it."""
    i, every = (DOWN, ACROSS).index(axis), (slice(None),) * axis
    before, step = at.pads[i][0], at.steps[i]
    for window in range(min(at.shape[i], -(-before // step))):
        yield (*every, window), later[before - window * step - 1]


def _otherwise(xp, x, *, size, stride=None, padding=0):
    y, _ = max_pool2d.forward(xp, x, size=size, stride=stride, padding=padding)
    return y, {"rows": None}


def _slope_otherwise(xp, dy, x, rows, size, stride, padding):
    _, extras = max_pool2d.forward(xp, x, size=size, stride=stride, padding=padding)
    (portable,) = max_pool2d.derivatives
    return portable.kernel(xp, dy, extras["place"], extras["length"], size, stride, padding)


@calls(otherwise=_otherwise)
def _max_pool2d(run, x, *, size, stride=None, padding=0):
    """rows: each row's windows' maxima"""
    if not takes(x):
        return None
    at, order = Windows(x, size, stride, padding), order_of(x)
    y, image = result(run, x, at), image_of(x.transpose(order), order)
    rows = _across(run, np.maximum, _padded(run, image, at, -np.inf), at, run.new)
    _joined(run, np.maximum, _entries(rows, at, DOWN), image_of(y.transpose(order), order))
    return y, {"rows": rows}


@overrides.fused(max_pool2d)(_max_pool2d).d("x")
@calls(otherwise=_slope_otherwise)
def _max_pool2d_slope(run, dy, x, rows, size, stride, padding):
    if rows is None:
        return None
    at, order = Windows(x, size, stride, padding), order_of(x)
    d, dx = image_of(in_order(run, dy, order), order), like(run, x)
    _down_and_across(run, d, x, rows, at, dx)
    run(_at_nan, dy, x, rows, size, stride, padding, dx)
    return dx


def _at_nan(dy, x, rows, size, stride, padding, dx):
    """Nothing is larger than NaN, nor is NaN than anything: the portable kernel finds it."""
    flat = rows.reshape(-1)
    if math.isnan(flat.item(flat.argmax())):
        np.copyto(dx, _slope_otherwise(np, dy, x, rows, size, stride, padding))


def _down_and_across(run: Run, d: Array, x: Array, rows: Array, at: Windows, dx: Array) -> None:
    order = order_of(x)
    image, out = (image_of(a.transpose(order), order) for a in (x, dx))
    drows = run.empty(rows.shape, x.dtype)
    _sent(run, rows, d, drows, at, DOWN)
    into = _space(run, out, at) if at.padded else out
    _sent(run, _padded(run, image, at, -np.inf), drows, into, at, ACROSS)
    if at.padded:
        run(np.copyto, out, _within(into, at))


@overrides.fusion(
    ((max_pool2d, "x"), "dz y rows size stride padding -> dy"), ((relu, "x"), "dy y -> dx")
)
def max_pool2d_slope_of_relu(run, dz, y, rows, size, stride, padding, dx):
    """Where a window's maximum is not above 0, none of it is: relu's slope on what was pooled."""
    if rows is None or not gapless(y, dx):
        return False
    at, order = Windows(y, size, stride, padding), order_of(y)
    d = image_of(in_order(run, dz, order), order)
    mask, kept = run.empty(d.shape, np.bool_), run.empty(d.shape, d.dtype)
    _joined(run, np.maximum, _entries(rows, at, DOWN), kept)
    run(np.greater, kept, _ZERO[d.dtype], mask)
    run(np.multiply, d, mask, kept)
    _down_and_across(run, kept, y, rows, at, dx)
    return True


_ZERO = {np.dtype(t): np.zeros((), t) for t in (np.float32, np.float64)}


# Means


def _weights(x_shape: tuple[int, ...], at: Windows, counted: bool, dtype: Any) -> Any:
    """What a sum is multiplied by: a 0-d array, or one number per window."""
    if counted or not at.padded:
        return np.array(1 / math.prod(at.sizes), dtype)
    return (1 / at.counts(x_shape[2:], np.float64)).astype(dtype)


@overrides.forward(avg_pool2d)
@calls
def _avg_pool2d(run, x, *, size, stride=None, padding=0, count_include_pad=True):
    if not takes(x):
        return None
    at, order = Windows(x, size, stride, padding), order_of(x)
    y, image = result(run, x, at), image_of(x.transpose(order), order)
    rows = _across(run, np.add, _padded(run, image, at, 0.0), at, run.empty)
    out = _joined(run, np.add, _entries(rows, at, DOWN), image_of(y.transpose(order), order))
    run(np.multiply, out, _weights(x.shape, at, count_include_pad, x.dtype), out)
    return y, {"length": x.shape[2:]}


def _shared(run: Run, d: Array, dx: Array, at: Windows, axis: int) -> None:
    """dx = the sum of d over the windows along an axis that an entry is in."""
    tiled = _tiled(dx, at, axis)
    if not tiled:
        run(np.copyto, dx, 0)
    for into in _entries(dx, at, axis):
        if tiled:
            run(np.copyto, into, d)
        else:
            run(np.add, into, d, into)


@overrides.derivative(avg_pool2d, "x")
@calls
def _avg_pool2d_slope(run, dy, length, size, stride, padding, count_include_pad):
    if not takes(dy):
        return None
    shape, order = (*dy.shape[:2], *length), order_of(dy)
    dx = run.new(shape, dy.dtype) if dy.flags.c_contiguous else run.laid(shape, dy.dtype, order)
    at, out = Windows(dx, size, stride, padding), image_of(dx.transpose(order), order)
    d = run.empty(image_of(dy.transpose(order), order).shape, dy.dtype)
    weights = _weights(shape, at, count_include_pad, dy.dtype)
    run(np.multiply, image_of(dy.transpose(order), order), weights, d)
    into = _space(run, out, at) if at.padded else out
    before, high, between, _, after = into.shape
    rows = run.empty((before, high, between, at.shape[1], after), dy.dtype)
    _shared(run, d, rows, at, DOWN)
    _shared(run, rows, into, at, ACROSS)
    if at.padded:
        run(np.copyto, out, _within(into, at))
    return dx
