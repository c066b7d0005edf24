"""The next item of a sequence made on a thread while the consumer works on this one."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator, Sequence
from contextvars import copy_context
from functools import partial
from typing import Generic, TypeVar

T = TypeVar("T")


class _Job(Generic[T]):
    """One call on a thread of its own, which ends with it: nothing ever waits for a consumer."""

    def __init__(self, make: Callable[[], T]) -> None:
        self.make, self.made = make, False
        self.error: BaseException | None = None
        self.pid, self.done = os.getpid(), threading.Event()
        context = copy_context()  # the thread computes under the consumer's `with` blocks
        self.thread = threading.Thread(
            target=context.run, args=(self._run,), name="nnx-prefetch", daemon=True
        )
        self.thread.start()

    def _run(self) -> None:
        try:
            self.value, self.made = self.make(), True
        except BaseException as error:
            self.error = error
        finally:
            self.done.set()

    def wait(self) -> None:
        """Until the thread has ended; a forked process has none."""
        if self.pid == os.getpid():
            self.done.wait()  # after Ctrl-C in a join Python takes a running thread for ended
            self.thread.join()

    def result(self) -> T:
        """What the call returned or raised; in a forked process it may be made anew."""
        self.wait()
        if self.error is not None:
            raise self.error
        return self.value if self.made else self.make()


def ahead(make: Callable[[int], T], numbers: Sequence[int]) -> Generator[T]:
    """`make(i)` for each number, made while the consumer has the one before it."""
    job: _Job[T] | None = None
    try:
        for k, i in enumerate(numbers):
            value = make(i) if job is None else job.result()
            job = _Job(partial(make, numbers[k + 1])) if k + 1 < len(numbers) else None
            yield value
    finally:
        if job is not None:
            job.wait()
