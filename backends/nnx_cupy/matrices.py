"""Arrays as stacks of matrices, seen as cuBLASLt sees them.

cuBLASLt knows matrices by columns. Row-major y = a @ b, seen by columns, is y' = b' @ a', so b is
its first factor and a its second; a matrix whose rows lie one after the other is not transposed
then, one whose columns do is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np


class Matrix(NamedTuple):
    """A matrix, or a stack of them, as a layout of cuBLASLt.

    rows, cols   by columns: of the matrix as it lies in memory
    ld           entries from one column to the next
    turned       whether the product takes its transpose
    offset       entries from one matrix of the stack to the next; 0: all are the same one
    """

    rows: int
    cols: int
    ld: int
    turned: bool
    offset: int


def matrix(shape: tuple[int, int], strides: tuple[int, int], offset: int = 0) -> Matrix | None:
    """Of a matrix with these strides, in entries; None if neither rows nor columns are dense."""
    (n, m), (row, col) = shape, strides
    if m == 1 or col == 1:
        ld = row if n > 1 else m
        if ld >= m:
            return Matrix(m, n, ld, False, offset)
    if n == 1 or row == 1:
        ld = col if m > 1 else n
        if ld >= n:
            return Matrix(n, m, ld, True, offset)
    return None


def dense(y: Any, turned: bool) -> bool:
    """Whether its rows, or with `turned` its columns, lie one after the other."""
    row, col = y.strides[-2] // y.itemsize, y.strides[-1] // y.itemsize
    laid = matrix(y.shape[-2:], (row, col))
    return laid is not None and laid.turned is turned


def swapped(x: Any) -> Any:
    """Its matrices transposed."""
    return x.transpose((*range(x.ndim - 2), x.ndim - 1, x.ndim - 2))


def leading(x: Any, ndim: int) -> tuple[int, ...]:
    """Its strides over the leading axes of the result, 0 where it is repeated."""
    own = [0 if n == 1 else int(s) for n, s in zip(x.shape[:-2], x.strides[:-2], strict=True)]
    return (*(0,) * (ndim - x.ndim), *own)


Places = list[tuple[int, int]]  # for each array: bytes to the first matrix, from one to the next


def stacks(shape: tuple[int, ...], strides: list[tuple[int, ...]]) -> Iterator[tuple[int, Places]]:
    """How many products each call does, and where its matrices lie.

    Axes over which all arrays go on as over the one after it count as one axis.
    """
    axes: list[tuple[int, tuple[int, ...]]] = []  # outermost first
    for n, *steps in reversed(list(zip(shape, *strides, strict=True))):
        if n == 1:
            continue
        if axes and all(s == t * axes[0][0] for s, t in zip(steps, axes[0][1], strict=True)):
            axes[0] = (axes[0][0] * n, axes[0][1])
        else:
            axes.insert(0, (n, tuple(steps)))
    count, steps = axes.pop() if axes else (1, [0] * len(strides))
    for index in np.ndindex(*(n for n, _ in axes)):
        starts = [
            sum(i * outer[k] for i, (_, outer) in zip(index, axes, strict=True))
            for k in range(len(strides))
        ]
        yield count, list(zip(starts, steps, strict=True))
