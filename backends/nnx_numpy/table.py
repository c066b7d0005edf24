"""NumPy's table of kernels, and what several of them need."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nnx.lanes import Lane, Lanes, at_once, lane_count, parts, splits
from nnx.override import Overrides
from nnx.threads import SMALL, alone, numpys_own, together

Array = np.ndarray[Any, Any]
Run = Any  # what kernels call through: see nnx.override.Calls

overrides = Overrides()

BLOCK = 1 << 16  # entries: three such arrays fit a core's cache, and a call costs little beside
FLOATS = frozenset((np.dtype(np.float32), np.dtype(np.float64)))


def plain(x: Any, y: Any = None) -> bool:
    """Whether they are C-contiguous, of one shape and of one dtype, float32 or float64."""
    if type(x) is not np.ndarray or x.dtype not in FLOATS or not x.flags.c_contiguous:
        return False
    if y is None:
        return True
    like = type(y) is np.ndarray and y.dtype == x.dtype and y.shape == x.shape
    return like and y.flags.c_contiguous


def order_of(x: Array) -> tuple[int, ...]:
    """The axes from the one of the largest strides to that of the smallest."""
    strides = x.strides
    return tuple(sorted(range(x.ndim), key=lambda i: -strides[i]))


def pieces(*arrays: Array) -> Sequence[tuple[Array, ...]]:
    """Arrays of one shape in pieces that stay in the cache while several calls go over them.

    Arrays of different layouts, or with gaps in memory, have no flat views: they are one piece.
    """
    size = arrays[0].size
    if all([a.flags.c_contiguous for a in arrays]):
        if size <= BLOCK:
            return (arrays,)
        flat = [a.reshape(-1) for a in arrays]
    else:
        order = order_of(arrays[0])
        turned = [a.transpose(order) for a in arrays]
        if not all([a.flags.c_contiguous for a in turned]):
            return (arrays,)
        flat = [a.reshape(-1) for a in turned]
    return [tuple([a[i : i + BLOCK] for a in flat]) for i in range(0, size or 1, BLOCK)]


def scratch(run: Run, like: Array, dtype: Any = None) -> Callable[[Array], Array]:
    """Scratch for the pieces of an array: `f(piece)` is of the piece's shape."""
    made: list[Array] = []

    def of(piece: Array) -> Array:
        if not made:  # the first piece is the largest
            made.append(run.empty(piece.shape, like.dtype if dtype is None else dtype))
        return made[0] if made[0].shape == piece.shape else made[0][: piece.size]

    return of


def reused(run: Run, dtype: Any, size: int) -> Callable[[tuple[int, ...]], Array]:
    """Scratch for block after block: `f(shape)`, of no more than so many entries."""
    made: Array = run.empty((size,), dtype)
    return lambda shape: made[: math.prod(shape)].reshape(shape)


@functools.cache
def _filled(value: float, dtype: Any) -> Array:
    made = np.full(BLOCK, value, dtype)
    made.flags.writeable = False
    return made


@functools.lru_cache(256)
def _zeros(shape: tuple[int, ...], dtype: Any) -> Array:
    return _filled(0.0, dtype)[: np.prod(shape, dtype=int)].reshape(shape)


def zeros(like: Array) -> Array:
    """NumPy's maximum of two arrays is three times as fast as that of an array and a number."""
    return _zeros(like.shape if like.size <= BLOCK else (), like.dtype)


@functools.lru_cache(256)
def ones(n: int, dtype: Any) -> Array:
    """For sums as products with ones: two to four times as fast as NumPy's sums over an axis."""
    return np.ones(n, dtype) if n > BLOCK else _filled(1.0, dtype)[:n]


def row_max(run: Run, x: Array, m: Array) -> None:
    """m (rows, 1) = the maximum of each row of x (rows, columns).

    NumPy takes 50 ns a row, whatever its length. Of short rows it is faster over columns, in a
    transposed copy: 3.4 us in place of 23 for 512 rows of 10.
    """
    n, columns = x.shape
    if n < 16 or columns > 32:
        run(np.maximum.reduce, x, axis=1, keepdims=True, out=m)
    else:
        turned = run.empty((columns, n), x.dtype)
        run(np.copyto, turned, x.T)
        run(np.maximum.reduce, turned, axis=0, out=m[:, 0])


UNTHREADED = 500_000  # floating-point operations below which OpenBLAS uses one thread anyway
UNTHREADED_VECTOR = 18_432  # the same for products with a vector


