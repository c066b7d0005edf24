"""How a comparison is timed: interleaved rounds, so that noise meets all implementations alike."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from statistics import median
from typing import NamedTuple

from .cases import Prepared

# OpenBLAS's worker threads spin for some 30 ms after a product and would slow whoever runs next.
SPIN_S = 0.04
# Short against a scheduler's time slice, so that the median chunk is one nobody interrupted.
CHUNK_S = 5e-4


class Effort(NamedTuple):
    """rounds per case; seconds that one implementation runs in a round, and rests before it"""

    rounds: int
    block_s: float
    pause_s: float = SPIN_S


FULL = Effort(rounds=15, block_s=0.02)
QUICK = Effort(rounds=7, block_s=0.01)


def measure(prepared: Mapping[str, Prepared], effort: Effort) -> dict[str, list[float]]:
    """Seconds per call in each round, by implementation; round i of all was taken together."""
    times: dict[str, list[float]] = {name: [] for name in prepared}
    counts = {name: _calls(p) for name, p in prepared.items()}
    order, shuffle = list(prepared), random.Random(0).shuffle
    with _no_gc():
        for _ in range(effort.rounds):
            shuffle(order)
            for name in order:
                if len(order) > 1:
                    time.sleep(effort.pause_s)
                prepared[name].run()
                times[name].append(_block(prepared[name], counts[name], effort.block_s))
    return times


def _calls(p: Prepared) -> int:
    """Warm up, and find how many calls fill a chunk."""
    _chunk(p, 2)
    once = min(_chunk(p, 1) for _ in range(3))
    return max(1, round(CHUNK_S / max(once, 1e-7)))


def _block(p: Prepared, calls: int, block_s: float) -> float:
    """Seconds per call: the median of as many chunks as fit into the block, at least one."""
    chunks = [_chunk(p, calls)]
    while sum(chunks) < block_s:
        chunks.append(_chunk(p, calls))
    return median(chunks) / calls


def _chunk(p: Prepared, calls: int) -> float:
    run = p.run
    p.synchronize()
    start = time.perf_counter()
    for _ in range(calls):
        run()
    p.synchronize()
    return time.perf_counter() - start


@contextmanager
def _no_gc() -> Iterator[None]:
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def middle(values: list[float]) -> tuple[float, float, float]:
    """Median and quartiles (nearest rank)."""
    ordered = sorted(values)
    last = len(ordered) - 1
    return median(ordered), ordered[round(last / 4)], ordered[round(3 * last / 4)]


def speedup(ours: list[float], theirs: list[float]) -> tuple[float, float, float]:
    """theirs / ours within each round: median and quartiles; above 1 means ours is faster."""
    return middle([b / a for a, b in zip(ours, theirs, strict=True)])


def crossover(batches: list[int], host: list[float], device: list[float]) -> int | None:
    """The smallest batch from which on the device is faster at every batch timed; None if never."""
    found = None
    for batch, a, b in sorted(zip(batches, host, device, strict=True), reverse=True):
        if b >= a:
            break
        found = batch
    return found
