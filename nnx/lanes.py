"""Calls on several threads at once, each list of them on data of its own.

A lane is a list of calls that one thread makes. Matrix products in it run on that thread alone, so
that no two threads wait for each other before the end: on a busy machine they do it for long. What
the lanes are follows from shapes and the set limit, and with it the last bits of results.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import copy_context
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


def splits(count: int, flops: int, least: int = 1) -> bool:
    """Whether so many things are worth several threads, if they are allowed.   least: of a lane"""
    return flops >= SMALL and count >= 2 * least


def parts(count: int, flops: int, least: int = 1) -> list[slice]:
    """So many things in parts, one for each lane."""
    n = min(get_num_threads(), count // least) if splits(count, flops, least) else 1
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

    The threads have ended when it returns or raises: the first job's error that there is.
    """
    counts, others = alone(), list[_Job]()
    try:
        try:
            others += map(_Job, jobs[1:])
            jobs[0]()
        finally:
            for other in others:
                other.wait()
    finally:
        together(counts)
    for other in others:
        if other.error is not None:
            raise other.error


class _Job:
    """One call on a thread of its own, under the `with` blocks of the thread that made it."""

    def __init__(self, job: Callable[[], object]) -> None:
        self.error: BaseException | None = None
        self._job, self._running = job, threading.Lock()
        self._running.acquire()
        self._thread = threading.Thread(target=copy_context().run, args=(self._run,), daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._job()
        except BaseException as error:
            self.error = error
        finally:
            self._running.release()

    def wait(self) -> None:
        """Until the thread has ended, after Ctrl-C too: it writes to arrays of the caller."""
        interrupt: KeyboardInterrupt | None = None
        while self._running.locked():
            try:
                with self._running:
                    break
            except KeyboardInterrupt as error:
                interrupt = error
        self._thread.join()
        if interrupt is not None:
            raise interrupt


def _caller(runs: list[Run]) -> Callable[[], None]:
    def call() -> None:
        for f, args, attrs in runs:
            f(*args, **attrs)

    return call