matmul = np.matmul


def dot_for(flops: int, least: int = UNTHREADED) -> Callable[[Array, Array, Array], Any]:
    """A product f(a, b, out), on as many threads as the size asks for.

    `dot` takes less time to call than `matmul`, but fills `out` with zeros first.
    """
    if flops < least:
        return np.dot
    return product_alone if flops < SMALL else product_together


def matmul_for(flops: int, least: int = UNTHREADED) -> Callable[[Array, Array, Array], Any]:
    """As `dot_for`, for stacks of matrices.   flops: of one product"""
    return np.matmul if flops < least else dot_for(flops)


UNPACKED = 1_000_000  # m n k, up to which some BLAS multiply without copying the factors first


@functools.cache
def _copies_nothing() -> bool:
    """Whether this BLAS has such loops: OpenBLAS for processors with AVX-512."""
    kinds = {getattr(x, "architecture", "").lower() for x in numpys_own()}
    return bool(kinds & {"skylakex", "cooperlake", "sapphirerapids"})


def at_a_time(m: int, k: int, n: int) -> int:
    """How many of n columns to multiply at a time, (m, k) by (k, n); n where all are as fast."""
    few = (w for w in (n, 64, 32, 16) if n % w == 0 and m * k * w <= UNPACKED)
    return next(few, n) if _copies_nothing() else n


def in_pieces(run: Run, a: Array, b: Array, out: Array) -> None:
    """out = a b, stacks of matrices, by some rows or columns at a time."""
    (m, k), n = a.shape[-2:], b.shape[-1]
    if m > n:
        w = at_a_time(n, k, m)
        if w < m:
            a, b, out = _rows(a, w), b[..., None, :, :], _rows(out, w)
            m = w
    else:
        w = at_a_time(m, k, n)
        if w < n:
            a, b, out = a[..., None, :, :], _columns(b, w), _columns(out, w)
            n = w
    run(matmul_for(2 * m * k * n), a, b, out)


def _rows(x: Array, w: int) -> Array:
    """(..., m, n) as (..., m / w, w, n): a view, as one axis is split"""
    return x.reshape(*x.shape[:-2], -1, w, x.shape[-1])


def _columns(x: Array, w: int) -> Array:
    return np.swapaxes(x.reshape(*x.shape[:-1], -1, w), -2, -3)


def product_alone(a: Array, b: Array, out: Array) -> None:
    counts = alone()
    try:
        matmul(a, b, out)
    finally:
        together(counts)


CUT = 16  # rows or columns, of which the BLAS's inner loops take some at a time


def product_together(a: Array, b: Array, out: Array) -> None:
    """On all threads, each with a part of the rows or of the columns. The BLAS's own threads would
    wait for each other in the middle, and keep a core for 30 ms after the end.
    """
    n = lane_count(2 * out.size * a.shape[-1])
    by_rows = b.ndim == 1 or (a.ndim > 1 and out.shape[-2] > out.shape[-1])
    axis = -2 if by_rows and b.ndim > 1 else -1
    size = out.shape[axis]
    cuts = [*[size * i // n // CUT * CUT for i in range(n)], size]
    jobs = []
    for part in itertools.starmap(slice, itertools.pairwise(cuts)):
        some = (..., part, slice(None))
        factors = (a[some], b) if by_rows else (a, b[..., part])
        jobs.append(
            functools.partial(matmul, *factors, out[some] if axis == -2 else out[..., part])
        )
    at_once(*jobs)


_ON_ONE_THREAD = {product_alone: np.matmul, product_together: np.matmul}


def on_lanes(
    run: Run, work: Callable[[Run, slice], object], count: int, flops: int, least: int = 1
) -> None:
    """`work(run, part)` for parts of so many things, in lanes if that is worth it.

    least   of a lane
    """
    if isinstance(run, Lane) or not splits(count, flops, least):
        work(run, slice(0, count))
    else:
        in_lanes(run, work, parts(count, flops, least))


def in_lanes(run: Run, work: Callable[[Run, slice], object], shares: list[slice]) -> None:
    """`work(run, part)` for each part at the same time, products on one thread: see `nnx.lanes`."""
    lanes = [Lane(run.empty, _ON_ONE_THREAD) for _ in shares]
    for lane, share in zip(lanes, shares, strict=True):
        work(lane, share)
    run(Lanes([lane.runs for lane in lanes]))
