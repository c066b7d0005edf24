"""Convolutions as matrix products, on images whose memory is ordered height, channel, width, batch.

With the batch last, what is copied lies together. Of each row h of the image the copies

    c[h, j, channel, w, n] = x[h, channel, w + j, n]        for each column j of the kernel

have, in the rows that a kernel covers, one matrix (height x j x channel, width x batch) without
gaps. So windows over the height cost nothing: they are overlapping matrices, and what is copied is
the image as many times as the kernel is wide, not as it is large. Blocks of rows are copied and
multiplied while they are in the cache.

In what follows images are views (H, C, W, N), whatever these axes are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from nnx.ops._geometry import count

from .table import Array, Run, on_lanes

BLOCK = 1 << 20  # entries of a block of columns: 2 to 4 MB were best for 64 channels
LEAST = 128  # columns of a product that is worth its call
Pair = tuple[int, int]


class Geometry(NamedTuple):
    """groups; sizes of the kernel; stride; dilation; padding (before, after) by axis"""

    groups: int
    sizes: Pair
    stride: Pair
    gaps: Pair
    pads: tuple[Pair, ...]

    def places(self, height: int, width: int) -> Pair:
        """How many windows fit, down and across."""
        h, w = (
            count(n + sum(self.pads[i]), self.sizes[i], self.stride[i], self.gaps[i])
            for i, n in enumerate((height, width))
        )
        return h, w

    @property
    def pointwise(self) -> bool:
        """Whether columns are the image itself."""
        return self.sizes == (1, 1) == self.stride and self.pads == ((0, 0), (0, 0))

    @property
    def overlapping(self) -> bool:
        """Whether one row of copies serves several windows."""
        return self.gaps[0] == 1 and self.stride[0] < self.sizes[0]

    def copied(self, rows: int) -> int:
        """How many rows of copies serve so many rows of the result."""
        high = self.sizes[0]
        return (rows - 1) * self.stride[0] + high if self.overlapping else rows * high

    def turned(self) -> Geometry:
        """Of the convolution that is this one's adjoint by the image, where the stride is 1."""
        h, w = (self.gaps[i] * (self.sizes[i] - 1) - self.pads[i][0] for i in range(2))
        return self._replace(pads=((h, h), (w, w)))

    @property
    def gathered(self) -> bool:
        """Whether a row of x is in windows of neighbouring rows of the result, each once."""
        return self.gaps[0] == 1 == self.stride[0] < self.sizes[0]


class Block(NamedTuple):
    """Rows and columns of the result, from the first up to the last, without it."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def rows(self) -> int:
        return self.bottom - self.top

    @property
    def wide(self) -> int:
        return self.right - self.left

    @property
    def places(self) -> int:
        return self.rows * self.wide

    @classmethod
    def whole(cls, images: Array) -> Block:
        return cls(0, images.shape[0], 0, images.shape[2])


def blocks(g: Geometry, channels: int, region: Block, batch: int) -> Iterator[Block]:
    """Parts of the result whose columns stay in the cache: of whole rows unless these are long."""
    kh, kw = g.sizes
    row = kw * channels * batch * (1 if g.overlapping else kh)
    most = max(-(-LEAST // batch), BLOCK // (row * (kh + 3 if g.overlapping else 1)))
    across = min(region.wide, most)
    fit = max(1, BLOCK // (row * across))
    down = max(1, (fit - kh) // g.stride[0] + 1) if g.overlapping else fit
    for top in range(region.top, region.bottom, down):
        for left in range(region.left, region.right, across):
            bottom, right = min(region.bottom, top + down), min(region.right, left + across)
            yield Block(top, bottom, left, right)


def in_regions(run: Run, whole: Block, flops: int, work: Callable[[Run, Block], object]) -> None:
    """`work(run, region)` for regions that lie side by side, in lanes if that is worth it: of some
    rows each, of a line of some columns.
    """
    high = whole.rows > 1

    def region(run: Run, part: slice) -> None:
        rows, columns = (part, slice(0, whole.wide)) if high else (slice(0, whole.rows), part)
        work(run, Block(rows.start, rows.stop, columns.start, columns.stop))

    on_lanes(run, region, whole.rows if high else whole.wide, flops)


def added(run: Run, totals: list[Array]) -> Array:
    """The sum of what each lane has summed up, in the first."""
    for other in totals[1:]:
        run(np.add, totals[0], other, totals[0])
    return totals[0]


def shape_of_copies(x: Array, g: Geometry, block: Block) -> tuple[int, ...]:
    """groups, rows, columns of the kernel, channels of a group, columns of the block, batch"""
    _, channels, _, batch = x.shape
    return g.groups, g.copied(block.rows), g.sizes[1], channels // g.groups, block.wide, batch


def copy_patches(run: Run, x: Array, g: Geometry, block: Block, made: Array) -> None:
    """Fill an array of `shape_of_copies` with what the block's windows see."""
    images = x.reshape(x.shape[0], g.groups, -1, *x.shape[2:]).transpose(1, 0, 2, 3, 4)
    (sh, sw), (dh, dw), high = g.stride, g.gaps, g.sizes[0]
    top, left = block.top * sh - g.pads[0][0], block.left * sw - g.pads[1][0]
    if g.overlapping:
        shifted_copies(run, made, images, (top, left), (1, sw), dw)
    for i in range(0 if g.overlapping else high):
        shifted_copies(run, made[:, i::high], images, (top + i * dh, left), (sh, sw), dw)


