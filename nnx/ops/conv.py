"""Convolutions: windows of the image as rows of a matrix, times the kernels as another.

x       images (N, channels, *spatial)
W       kernels (out, in / groups, *sizes); of a transposed convolution (in, out / groups, *sizes)
b       one number per channel of the result, or None
groups  channels fall into so many groups, each with kernels of its own: groups = in is depthwise

stride, dilation and padding are ints, or one per axis. Padding is also a pair (before, after) per
axis, "valid" (none), or "same" (y as long as x, for a stride of 1).
"""

from __future__ import annotations

import math

from ..errors import ShapeError
from ..op import op
from ._geometry import check_fit, checked, checked_padding, count, pairs, per_axis, span
from ._options import shape_of
from .window import fold, pad, unpadded, windows


@op
def conv1d(xp, x, W, b=None, *, stride=1, padding=0, dilation=1, groups=1):
    """y[n, o, i] = b[o] + sum over c, k of W[o, c, k] x[n, c, stride i + dilation k - padding]

    x: (N, in, L), W: (out, in / groups, size), b: (out,), y: (N, out, L')
    """
    y = _convolved(xp, x, W, _options(W, stride, padding, dilation, groups))
    return _with_bias(xp, y, b), {"length": tuple(x.shape[2:])}


@op
def conv2d(xp, x, W, b=None, *, stride=1, padding=0, dilation=1, groups=1):
    """y[n, o, i, j] = b[o] + sum over c, k, l of W[o, c, k, l] x[n, c, i', j'],

    i' = stride i + dilation k - padding, j' likewise; x is 0 outside.   LeCun et al. (1989)

    x: (N, in, H, W), W: (out, in / groups, *sizes), b: (out,), y: (N, out, H', W'),
    H' = floor((H + both paddings - dilation (size - 1) - 1) / stride) + 1
    """
    y = _convolved(xp, x, W, _options(W, stride, padding, dilation, groups))
    return _with_bias(xp, y, b), {"length": tuple(x.shape[2:])}


@op
def conv_transpose2d(
    xp, x, W, b=None, *, stride=1, padding=0, output_padding=0, dilation=1, groups=1
):
    """The adjoint of `conv2d` with these kernels and options, plus b.   Zeiler et al. (2010)

    x: (N, in, H, W), W: (in, out / groups, *sizes), b: (out,), y: (N, out, H', W'),
    H' = stride (H - 1) + dilation (size - 1) + 1 - both paddings + output_padding

    output_padding   which of the lengths that `conv2d` brings to H is meant; below stride
    """
    options = _options(W, stride, padding, dilation, groups)
    length = transposed_length(tuple(x.shape[2:]), tuple(W.shape[2:]), options, output_padding)
    return _with_bias(xp, _spread(xp, x, W, length, options), b)


@conv_transpose2d.d("x")
def _(xp, dy, W, stride, padding, dilation, groups):
    return _convolved(xp, dy, W, _options(W, stride, padding, dilation, groups))


@conv_transpose2d.d("W")
def _(xp, dy, x, W, stride, padding, dilation, groups):
    return _correlated(xp, dy, x, W, _options(W, stride, padding, dilation, groups))


def _derivatives(op):
    """By image and kernels, of a convolution that is not transposed."""

    @op.d("x")
    def _(xp, dy, W, length, stride, padding, dilation, groups):
        return _spread(xp, dy, W, length, _options(W, stride, padding, dilation, groups))

    @op.d("W")
    def _(xp, dy, x, W, stride, padding, dilation, groups):
        return _correlated(xp, x, dy, W, _options(W, stride, padding, dilation, groups))


def _derivative_by_bias(op):
    @op.d("b")
    def _(xp, dy):
        return xp.sum(dy, axis=(0, *range(2, dy.ndim)))


_derivatives(conv1d)
_derivatives(conv2d)
for _op in (conv1d, conv2d, conv_transpose2d):
    _derivative_by_bias(_op)


