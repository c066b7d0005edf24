"""Images of another size: a thread for each entry, with its places and weights computed there."""

from __future__ import annotations

from typing import Any

from nnx.calls import calls
from nnx.ops import upsample
from nnx.ops._geometry import per_axis

from .geometry import MOST
from .launch import THREADS, Source, blocks_for
from .table import Array, Run, contiguous, floats, overrides

_source = Source("upsample.cu")


def _sizes(length: tuple[int, ...], scale: Any, size: Any) -> tuple[int, int]:
    if scale is None:
        high, wide = per_axis(size, 2)
    else:
        high, wide = (n * k for n, k in zip(length, per_axis(scale, 2), strict=True))
    return int(high), int(wide)


def _takes(a: Array, lengths: tuple[int, ...], sizes: tuple[int, int]) -> bool:
    planes = a.shape[0] * a.shape[1]
    most = max(planes * n[0] * n[1] for n in (lengths, sizes))
    lines = max(3 * (n + 2) * (m + 1) for n, m in zip(lengths, sizes, strict=True))
    return floats(a) and max(most, lines) <= MOST


def _mode(mode: str, align_corners: bool) -> int:
    return 0 if mode == "nearest" else 2 if align_corners else 1


@overrides.forward(upsample)
@calls
def _upsample(
    run: Run, x: Array,
    *, scale: Any = None, size: Any = None, mode: str = "nearest", align_corners: bool = False,
) -> Any:  # fmt: skip
    length = tuple(x.shape[2:])
    sizes = _sizes(length, scale, size)
    if not _takes(x, length, sizes):
        return None
    y = run.new((*x.shape[:2], *sizes), x.dtype)
    numbers = (x.shape[0] * x.shape[1], *length, *sizes, _mode(mode, align_corners))
    run(_source("upsample", x.dtype), blocks_for(y.size), THREADS, contiguous(run, x), y, *numbers)
    return y, {"length": length}


@overrides.derivative(upsample, "x")
@calls
def _upsample_slope(
    run: Run, dy: Array, length: tuple[int, ...], scale: Any, size: Any, mode: str,
    align_corners: bool,
) -> Array | None:  # fmt: skip
    sizes = _sizes(length, scale, size)
    if not _takes(dy, length, sizes):
        return None
    dx = run.new((*dy.shape[:2], *length), dy.dtype)
    numbers = (dy.shape[0] * dy.shape[1], *length, *sizes, _mode(mode, align_corners))
    run(
        _source("upsample_slope", dy.dtype),
        blocks_for(dx.size),
        THREADS,
        contiguous(run, dy),
        dx,
        *numbers,
    )
    return dx