def columns(made: Array, g: Geometry) -> Array:
    """The copies as matrices, which may overlap: (groups, rows of the block, sizes x channels of a
    group, columns x batch), their rows ordered (down, across, channel).
    """
    groups, copies, across, inner, wide, batch = made.shape
    high, line = g.sizes[0], wide * batch * made.itemsize
    rows = (copies - high) // g.stride[0] + 1 if g.overlapping else copies // high
    step = across * inner * line
    return view(
        made, (groups, rows, high * across * inner, wide * batch),
        (copies * step, (g.stride[0] if g.overlapping else high) * step, line, made.itemsize),
    )  # fmt: skip


def shifted_copies(run: Run, y: Array, x: Array, start: Pair, step: Pair, gap: int) -> None:
    """y[:, h, j, :, w] = x[:, start + step (h, w) + (0, gap j)], 0 outside"""
    rows, at_rows = _inside(y.shape[1], x.shape[1], start[0], step[0])
    for edge in (y[:, : rows.start], y[:, rows.stop :]):
        if edge.size:
            run(np.copyto, edge, 0)
    for j in range(y.shape[2]):
        wide, at_wide = _inside(y.shape[4], x.shape[3], start[1] + gap * j, step[1])
        into = y[:, rows, j]
        for edge in (into[..., : wide.start, :], into[..., wide.stop :, :]):
            if edge.size:
                run(np.copyto, edge, 0)
        if into[..., wide, :].size:
            run(np.copyto, into[..., wide, :], x[:, at_rows, :, at_wide])


def add_patches(run: Run, x: Array, y: Array, start: Pair, step: Pair) -> None:
    """x[:, start + step (h, w)] += y[:, h, :, w], where that lies in x"""
    rows, at_rows = _inside(y.shape[1], x.shape[1], start[0], step[0])
    wide, at_wide = _inside(y.shape[3], x.shape[3], start[1], step[1])
    into = x[:, at_rows, :, at_wide]
    if into.size:
        run(np.add, into, y[:, rows, :, wide], into)


def _inside(n: int, length: int, start: int, step: int) -> tuple[slice, slice]:
    """Which of start + step i, i < n, are indices below length; and these as a slice."""
    low = min(n, max(0, -(start // step)))
    high = min(n, max(low, -((start - length) // step)))
    first = start + step * low
    return slice(low, high), slice(max(first, 0), max(first + step * (high - low - 1) + 1, 0), step)


def view(a: Array, shape: tuple[int, ...], strides: tuple[int, ...], at: int = 0) -> Array:
    """A contiguous array's memory from that byte on, seen otherwise."""
    return np.ndarray(shape, a.dtype, a, at, strides)


def by_group(y: Array, groups: int, block: Block | None = None) -> Array:
    """Contiguous images, or their block, as matrices (groups, rows, channels, columns x batch)."""
    height, channels, width, batch = y.shape
    made = y.reshape(height, groups, channels // groups, width * batch).transpose(1, 0, 2, 3)
    if block is None:
        return made
    return made[:, block.top : block.bottom, :, block.left * batch : block.right * batch]
