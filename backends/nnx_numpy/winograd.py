"""Convolutions of width 3 with two thirds of the multiplications.

Two neighbours of a row are y = A' ((G w) (B' x)) of the three numbers w of a kernel's row and the
four of x that they see, by entry:

    B' x = x0 - x2, x1 + x2, x2 - x1, x1 - x3
    G w  = w0, (w0 + w1 + w2) / 2, (w0 - w1 + w2) / 2, w2
    A' m = m0 + m1 + m2, m1 - m2 - m3

and what an entry is multiplied by may be summed first, so each of the four is a matrix product over
channels and the kernel's height. S. Winograd, Arithmetic Complexity of Computations (1980); for
convolutions Lavin and Gray (2016). In float32 results differ from plain sums by about one rounding
more. An infinity or NaN of x is in both neighbours.

Images are (H, C, W, N), their rows in windows without copies, as in `patches.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from .patches import Block, Geometry, added, blocks, columns, in_regions, shifted_copies
from .table import Array, Run, at_a_time, in_pieces, reused

CHANNELS = 16  # of a group, in and out: with fewer, sums cost more than products


def fits(g: Geometry, channels: int, outer: int) -> bool:
    """Whether kernels are 3 wide, windows neighbours, channels in and out enough."""
    (high, wide), (down, across) = g.sizes, g.stride
    rows = g.overlapping or high == 1 == down
    many = min(channels, outer) >= CHANNELS * g.groups
    return rows and many and wide == 3 and across == 1 == g.gaps[1]


def kernels(run: Run, W: Array, g: Geometry, adjoint: bool = False) -> Array:
    """G w as matrices (4 x groups, 1, out, down x in); adjoint: (..., in, down x out), turned."""
    out, inner, high, _ = W.shape
    split = W.reshape(g.groups, out // g.groups, inner, high, 3)
    if adjoint:
        split = split[..., ::-1, ::-1].transpose(0, 2, 1, 3, 4)
    w = split.transpose(4, 0, 1, 3, 2)
    made: Array = run.empty((4, *w.shape[1:]), W.dtype)
    half, middle = (run.empty((1, *w.shape[1:]), W.dtype) for _ in range(2))
    run(np.add, w[0], w[2], half[0])
    run(np.multiply, half, 0.5, half)
    run(np.multiply, w[1], 0.5, middle[0])
    run(np.copyto, made[0], w[0])
    run(np.add, half[0], middle[0], made[1])
    run(np.subtract, half[0], middle[0], made[2])
    run(np.copyto, made[3], w[2])
    return made.reshape(4 * g.groups, 1, made.shape[2], -1)


def _seen(run: Run, x: Array, g: Geometry, todo: list[Block]) -> Iterator[Array]:
    """B' x of each block as matrices (4 x groups, rows, down x channels of a group, pairs x batch).

    Even and odd columns are copied apart, so that sums are of what lies together.
    """
    batch, inner = x.shape[3], x.shape[1] // g.groups
    images = x.reshape(x.shape[0], g.groups, inner, *x.shape[2:]).transpose(1, 0, 2, 3, 4)
    shapes = [(g.groups, g.copied(b.rows), inner, (b.wide + 1) // 2, batch) for b in todo]
    apart = [(*shape[:2], 2, inner, shape[3] + 1, batch) for shape in shapes]
    planes = reused(run, x.dtype, max(map(math.prod, apart)))
    sums = reused(run, x.dtype, 4 * max(map(math.prod, shapes)))
    for block, shape, split in zip(todo, shapes, apart, strict=True):
        made, d = planes(split), sums((4, *shape))
        start = block.top * g.stride[0] - g.pads[0][0], block.left - g.pads[1][0]
        shifted_copies(run, made, images, start, (1, 2), 1)
        even, odd = made[:, :, 0], made[:, :, 1]
        x0, x2, x1, x3 = even[..., :-1, :], even[..., 1:, :], odd[..., :-1, :], odd[..., 1:, :]
        run(np.subtract, x0, x2, d[0])
        run(np.add, x1, x2, d[1])
        run(np.subtract, x2, x1, d[2])
        run(np.subtract, x1, x3, d[3])
        yield columns(d.reshape(4 * g.groups, shape[1], 1, *shape[2:]), g)


def _todo(g: Geometry, channels: int, region: Block, batch: int) -> list[Block]:
    double = g._replace(sizes=(g.sizes[0], 2))  # B' x is twice as large as x
    return list(blocks(double, channels, region, batch))


def _pairs(y: Array, groups: int, block: Block) -> tuple[Array, Array, Array]:
    """The block of images by group, its even and its odd columns."""
    part = y.reshape(y.shape[0], groups, -1, *y.shape[2:]).transpose(1, 0, 2, 3, 4)
    part = part[:, block.top : block.bottom, :, block.left : block.right]
    return part, part[..., 0::2, :], part[..., 1::2, :]


def convolve(run: Run, x: Array, W: Array, b: Array | None, g: Geometry, y: Array) -> None:
    """y = W * x + b.   W: of `kernels`"""
    outer, batch = y.shape[1] // g.groups, y.shape[3]

    def fill(run: Run, region: Block) -> None:
        todo = _todo(g, x.shape[1], region, batch)
        size = max(block.rows * ((block.wide + 1) // 2) for block in todo) * y.shape[1] * batch
        products, sums = reused(run, x.dtype, 4 * size), reused(run, x.dtype, size)
        for block, seen in zip(todo, _seen(run, x, g, todo), strict=True):
            product = products((4 * g.groups, block.rows, outer, seen.shape[-1]))
            in_pieces(run, W, seen, product)
            shape = (g.groups, block.rows, outer, seen.shape[-1] // batch, batch)
            m, total = product.reshape(4, *shape), sums(shape)
            part, even, odd = _pairs(y, g.groups, block)
            run(np.add, m[1], m[2], total)
            run(np.add, m[0], total, even)
            run(np.subtract, m[1], m[2], total)
            if odd.size:
                run(np.subtract, total[..., : odd.shape[3], :], m[3][..., : odd.shape[3], :], odd)
            if b is not None:
                run(np.add, part, b.reshape(g.groups, 1, -1, 1, 1), part)

    in_regions(run, Block.whole(y), 4 * y.size * W.shape[-1], fill)


def correlate(run: Run, x: Array, dy: Array, g: Geometry, dW: Array) -> None:
    """dW = G' of the sums of (A dy) (B' x)"""
    out, inner, high, _ = dW.shape
    outer, totals = out // g.groups, list[Array]()

    def add_up(run: Run, region: Block) -> None:
        totals.append(_sums(run, x, dy, g, region, (4 * g.groups, high * inner, outer)))

    in_regions(run, Block.whole(dy), 4 * dy.size * high * inner, add_up)
    total, part = added(run, totals), run.empty(totals[0].shape, x.dtype)
    m = total.reshape(4, g.groups, high, inner, outer)
    half = part.reshape(m.shape)[0]
    run(np.add, m[1], m[2], half)
    run(np.multiply, half, 0.5, half)
    run(np.add, m[0], half, m[0])
    run(np.subtract, half, m[3], m[3])
    run(np.subtract, m[1], m[2], m[1])
    run(np.multiply, m[1], 0.5, m[1])
    laid = dW.reshape(g.groups, outer, inner, high, 3).transpose(4, 0, 3, 2, 1)
    for k, i in enumerate((0, 1, 3)):
        run(np.copyto, laid[k], m[i])


def _sums(
    run: Run, x: Array, dy: Array, g: Geometry, region: Block, shape: tuple[int, ...]
) -> Array:
    """The sums of (A dy) (B' x) in a region, of that shape."""
    (_, high, outer), batch, todo = shape, x.shape[3], _todo(g, x.shape[1], region, x.shape[3])
    total: Array = run.empty(shape, x.dtype)
    part, into = run.empty(shape, x.dtype), total
    most = max(block.rows * ((block.wide + 1) // 2) for block in todo) * 4 * dy.shape[1] * batch
    space, columns = reused(run, x.dtype, most), reused(run, x.dtype, most)
    for block, seen in zip(todo, _seen(run, x, g, todo), strict=True):
        _, even, odd = _pairs(dy, g.groups, block)
        d = space((4, *even.shape))
        run(np.copyto, d[0], even)
        run(np.copyto, d[3][..., : odd.shape[3], :], odd)
        if odd.shape != even.shape:
            run(np.copyto, d[3][..., odd.shape[3] :, :], 0)
        run(np.add, d[0], d[3], d[1])
        run(np.subtract, d[0], d[3], d[2])
        turned = d.reshape(4 * g.groups, block.rows, outer, -1).transpose(0, 1, 3, 2)
        if at_a_time(outer, seen.shape[-1], high) < high:  # then they need not be turned each time
            turned, given = columns(turned.shape), turned
            run(np.copyto, turned, given)
        for i in range(block.rows):
            in_pieces(run, seen[:, i], turned[:, i], into)
            if into is part:
                run(np.add, total, part, total)
            into = part
    return total
