"""Calls on several threads at once, each list of them on data of its own.

A lane is a list of calls that one thread makes. Matrix products in it run on that thread alone, so
that no two threads wait for each other before the end: on a busy machine they do it for long. What
the lanes are follows from shapes and the set limit, and with it the last bits of results.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import copy_context
from functools import partial
from typing import Any

from .calls import Later, Run
from .threads import SMALL, alone, get_num_threads, together


class Lanes:
    """Lists of calls that are made at the same time, as one call."""

    __name__ = "lanes"

    def __init__(self, lanes: Sequence[list[Run]]) -> None:
        self.lanes = lanes

    def __call__(self) -> None:
        at_once(*[_caller(runs) for runs in self.lanes])


class Lane(Later):
    """What a kernel is given to call through in one of several lanes.

    swap   calls that others stand for: of a product those that set the BLAS's threads
    """

    __slots__ = ("swap",)

    def __init__(self, empty: Any, swap: dict[Any, Any]) -> None:
        super().__init__((), empty)
        self.swap = swap

    def __call__(self, f: Callable[..., Any], *args: Any, **attrs: Any) -> None:
        self.runs.append((self.swap.get(f, f), args, attrs))


def lane_count(flops: int) -> int:
    """How many threads of those that are allowed to give so much work: each is to have enough."""
    return min(get_num_threads(), max(1, flops // max(1, SMALL // 2)))


def splits(count: int, flops: int, least: int = 1) -> bool:
    """Whether so many things are worth several threads, if they are allowed.   least: of a lane"""
    return flops >= SMALL and count >= 2 * least


def parts(count: int, flops: int, least: int = 1) -> list[slice]:
    """So many things in parts, one for each lane."""
    n = min(lane_count(flops), count // least) if splits(count, flops, least) else 1
    return [slice(count * i // n, count * (i + 1) // n) for i in range(n)]


def flat(runs: Iterable[Run]) -> Iterator[Run]:
    """All calls, those in lanes too."""
    for run in runs:
        if isinstance(run[0], Lanes):
            for lane in run[0].lanes:
                yield from lane
        else:
            yield run


def at_once(*jobs: Callable[[], object]) -> None:
    """Call all at the same time, the first on this thread; products run on one thread each.

    All have ended when it returns or raises: the first job's error that there is.
    """
    counts, busy = alone(), list[_Worker]()
    try:
        try:
            for job in jobs[1:]:
                worker = _idle.pop() if _idle else _Worker()
                worker.begin(job)
                busy.append(worker)
            jobs[0]()
        finally:
            errors = _ended(busy)
    finally:
        together(counts)
    for error in errors:
        raise error


class _Worker:
    """A thread that waits for one job after the other, of one caller at a time."""

    def __init__(self) -> None:
        self._ready = threading.Lock()
        self._ready.acquire()
        threading.Thread(target=self._serve, name="nnx-lane", daemon=True).start()

    def begin(self, job: Callable[[], object]) -> None:
        """Call it, under the `with` blocks of this thread."""
        self.error: BaseException | None = None
        self.running = threading.Lock()
        self.running.acquire()
        self._job: Any = partial(copy_context().run, job)
        self._ready.release()

    def _serve(self) -> None:
        while True:
            self._ready.acquire()
            self._call()
            self.running.release()

    def _call(self) -> None:
        job, self._job = self._job, None  # whose arrays an idle thread must not keep
        try:
            job()
        except BaseException as error:
            self.error = error


_idle: list[_Worker] = []  # of whoever holds the lock of `alone`
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_idle.clear)  # their threads are not in the new process


def _ended(busy: list[_Worker]) -> list[BaseException]:
    """Wait for these, after Ctrl-C too: they write to arrays of the caller. Gives their errors."""
    errors: list[BaseException] = []
    for worker in busy:
        while worker.running.locked():
            try:
                with worker.running:
                    pass
            except KeyboardInterrupt as error:
                errors.append(error)
        if worker.error is not None:
            errors.append(worker.error)
            worker.error = None
        _idle.append(worker)
    return errors


def _caller(runs: list[Run]) -> Callable[[], None]:
    def call() -> None:
        for f, args, attrs in runs:
            f(*args, **attrs)

    return call
