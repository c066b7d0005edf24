"""What no implementation of a training step can beat here: its products, and its update's memory.

Both are timed in turn with the implementations, as if they were two more of them: the products at
the row's own shapes with NumPy's BLAS, into arrays that exist; and a copy that moves as many bytes
as the optimizer, among as many bytes as the optimizer holds, so that the same caches serve it.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from .case import Case, Gemm, Prepared, Update

THREADED_BYTES = 8_000_000  # below, handing a part of a copy to a thread costs more than it saves


def products(case: Case) -> Prepared | None:
    """All matrix products of the step, one after the other."""
    gemms = case.gemms()
    if not case.trains or not gemms:
        return None
    calls = [_operands(gemm) for gemm in gemms]
    dot = np.dot

    def run() -> None:
        for a, b, out in calls:
            dot(a, b, out)

    return Prepared(run, lambda _: [])


def _operands(gemm: Gemm) -> tuple[Any, Any, Any]:
    def matrix(rows: int, columns: int, transposed: bool) -> Any:
        made = np.full((columns, rows) if transposed else (rows, columns), 0.01, np.float32)
        return made.T if transposed else made

    return (
        matrix(gemm.m, gemm.k, gemm.left),
        matrix(gemm.k, gemm.n, gemm.right),
        np.empty((gemm.m, gemm.n), np.float32),
    )


def copies(threads: int, case: Case) -> Prepared | None:
    """A copy that touches as many bytes as the update holds: see `update_seconds`."""
    update = case.update()
    return None if update is None else Prepared(copy_of(update.held, threads)[2], lambda _: [])


def copy_of(held: int, threads: int) -> tuple[Any, Any, Callable[[], None]]:
    """An array, another of its size that it is copied to, and the call; in bytes they are `held`
    together.
    """
    source = np.ones(held // 8, np.float32)
    target = np.zeros_like(source)
    if threads == 1 or held < THREADED_BYTES:
        return source, target, lambda: np.copyto(target, source)
    pool = ThreadPoolExecutor(threads - 1)
    own, *others = zip(
        np.array_split(target, threads), np.array_split(source, threads), strict=True
    )

    def run() -> None:
        waiting = [pool.submit(np.copyto, *pair) for pair in others]
        np.copyto(*own)
        for copy in waiting:
            copy.result()

    return source, target, run


def update_seconds(update: Update, copy_s: float) -> float:
    """A copy moves each byte it holds once; the optimizer moves some of them twice."""
    return copy_s * update.moved / update.held


def prepare(name: str, threads: int, case: Case) -> Prepared | None:
    """The part of the floor of that name: "floor products" or "floor update"."""
    return products(case) if name == "floor products" else copies(threads, case)