def transposed_length(length, sizes, options, output_padding):
    stride, pads, dilation, _ = options
    extra = per_axis(output_padding, len(sizes))
    return tuple(
        stride[i] * (length[i] - 1) + span(sizes[i], dilation[i]) - sum(pads[i]) + extra[i]
        for i in range(len(sizes))
    )


def _options(W, stride, padding, dilation, groups):
    """stride, (before, after), dilation, each by axis; groups"""
    sizes = tuple(W.shape[2:])
    dilation = per_axis(dilation, len(sizes))
    return per_axis(stride, len(sizes)), pairs(padding, sizes, dilation), dilation, groups


def _with_bias(xp, y, b):
    return y if b is None else y + xp.reshape(b, (b.shape[0], *(1,) * (y.ndim - 2)))


# As matrices, a group each: patches (groups, N * places, in / groups * sizes), kernels
# (groups, out / groups, in / groups * sizes), results (groups, N * places, out / groups).


def _convolved(xp, x, W, options):
    n, groups = W.ndim - 2, options[3]
    rows = _patches(xp, x, tuple(W.shape[2:]), options)
    places = _places(tuple(x.shape[2:]), tuple(W.shape[2:]), options)
    y = xp.matmul(rows, xp.matrix_transpose(_kernels(xp, W, groups)))
    y = xp.reshape(y, (groups, x.shape[0], *places, W.shape[0] // groups))
    y = xp.permute_dims(y, (1, 0, n + 2, *range(2, n + 2)))
    return xp.reshape(y, (x.shape[0], W.shape[0], *places))


def _spread(xp, dy, W, length, options):
    """The adjoint of `_convolved` by x, which has that length."""
    stride, pads, dilation, groups = options
    n, batch, places, sizes = W.ndim - 2, dy.shape[0], tuple(dy.shape[2:]), tuple(W.shape[2:])
    dx = xp.matmul(_results(xp, dy, groups), _kernels(xp, W, groups))
    dx = xp.reshape(dx, (groups, batch, *places, W.shape[1], *sizes))
    axes = [(2 + i, 3 + n + i) for i in range(n)]
    dx = xp.permute_dims(dx, (1, 0, 2 + n, *[a for pair in axes for a in pair]))
    both = [v for pair in zip(places, sizes, strict=True) for v in pair]
    dx = xp.reshape(dx, (batch, W.shape[1] * groups, *both))
    for i in reversed(range(n)):
        padded = length[i] + sum(pads[i])
        dx = fold(dx, length=padded, axis=2 + 2 * i, stride=stride[i], dilation=dilation[i])
    return unpadded(dx, pads)


def _correlated(xp, x, dy, W, options):
    """The adjoint of `_convolved` by W."""
    rows = _patches(xp, x, tuple(W.shape[2:]), options)
    dW = xp.matmul(xp.matrix_transpose(_results(xp, dy, options[3])), rows)
    return xp.reshape(dW, tuple(W.shape))


def _patches(xp, x, sizes, options):
    """What each place of the result sees, as rows."""
    stride, pads, dilation, groups = options
    n, channels = len(sizes), x.shape[1] // groups
    places = _places(tuple(x.shape[2:]), sizes, options)
    x = pad(x, pads)
    for i in range(n):
        x = windows(x, size=sizes[i], axis=2 + 2 * i, stride=stride[i], dilation=dilation[i])
    x = xp.reshape(x, (x.shape[0], groups, channels, *x.shape[2:]))
    x = xp.permute_dims(x, (1, 0, *range(3, 3 + 2 * n, 2), 2, *range(4, 4 + 2 * n, 2)))
    rows = (groups, x.shape[1] * math.prod(places), channels * math.prod(sizes))
    return xp.reshape(x, rows)


def _places(length, sizes, options):
    """How many windows fit along each axis: the result's lengths."""
    stride, pads, dilation, _ = options
    return tuple(
        count(length[i] + sum(pads[i]), sizes[i], stride[i], dilation[i]) for i in range(len(sizes))
    )


def _kernels(xp, W, groups):
    return xp.reshape(W, (groups, W.shape[0] // groups, math.prod(W.shape[1:])))


def _results(xp, y, groups):
    n, channels = y.ndim - 2, y.shape[1] // groups
    rows = (groups, y.shape[0] * math.prod(y.shape[2:]), channels)
    y = xp.reshape(y, (y.shape[0], groups, channels, *y.shape[2:]))
    return xp.reshape(xp.permute_dims(y, (1, 0, *range(3, 3 + n), 2)), rows)


def _checked_options(op, x, W, b, n, stride, padding, dilation, groups, transposed=False):
    """Shapes, then options; gives the latter as `_options` does."""
    names = ("in", "out / groups") if transposed else ("out", "in / groups")
    x_shape, W_shape = shape_of(x), shape_of(W)
    if len(x_shape) != n + 2 or len(W_shape) != n + 2 or not all(W_shape):
        raise ShapeError(
            f"{op}: x has shape {x_shape}, W {W_shape}; expected (N, in, {_AXES[n]}) and "
            f"({names[0]}, {names[1]}, {'size' if n == 1 else '*sizes'})"
        )
    checked(op, "groups", groups, 1, 1)
    grouped = W_shape[1] * groups
    if x_shape[1] != (W_shape[0] if transposed else grouped) or W_shape[0] % groups:
        expected = W_shape[0] if transposed else grouped
        last = n == 2 and x_shape[3] == expected
        turned = "; of images (N, H, W, in) give nnx.permute_dims(x, (0, 3, 1, 2))" if last else ""
        raise ShapeError(
            f"{op}: x has shape {x_shape}, so {x_shape[1]} channels; W of shape {W_shape} = "
            f"({names[0]}, {names[1]}, ...) with groups={groups} expects {expected}, and "
            f"{W_shape[0]} must be a multiple of groups{turned}"
        )
    out = grouped if transposed else W_shape[0]
    if b is not None and shape_of(b) != (out,):
        raise ShapeError(
            f"{op}: b has shape {shape_of(b)}, expected ({out},), because W has shape {W_shape}"
        )
    steps = checked(op, "stride", stride, n, 1)
    gaps = checked(op, "dilation", dilation, n, 1)
    sizes = W_shape[2:]
    return steps, checked_padding(op, padding, sizes, steps, gaps, not transposed), gaps, groups


_AXES = {1: "L", 2: "H, W"}


def _check(op, n):
    @op.check
    def check(backend, x, W, b=None, stride=1, padding=0, dilation=1, groups=1):
        name = op.name
        _, pads, gaps, _ = _checked_options(name, x, W, b, n, stride, padding, dilation, groups)
        check_fit(name, tuple(x.shape), tuple(W.shape[2:]), gaps, pads)


_check(conv1d, 1)
_check(conv2d, 2)


@conv_transpose2d.check
def _(backend, x, W, b=None, stride=1, padding=0, output_padding=0, dilation=1, groups=1):
    name = "conv_transpose2d"
    options = _checked_options(name, x, W, b, 2, stride, padding, dilation, groups, transposed=True)
    extra = checked(name, "output_padding", output_padding, 2, 0)
    if any(e >= s for e, s in zip(extra, options[0], strict=True)):
        raise ShapeError(
            f"{name}: output_padding={output_padding!r} with stride={stride!r}, expected less than "
            f"the stride: it tells apart lengths that the stride rounds to one"
        )
    length = transposed_length(tuple(x.shape[2:]), tuple(W.shape[2:]), options, extra)
    if min(*x.shape[2:], *length) < 1:
        raise ShapeError(
            f"{name}: x of shape {tuple(x.shape)} with W of shape {tuple(W.shape)} and "
            f"padding={padding!r} gives images of {length[0]} x {length[1]}; expected at least "
            f"1 x 1"
        )
