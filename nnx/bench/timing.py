"""How one implementation is timed for a while, inside its own process, and who disturbed it."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import NamedTuple

from .case import Prepared

# Short against a scheduler's time slice, so that the median chunk is one nobody interrupted.
CHUNK_S = 5e-4
STAT = Path("/proc/stat")


class Block(NamedTuple):
    """What a block of calls gave, in seconds.

    seconds   per call: the median of its chunks
    wall      that the block took
    own       of CPU time that this process used meanwhile
    foreign   of CPU time that all others used; None where nothing tells
    """

    seconds: float
    wall: float
    own: float
    foreign: float | None


def calls_per_chunk(p: Prepared, warm_up_s: float) -> int:
    """Warm up (compilers, caches, clocks), and find how many calls fill a chunk."""
    start = time.perf_counter()
    _chunk(p, 1)
    while time.perf_counter() - start < warm_up_s:
        _chunk(p, 1)
    once = min(_chunk(p, 1) for _ in range(3))
    return max(1, round(CHUNK_S / max(once, 1e-7)))


def block(p: Prepared, calls: int, block_s: float) -> Block:
    """One call to fetch what others displaced from the caches, then chunks until the time is up."""
    with _no_gc():
        _chunk(p, 1)
        busy, own, start = _busy(), time.process_time(), time.perf_counter()
        chunks = [_chunk(p, calls)]
        while time.perf_counter() - start < block_s:
            chunks.append(_chunk(p, calls))
        wall = time.perf_counter() - start
        own = time.process_time() - own
        after = _busy()
    foreign = None if busy is None or after is None else max(0.0, after - busy - own)
    return Block(median(chunks) / calls, wall, own, foreign)


def _chunk(p: Prepared, calls: int) -> float:
    run = p.run
    p.synchronize()
    start = time.perf_counter()
    for _ in range(calls):
        run()
    p.synchronize()
    return time.perf_counter() - start


def _busy() -> float | None:
    """CPU seconds since boot in which a core did something, be it for another virtual machine."""
    try:
        first = STAT.read_text(encoding="ascii").partition("\n")[0]
    except OSError:
        return None
    user, nice, system, _idle, _wait, irq, softirq, steal = map(int, first.split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


@contextmanager
def _no_gc() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
