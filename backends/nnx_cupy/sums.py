"""Sums over rows or by channels: partial sums over chunks, then their total, in a fixed order."""

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


def _reduced(run: Run, y: Array, chunks: int, launch: Callable[[Array], None]) -> None:
    """`launch(out)` writes a row of `out` for each chunk; y is the sum of the rows."""
    kind = computing(y)
    if chunks == 1 and kind == dtype_name(y.dtype):
        launch(y)
        return
    parts = run.empty((chunks, y.size), kind)
    launch(parts)
    kernel = _source("column_totals", y.dtype)
    run(kernel, blocks_for(y.size), THREADS, parts, y, chunks, y.size)


def over_rows(
    run: Run, y: Array, rows: int, launch: Callable[[Grid, Grid, Array], None]
) -> None:  # fmt: skip
    """y = sums over the rows that `launch(blocks, threads, out)` makes by `sum_columns`."""
    tiles = -(-y.size // 32)
    chunks = max(1, min(-(-rows // 128), FILLS // tiles))
    _reduced(run, y, chunks, lambda out: launch((tiles, chunks), (32, 8), out))


def by_channel(
    run: Run, y: Array, count: int, launch: Callable[[Grid, int, Array], None]
) -> None:  # fmt: skip
    """y = sums over the `count` entries of each channel, likewise."""
    chunks = max(1, min(-(-count // 2048), FILLS // y.size))
    _reduced(run, y, chunks, lambda out: launch((y.size, chunks), THREADS, out))


def column_sums(run: Run, x: Array, y: Array) -> None:
    """y = sums over the rows of a matrix."""
    rows, columns = x.shape
    kernel = _source("column_sums", x.dtype)
    over_rows(
        run, y, rows, lambda grid, block, out: run(kernel, grid, block, x, out, rows, columns)
    )


def channel_sums(run: Run, x: Array, y: Array) -> None:
    """y = sums of (N, C, ...) by channel."""
    n, channels = x.shape[:2]
    places, kernel = x.size // (n * channels), _source("channel_sums", x.dtype)
    by_channel(
        run, y, n * places,
        lambda grid, block, out: run(kernel, grid, block, x, out, n, channels, places),
    )  # fmt: skip


@overrides.derivative(affine, "b")
@calls
def _affine_b(run: Run, dy: Array) -> Array | None:
    if not (plain(dy) and dy.ndim):
        return None
    db = run.new(dy.shape[-1:], dy.dtype)
    column_sums(run, dy.reshape(-1, dy.shape[-1]), db)
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
