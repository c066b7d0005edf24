"""Ctrl-C and a polite kill, acted on between two steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Caught:
    """The signal that came, or None."""

    def __init__(self) -> None:
        self.number: int | None = None

    def act(self) -> None:
        """Do what the signal would have done at once: raise KeyboardInterrupt, or end."""
        if self.number == signal.SIGINT:
            raise KeyboardInterrupt
        if self.number is not None:
            raise SystemExit(128 + self.number)


@contextmanager
def deferred() -> Iterator[Caught]:
    """SIGINT and SIGTERM are noted, once: a second one acts at once.

    That is so in the main thread, and where they would raise KeyboardInterrupt or end the process:
    handlers of others stay.
    """
    caught = Caught()
    before: dict[int, Any] = {}

    def note(number: int, _: Any) -> None:
        caught.number = number
        signal.signal(number, before[number])

    if threading.current_thread() is threading.main_thread():
        usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
        for number, handler in usual.items():
            if signal.getsignal(number) == handler:
                before[number] = handler
                signal.signal(number, note)
    try:
        yield caught
    finally:
        for caught_by, handler in before.items():
            signal.signal(caught_by, handler)
