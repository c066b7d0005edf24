"""NumPy's table of kernels, and what several of them need."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from nnx.override import Overrides, Run
from nnx.threads import SMALL, alone, counted, together

Array = np.ndarray[Any, Any]
Empty = Callable[..., Array]

overrides = Overrides()

BLOCK = 1 << 16  # entries: three such arrays fit the cache of a core, and a call costs little beside
FLOATS = (np.float32, np.float64)


def plain(*arrays: Array) -> bool:
    """Whether they are C-contiguous, of one shape and of one dtype, float32 or float64."""
    first = arrays[0]
    if first.dtype not in FLOATS:
        return False
    return all(
        type(a) is np.ndarray
        and a.flags.c_contiguous
        and a.shape == first.shape
        and a.dtype == first.dtype
        for a in arrays
    )


def pieces(*arrays: Array) -> Iterator[tuple[Array, ...]]:
    """Arrays of one shape in pieces that stay in the cache while several calls go over them.

    Arrays that are not contiguous have no flat view: they are one piece.
    """
    size = arrays[0].size
    if size <= BLOCK or not all(a.flags.c_contiguous for a in arrays):
        yield arrays
        return
    flat = [a.reshape(-1) for a in arrays]
    for i in range(0, size, BLOCK):
        yield tuple([a[i : i + BLOCK] for a in flat])


def scratch(empty: Empty, like: Array, dtype: Any = None) -> Callable[[Array], Array]:
    """Scratch for the pieces of an array: `f(piece)` is of the piece's shape."""
    dtype = like.dtype if dtype is None else dtype
    if like.size <= BLOCK or not like.flags.c_contiguous:
        whole = empty(like.shape, dtype=dtype)
        return lambda piece: whole
    block = empty((BLOCK,), dtype=dtype)
    return lambda piece: block[: piece.size]


@functools.cache
def _filled(value: float, size: int, dtype: Any) -> Array:
    made = np.full(size, value, dtype)
    made.flags.writeable = False
    return made


def zeros(like: Array) -> Array:
    """NumPy's maximum of two arrays is three times as fast as that of an array and a number."""
    if like.size > BLOCK:
        return _filled(0.0, 1, like.dtype)
    return _filled(0.0, BLOCK, like.dtype)[: like.size].reshape(like.shape)


def ones(n: int, dtype: Any) -> Array:
    """For sums as products with ones: two to four times as fast as NumPy's sums over an axis."""
    if n > BLOCK:
        return np.ones(n, dtype)
    return _filled(1.0, BLOCK, dtype)[:n]


def row_max(x: Array, m: Array, empty: Empty) -> list[Run]:
    """m (rows, 1) = the maximum of each row of x (rows, columns).

    NumPy takes 50 ns a row, whatever its length. Of short rows it is faster over columns, in a
    transposed copy: 3.4 us in place of 23 for 512 rows of 10.
    """
    n, columns = x.shape
    if n < 16 or columns > 32:
        return [(np.maximum.reduce, (x,), {"axis": 1, "keepdims": True, "out": m})]
    turned = empty((columns, n), dtype=x.dtype)
    return [
        (np.copyto, (turned, x.T), {}),
        (np.maximum.reduce, (turned,), {"axis": 0, "out": m[:, 0]}),
    ]


UNTHREADED = 500_000  # floating-point operations below which OpenBLAS uses one thread anyway


def product(a: Array, b: Array, out: Array) -> Run:
    """out = a b, of matrices or vectors, on as many threads as the sizes ask for."""
    return dot_for(2 * a.size * (b.shape[1] if b.ndim > 1 else 1), a.ndim + b.ndim), (a, b, out), {}


def dot_for(flops: int, axes: int) -> Callable[[Array, Array, Array], Any]:
    """NumPy's dot, or one that sets the threads of the BLAS.

    A product with a vector is threaded by OpenBLAS from 9,216 entries on.
    """
    if flops < (UNTHREADED if axes == 4 else 18_432):
        return np.dot
    return dot_alone if flops < SMALL else dot_together


def dot_alone(a: Array, b: Array, out: Array) -> None:
    counts = alone()
    try:
        np.dot(a, b, out)
    finally:
        together(counts)


def dot_together(a: Array, b: Array, out: Array) -> None:
    with counted():
        np.dot(a, b, out)
