"""Sums over rows or by channels: partial sums over chunks, then their total, in a fixed order.

Arrays are taken as (n, channels, places): of a matrix the rows, the columns and 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nnx.calls import calls
from nnx.ops import affine, conv1d, conv2d, conv_transpose2d

from .geometry import MOST
from .launch import THREADS, Source, blocks_for, computing, dtype_name
from .table import Array, Run, contiguous, floats, overrides, plain

_source = Source("sums.cu", "--fmad=false")
FILLS = 512  # blocks that keep a device busy

Grid = tuple[int, int]


def grid(n: int, channels: int, places: int) -> tuple[Grid, Grid]:
    """Blocks (channels, chunks) and threads (see columns.cuh)."""
    wide, each, threads = (32, 128, (32, 8)) if places == 1 else (1, 2048, (THREADS, 1))
    tiles = -(-channels // wide)
    return (tiles, max(1, min(-(-n * places // each), FILLS // tiles))), threads


def by_channel(
    run: Run, y: Array, n: int, places: int, launch: Callable[[Grid, Grid, Array], None]
) -> None:  # fmt: skip
    """y = the sums that `launch(blocks, threads, out)` makes by `sum_channels`, over all chunks."""
    (tiles, chunks), threads = grid(n, y.size, places)
    kind = computing(y)
    if chunks == 1 and kind == dtype_name(y.dtype):
        launch((tiles, chunks), threads, y)
        return
    parts = run.empty((chunks, y.size), kind)
    launch((tiles, chunks), threads, parts)
    kernel = _source("column_totals", y.dtype)
    run(kernel, blocks_for(y.size), THREADS, parts, y, chunks, y.size)


def over_rows(
    run: Run, y: Array, rows: int, launch: Callable[[Grid, Grid, Array], None]
) -> None:  # fmt: skip
    """The same of a matrix."""
    by_channel(run, y, rows, 1, launch)


def channel_sums(run: Run, x: Array, y: Array) -> None:
    """y = sums of (N, C, ...) by channel."""
    n, channels = x.shape[:2]
    places, kernel = x.size // (n * channels), _source("channel_sums", x.dtype)
    by_channel(
        run, y, n, places,
        lambda blocks, threads, out: run(kernel, blocks, threads, x, out, n, channels, places),
    )  # fmt: skip


@overrides.derivative(affine, "b")
@calls
def _affine_b(run: Run, dy: Array) -> Array | None:
    if not (plain(dy) and dy.ndim):
        return None
    db = run.new(dy.shape[-1:], dy.dtype)
    channel_sums(run, dy.reshape(-1, dy.shape[-1]), db)
    return db


def _by_bias(op: Any) -> None:
    """Sums of (N, C, ...) by channel: the gradient of a convolution's bias."""

    @overrides.derivative(op, "b")
    @calls
    def kernel(run: Run, dy: Array) -> Array | None:
        if dy.size > MOST or not floats(dy):
            return None
        db = run.new(dy.shape[1:2], dy.dtype)
        channel_sums(run, contiguous(run, dy), db)
        return db

    kernel.__name__ = f"{op.name}_b"


_by_bias(conv1d)
_by_bias(conv2d)
_by_bias(conv_transpose2d)
