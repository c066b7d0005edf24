"""How many threads matrix products on the CPU use.

A product below 20 MFLOP runs on one thread: two would gain little. Above it the threads that
`set_num_threads` allows are used, each for 10 MFLOP or more. So the count follows from shapes and
the limit alone, and with it the last bits of results, which differ from count to count.

The limit is the BLAS's own count. While nnx multiplies, that count is 1 and the threads are nnx's
(`lanes.py`): the BLAS's wait for each other in the middle of a product, which on a busy machine
takes many times as long, and go on to occupy their cores for a while after it.

The count belongs to the process. Products of two Python threads wait for each other while it is
set; with a limit of 1 they do not.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .errors import OptionError

SMALL = 20_000_000  # floating-point operations
_lock = threading.RLock()
_pools: list[Pool] | None = None


class Pool(NamedTuple):
    """The threads of one BLAS library."""

    get: Callable[[], int]
    set: Callable[[int], object]


def set_num_threads(n: int) -> None:
    """Let products of matrices use up to n threads, in the whole process.

    It sets the BLAS that NumPy's wheel brings; where NumPy has another, each BLAS that was loaded
    when nnx first asked. Results on one machine are the same to the last bit for the same n.

    Raises OptionError unless n is an int >= 1.
    """
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise OptionError(f"set_num_threads({n!r}): expected an int of at least 1")
    with _lock:
        for pool in _blas():
            pool.set(n)


def get_num_threads() -> int:
    """How many threads large products use; 1 where the BLAS cannot be asked."""
    with _lock:
        return max((pool.get() for pool in _blas()), default=1)


def alone() -> list[int]:
    """From now on products run on one thread, until `together` is given the result."""
    _lock.acquire()
    counts = []
    for pool in _blas():
        counts.append(pool.get())
        if counts[-1] != 1:
            pool.set(1)
    return counts


def together(counts: list[int]) -> None:
    """End what `alone` began."""
    for pool, n in zip(_blas(), counts, strict=True):
        if n != 1:
            pool.set(n)
    _lock.release()


def _renew_lock() -> None:
    """In a forked process nobody gives back what another thread held."""
    global _lock
    if _lock.acquire(blocking=False):
        _lock.release()
    else:
        _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def _blas() -> list[Pool]:
    global _pools
    if _pools is None:
        _pools = [_pool(library) for library in numpys_own() or _loaded()]
    return _pools


def blas_name() -> str:
    """What NumPy multiplies matrices with: library, version and the processor it takes this for."""
    found = [library.info() for library in numpys_own() or _loaded()]
    keys = ("internal_api", "version", "architecture")
    return ", ".join(" ".join(filter(None, map(x.get, keys))) for x in found) or "unknown"


def numpys_own() -> list[Any]:
    """threadpoolctl's controllers of the BLAS that NumPy's wheel brings; [] if it is another."""
    home = Path(np.__file__).resolve().parent
    homes = (home, home.with_name("numpy.libs"))
    return [
        library
        for library in _loaded()
        if any(Path(library.filepath).resolve().is_relative_to(h) for h in homes)
    ]


def _loaded() -> list[Any]:
    from threadpoolctl import ThreadpoolController  # a fifth of nnx's import time

    return list(ThreadpoolController().select(user_api="blas").lib_controllers)


def _pool(library: Any) -> Pool:
    """threadpoolctl lets only the first Python thread that sets OpenBLAS's own pool set it again,
    and ignores the others; OpenBLAS itself takes it from any, here one at a time.
    """
    if library.internal_api == "openblas" and library.threading_layer == "pthreads":
        for prefix, suffix in itertools.product(("", "scipy_"), ("", "64_", "_64")):
            names = (f"{prefix}openblas_{verb}_num_threads{suffix}" for verb in ("get", "set"))
            functions: list[Any] = [getattr(library.dynlib, name, None) for name in names]
            if None not in functions:
                return Pool(*functions)
    return Pool(library.get_num_threads, library.set_num_threads)
