"""The three products of a convolution: itself, its adjoint by the image, and by the kernels.

Images are (H, C, W, N), contiguous where said; see `patches.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import groupby

import numpy as np

from .layout import in_order
from .patches import (
    Block,
    Geometry,
    add_patches,
    added,
    blocks,
    by_group,
    columns,
    copy_patches,
    in_regions,
    shape_of_copies,
    view,
)
from .table import Array, Run, matmul_for, reused


def kernels(run: Run, W: Array, g: Geometry, adjoint: bool = False) -> Array:
    """W as matrices (groups, 1, out, sizes x in), as columns are ordered.

    adjoint   as `spread` needs them: (groups, 1, sizes x in, out), or where rows are gathered
              (groups, 1, across x in, down x out), upside down
    """
    out, inner, kh, kw = W.shape
    split = W.reshape(g.groups, out // g.groups, inner, kh, kw)
    if not adjoint:
        turned, rows = split.transpose(0, 1, 3, 4, 2), split.shape[1]
    elif g.gathered:
        turned, rows = split[:, :, :, ::-1].transpose(0, 4, 2, 3, 1), kw * inner
    else:
        turned, rows = split.transpose(0, 3, 4, 2, 1), kh * kw * inner
    if not turned.flags.c_contiguous:
        made = run.empty(turned.shape, W.dtype)
        run(np.copyto, made, turned)
        turned = made
    return turned.reshape(g.groups, 1, rows, -1)


def _seen(
    run: Run, x: Array, g: Geometry, todo: list[Block], copies: Array | None, filled: bool
) -> Iterator[Array]:
    """For each block the matrices of what its windows see.

    copies   where they are to lie, or lie already, if there is one block; else they are scratch
    """
    if g.pointwise:
        yield from (by_group(x, g.groups, block) for block in todo)
        return
    shapes = [shape_of_copies(x, g, block) for block in todo]
    most = max(map(math.prod, shapes))
    space: Array = run.empty((most,), x.dtype) if copies is None else copies.reshape(-1)
    for block, shape in zip(todo, shapes, strict=True):
        made = space[: math.prod(shape)].reshape(shape)
        if not filled:
            copy_patches(run, x, g, block, made)
        yield columns(made, g)


def convolve(
    run: Run, x: Array, W: Array, b: Array | None, g: Geometry, y: Array, keep: bool = False
) -> Array | None:
    """y = W * x + b, y contiguous; gives what was copied of x where that is one block.

    W      of `kernels`
    keep   whether that is one of the results
    """
    whole, channels, batch = Block.whole(y), x.shape[1], y.shape[3]
    todo, copies = list(blocks(g, channels, whole, batch)), None
    if len(todo) == 1 and not g.pointwise:
        copies = (run.new if keep else run.empty)(shape_of_copies(x, g, todo[0]), x.dtype)

    def fill(run: Run, region: Block) -> None:
        todo = list(blocks(g, channels, region, batch))
        for block, seen in zip(todo, _seen(run, x, g, todo, copies, False), strict=True):
            out = by_group(y, g.groups, block)
            run(matmul_for(2 * W[0].size * seen.shape[-1]), W, seen, out)
            if b is not None:
                run(np.add, out, b.reshape(g.groups, 1, -1, 1), out)

    if copies is None:
        in_regions(run, whole, 2 * y.size * W.shape[-1], fill)
    else:
        fill(run, whole)
    return copies


def correlate(
    run: Run, x: Array, dy: Array, g: Geometry, dW: Array, copies: Array | None = None
) -> None:
    """dW (out, in / groups, *sizes) = sums of what dy's windows see of x, times dy, contiguous.

    copies   what `convolve` gave
    """
    out, inner, kh, kw = dW.shape
    shape = g.groups, kh * kw * inner, out // g.groups
    totals, whole, channels, batch = list[Array](), Block.whole(dy), x.shape[1], dy.shape[3]

    def add_up(run: Run, region: Block) -> None:
        total, part = run.empty(shape, x.dtype), run.empty(shape, x.dtype)
        todo, into = list(blocks(g, channels, region, batch)), total
        matrices = _seen(run, x, g, todo, copies, copies is not None)
        for block, seen in zip(todo, matrices, strict=True):
            d = by_group(dy, g.groups, block).transpose(0, 1, 3, 2)
            product = matmul_for(2 * total[0].size * seen.shape[-1])
            for i in range(seen.shape[1]):
                run(product, seen[:, i], d[:, i], into)
                if into is part:
                    run(np.add, total, part, total)
                into = part
        totals.append(total)

    if copies is None:
        in_regions(run, whole, 2 * dy.size * dW[0].size, add_up)
    else:
        add_up(run, whole)
    total = added(run, totals)
    laid = total.reshape(g.groups, kh, kw, inner, out // g.groups).transpose(0, 4, 3, 1, 2)
    run(np.copyto, dW.reshape(laid.shape), laid)


def spread(run: Run, dy: Array, W: Array, g: Geometry, dx: Array) -> None:
    """dx = the adjoint of `convolve` by x: products, added where their windows lie.

    W: of `kernels`, for the adjoint; dy and dx contiguous
    """
    if g.pointwise:
        d = by_group(dy, g.groups)
        run(matmul_for(2 * W[0].size * d.shape[-1]), W, d, by_group(dx, g.groups))
        return
    run(np.copyto, dx, 0)
    height, channels, width, batch = dx.shape
    images = dx.reshape(height, g.groups, -1, width, batch).transpose(1, 0, 2, 3, 4)
    (kh, kw), (sh, sw), (dh, dw) = g.sizes, g.stride, g.gaps
    down, high = (1, height) if g.gathered else (kh, dy.shape[0])
    apart = Geometry(g.groups, (down, kw), (down, 1), (1, 1), g.pads)  # no columns overlap
    inner = down * kw * channels * batch
    rows = _together(run, dy, g) if g.gathered else by_group(dy, g.groups)

    def add_up(run: Run, region: Block) -> None:
        todo = list(blocks(apart, channels, region, batch))
        space = reused(run, dy.dtype, max(b.rows * b.wide for b in todo) * inner)
        for block in todo:
            made = space((g.groups, block.rows, down, kw, images.shape[2], block.wide, batch))
            product = made.reshape(g.groups, block.rows, -1, block.wide * batch)
            top, left = block.top, block.left * sw - g.pads[1][0]
            if g.gathered:
                _gather(run, rows, W, g, block, batch, product)
            else:
                d = rows[:, block.top : block.bottom, :, block.left * batch : block.right * batch]
                run(matmul_for(2 * W[0].size * d.shape[-1]), W, d, product)
                top = top * sh - g.pads[0][0]
            for i in range(down):
                for j in range(kw):
                    y = made[:, :, i, j]
                    add_patches(run, images, y, (top + i * dh, left + j * dw), (sh, sw))

    region = Block(0, high, 0, dy.shape[2])
    if g.gathered and high > 1:  # else what two rows or columns add may lie in one place
        in_regions(run, region, 2 * dy.size * W.shape[-2], add_up)
    else:
        add_up(run, region)


def _together(run: Run, dy: Array, g: Geometry) -> Array:
    """(groups, rows, channels of a group, columns x batch), contiguous"""
    if g.groups == 1:
        return dy.reshape(1, dy.shape[0], dy.shape[1], -1)
    return in_order(run, by_group(dy, g.groups), (0, 1, 2, 3))


def _gather(
    run: Run, dy: Array, W: Array, g: Geometry, block: Block, batch: int, product: Array
) -> None:
    """Rows of x times the rows of dy in whose windows they are: of a group these lie together, so
    nothing is copied, and they are added up by the product. At the edges there are fewer of them.
    """
    groups, rows, inner, wide = dy.shape
    size, before, line = g.sizes[0], g.sizes[0] - 1 - g.pads[0][0], wide * dy.itemsize

    def seen(h: int) -> tuple[int, int]:
        return max(0, before - h), min(size, rows + before - h)

    for (low, high), found in groupby(range(block.top, block.bottom), seen):
        first, *others = found
        out = product[:, first - block.top : first - block.top + 1 + len(others)]
        if low >= high:
            run(np.copyto, out, 0)
            continue
        matrices = view(
            dy, (groups, out.shape[1], (high - low) * inner, wide),
            (rows * inner * line, inner * line, line, dy.itemsize),
            (first - before + low) * inner * line,
        )[..., block.left * batch : block.right * batch]  # fmt: skip
        some = W[..., low * inner : high * inner]
        run(matmul_for(2 * some[0].size * out.shape[-1]), some, matrices, out)
