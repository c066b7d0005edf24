"""Calls timed by events on the device, in rounds in which all implementations take turns."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Mapping
from typing import Any

CHUNK_S = 0.02
Run = Callable[[], Any]
Elapsed = Callable[[Run, int], float]  # seconds that so many calls take


def on_cupy(run: Run, calls: int) -> float:
    cuda = importlib.import_module("cupy").cuda
    first, last = cuda.Event(), cuda.Event()
    first.record()
    for _ in range(calls):
        run()
    last.record()
    last.synchronize()
    return float(cuda.get_elapsed_time(first, last)) / 1e3


def on_torch(run: Run, calls: int) -> float:
    cuda = importlib.import_module("torch").cuda
    first, last = cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)
    first.record()
    for _ in range(calls):
        run()
    last.record()
    last.synchronize()
    return float(first.elapsed_time(last)) / 1e3


def on_host(run: Run, calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        run()
    return time.perf_counter() - start


CLOCKS: Mapping[str, Elapsed] = {"cupy": on_cupy, "torch": on_torch, "numpy": on_host}


def clock(implementation: str) -> Elapsed:
    """By what the implementation's calls are timed: "cupy replay" and "cupy" by CuPy's events."""
    return CLOCKS[implementation.partition(" ")[0].partition("-")[0]]


class Timed:
    """One implementation: what is called, and its seconds per call by round."""

    def __init__(self, run: Run, elapsed: Elapsed) -> None:
        self.run, self.elapsed, self.seconds = run, elapsed, list[float]()
        elapsed(run, 1)  # compilers, caches
        spent, once = 0.0, float("inf")
        while spent < 4 * CHUNK_S:  # clocks
            taken = elapsed(run, 3)
            spent, once = spent + max(taken, 1e-6), min(once, taken / 3)
        self.calls = max(1, round(CHUNK_S / max(once, 1e-7)))

    def round(self) -> None:
        self.seconds.append(self.elapsed(self.run, self.calls) / self.calls)


def rounds(timed: Mapping[str, Timed], count: int) -> dict[str, list[float]]:
    """Seconds per call of each, by round; who begins changes from round to round."""
    order = list(timed.values())
    for i in range(count):
        first = i % max(len(order), 1)
        for one in order[first:] + order[:first]:
            one.round()
    return {name: [float(f"{s:.4g}") for s in one.seconds] for name, one in timed.items()}
